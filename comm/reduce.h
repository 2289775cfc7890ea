/* Small and blocking collectives of data ranks: deterministic sums of doubles, and what a sharded optimiser
 * needs beside the reduction of gradients (comm/reducer.h).
 *
 * Each of the R data ranks (a power of two) holds the sum of its own neighbouring lanes. The ranks finish the
 * fixed binary tree ((0+1)+(2+3))+...: pairwise exchange at distance 1, 2, 4, .... Every value is summed
 * along the same tree whatever R is, and IEEE addition commutes, so all ranks end with the same bits, which
 * are also those of one rank that summed all lanes itself.
 */
#ifndef LT_COMM_REDUCE_H
#define LT_COMM_REDUCE_H

#include "comm/device.h"
#include "comm/grid.h"

/* The share of the flat parameters that this rank keeps of as many contiguous ones as there are data ranks:
 * its data rank with the bits in reverse, since neighbouring ranks, which the tree adds first, part at the
 * middle of all elements. Local. */
int lt_reduce_share(const lt_grid *grid);

/* Replaces `values` outside this rank's share, elements [cuts[i], cuts[i + 1]) with i = lt_reduce_share(), by
 * what the ranks have that keep it. `cuts` [data_ranks + 1] is the same on every rank and rises from 0 to the
 * number of elements; shares may be empty. `device` says where the values lie; NULL: in host memory.
 * Collective on the data ranks; LT_BAD_INPUT unless their number is a power of two; LT_IO if MPI or the
 * network fails. */
lt_status lt_all_gather(const lt_grid *grid, const lt_comm_device *device, float *values,
                        const int64_t *cuts);

/* Replaces a few doubles (loss sums) by their sums along the tree; each rank sends all of them at every
 * level. Collective on the data ranks; errors as above. */
lt_status lt_reduce_doubles(const lt_grid *grid, double *values, int count);

#endif
