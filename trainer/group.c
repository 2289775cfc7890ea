#include "trainer/group.h"

#include "comm/tensor.h"
#include "comm/watchdog.h"

static float *floats(lt_mem mem) {
    return (float *)(void *)mem.address;
}

/* What is exchanged was computed. Returns when the exchange began. */
static lt_status begin(lt_run *run, double *began) {
    LT_CHECK(run->device->ops->synchronise(run->device));
    lt_watchdog_tick("exchange in the tensor group", run->step + 1);
    *began = lt_now_s();
    return LT_OK;
}

static lt_status all_gather(void *context, lt_mem values, const int64_t *cuts) {
    lt_run *run = context;
    double began;
    LT_CHECK(begin(run, &began));
    LT_CHECK(lt_tensor_all_gather(&run->grid, values.address, lt_type_bytes(values.type), cuts));
    lt_run_waited(run, began);
    return LT_OK;
}

static void add_on_device(void *context, float *to, const float *from, int64_t count) {
    lt_device *device = context;
    union {
        const float *in;
        unsigned char *out;
    } source = {.in = from}; /* lt_mem has no const twin; add() only reads it */
    device->ops->add(device, (lt_mem){(unsigned char *)to, LT_FLOAT32}, (lt_mem){source.out, LT_FLOAT32},
                     count);
}

static lt_status reduce_scatter(void *context, lt_mem partial, const int64_t *cuts, lt_mem scratch,
                                lt_mem own) {
    lt_run *run = context;
    const lt_comm_device device = {.context = run->device, .add = add_on_device};
    double began;
    LT_CHECK(begin(run, &began));
    LT_CHECK(
        lt_tensor_reduce_scatter(&run->grid, &device, floats(partial), cuts, floats(scratch), floats(own)));
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
