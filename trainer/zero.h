/* The sharded optimiser (`parallel.zero: 1`): who has which moments, and how they get into checkpoints.
 *
 * The flat parameter array is cut into as many contiguous shares as there are data ranks (lt_registry_cut()
 * says where). Data rank r has both moments of share lt_reduce_share(), gets its gradients by a
 * reduce-scatter in the order of the lane tree, updates its parameters, and gets the others by an all-gather.
 * So all bits are those of `zero: 0`.
 *
 * A checkpoint has whole tensors. A chunk of any kind is written by the rank in whose share it begins; where
 * it goes on in the shares that follow, the rest of its moments, the rank's tail, is fetched before a save:
 * at most one chunk of each moment.
 */
#ifndef LT_TRAINER_ZERO_H
#define LT_TRAINER_ZERO_H

#include "trainer/run.h"

/* Makes run->zero, once there is a model; leaves it NULL where nothing is shared out. LT_IO: no memory.
 * Local. */
lt_status lt_zero_create(lt_run *run);
void lt_zero_free(lt_run *run);

/* Bytes that it takes; 0 without it. Local. */
size_t lt_zero_bytes(const lt_run *run);

/* Where the shares begin, [data_ranks + 1] elements, as lt_reduce_scatter() wants it. Local. */
const int64_t *lt_zero_cuts(const lt_run *run);

/* Fetches the moments as they are now that lt_zero_get_tail() gives. Nothing to do without run->zero.
 * Collective. */
lt_status lt_zero_gather_tails(lt_run *run);

/* Puts what of elements [first, first + count) of a parameter is in this rank's tail into `values`. Local. */
void lt_zero_get_tail(const lt_run *run, lt_tensor_kind kind, const lt_parameter *parameter, int64_t first,
                      int64_t count, float *values);

/* lt_tensor_access.writer and .needs, of an lt_run. Local. */
int lt_zero_writer(void *context, const lt_parameter *parameter, int64_t first);
bool lt_zero_needs(void *context, lt_tensor_kind kind, const lt_parameter *parameter, int64_t first,
                   int64_t count);

#endif
