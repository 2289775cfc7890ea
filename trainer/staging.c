#include "trainer/staging.h"

#include "comm/reduce.h"
#include "comm/tensor.h"
#include "model/cuda/cuda.h"
#include "trainer/zero.h"

#include <string.h>

/* Before an exchange in place: what is exchanged was computed. */
static lt_status begin_in_place(const lt_run *run) {
    if (run->network.network == NULL) return run->device->ops->synchronise(run->device);
    run->network.network->after_device(run->network.context);
    return LT_OK;
}

/* What is computed from now on finds what was exchanged. */
static lt_status end_in_place(const lt_run *run) {
    if (run->network.network != NULL) run->network.network->before_device(run->network.context);
    return LT_OK;
}

static float *floats_at(lt_mem mem) {
    return (float *)(void *)mem.address;
}

lt_status lt_run_stage_allocate(lt_run *run) {
    if (!run->staged || run->grid.data_ranks == 1) return LT_OK;
    const size_t bytes = sizeof(float) * (size_t)lt_model_registry(run->model)->elements;
    run->staging.flat = run->cuda->host_allocate(bytes);
    return run->staging.flat != NULL
               ? LT_OK
               : lt_fail(LT_IO, "no %.1f MiB of pinned memory on the host to exchange gradients through",
                         (double)bytes / 1048576.0);
}

void lt_run_stage_free(lt_run *run) {
    if (run->cuda == NULL) return;
    run->cuda->host_release(run->staging.flat);
    run->cuda->host_release(run->staging.packed);
    run->cuda->host_release(run->staging.sums);
}

/* Room of at least `bytes` bytes: found in the first step, the same in all others. */
static lt_status reserve(const lt_run *run, void **memory, size_t *held, size_t bytes) {
    if (bytes <= *held) return LT_OK;
    run->cuda->host_release(*memory);
    *memory = run->cuda->host_allocate(bytes);
    *held = *memory != NULL ? bytes : 0;
    return *memory != NULL ? LT_OK
                           : lt_fail(LT_IO, "no %.1f MiB of pinned memory on the host to exchange through",
                                     (double)bytes / 1048576.0);
}

/* ---- gradients and weights, over data ranks ---- */

lt_status lt_run_stage_reduce_begin(lt_run *run, lt_mem gradients, int64_t first, int64_t count) {
    float *flat = run->staging.flat;
    if (!run->staged || run->grid.data_ranks == 1)
        return lt_reducer_begin(run->reducer, floats_at(gradients), first, count);
    LT_CHECK(run->device->ops->download(run->device, flat + first, lt_at(gradients, first), count));
    return lt_reducer_begin(run->reducer, flat, first, count);
}

/* The elements whose sums, or updated weights, this rank has. */
static lt_span own_share(const lt_run *run) {
    if (run->zero == NULL) return (lt_span){0, lt_model_registry(run->model)->elements};
    const int64_t *cuts = lt_zero_cuts(run);
    const int share = lt_reduce_share(&run->grid);
    return (lt_span){cuts[share], cuts[share + 1]};
}

lt_status lt_run_stage_reduce_end(lt_run *run, lt_mem gradients, lt_reducer_times *times) {
    if (run->network.network == NULL) LT_CHECK(run->device->ops->synchronise(run->device));
    LT_CHECK(lt_reducer_end(run->reducer, times));
    if (!run->staged || run->grid.data_ranks == 1) return LT_OK;
    const lt_span own = own_share(run);
    run->device->ops->upload(run->device, lt_at(gradients, own.first), run->staging.flat + own.first,
                             own.end - own.first);
    return run->device->ops->synchronise(run->device);
}

lt_status lt_run_stage_gather_parameters(lt_run *run, lt_mem parameters) {
    const lt_ops *ops = run->device->ops;
    const int64_t elements = lt_model_registry(run->model)->elements;
    const lt_span own = own_share(run);
    float *flat = run->staging.flat;
    if (!run->staged) {
        LT_CHECK(begin_in_place(run));
        LT_CHECK(lt_all_gather(&run->grid, &run->network, floats_at(parameters), lt_zero_cuts(run)));
        return end_in_place(run);
    }
    LT_CHECK(ops->download(run->device, flat + own.first, lt_at(parameters, own.first), own.end - own.first));
    LT_CHECK(lt_all_gather(&run->grid, NULL, flat, lt_zero_cuts(run)));
    ops->upload(run->device, parameters, flat, own.first);
    ops->upload(run->device, lt_at(parameters, own.end), flat + own.end, elements - own.end);
    return ops->synchronise(run->device);
}

/* ---- activations, over tensor ranks ---- */

lt_status lt_run_stage_all_gather(lt_run *run, lt_mem values, const int64_t *cuts) {
    const lt_ops *ops = run->device->ops;
    const lt_grid *grid = &run->grid;
    const int own = grid->tensor_rank;
    const size_t size = lt_type_bytes(values.type);
    if (!run->staged) {
        LT_CHECK(begin_in_place(run));
        LT_CHECK(lt_tensor_all_gather(grid, &run->network, values.address, size, cuts));
        return end_in_place(run);
    }
    lt_staging *staging = &run->staging;
    const int64_t all = cuts[grid->tensor_ranks], end = cuts[own + 1];
    LT_CHECK(reserve(run, &staging->packed, &staging->packed_bytes, (size_t)all * size));
    char *bytes = staging->packed;
    LT_CHECK(ops->download(run->device, bytes + (size_t)cuts[own] * size, lt_at(values, cuts[own]),
                           end - cuts[own]));
    LT_CHECK(lt_tensor_all_gather(grid, NULL, bytes, size, cuts));
    ops->upload(run->device, values, bytes, cuts[own]);
    ops->upload(run->device, lt_at(values, end), bytes + (size_t)end * size, all - end);
    return ops->synchronise(run->device);
}

static void widen(const uint16_t *from, int64_t count, float *to) {
    for (int64_t i = 0; i < count; i++) {
        const uint32_t bits = (uint32_t)from[i] << 16;
        memcpy(&to[i], &bits, sizeof bits);
    }
}

/* To nearest, ties to even; a NaN stays one. */
static void round_all(const float *from, int64_t count, uint16_t *to) {
    for (int64_t i = 0; i < count; i++) {
        uint32_t bits;
        memcpy(&bits, &from[i], sizeof bits);
        const bool nan = (bits & 0x7fffffffu) > 0x7f800000u;
        to[i] = nan ? 0x7fff : (uint16_t)((bits + 0x7fffu + (bits >> 16 & 1)) >> 16);
    }
}

lt_status lt_run_stage_reduce_scatter(lt_run *run, lt_mem partial, const int64_t *cuts, lt_mem scratch,
                                      lt_mem own) {
    const lt_ops *ops = run->device->ops;
    const lt_grid *grid = &run->grid;
    lt_staging *staging = &run->staging;
    if (!run->staged) {
        LT_CHECK(begin_in_place(run));
        LT_CHECK(lt_tensor_reduce_scatter(grid, &run->network, partial.address, cuts, scratch.address,
                                          own.address));
        return end_in_place(run);
    }
    const int64_t all = cuts[grid->tensor_ranks],
                  part = cuts[grid->tensor_rank + 1] - cuts[grid->tensor_rank];
    LT_CHECK(reserve(run, &staging->packed, &staging->packed_bytes, (size_t)all * sizeof(uint16_t)));
    LT_CHECK(reserve(run, &staging->sums, &staging->sums_bytes,
                     (size_t)(all + part + lt_tensor_scratch(grid, part)) * sizeof(float)));
    float *wide = staging->sums, *sum = wide + all;
    LT_CHECK(ops->download(run->device, staging->packed, partial, all));
    widen(staging->packed, all, wide);
    const lt_comm_device host = {.add = lt_add_on_host};
    LT_CHECK(lt_tensor_reduce_scatter(grid, &host, wide, cuts, sum + part, sum));
    round_all(sum, part, staging->packed);
    ops->upload(run->device, own, staging->packed, part);
    return ops->synchronise(run->device);
}
