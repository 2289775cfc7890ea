/* Deterministic reduction over data ranks: the upper part of the lane tree.
 *
 * Each of the R data ranks (a power of two) holds the sum of its own neighbouring lanes. The ranks finish the
 * fixed binary tree ((0+1)+(2+3))+...: pairwise exchange at distance 1, 2, 4, ..., halving what each rank
 * keeps (reduce-scatter), then the same way back (all-gather). Every element is summed along the same tree
 * whatever R is, and IEEE addition commutes, so all ranks end with the same bits, which are also those of one
 * rank that summed all lanes itself.
 */
#ifndef LT_COMM_REDUCE_H
#define LT_COMM_REDUCE_H

#include "comm/grid.h"

/* How elements are added where they live; the trainer fills it from the device. destination[i] += source[i].
 */
typedef struct lt_reduce_device {
    void *context;
    void (*add)(void *context, float *destination, const float *source, int64_t count);
} lt_reduce_device;

/* Floats of scratch that lt_reduce_gradients() needs for `count` elements on this grid: a few pieces of the
 * pipeline, at most 4 MiB whatever the count, and 0 on one data rank. Local. */
int64_t lt_reduce_scratch(const lt_grid *grid, int64_t count);

/* Replaces `gradients` [count] on every data rank by the tree sum over data ranks. `scratch` holds
 * lt_reduce_scratch() floats (NULL where that is 0). Collective on the data ranks; every message is cut to a
 * bounded size. LT_BAD_INPUT unless the number of data ranks is a power of two; LT_IO if MPI fails. */
lt_status lt_reduce_gradients(const lt_grid *grid, const lt_reduce_device *device, float *gradients,
                              int64_t count, float *scratch);

/* The same for a few doubles (loss sums), along the same tree; each rank sends all of them at every level.
 * Collective on the data ranks. */
lt_status lt_reduce_doubles(const lt_grid *grid, double *values, int count);

#endif
