/* Deterministic reduction over data ranks: the upper part of the lane tree.
 *
 * Each of the R data ranks (a power of two) holds the sum of its own neighbouring lanes. The ranks finish the
 * fixed binary tree ((0+1)+(2+3))+...: pairwise exchange at distance 1, 2, 4, ..., halving what each rank
 * keeps (reduce-scatter), then the same way back (all-gather). Every element is summed along the same tree
 * whatever R is, and IEEE addition commutes, so all ranks end with the same bits, which are also those of one
 * rank that summed all lanes itself.
 *
 * The two halves of that way serve a sharded optimiser too: the elements are cut into as many contiguous
 * shares as there are data ranks, of any sizes, and each rank keeps the sum of one.
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

/* The share that this rank keeps: its data rank with the bits in reverse, since neighbouring ranks, which the
 * tree adds first, part at the middle of all elements. Local. */
int lt_reduce_share(const lt_grid *grid);

/* The tree sum of lt_reduce_gradients(), of this rank's share alone: elements [cuts[i], cuts[i + 1]) with i =
 * lt_reduce_share(). `cuts` [data_ranks + 1] is the same on every rank and rises from 0 to the number of
 * elements; shares may be empty. Outside its share a rank is left with partial sums. Collective on the data
 * ranks; scratch and errors as lt_reduce_gradients(). */
lt_status lt_reduce_scatter(const lt_grid *grid, const lt_reduce_device *device, float *gradients,
                            const int64_t *cuts, float *scratch);

/* Replaces `values` outside this rank's share by what the ranks have that keep it. Collective on the data
 * ranks. */
lt_status lt_all_gather(const lt_grid *grid, float *values, const int64_t *cuts);

/* Copies `values` [count] of data rank `from` to data rank `to`. Collective on these two; any other rank that
 * calls it does nothing. */
lt_status lt_data_copy(const lt_grid *grid, int from, int to, float *values, int64_t count);

/* Replaces a few doubles (loss sums) by their sums along the same tree; each rank sends all of them at every
 * level. Collective on the data ranks. */
lt_status lt_reduce_doubles(const lt_grid *grid, double *values, int count);

#endif
