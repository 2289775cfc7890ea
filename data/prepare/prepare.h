/* `lazytrain prepare`: files of documents to a folder of token shards.
 *
 *   data/prepare/plan.c       which files, cut into which pieces; what a half-done folder is compared by
 *   data/prepare/folder.c     the folder: begun, gone on with, finished; its lock
 *   data/prepare/tokenise.c   pieces to spools, by all ranks and threads
 *   data/prepare/duplicates.c documents whose text came before are left out
 *   data/prepare/shards.c     shards cut out of what is left
 *   data/prepare/result.c     the manifest
 *
 * Pieces depend on the files alone, documents keep the order of the input, and every file is written aside
 * and renamed: so the folder's bytes are the same at any number of ranks and threads, and after any number
 * of restarts. What is done lies in the folder's .work, which goes when the manifest is there.
 *
 * Memory does not grow with the input: a window of documents a team of threads, a table of pieces and spools
 * (some 100 bytes each), and in the search for duplicates a bucket a thread. */
#ifndef LT_DATA_PREPARE_H
#define LT_DATA_PREPARE_H

#include "comm/grid.h"
#include "data/documents.h"

typedef struct lt_prepare_options {
    const char *const *inputs; /* files, folders, globs */
    int input_count;
    const char *tokenizer, *output;
    int64_t shard_tokens; /* at most INT32_MAX */
    double validation_fraction;
    bool dedup;
    lt_documents_options documents; /* text_key, separator, filter */
    bool skip_bad;                  /* leave a bad file out, and say so in the manifest */
    int threads;                    /* 0: the rank's share of the cores */
    int64_t piece_bytes;            /* of the input; changes no byte of the result */
    bool overwrite, on_terminal;
} lt_prepare_options;

/* Does it all. All ranks return the same status: LT_BAD_INPUT: options, tokenizer, inputs, or a folder that
 * holds something else; LT_IO: writing failed; LT_STOPPED: after a signal, the same call goes on. Collective.
 */
lt_status lt_prepare(const lt_grid *grid, const lt_prepare_options *options);

#endif
