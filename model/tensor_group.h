/* The tensor-parallel group: what a model asks of the ranks that hold the other parts of it.
 *
 * The model declares this table and the trainer fills it from comm; a test fills it from threads. All
 * functions are collective on the group's ranks, which call them in one order. They see to the order with the
 * device's stream themselves. What they return must be the same bits on every run: sums are added in the
 * order of ranks 0, 1, ... An error leaves values undefined; the others may wait until they are ended.
 */
#ifndef LT_MODEL_TENSOR_GROUP_H
#define LT_MODEL_TENSOR_GROUP_H

#include "model/ops.h"

typedef struct lt_tensor_group {
    int rank, ranks;
    void *context;

    /* `values` is cut into parts, part i of elements [cuts[i], cuts[i + 1]), perhaps empty: each rank brings
     * its own in place and leaves with all. `cuts` [ranks + 1]. */
    lt_status (*all_gather)(void *context, lt_mem values, const int64_t *cuts);

    /* `own` becomes this rank's part of the sum of all ranks' `partial`, which is cut as above and may be
     * overwritten. `scratch` has room for (ranks - 1) times the own part; the three are apart. */
    lt_status (*reduce_scatter)(void *context, lt_mem partial, const int64_t *cuts, lt_mem scratch,
                                lt_mem own);

    /* On the host: rank i brings values [i * count, (i + 1) * count) and leaves with all, [ranks * count]. */
    lt_status (*all_gather_host)(void *context, double *values, int64_t count);
} lt_tensor_group;

#endif
