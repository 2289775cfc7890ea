/* Attention on the CPU: plans the packed arrays, cuts the work into tasks (kernels/attention*.c do them). */
#include "model/cpu/device.h"

#include <string.h>

/* A head is cut into groups of query blocks in the backward pass until there are this many tasks. */
enum { ENOUGH_TASKS = 16, MOST_GROUPS = 8, ALIGN_BYTES = 64 };

static int64_t round_up(int64_t value, int64_t step) {
    return (value + step - 1) / step * step;
}

static int64_t at_least_one(int64_t value) {
    return value < 1 ? 1 : value;
}

static lt_attention_job plan(const lt_attention *shape, bool backward) {
    lt_attention_job job = {.shape = shape, .backward = backward};
    const int64_t pairs = at_least_one(shape->batch * shape->heads);
    job.head_pad = round_up(shape->head_size, LT_HEAD_ALIGN);
    job.tiles = round_up(shape->key_length, LT_TILE_COLUMNS) / LT_TILE_COLUMNS;
    job.key_rows = job.tiles * LT_TILE_COLUMNS;
    job.row_blocks = round_up(shape->query_length, LT_TILE_ROWS) / LT_TILE_ROWS;
    job.bias_pad = round_up(shape->bias_length, LT_HEAD_ALIGN);
    job.groups = (ENOUGH_TASKS + pairs - 1) / pairs;
    if (job.groups > MOST_GROUPS) job.groups = MOST_GROUPS;
    if (job.groups > job.row_blocks) job.groups = job.row_blocks;
    job.scratch_floats = lt_attention_scratch_floats(shape, backward);
    return job;
}

int64_t lt_attention_scratch_floats(const lt_attention *shape, bool backward) {
    const int64_t head_tile = LT_TILE_ROWS * round_up(shape->head_size, LT_HEAD_ALIGN);
    const int64_t strip = LT_TILE_ROWS * (round_up(shape->key_length, LT_TILE_COLUMNS) + LT_HEAD_ALIGN);
    const int64_t forward = 2 * head_tile + round_up(shape->bias_length, LT_HEAD_ALIGN) + strip;
    return backward ? forward + head_tile + strip : forward;
}

/* Hands out pieces of a block of memory; with `base` NULL it only counts. */
typedef struct carver {
    unsigned char *base;
    size_t used;
} carver;

static void *carve(carver *from, int64_t elements, size_t size) {
    unsigned char *piece = from->base == NULL ? NULL : from->base + from->used;
    from->used += (size_t)round_up(elements * (int64_t)size, ALIGN_BYTES);
    return piece;
}

static float *carve_floats(carver *from, int64_t elements) {
    return carve(from, elements, sizeof(float));
}

static void place_saved(lt_attention_job *job, carver *from) {
    const lt_attention *shape = job->shape;
    const int64_t queries = shape->batch * shape->heads * shape->query_length;
    job->row_max = carve_floats(from, queries);
    job->row_sum = carve_floats(from, queries);
    job->live = carve(from, shape->batch * shape->heads * job->row_blocks * job->tiles, 1);
}

static void place_scratch(lt_attention_job *job, int threads, carver *from) {
    const lt_attention *shape = job->shape;
    const int64_t key_heads = shape->batch * shape->key_heads, heads = shape->batch * shape->heads;
    const int64_t transposed = key_heads * job->tiles * LT_TILE_COLUMNS * shape->head_size;
    const int64_t by_row = key_heads * job->key_rows * job->head_pad;
    job->scratch = carve_floats(from, threads * round_up(job->scratch_floats, LT_HEAD_ALIGN));
    job->packed_kt = carve_floats(from, transposed);
    if (!job->backward) {
        job->packed_v = carve_floats(from, by_row);
        job->row_statistics = carve(from, heads * job->row_blocks * LT_STATISTICS, sizeof(double));
        return;
    }
    job->packed_vt = carve_floats(from, transposed);
    job->packed_k = carve_floats(from, by_row);
    job->sum_dk = carve_floats(from, heads * job->groups * job->key_rows * job->head_pad);
    job->sum_dv = carve_floats(from, heads * job->groups * job->key_rows * job->head_pad);
    job->sum_bias = carve_floats(from, heads * job->groups * job->bias_pad);
    job->sum_tau = carve(from, heads * job->groups, sizeof(double));
}

size_t lt_cpu_attention_saved_bytes(lt_device *device, const lt_attention *shape) {
    (void)device;
    lt_attention_job job = plan(shape, false);
    carver count = {0};
    place_saved(&job, &count);
    return count.used;
}

size_t lt_cpu_attention_scratch_bytes(lt_device *device, const lt_attention *shape) {
    size_t most = 0;
    for (int backward = 0; backward < 2; backward++) {
        lt_attention_job job = plan(shape, backward);
        carver count = {0};
        place_scratch(&job, device->threads, &count);
        if (count.used > most) most = count.used;
    }
    return most;
}

static lt_attention_job open_job(lt_device *device, const lt_attention *shape, bool backward) {
    lt_attention_job job = plan(shape, backward);
    place_scratch(&job, device->threads, &(carver){.base = cpu_of(device)->scratch});
    if (shape->saved.address != NULL) place_saved(&job, &(carver){.base = shape->saved.address});
    job.scratch_floats = round_up(job.scratch_floats, LT_HEAD_ALIGN);
    job.q = floats_of(shape->q);
    job.k = floats_of(shape->k);
    job.v = floats_of(shape->v);
    job.bias = floats_of(shape->bias);
    job.tau = floats_of(shape->tau);
    job.document_starts = integers_of(shape->document_starts);
    job.output = floats_of(shape->output);
    return job;
}

/* One kind of task of a job, for the pool. */
typedef struct phase {
    const lt_attention_job *job;
    void (*kernel)(const lt_attention_job *, int64_t, int);
} phase;

static void run_task(void *context, int64_t index, int worker) {
    const phase *p = context;
    p->kernel(p->job, index, worker);
}

static void run_phase(lt_device *device, const lt_attention_job *job, int64_t tasks,
                      void (*kernel)(const lt_attention_job *, int64_t, int)) {
    lt_pool_run(cpu_of(device)->pool, tasks, run_task, &(phase){job, kernel});
}

void lt_cpu_attention_forward(lt_device *device, const lt_attention *shape) {
    const lt_kernels *kernels = cpu_of(device)->kernels;
    lt_attention_job job = open_job(device, shape, false);
    run_phase(device, &job, shape->batch * shape->key_heads * job.tiles, kernels->attention_pack);
    run_phase(device, &job, shape->batch * shape->heads * job.row_blocks, kernels->attention_forward);
}

void lt_cpu_attention_backward(lt_device *device, const lt_attention *shape,
                               const lt_attention_gradients *gradients) {
    const lt_kernels *kernels = cpu_of(device)->kernels;
    lt_attention_job job = open_job(device, shape, true);
    job.d_output = floats_of(gradients->d_output);
    job.d_q = floats_of(gradients->d_q);
    job.d_k = floats_of(gradients->d_k);
    job.d_v = floats_of(gradients->d_v);
    job.d_bias = floats_of(gradients->d_bias);
    job.d_tau = floats_of(gradients->d_tau);
    run_phase(device, &job, shape->batch * shape->key_heads * job.tiles, kernels->attention_pack);
    run_phase(device, &job, shape->batch * shape->heads * job.groups, kernels->attention_backward);
    run_phase(device, &job, shape->batch * shape->key_heads * job.tiles, kernels->attention_sum_keys);
    if (shape->bias_length > 0) run_phase(device, &job, shape->heads, kernels->attention_sum_lazy);
}

void lt_cpu_attention_statistics(lt_device *device, const lt_attention *shape, lt_mem statistics) {
    const lt_kernels *kernels = cpu_of(device)->kernels;
    lt_attention_job job = open_job(device, shape, false);
    run_phase(device, &job, shape->batch * shape->key_heads * job.tiles, kernels->attention_pack);
    run_phase(device, &job, shape->batch * shape->heads * job.row_blocks, kernels->attention_statistics);
    double *sums = doubles_of(statistics);
    for (int64_t pair = 0; pair < shape->batch * shape->heads; pair++)
        for (int64_t part = 0; part < job.row_blocks * LT_STATISTICS; part++)
            sums[pair % shape->heads * LT_STATISTICS + part % LT_STATISTICS] +=
                job.row_statistics[pair * job.row_blocks * LT_STATISTICS + part];
}
