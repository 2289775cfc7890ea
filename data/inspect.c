/* What `lazytrain inspect` says of a token shard or a text file. */
#include "data/reader.h"
#include "data/tokenizers/utf8.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { BLOCK_BYTES = 1 << 20, SHOWN_TOKENS = 16 };

bool lt_shard_recognise(const char *path) {
    /* Not to wait for a writer, should the path be a FIFO. */
    int descriptor = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
    if (descriptor < 0) return false;
    unsigned char head[4];
    struct stat attributes;
    bool regular = fstat(descriptor, &attributes) == 0 && S_ISREG(attributes.st_mode);
    bool shard =
        regular && pread(descriptor, head, sizeof head, 0) == (ssize_t)sizeof head && lt_shard_magic(head);
    close(descriptor);
    return shard;
}

/* Calls `visit` on all bytes from `offset`, block by block; `block` holds BLOCK_BYTES. */
static lt_status visit_blocks(lt_files *files, int64_t offset, unsigned char *block, void *context,
                              void (*visit)(void *context, const unsigned char *block, int64_t size,
                                            int64_t offset)) {
    int64_t bytes = lt_files_bytes(files, 0);
    while (offset < bytes) {
        int64_t size = bytes - offset < BLOCK_BYTES ? bytes - offset : BLOCK_BYTES;
        LT_CHECK(lt_files_read(files, 0, offset, block, (size_t)size));
        visit(context, block, size, offset);
        offset += size;
    }
    return LT_OK;
}

/* ---- token shards
 * ----------------------------------------------------------------------------------------------- */

typedef struct id_range {
    int token_bytes;
    int64_t vocabulary;        /* 0: any id is good */
    int64_t end_of_text, ends; /* its id, -1: none is known; how often it is there */
    bool opens;                /* it is the first token */
    uint32_t least, greatest, last;
    int64_t outside; /* ids >= vocabulary */
    int64_t first_offset;
    uint32_t first_id;
} id_range;

/* A block holds whole tokens: the header and the block are multiples of 4 bytes. */
static void count_ids(void *context, const unsigned char *block, int64_t size, int64_t offset) {
    id_range *range = context;
    if (offset == LT_SHARD_HEADER_BYTES)
        range->opens = lt_shard_token(block, range->token_bytes) == range->end_of_text;
    for (int64_t i = 0; i < size; i += range->token_bytes) {
        uint32_t id = lt_shard_token(block + i, range->token_bytes);
        if (id < range->least) range->least = id;
        if (id > range->greatest) range->greatest = id;
        range->ends += id == range->end_of_text;
        range->last = id;
        if (range->vocabulary == 0 || id < range->vocabulary) continue;
        if (range->outside++ > 0) continue;
        range->first_offset = offset + i;
        range->first_id = id;
    }
}

static lt_status print_first_tokens(lt_files *files, const lt_shard_header *header, FILE *out) {
    unsigned char packed[SHOWN_TOKENS * 4];
    int64_t count = header->tokens < SHOWN_TOKENS ? header->tokens : SHOWN_TOKENS;
    LT_CHECK(lt_files_read(files, 0, LT_SHARD_HEADER_BYTES, packed, (size_t)(count * header->token_bytes)));
    fprintf(out, "first tokens:");
    for (int64_t i = 0; i < count; i++)
        fprintf(out, " %" PRIu32, lt_shard_token(packed + i * header->token_bytes, header->token_bytes));
    fprintf(out, "\n");
    return LT_OK;
}

/* A document ends, or begins, with the end of text. */
static void print_document_count(const id_range *range, int64_t tokens, FILE *out) {
    const char *place = range->opens ? "opens" : "ends";
    const bool cut = !range->opens && tokens > 0 && range->last != range->end_of_text;
    fprintf(out, "documents:    %" PRId64 " (id %" PRId64 " %s each%s)\n", range->ends + cut,
            range->end_of_text, place, cut ? ", but not the last" : "");
}

static lt_status report_ids(const lt_files *files, const lt_shard_header *header, const id_range *range,
                            FILE *out) {
    if (header->tokens > 0)
        fprintf(out, "ids:          %" PRIu32 " to %" PRIu32 "\n", range->least, range->greatest);
    if (range->vocabulary == 0) return LT_OK;
    fprintf(out, "outside:      %" PRId64 " ids not below %" PRId64 "\n", range->outside, range->vocabulary);
    if (range->outside == 0) return LT_OK;
    return lt_fail(LT_FAILED,
                   "%s: '%s' holds %" PRId64 " token ids that are not below the vocabulary of %" PRId64
                   ", the first at byte %" PRId64 ": %" PRIu32,
                   lt_files_key(files), lt_files_path(files, 0), range->outside, range->vocabulary,
                   range->first_offset, range->first_id);
}

static lt_status inspect_shard(lt_files *files, unsigned char *block, const lt_shard_inspection *inspection,
                               FILE *out) {
    const lt_tokenizer *tokenizer = inspection->tokenizer;
    const bool all = inspection->verify || tokenizer != NULL;
    lt_shard_header header;
    LT_CHECK(lt_shard_check(files, 0, &header));
    id_range range = {.token_bytes = header.token_bytes,
                      .vocabulary =
                          tokenizer != NULL ? lt_tokenizer_vocabulary(tokenizer) : inspection->vocabulary,
                      .end_of_text = tokenizer != NULL ? lt_tokenizer_end_of_text(tokenizer) : -1,
                      .least = UINT32_MAX};
    if (all) LT_CHECK(visit_blocks(files, LT_SHARD_HEADER_BYTES, block, &range, count_ids));
    fprintf(out, "format:       token shard, magic %" PRId32 ", version %" PRId32 ", uint%d tokens\n",
            header.magic, header.version, 8 * header.token_bytes);
    fprintf(out, "bytes:        %" PRId64 "\n", lt_files_bytes(files, 0));
    fprintf(out, "tokens:       %" PRId64 "\n", header.tokens);
    if (range.end_of_text >= 0)
        print_document_count(&range, header.tokens, out);
    else
        fprintf(out, "documents:    unknown (%s)\n",
                tokenizer != NULL ? "this tokenizer has no end of text"
                                  : "a shard does not say which id separates them; --tokenizer does");
    LT_CHECK(print_first_tokens(files, &header, out));
    if (all) LT_CHECK(report_ids(files, &header, &range, out));
    if (tokenizer == NULL) return LT_OK;
    return lt_shard_print_documents(files, &header, tokenizer, range.opens, inspection->sample, out);
}

/* ---- text
 * ------------------------------------------------------------------------------------------------------- */

/* What is known of a text so far, which comes in blocks. */
typedef struct text_count {
    int64_t lines;
    unsigned char last; /* byte */
    int64_t valid;      /* bytes of whole characters */
    bool ill;           /* what follows them is not UTF-8 */
    char cut[4];        /* the character that a block's end cut */
    size_t cut_bytes;
} text_count;

/* Completes the character that the last block cut; returns the bytes that it took of this one. */
static int64_t complete_character(text_count *text, const char *block, int64_t size) {
    int64_t taken = 0;
    while (text->cut_bytes > 0 && !text->ill && taken < size) {
        size_t length;
        text->cut[text->cut_bytes++] = block[taken++];
        const lt_utf8 found = lt_utf8_next(text->cut, text->cut_bytes, &length);
        text->ill = found == LT_UTF8_ILL;
        if (found != LT_UTF8_CHARACTER) continue;
        text->valid += (int64_t)length;
        text->cut_bytes = 0;
    }
    return taken;
}

static void check_characters(text_count *text, const char *block, int64_t size) {
    const int64_t begin = complete_character(text, block, size);
    const size_t bytes = (size_t)(size - begin);
    if (text->ill || bytes == 0) return;
    const char *at = block + begin;
    const size_t valid = lt_utf8_valid(at, bytes);
    size_t length;
    text->valid += (int64_t)valid;
    if (valid == bytes) return;
    text->ill = lt_utf8_next(at + valid, bytes - valid, &length) == LT_UTF8_ILL;
    if (text->ill) return;
    text->cut_bytes = bytes - valid;
    memcpy(text->cut, at + valid, text->cut_bytes);
}

static void count_text(void *context, const unsigned char *block, int64_t size, int64_t offset) {
    text_count *text = context;
    (void)offset;
    for (int64_t i = 0; i < size; i++) text->lines += block[i] == '\n';
    if (!text->ill) check_characters(text, (const char *)block, size);
    text->last = block[size - 1];
}

static lt_status inspect_text(lt_files *files, unsigned char *block, FILE *out) {
    int64_t bytes = lt_files_bytes(files, 0);
    text_count text = {.last = '\n'};
    LT_CHECK(visit_blocks(files, 0, block, &text, count_text));
    fprintf(out, "format:       text\n");
    fprintf(out, "bytes:        %" PRId64 "\n", bytes);
    fprintf(out, "lines:        %" PRId64 "\n", text.lines + (text.last != '\n'));
    if (text.valid == bytes)
        fprintf(out, "UTF-8:        valid\n");
    else
        fprintf(out, "UTF-8:        invalid from byte %" PRId64 "\n", text.valid);
    fprintf(out, "tokens:       %" PRId64 " with data.tokenizer: bytes, the end of the document included\n",
            bytes + 1);
    fprintf(out, "first tokens:");
    unsigned char first[SHOWN_TOKENS];
    int64_t shown = bytes < SHOWN_TOKENS ? bytes : SHOWN_TOKENS;
    LT_CHECK(lt_files_read(files, 0, 0, first, (size_t)shown));
    for (int64_t i = 0; i < shown; i++) fprintf(out, " %d", first[i]);
    fprintf(out, "%s\n", shown < SHOWN_TOKENS ? " 256" : "");
    return LT_OK;
}

lt_status lt_shard_inspect(const char *path, const lt_shard_inspection *inspection, FILE *out) {
    lt_source source = {0};
    lt_files *files = NULL;
    const lt_reader_kind *kind;
    lt_status status = LT_OK;
    unsigned char *block = malloc(BLOCK_BYTES);
    if (block == NULL) return lt_fail(LT_IO, "inspect: no memory for %d bytes", BLOCK_BYTES);
    LT_CHECK_DONE(status, lt_source_single(path, "inspect", &source));
    LT_CHECK_DONE(status, lt_files_open(&source, "inspect", &files));
    LT_CHECK_DONE(status, lt_format_recognise(NULL, files, 0, &kind));
    fprintf(out, "file:         %s\n", path);
    LT_CHECK_DONE(status, kind == &lt_shard_reader ? inspect_shard(files, block, inspection, out)
                                                   : inspect_text(files, block, out));
    if (fflush(out) != 0 || ferror(out))
        status = lt_fail(LT_IO, "inspect: cannot write the report: %s", strerror(errno));
done:
    lt_files_close(files);
    lt_source_destroy(&source);
    free(block);
    return status;
}
