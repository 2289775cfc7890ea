/* The sharded optimiser (`parallel.zero: 1`): who has which moments.
 *
 * The flat parameter array is cut into as many contiguous shares as there are data ranks (lt_registry_cut()
 * says where; the same on all tensor ranks). Data rank r has both moments of share lt_reduce_share(), gets
 * its gradients by a reduce-scatter in the order of the lane tree, updates its parameters, and gets the
 * others by an all-gather. So all bits are those of `zero: 0`.
 */
#ifndef LT_TRAINER_ZERO_H
#define LT_TRAINER_ZERO_H

#include "trainer/run.h"

/* Makes run->zero, once there is a model; leaves it NULL where nothing is shared out. LT_IO: no memory.
 * Local. */
lt_status lt_zero_create(lt_run *run);
void lt_zero_free(lt_run *run);

/* Where the shares begin, [data_ranks + 1] elements, as a reduce-scatter wants it. Local. */
const int64_t *lt_zero_cuts(const lt_run *run);

/* The data rank that has the moments of an element of the flat array, and where its share ends. Local. */
int lt_zero_holder(const lt_run *run, int64_t element, int64_t *end);

/* Whether this rank has moments of elements [first, end). Local. */
bool lt_zero_holds(const lt_run *run, int64_t first, int64_t end);

#endif
