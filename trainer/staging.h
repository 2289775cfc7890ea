/* Exchanges of what lies on a GPU by way of the host's memory: what an MPI library that knows no GPU can do.
 * Where the device computes in the host's memory there is no copy, and the exchanges are in place.
 *
 * Sums are formed on the host in the order and precision in which a CPU device would, so gradients have the
 * same bits whatever the number of data ranks; partial sums of tensor ranks are added in float32 and rounded
 * once. Errors as in comm/; all functions are collective on the ranks that exchange.
 */
#ifndef LT_TRAINER_STAGING_H
#define LT_TRAINER_STAGING_H

#include "trainer/run.h"

/* Memory for the flat arrays of lt_run_stage_*; LT_IO. Local. */
lt_status lt_run_stage_allocate(lt_run *run);
void lt_run_stage_free(lt_run *run);

/* lt_exchange.reduce_begin and reduce_end: `gradients` are those of the whole flat array in both. */
lt_status lt_run_stage_reduce_begin(lt_run *run, lt_mem gradients, int64_t first, int64_t count);
lt_status lt_run_stage_reduce_end(lt_run *run, lt_mem gradients, lt_reducer_times *times);

/* lt_exchange.gather_parameters. */
lt_status lt_run_stage_gather_parameters(lt_run *run, lt_mem parameters);

/* lt_tensor_group.all_gather and reduce_scatter. */
lt_status lt_run_stage_all_gather(lt_run *run, lt_mem values, const int64_t *cuts);
lt_status lt_run_stage_reduce_scatter(lt_run *run, lt_mem partial, const int64_t *cuts, lt_mem scratch,
                                      lt_mem own);

#endif
