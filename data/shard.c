/* Token shards, llm.c's formats: a header of 256 little-endian int32 [magic, version, token count, 0...],
 * then the tokens. Sample k of a shard of n tokens is tokens [kT, kT + T], so (n - 1) / T samples; no sample
 * spans shards.
 */
#include "comm/interrupt.h"
#include "comm/log.h"
#include "data/reader.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

static const lt_shard_header formats[] = {
    {.magic = 20240520, .version = 1, .token_bytes = 2},
    {.magic = 20240801, .version = 7, .token_bytes = 4},
};

typedef struct shard {
    int64_t first_sample; /* of all samples, in order of files */
    int token_bytes;
} shard;

typedef struct shard_reader {
    lt_reader base;
    lt_files *files;
    int64_t sequence_length, vocabulary;
    shard *shards; /* [files + 1]: the last one closes the table of first samples */
} shard_reader;

static uint32_t little_endian_32(const unsigned char *bytes) {
    return bytes[0] | (uint32_t)bytes[1] << 8 | (uint32_t)bytes[2] << 16 | (uint32_t)bytes[3] << 24;
}

static int32_t header_field(const unsigned char *head, int index) {
    return (int32_t)little_endian_32(head + 4 * index);
}

static const lt_shard_header *find_format(int32_t magic) {
    for (size_t i = 0; i < sizeof formats / sizeof *formats; i++)
        if (formats[i].magic == magic) return &formats[i];
    return NULL;
}

bool lt_shard_magic(const unsigned char *head) {
    return find_format(header_field(head, 0)) != NULL;
}

static void put_header_field(unsigned char *head, int index, int64_t value) {
    for (int byte = 0; byte < 4; byte++) head[4 * index + byte] = (unsigned char)(value >> 8 * byte);
}

void lt_shard_write_header(unsigned char head[LT_SHARD_HEADER_BYTES], int64_t tokens, int token_bytes) {
    const lt_shard_header *format = &formats[token_bytes == 4];
    memset(head, 0, LT_SHARD_HEADER_BYTES);
    put_header_field(head, 0, format->magic);
    put_header_field(head, 1, format->version);
    put_header_field(head, 2, tokens);
}

/* The header's count against the size: whatever they are, the sum cannot overflow, since the count is an
 * int32. */
static lt_status check_size(const lt_files *files, int64_t file, const lt_shard_header *header) {
    const char *key = lt_files_key(files), *path = lt_files_path(files, file);
    int64_t bytes = lt_files_bytes(files, file);
    int64_t expected = LT_SHARD_HEADER_BYTES + header->tokens * header->token_bytes;
    if (bytes == expected) return LT_OK;
    int64_t body = bytes - LT_SHARD_HEADER_BYTES;
    return lt_fail(LT_BAD_INPUT,
                   "%s: '%s' is %s: its header says %" PRId64 " tokens of %d bytes, so %" PRId64
                   " bytes are expected; found %" PRId64 " bytes, which hold %" PRId64
                   " tokens%s; copy or prepare the shard again",
                   key, path, bytes < expected ? "truncated" : "too long", header->tokens,
                   header->token_bytes, expected, bytes, body / header->token_bytes,
                   body % header->token_bytes != 0 ? " and a part of one" : "");
}

lt_status lt_shard_check(const lt_files *files, int64_t file, lt_shard_header *header) {
    const char *key = lt_files_key(files), *path = lt_files_path(files, file);
    const unsigned char *head = lt_files_head(files, file);
    int64_t bytes = lt_files_bytes(files, file);
    if (bytes < LT_SHARD_HEADER_BYTES)
        return lt_fail(LT_BAD_INPUT,
                       "%s: '%s' has %" PRId64 " bytes, too few for a token shard's header of %d bytes", key,
                       path, bytes, LT_SHARD_HEADER_BYTES);
    int32_t magic = header_field(head, 0);
    const lt_shard_header *format = find_format(magic);
    if (format == NULL)
        return lt_fail(LT_BAD_INPUT,
                       "%s: '%s' is not a token shard: it starts with the number %" PRId32
                       ", expected the magic 20240520 (uint16 tokens) or 20240801 (uint32 tokens)",
                       key, path, magic);
    *header = *format;
    if (header_field(head, 1) != format->version)
        return lt_fail(LT_BAD_INPUT,
                       "%s: '%s' is a token shard of version %" PRId32 ", expected version %" PRId32
                       " with magic %" PRId32,
                       key, path, header_field(head, 1), format->version, magic);
    header->tokens = header_field(head, 2);
    if (header->tokens < 0)
        return lt_fail(LT_BAD_INPUT,
                       "%s: '%s' has a header that says %" PRId64 " tokens; found %" PRId64
                       " bytes, which hold %" PRId64 " tokens; prepare the shard again",
                       key, path, header->tokens, bytes,
                       (bytes - LT_SHARD_HEADER_BYTES) / header->token_bytes);
    return check_size(files, file, header);
}

/* Nothing to train on: says how near the longest shard came. */
static lt_status fail_too_short(const shard_reader *reader, int64_t longest, int64_t longest_tokens) {
    int64_t count = lt_files_count(reader->files);
    return lt_fail(LT_BAD_INPUT,
                   "%s: '%s'%s holds %" PRId64 " tokens, expected at least %" PRId64
                   " (data.seq_len + 1) for one sample; give longer shards or a smaller data.seq_len",
                   lt_files_key(reader->files), lt_files_path(reader->files, longest),
                   count > 1 ? ", the longest shard," : "", longest_tokens, reader->sequence_length + 1);
}

/* Fills the table of shards and the totals. */
static lt_status count_samples(shard_reader *reader) {
    const char *key = lt_files_key(reader->files);
    int64_t count = lt_files_count(reader->files), longest = 0, longest_tokens = -1;
    int64_t without = 0, first_without = 0;
    for (int64_t i = 0; i < count; i++) {
        lt_shard_header header = {0};
        LT_CHECK(lt_interrupt_check("indexing shards"));
        LT_CHECK(lt_shard_check(reader->files, i, &header));
        int64_t samples = header.tokens == 0 ? 0 : (header.tokens - 1) / reader->sequence_length;
        reader->shards[i] = (shard){reader->base.samples, header.token_bytes};
        reader->base.samples += samples; /* counts of int32 tokens: 2^32 full shards before this overflows */
        reader->base.tokens += header.tokens;
        reader->base.unread += header.tokens - (samples == 0 ? 0 : samples * reader->sequence_length + 1);
        if (samples == 0 && without++ == 0) first_without = i;
        if (header.tokens > longest_tokens) longest = i, longest_tokens = header.tokens;
    }
    reader->shards[count].first_sample = reader->base.samples;
    if (reader->base.samples == 0) return fail_too_short(reader, longest, longest_tokens);
    if (without > 0)
        lt_log_warning("%s: %" PRId64 " of %" PRId64 " shards hold no sample, which takes %" PRId64
                       " tokens; the first is '%s'",
                       key, without, count, reader->sequence_length + 1,
                       lt_files_path(reader->files, first_without));
    return LT_OK;
}

static void shard_close(lt_reader *base) {
    shard_reader *reader = (shard_reader *)base;
    free(reader->shards);
    free(reader);
}

static lt_status shard_open(const lt_dataset_options *options, lt_files *files, lt_reader **out) {
    shard_reader *reader = calloc(1, sizeof *reader);
    shard *shards = calloc((size_t)lt_files_count(files) + 1, sizeof *shards);
    if (reader == NULL || shards == NULL) {
        free(reader);
        free(shards);
        return lt_fail(LT_IO, "%s: no memory for the table of shards", options->key);
    }
    reader->files = files;
    reader->sequence_length = options->sequence_length;
    reader->vocabulary = options->vocabulary;
    reader->shards = shards;
    lt_status status = count_samples(reader);
    if (status == LT_OK)
        *out = &reader->base;
    else
        shard_close(&reader->base);
    return status;
}

/* The shard that holds sample `index`: the last one whose first sample is not behind it. */
static int64_t find_shard(const shard_reader *reader, int64_t index) {
    int64_t low = 0, high = lt_files_count(reader->files);
    while (high - low > 1) {
        int64_t middle = low + (high - low) / 2;
        if (reader->shards[middle].first_sample <= index)
            low = middle;
        else
            high = middle;
    }
    return low;
}

int64_t lt_shard_unpack(const unsigned char *packed, int token_bytes, int64_t count, int64_t vocabulary,
                        int32_t *tokens, uint32_t *bad) {
    for (int64_t i = 0; i < count; i++) {
        uint32_t id = token_bytes == 2 ? packed[2 * i] | (uint32_t)packed[2 * i + 1] << 8
                                       : little_endian_32(packed + 4 * i);
        if (id >= vocabulary) {
            *bad = id;
            return i;
        }
        tokens[i] = (int32_t)id;
    }
    return -1;
}

static lt_status shard_read(const lt_reader *base, int64_t index, int32_t *tokens) {
    const shard_reader *reader = (const shard_reader *)base;
    int64_t file = find_shard(reader, index), count = reader->sequence_length + 1;
    int token_bytes = reader->shards[file].token_bytes;
    /* Within the file, as its header was checked: no overflow. */
    int64_t first = (index - reader->shards[file].first_sample) * reader->sequence_length;
    int64_t offset = LT_SHARD_HEADER_BYTES + first * token_bytes;
    unsigned char *packed = (unsigned char *)tokens + (size_t)count * (sizeof *tokens - (size_t)token_bytes);
    LT_CHECK(lt_files_read(reader->files, file, offset, packed, (size_t)count * (size_t)token_bytes));

    uint32_t id;
    int64_t bad = lt_shard_unpack(packed, token_bytes, count, reader->vocabulary, tokens, &id);
    if (bad < 0) return LT_OK;
    return lt_fail(LT_FAILED,
                   "%s: '%s' at byte %" PRId64 ": token id %" PRIu32 ", expected less than %" PRId64
                   " (model.vocab_size); the shard is damaged or made with another tokenizer: try lazytrain "
                   "inspect --verify",
                   lt_files_key(reader->files), lt_files_path(reader->files, file),
                   offset + bad * token_bytes, id, reader->vocabulary);
}

const lt_reader_kind lt_shard_reader = {
    .name = "a token shard", .open = shard_open, .read = shard_read, .close = shard_close};
