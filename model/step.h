/* One whole training step: micro-batches by lanes, exchange between ranks, clipping, update.
 *
 * The model knows no ranks. What a step needs from outside it gets through lt_exchange, which the trainer
 * fills from data and comm; a test or a single process fills it with a few lines.
 */
#ifndef LT_MODEL_STEP_H
#define LT_MODEL_STEP_H

#include "model/model.h"

typedef struct lt_exchange {
    void *context;
    /* The next micro-batch of this rank, in order; with `last` the last one of the step. rows = 0: this rank
     * has none (it failed; so have all of its tensor group) and only keeps up with the others until all agree
     * to drop the step. */
    lt_status (*next_batch)(void *context, bool last, lt_tokens *tokens);
    /* Whether the ranks agreed to drop the step: asked before every micro-batch and, with `last`, once more
     * when the first gradients of the last one are there (at once where it has no rows), where the answer
     * must be final: gradients go out only after it. NULL: never. */
    lt_status (*should_drop)(void *context, bool last, bool *drop);
    /* Begins to replace elements [first, first + count) of the flat gradients, at least those in the model's
     * share, by their sum over data ranks along the lane tree, and returns at once. Called while the last
     * micro-batch's backward pass goes on, for adjacent runs that descend and cover the array, the same on
     * all ranks. NULL: one data rank. */
    lt_status (*reduce_begin)(void *context, lt_mem gradients, int64_t first, int64_t count);
    /* Waits until all that was begun is done. NULL where reduce_begin is. */
    lt_status (*reduce_end)(void *context);
    /* Replaces a few doubles by their sums over data ranks, along the same tree. NULL: one data rank. */
    lt_status (*reduce_doubles)(void *context, double *values, int64_t count);
    /* Replaces the flat parameters outside the model's share by those that the ranks updated which have them.
     * NULL: the model has all. */
    lt_status (*gather_parameters)(void *context, lt_mem parameters);
} lt_exchange;

typedef struct lt_step_options {
    int64_t lanes;            /* of this rank: a power of two */
    int64_t batches_per_lane; /* micro-batches */
    int64_t micro_batch;      /* rows of each */
    int64_t targets;          /* B T of the global batch: the loss is the mean over them */
    double gradient_clip;     /* 0: off */
    double *workspace;        /* lt_step_workspace() doubles: a step allocates nothing */
    lt_update update;         /* gradient_scale is set here */
} lt_step_options;

typedef enum lt_step_outcome {
    LT_STEP_UPDATED,
    LT_STEP_DROPPED,   /* should_drop() said so; weights are untouched */
    LT_STEP_NONFINITE, /* the loss or a gradient is not finite; weights are untouched */
} lt_step_outcome;

typedef struct lt_step_result {
    lt_step_outcome outcome;
    double loss;          /* mean over the global batch, nats */
    double gradient_norm; /* over all trained parameters, before clipping */
    double own_loss_sum;  /* of this rank's lanes */
    const lt_parameter
        *first_nonfinite; /* first parameter, in registry order, whose gradient is not finite; or NULL */
} lt_step_result;

/* Doubles of host memory that a step of `rows` sequences on this rank works in. */
int64_t lt_step_workspace(const lt_model *model, int64_t rows);

/* Runs step `options->update.step`. The lanes of this rank are neighbours in the lane tree; gradient buffers:
 * 1 + log2(lanes). Collective on the model's group, where it has one. */
lt_status lt_step_run(lt_model *model, const lt_step_options *options, const lt_exchange *exchange,
                      lt_step_result *result);

#endif
