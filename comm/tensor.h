/* Collectives of the tensor ranks of one group, who hold parts of the same layers and the same micro-batch.
 *
 * Every rank exchanges directly with every other one of its group, all messages under way at once: the groups
 * are small and lie on one host or a fast network. Sums are added in rank order, so bits depend on the width
 * of the group alone. Each function is collective on the tensor group, waits until it is done, and gives
 * LT_IO if MPI fails; none but the gathering, which then does nothing, is for a group of one. `cuts`
 * [tensor_ranks + 1] is the same on all ranks of the group and rises from 0; part i is elements [cuts[i],
 * cuts[i + 1]) and may be empty.
 */
#ifndef LT_COMM_TENSOR_H
#define LT_COMM_TENSOR_H

#include "comm/device.h"
#include "comm/grid.h"

/* Fills the parts of the others; this rank's own part of `values` is there. Elements of `element_bytes`
 * bytes. `device` says where they lie; NULL: in host memory. */
lt_status lt_tensor_all_gather(const lt_grid *grid, const lt_comm_device *device, void *values,
                               size_t element_bytes, const int64_t *cuts);

/* Elements of scratch that lt_tensor_reduce_scatter() needs for an own part of `count` elements: 0 on two
 * tensor ranks. Local. */
int64_t lt_tensor_scratch(const lt_grid *grid, int64_t count);

/* `own` becomes this rank's part of the sum of all ranks' `partial`: (0 + 1) + 2 + ... `own` and `scratch`
 * lie apart from `partial`, which is only read. They are float32, or what the device's add_up() takes. */
lt_status lt_tensor_reduce_scatter(const lt_grid *grid, const lt_comm_device *device, const void *partial,
                                   const int64_t *cuts, void *scratch, void *own);

/* `values` [tensor_ranks * count]: fills the `count` doubles of every other rank; this rank's own are there.
 */
lt_status lt_tensor_all_gather_doubles(const lt_grid *grid, double *values, int64_t count);

#endif
