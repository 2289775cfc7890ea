/* Raw files as samples, tokenised on the way. Internal to data/: data/raw/raw.c, its order (order.c) and the
 * thread that fills the cache (worker.c).
 *
 * The order of an epoch: files permuted; of a file its pieces of LT_PIECE_TOKENS tokens (whole samples), one
 * after another; the samples of a piece permuted. So a piece can be trained on before the rest of its file is
 * tokenised, and where an item lies follows from the numbers of tokens of the files before it alone.
 */
#ifndef LT_DATA_RAW_RAW_H
#define LT_DATA_RAW_RAW_H

#include "data/raw/cache.h"
#include "data/reader.h"

#include <pthread.h>
#include <stdatomic.h>

typedef struct lt_raw_file {
    char entry[LT_CACHE_KEY];
    int64_t tokens;   /* -1: not known yet */
    char *failure;    /* malloc'ed: why it cannot be tokenised; NULL: it can */
    lt_status status; /* with failure */
} lt_raw_file;

/* Where the walk through the files stands: at the `place`-th file of an epoch, whose first sample is item
 * `first`. */
typedef struct lt_raw_cursor {
    bool begun;
    lt_shuffle shuffle;
    int64_t epoch, place, first;
} lt_raw_cursor;

typedef struct lt_raw {
    lt_reader base;
    lt_files *files;
    lt_raw_options options;
    lt_document_filter filter; /* the options' own copies */
    char *text_key, *separator, *language;
    int64_t sequence_length, vocabulary, piece_samples;
    lt_cache cache;
    lt_raw_file *file; /* [files] */

    atomic_bool stop;      /* no call waits any longer */
    pthread_mutex_t mutex; /* of all below */
    pthread_cond_t changed;
    lt_raw_cursor cursor;
    uint64_t calls;         /* for the worker: the cursor moved, or what it stands at is waited for */
    lt_cache_reader reader; /* of the cursor's file */
    int64_t progress;       /* that was seen at the last wait: documents and the reader's tokens */
    bool (*heeded)(void *context);
    void *heeded_context;

    pthread_t thread; /* the worker's */
    bool started;
    atomic_bool ended;
    atomic_int_fast64_t documents; /* that it has tokenised */
} lt_raw;

/* The file at `place` of an epoch. */
int64_t lt_raw_file_at(const lt_raw *raw, const lt_shuffle *shuffle, int64_t epoch, int64_t place);

/* Begins and ends the thread that tokenises the files at and behind the cursor. LT_IO: no thread. */
lt_status lt_raw_worker_start(lt_raw *raw);
void lt_raw_worker_end(lt_raw *raw);

#endif
