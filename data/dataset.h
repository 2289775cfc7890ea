/* A dataset: numbered samples of T + 1 tokens (inputs and shifted targets) out of files, behind one
 * interface, a file a format. Opening validates every file (headers, sizes); reading checks every id against
 * the vocabulary.
 *
 *   data/shard.c   `.bin` token shards, both versions (contracts.md, "Token shards")
 *   data/raw/raw.c any file of documents (data/documents.h) under any tokenizer: tokenised in the background
 * into a cache that processes share; file by file, the end-of-text token behind each document; sample k of a
 * file is tokens [kT, kT+T] of its tokens data/text.c    plain text as bytes: all files form one stream, in
 * natural order, id 256 after each; sample k is tokens [kT, kT+T] of that stream
 *
 * Local: nothing here knows other ranks. Reading is thread-safe.
 */
#ifndef LT_DATA_DATASET_H
#define LT_DATA_DATASET_H

#include "comm/status.h"
#include "data/documents.h"
#include "data/tokenizer.h"

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

/* What raw files need: those of records, and text under another tokenizer than `bytes`. The strings are
 * needed for the call alone. */
typedef struct lt_raw_options {
    const lt_tokenizer *tokenizer; /* outlives the dataset */
    lt_documents_options documents;
    int32_t document_token;
    bool document_token_first; /* before each document, else behind it */
    const char *cache_folder;
    int64_t cache_bytes;
    int sharers;          /* datasets of this process that share the cache; 0: this one alone */
    int64_t piece_tokens; /* 0: LT_PIECE_TOKENS; other values give another order */
} lt_raw_options;

enum { LT_PIECE_TOKENS = 1 << 23 };

typedef struct lt_dataset_options {
    const char *const *patterns; /* globs, folders or files; natural order of names over all of them */
    int pattern_count;
    const char *key;           /* the config key they came from, for messages: "data.train" */
    const char *tokenizer;     /* NULL (shards only) or "bytes" */
    const lt_raw_options *raw; /* NULL: raw files are refused */
    int64_t sequence_length;
    int64_t vocabulary;
    int64_t check_share, check_shares; /* which part of prepared shards lt_dataset_read_item() checks in the
                                          background (data/checks.h); 0 shares: none */
} lt_dataset_options;

typedef struct lt_dataset lt_dataset;

/* LT_BAD_INPUT with file, what was found and expected; LT_IO: the machine failed (device, memory, open
 * files). The options are needed for this call only. The caller closes it. */
lt_status lt_dataset_open(const lt_dataset_options *options, lt_dataset **dataset);
void lt_dataset_close(lt_dataset *dataset);

/* Both are -1 where only reading tells (raw files that are tokenised on the way). */
int64_t lt_dataset_samples(const lt_dataset *dataset);
int64_t lt_dataset_tokens(const lt_dataset *dataset);
int64_t
lt_dataset_unread(const lt_dataset *dataset); /* tokens in no sample, at ends of shards; 0: not known */
int64_t lt_dataset_files(const lt_dataset *dataset);
int64_t lt_dataset_sequence_length(const lt_dataset *dataset); /* T */

/* How many samples there are, at most `limit`. Waits where they must be counted first; the statuses of
 * lt_dataset_read_item(). */
lt_status lt_dataset_count_samples(const lt_dataset *dataset, int64_t limit, int64_t *samples);

/* An endless order of a dataset's samples, epoch after epoch (contracts.md, "Order"; data/order.h). */
typedef struct lt_shuffle {
    bool shuffle; /* false: the natural order */
    uint64_t seed;
} lt_shuffle;

/* Copies item `item` >= 0 of the order to `tokens` [T + 1]; its epoch to `epoch` unless that is NULL. May
 * wait for raw files to be tokenised. The statuses of lt_dataset_read(), and LT_STOPPED after
 * lt_dataset_stop(). */
lt_status lt_dataset_read_item(const lt_dataset *dataset, const lt_shuffle *shuffle, int64_t item,
                               int32_t *tokens, int64_t *epoch);

/* Ends the waiting of the calls above, now and later, until it is called with false. */
void lt_dataset_stop(lt_dataset *dataset, bool stop);

/* What the calls above ask now and then while they wait; true ends them with LT_STOPPED. NULL: nothing. */
void lt_dataset_heed(lt_dataset *dataset, bool (*stop)(void *context), void *context);

/* Copies sample `index` (0 <= index < samples) to `tokens` [T + 1]. LT_FAILED: an id outside the vocabulary
 * (file and offset named); LT_IO: the file shrank, vanished or cannot be read. */
lt_status lt_dataset_read(const lt_dataset *dataset, int64_t index, int32_t *tokens);

typedef struct lt_shard_inspection {
    bool verify;                   /* the whole shard is read, and every id counted against the vocabulary */
    int64_t vocabulary;            /* 0: the range of ids is only reported */
    const lt_tokenizer *tokenizer; /* of a shard; NULL: none. Else its vocabulary, with `verify`, and text */
    int64_t sample;                /* documents to show whole; 0: the first one's beginning */
} lt_shard_inspection;

/* Prints what a person wants to know of one shard or text file: format, bytes, tokens, first tokens; of text
 * also lines and whether it is UTF-8; with a tokenizer the documents of a shard. LT_BAD_INPUT: not such a
 * file, or its header and size disagree; LT_FAILED: ids outside the vocabulary, after the report is printed.
 */
lt_status lt_shard_inspect(const char *path, const lt_shard_inspection *inspection, FILE *out);

/* Whether `path` is a file that starts like a `.bin` shard (either magic). Sets no error message. */
bool lt_shard_recognise(const char *path);

#endif
