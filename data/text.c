/* Plain text as bytes. All files form one stream of tokens: the bytes of the first file,
 * LT_BYTES_END_OF_DOCUMENT, the bytes of the second, and so on. Sample k is tokens [kT, kT + T] of it, so
 * that only the tail of the last file is never read, however short the files are.
 */
#include "data/reader.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

typedef struct text_reader {
    lt_reader base;
    lt_files *files;
    int64_t sequence_length;
    int64_t
        *first; /* [files + 1]: the place of each file's first token in the stream, and the stream's length */
} text_reader;

static lt_status check_tokenizer(const lt_dataset_options *options, const lt_files *files) {
    const char *path = lt_files_path(files, 0);
    if (options->tokenizer == NULL)
        return lt_fail(
            LT_BAD_INPUT,
            "%s: '%s' is text and no tokenizer is given; set `data.tokenizer: bytes` to train on its "
            "bytes, or give .bin token shards",
            options->key, path);
    if (options->vocabulary < LT_BYTES_VOCABULARY)
        return lt_fail(LT_BAD_INPUT,
                       "model.vocab_size is %" PRId64 ", expected at least %d for `data.tokenizer: bytes`",
                       options->vocabulary, LT_BYTES_VOCABULARY);
    return LT_OK;
}

/* Fills the table of places and the totals. */
static lt_status count_samples(text_reader *reader) {
    const char *key = lt_files_key(reader->files), *path = lt_files_path(reader->files, 0);
    int64_t count = lt_files_count(reader->files), tokens = 0;
    for (int64_t i = 0; i < count; i++) {
        reader->first[i] = tokens;
        if (__builtin_add_overflow(tokens, lt_files_bytes(reader->files, i), &tokens) || tokens == INT64_MAX)
            return lt_fail(LT_BAD_INPUT, "%s: the files hold more than %" PRId64 " bytes", key, INT64_MAX);
        tokens++;
    }
    reader->first[count] = tokens;
    reader->base.tokens = tokens;
    reader->base.samples = (tokens - 1) / reader->sequence_length;
    reader->base.unread = (tokens - 1) % reader->sequence_length;
    if (tokens == count)
        return lt_fail(LT_BAD_INPUT, "%s: '%s'%s empty; expected text", key, path,
                       count == 1 ? " is" : " and all other files are");
    if (reader->base.samples == 0)
        return lt_fail(LT_BAD_INPUT,
                       "%s: '%s'%s %" PRId64 " tokens (bytes, and one at the end of each file), expected at "
                       "least %" PRId64 " (data.seq_len + 1) for one sample; give more text or a smaller "
                       "data.seq_len",
                       key, path, count == 1 ? " holds" : " and the other files hold", tokens,
                       reader->sequence_length + 1);
    return LT_OK;
}

static void text_close(lt_reader *base) {
    text_reader *reader = (text_reader *)base;
    free(reader->first);
    free(reader);
}

static lt_status text_open(const lt_dataset_options *options, lt_files *files, lt_reader **out) {
    LT_CHECK(check_tokenizer(options, files));
    text_reader *reader = calloc(1, sizeof *reader);
    int64_t *first = calloc((size_t)lt_files_count(files) + 1, sizeof *first);
    if (reader == NULL || first == NULL) {
        free(reader);
        free(first);
        return lt_fail(LT_IO, "%s: no memory for the table of text files", options->key);
    }
    reader->files = files;
    reader->sequence_length = options->sequence_length;
    reader->first = first;
    lt_status status = count_samples(reader);
    if (status == LT_OK)
        *out = &reader->base;
    else
        text_close(&reader->base);
    return status;
}

/* The file that token `place` of the stream comes from. Every file has at least one token, so it is unique.
 */
static int64_t find_file(const text_reader *reader, int64_t place) {
    int64_t low = 0, high = lt_files_count(reader->files);
    while (high - low > 1) {
        int64_t middle = low + (high - low) / 2;
        if (reader->first[middle] <= place)
            low = middle;
        else
            high = middle;
    }
    return low;
}

static lt_status text_read(const lt_reader *base, int64_t index, int32_t *tokens) {
    const text_reader *reader = (const text_reader *)base;
    int64_t place = index * reader->sequence_length; /* within the stream: no overflow */
    int64_t count = reader->sequence_length + 1;
    /* Bytes are read into the last quarter of the array and spread from there: what is written in ascending
     * order never reaches what is still to be read. */
    unsigned char *bytes = (unsigned char *)tokens + (size_t)count * (sizeof *tokens - 1);
    int64_t file = find_file(reader, place);
    for (int64_t done = 0; done < count; file++) {
        int64_t offset = place + done - reader->first[file];
        int64_t take = lt_files_bytes(reader->files, file) - offset;
        if (take > count - done) take = count - done;
        if (take > 0) LT_CHECK(lt_files_read(reader->files, file, offset, bytes + done, (size_t)take));
        for (int64_t end = done + take; done < end; done++) tokens[done] = bytes[done];
        if (done < count) tokens[done++] = LT_BYTES_END_OF_DOCUMENT;
    }
    return LT_OK;
}

const lt_reader_kind lt_text_reader = {
    .name = "a text file", .open = text_open, .read = text_read, .close = text_close};
