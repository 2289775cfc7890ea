/* What a file format must do for data/dataset.c, and how a file's format is recognised. Internal to data/. A
 * new format is a file with an lt_reader_kind and a line in data/format.c.
 */
#ifndef LT_DATA_READER_H
#define LT_DATA_READER_H

#include "data/dataset.h"
#include "data/files.h"

/* An opened set of files of one format. A format's own struct begins with this. */
typedef struct lt_reader {
    int64_t samples; /* at least 1; -1: not known, and the kind has read_item and count */
    int64_t tokens;  /* -1: not known */
    int64_t unread;  /* tokens that are in no sample: too few for one at the end of a shard or stream */
} lt_reader;

typedef struct lt_reader_kind {
    const char *name; /* "a token shard" */

    /* Validates all of `files` and counts their samples. The files outlive the reader; options hold only for
     * this call. LT_BAD_INPUT: a bad file, or less than one sample. */
    lt_status (*open)(const lt_dataset_options *options, lt_files *files, lt_reader **reader);

    /* Copies sample `index`, which is in range, to `tokens` [T + 1]. Thread-safe. Errors of
     * lt_dataset_read(). */
    lt_status (*read)(const lt_reader *reader, int64_t index, int32_t *tokens);

    void (*close)(lt_reader *reader);

    /* Of a kind whose samples are not known at the start, else NULL: lt_dataset_read_item(),
     * lt_dataset_count_samples(), lt_dataset_stop(), lt_dataset_heed(). Thread-safe. */
    lt_status (*read_item)(lt_reader *reader, const lt_shuffle *shuffle, int64_t item, int32_t *tokens,
                           int64_t *epoch);
    lt_status (*count)(lt_reader *reader, int64_t limit, int64_t *samples);
    void (*stop)(lt_reader *reader, bool stop);
    void (*heed)(lt_reader *reader, bool (*stop)(void *context), void *context);
} lt_reader_kind;

extern const lt_reader_kind lt_shard_reader, lt_text_reader, lt_raw_reader;

/* The files of a dataset. */
const lt_files *lt_dataset_table(const lt_dataset *dataset);

/* The kind of a file: by its first bytes if they are a shard's, else by the ending of its name; a name that
 * says nothing is text if its first bytes can be. LT_BAD_INPUT: a format that this version does not read. */
lt_status lt_format_recognise(const lt_dataset_options *options, lt_files *files, int64_t file,
                              const lt_reader_kind **kind);

/* The 256 int32 of a shard's header, and what a good one says. */
enum { LT_SHARD_HEADER_BYTES = 1024 };

typedef struct lt_shard_header {
    int32_t magic, version;
    int64_t tokens;
    int token_bytes; /* 2 or 4, unsigned, little-endian */
} lt_shard_header;

/* The header of a shard of `tokens` tokens. */
void lt_shard_write_header(unsigned char head[LT_SHARD_HEADER_BYTES], int64_t tokens, int token_bytes);

/* Whether `head` [4] is one of the two magic numbers. */
bool lt_shard_magic(const unsigned char *head);

/* The token that `packed` begins with. */
static inline uint32_t lt_shard_token(const unsigned char *packed, int token_bytes) {
    const uint32_t id = packed[0] | (uint32_t)packed[1] << 8;
    return token_bytes == 2 ? id : id | (uint32_t)packed[2] << 16 | (uint32_t)packed[3] << 24;
}

/* Prints the first `sample` documents of a shard of one file, a line each, or the beginning of the first
 * where it is 0. All ids are the tokenizer's. `opens`: the first token is an end of text, which opens a
 * document. */
lt_status lt_shard_print_documents(lt_files *files, const lt_shard_header *header,
                                   const lt_tokenizer *tokenizer, bool opens, int64_t sample, FILE *out);

/* Checks magic, version and token count against the file's size. LT_BAD_INPUT says found and expected. */
lt_status lt_shard_check(const lt_files *files, int64_t file, lt_shard_header *header);

/* Spreads `count` packed tokens to int32 in place. They lie at the end of the array, so that what is written
 * in ascending order never reaches what is still to be read. Returns the index of the first id outside the
 * vocabulary and the id, or -1. */
int64_t lt_shard_unpack(const unsigned char *packed, int token_bytes, int64_t count, int64_t vocabulary,
                        int32_t *tokens, uint32_t *bad);

#endif
