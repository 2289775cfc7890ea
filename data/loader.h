/* Background prefetch of micro-batches. A thread reads ahead of the trainer, in the order of data/mixture.h,
 * the items that this rank computes:
 *
 *   step s = first_step, first_step + 1, ...; micro-batch m = first_micro_batch ... + micro_batches - 1;
 *   row b of it is item g = first_item + (s - first_step) * global_batch + m * micro_batch + b
 *
 * and stops after last_step. Memory is sized once at start.
 */
#ifndef LT_DATA_LOADER_H
#define LT_DATA_LOADER_H

#include "data/mixture.h"

typedef struct lt_loader_options {
    const lt_mixture *mixture; /* outlives the loader, as do its datasets */
    int64_t sequence_length, global_batch, micro_batch;
    int64_t first_micro_batch, micro_batches; /* of every step, on this rank */
    int64_t first_step, last_step;
    int64_t first_item; /* samples consumed before first_step: (first_step - 1) * global_batch in a run that
                           never changed its global batch */
    int queue_depth;    /* micro-batches read ahead; at least 1 */
    bool document_mask; /* fill document_starts */
    int64_t document_token; /* -1: there is none */
    bool document_token_first;
} lt_loader_options;

/* One micro-batch, row-major [micro_batch, T], owned by the loader, valid until the next lt_loader_next(). */
typedef struct lt_batch {
    int64_t step, micro_batch_index; /* m, of the global batch */
    const int32_t *inputs;           /* [micro_batch, T] */
    const int32_t *targets;          /* [micro_batch, T] */
    const int32_t *document_starts;  /* [micro_batch, T]: index in its row of the first token of each token's
                                        document; NULL without document_mask */
    const int64_t *documents;        /* [sources]: document tokens among the inputs of each source's rows */
    const int64_t *epochs;           /* [sources]: of the last item of each source that this rank knows */
    double wait_ms;                  /* how long the caller waited for it */
} lt_batch;

typedef struct lt_loader lt_loader;

/* LT_BAD_INPUT: options out of range or at odds with each other or with the dataset; LT_IO: no memory or
 * thread. The caller stops it. */
lt_status lt_loader_start(const lt_loader_options *options, lt_loader **loader);

/* Waits up to `milliseconds` for what lt_loader_next() gives, and says whether it is there. */
bool lt_loader_wait(lt_loader *loader, int milliseconds);

/* The next micro-batch, or the error that the reading thread met there (the statuses of lt_dataset_read),
 * which then stays. LT_FAILED behind the last micro-batch of last_step. One thread calls this. */
lt_status lt_loader_next(lt_loader *loader, lt_batch *batch);

/* Stops the thread once the row under way is read or its wait for raw files is over, whatever was taken, and
 * frees. NULL is allowed. */
void lt_loader_stop(lt_loader *loader);

/* Bytes that a loader with these options takes; -1 if its options are out of range. */
int64_t lt_loader_bytes(const lt_loader_options *options);

/* document_starts of one row of T tokens: with `token_first` the token opens a document, else it ends one. */
void lt_document_starts(const int32_t *tokens, int64_t sequence_length, int64_t document_token,
                        bool token_first, int32_t *starts);

#endif
