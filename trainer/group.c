#include "trainer/group.h"

#include "comm/tensor.h"
#include "comm/watchdog.h"
#include "trainer/staging.h"

/* What is exchanged was computed, where the host carries it. Returns when the exchange began. */
static lt_status begin(lt_run *run, double *began) {
    if (run->network.network == NULL) LT_CHECK(run->device->ops->synchronise(run->device));
    lt_watchdog_tick("exchange in the tensor group", run->step + 1);
    *began = lt_now_s();
    return LT_OK;
}

static lt_status all_gather(void *context, lt_mem values, const int64_t *cuts) {
    lt_run *run = context;
    double began;
    LT_CHECK(begin(run, &began));
    LT_CHECK(lt_run_stage_all_gather(run, values, cuts));
    lt_run_waited(run, began);
    return LT_OK;
}

static lt_status reduce_scatter(void *context, lt_mem partial, const int64_t *cuts, lt_mem scratch,
                                lt_mem own) {
    lt_run *run = context;
    double began;
    LT_CHECK(begin(run, &began));
    LT_CHECK(lt_run_stage_reduce_scatter(run, partial, cuts, scratch, own));
    lt_run_waited(run, began);
    return LT_OK;
}

static lt_status all_gather_host(void *context, double *values, int64_t count) {
    lt_run *run = context;
    const double began = lt_now_s();
    LT_CHECK(lt_tensor_all_gather_doubles(&run->grid, values, count));
    lt_run_waited(run, began);
    return LT_OK;
}

void lt_run_fill_group(lt_run *run) {
    run->group = (lt_tensor_group){.rank = run->grid.tensor_rank,
                                   .ranks = run->grid.tensor_ranks,
                                   .context = run,
                                   .all_gather = all_gather,
                                   .reduce_scatter = reduce_scatter,
                                   .all_gather_host = all_gather_host};
}
