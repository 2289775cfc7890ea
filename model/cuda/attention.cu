/* Attention: which kernels serve a shape, what they keep and where, and the sums over rows that all of them
 * share. These read each byte once and write few: bound by memory, of whose bandwidth 70 to 80 % are
 * expected of row_gradients() and sum_biases() (not measured); the other two have too little to do to fill a
 * GPU.
 *
 * ptxas of CUDA 13.0, none spilled: registers for sm_80 and sm_90a, bytes of shared memory of a block.
 *   row_gradients     30   30       0
 *   sum_tau_terms     32   32    4096
 *   sum_biases        30   30    2048
 *   sum_statistics    32   32       0
 */
#include "model/cuda/attention.h"

#include <cmath>

enum { WARP = 32, WARPS = 4, THREADS = WARP * WARPS, TAU_THREADS = 512, ALIGN_BYTES = 256 };

/* The compute capability that *_sm90.cu is for, and no other. */
enum { HOPPER = 90 };

/* Hands out pieces of a block of memory; with `base` null it only counts. */
struct carver {
    unsigned char *base;
    size_t used;
};

template <typename element> static element *carve(carver *from, int64_t count) {
    unsigned char *piece = from->base == nullptr ? nullptr : from->base + from->used;
    from->used += divide_up(static_cast<size_t>(count) * sizeof(element), size_t{ALIGN_BYTES}) * ALIGN_BYTES;
    return reinterpret_cast<element *>(piece);
}

static int64_t rows_of(const lt_attention *shape) {
    return shape->batch * shape->heads * shape->query_length;
}

static int64_t tile_rows_of(const lt_attention *shape) {
    return shape->batch * shape->heads * divide_up(shape->query_length, int64_t{TILE_ROWS});
}

static int64_t live_words_of(const lt_attention *shape) {
    return divide_up(shape->key_length, int64_t{32 * TILE_KEYS});
}

static void place_saved(const lt_attention *shape, carver *from, attention_job *job) {
    job->softmax = carve<float2>(from, rows_of(shape));
    if (shape->bias_length == 0) return;
    job->live_sum = carve<bf16>(from, rows_of(shape) * shape->head_size);
    if (!lt_cuda_attention_is_fast(shape->head_size)) return;
    job->live = carve<uint32_t>(from, tile_rows_of(shape) * live_words_of(shape));
}

void lt_cuda_choose_backward(lt_device *device, lt_cuda_backward form) {
    cuda_of(device)->backward = form;
}

/* The rule is by shape and chip, not by timing, since the forms' last bits differ and runs must not. With W
 * tiles of all blocks of keys, L those of the longest block and S multiprocessors, one kernel takes
 * (3 + 2 f) (W/S + L): dq's order of sums lets a head's longest block start last, so that the chip waits for
 * the last one. Two kernels, whose longest blocks start first, take (4 + 3 f) W/S. One is faster where L < (1
 * + f) / (3 + 2 f) W/S, a third to two fifths of it; of causal attention W is half of L times the blocks, so
 * there must be 6 S of them (5 S at f = 1). The float32 sums of dq, half again of what two kernels move, are
 * left out: they are those of a few heads at a time, which L2 holds. With compute capability 9.0 the one kernel
 * has wgmma, and half as much speed again where it does not wait, so that 3 S of them will do. */
bool lt_cuda_backward_in_one_kernel(lt_device *base, const lt_attention *shape) {
    const cuda_device *device = cuda_of(base);
    if (!lt_cuda_attention_is_fast(shape->head_size) ||
        lt_cuda_attention_backward_shared_bytes(shape->head_size) > device->block_shared_bytes)
        return false;
    if (device->backward != LT_CUDA_BACKWARD_BY_SHAPE) return device->backward == LT_CUDA_BACKWARD_ONE_KERNEL;
    return shape->batch * shape->key_heads * divide_up(shape->key_length, int64_t{BLOCK_KEYS}) >=
           int64_t{device->capability == HOPPER ? 3 : 6} * device->multiprocessors;
}

static void place_backward(lt_device *device, const lt_attention *shape, carver *from, attention_job *job) {
    job->rows = carve<attention_row>(from, rows_of(shape));
    job->tau_terms = carve<float>(from, rows_of(shape));
    if (!lt_cuda_attention_is_fast(shape->head_size)) return;
    const bool one = lt_cuda_backward_in_one_kernel(device, shape);
    job->bias_blocks = one ? divide_up(shape->key_length, int64_t{BLOCK_KEYS})
                           : divide_up(shape->query_length, int64_t{BLOCK_QUERIES});
    job->bias_sums = carve<float>(from, shape->batch * shape->heads * shape->bias_length * job->bias_blocks);
    if (!one) return;
    /* Kernels have tiles of 32 or of 64 queries. */
    const int64_t heads = shape->batch * shape->heads;
    job->query_sums = carve<float>(from, heads * divide_up(shape->query_length, int64_t{64}) * 64 * shape->head_size);
    job->turns = carve<unsigned>(from, heads * divide_up(shape->query_length, int64_t{32}) + 1);
}

static void place_statistics(const lt_attention *shape, carver *from, attention_job *job) {
    job->statistics = carve<double>(from, tile_rows_of(shape) * LT_STATISTICS);
}

size_t lt_cuda_attention_saved_bytes(lt_device *device, const lt_attention *shape) {
    (void)device;
    attention_job job = {};
    carver count = {};
    place_saved(shape, &count, &job);
    return count.used;
}

size_t lt_cuda_attention_scratch_bytes(lt_device *device, const lt_attention *shape) {
    attention_job job = {};
    carver backward = {}, statistics = {};
    place_backward(device, shape, &backward, &job);
    place_statistics(shape, &statistics, &job);
    return backward.used > statistics.used ? backward.used : statistics.used;
}

static bool is_wide(const void *address, int64_t stride) {
    return reinterpret_cast<uintptr_t>(address) % 16 == 0 && stride % 8 == 0;
}

static attention_job open_job(const lt_attention *shape) {
    attention_job job = {};
    job.batch = shape->batch;
    job.query_length = shape->query_length;
    job.key_length = shape->key_length;
    job.heads = shape->heads;
    job.key_heads = shape->key_heads;
    job.head_size = shape->head_size;
    job.bias_length = shape->bias_length;
    job.query_stride = shape->query_stride;
    job.key_stride = shape->key_stride;
    job.scale = LOG2_E / std::sqrt(static_cast<float>(shape->head_size));
    job.q = bf16_of(shape->q);
    job.k = bf16_of(shape->k);
    job.v = bf16_of(shape->v);
    job.bias = floats_of(shape->bias);
    job.tau = floats_of(shape->tau);
    job.starts = integers_of(shape->document_starts);
    job.output = bf16_of(shape->output);
    job.wide = is_wide(job.q, job.query_stride) && is_wide(job.k, job.key_stride) &&
               is_wide(job.v, job.key_stride) && is_wide(job.output, 0);
    job.tile_rows = divide_up(shape->query_length, int64_t{TILE_ROWS});
    job.live_words = live_words_of(shape);
    carver saved = {shape->saved.address, 0};
    place_saved(shape, &saved, &job);
    return job;
}

/* Two neighbouring elements of a row's `left`, by one load where it is `wide` and they are there. */
static __device__ __forceinline__ float2 read_pair(const bf16 *at, int64_t left, bool wide) {
    if (wide && left > 1) {
        const unsigned pair = *reinterpret_cast<const unsigned *>(at);
        return {__uint_as_float(pair << 16), __uint_as_float(pair & 0xffff0000u)};
    }
    return {__bfloat162float(at[0]), left > 1 ? __bfloat162float(at[1]) : 0.0f};
}

/* One warp a row: delta_i = do_i . o_i - (tau/n_i) do_i . u_i, and do_i . u_i / n_i for tau. Reads 6 bytes an
 * element of the output. */
static __global__ void row_gradients(attention_job job) {
    const int64_t row = static_cast<int64_t>(blockIdx.x) * WARPS + threadIdx.x / WARP;
    if (row >= job.batch * job.heads * job.query_length) return;
    const attention_query at = query_of_row(job, row);
    const int64_t place = ((at.batch * job.query_length + at.query) * job.heads + at.head) * job.head_size;
    const bool wide = job.wide && job.head_size % 2 == 0;
    float with_output = 0.0f, with_live = 0.0f;
    for (int64_t d = threadIdx.x % WARP * 2; d < job.head_size; d += 2 * WARP) {
        const int64_t left = job.head_size - d;
        const float2 d_output = read_pair(job.d_output + place + d, left, wide),
                     output = read_pair(job.output + place + d, left, wide);
        with_output = fmaf(d_output.x, output.x, fmaf(d_output.y, output.y, with_output));
        if (job.bias_length == 0) continue;
        const float2 live = read_pair(job.live_sum + place + d, left, wide);
        with_live = fmaf(d_output.x, live.x, fmaf(d_output.y, live.y, with_live));
    }
    with_output = warp_sum(with_output);
    with_live = warp_sum(with_live);
    if (threadIdx.x % WARP != 0) return;
    const float2 softmax = job.softmax[row];
    job.rows[row] = {softmax.x, softmax.y, at.offset, fmaf(-at.offset, with_live, with_output)};
    job.tau_terms[row] = with_live / static_cast<float>(at.last - at.first + 1);
}

/* One block a head: d_tau += the terms of its rows, each thread's in order, then the threads' by halves. Reads
 * 4 bytes a row. */
static __global__ void sum_tau_terms(attention_job job) {
    LT_SHARED(double, sums, TAU_THREADS);
    const int64_t head = blockIdx.x;
    double sum = 0;
    for (int64_t batch = 0; batch < job.batch; batch++)
        for (int64_t query = threadIdx.x; query < job.query_length; query += TAU_THREADS)
            sum += static_cast<double>(job.tau_terms[(batch * job.heads + head) * job.query_length + query]);
    sums[threadIdx.x] = sum;
    for (unsigned half = TAU_THREADS / 2; half > 0; half /= 2) {
        __syncthreads();
        if (threadIdx.x < half) sums[threadIdx.x] += sums[threadIdx.x + half];
    }
    if (threadIdx.x == 0) job.d_tau[head] += static_cast<float>(sums[0]);
}

/* Distances that a block of sum_biases() has, one for each lane; its warps share a head's blocks. */
enum { SUM_DISTANCES = WARP, SUM_WARPS = 8 };

static __host__ __device__ __forceinline__ int64_t bias_parts(const attention_job &job) {
    return divide_up(job.bias_length, int64_t{SUM_DISTANCES});
}

/* Fast kernels: db += the sums of a head's blocks, each warp's in order, then the warps' in order. Reads 4
 * bytes a sum. */
static __global__ void sum_biases(attention_job job) {
    LT_SHARED(double, sums, SUM_DISTANCES *SUM_WARPS);
    const int64_t head = blockIdx.x / bias_parts(job), blocks = job.bias_blocks;
    const int warp = static_cast<int>(threadIdx.x / WARP), lane = static_cast<int>(threadIdx.x % WARP);
    const int64_t distance = blockIdx.x % bias_parts(job) * SUM_DISTANCES + lane;
    double sum = 0;
    for (int64_t i = warp; i < job.batch * blocks && distance < job.bias_length; i += SUM_WARPS) {
        const int64_t block = (i / blocks * job.heads + head) * blocks + i % blocks;
        sum += static_cast<double>(job.bias_sums[block * job.bias_length + distance]);
    }
    sums[threadIdx.x] = sum;
    __syncthreads();
    if (warp > 0 || distance >= job.bias_length) return;
    for (int other = 1; other < SUM_WARPS; other++) sum += sums[other * WARP + lane];
    job.d_bias[head * job.bias_length + distance] += static_cast<float>(sum);
}

/* One warp a statistic of a head: adds up its tile rows. Reads 8 bytes a tile row. */
static __global__ void sum_statistics(attention_job job, double *sums) {
    const int64_t head = blockIdx.x, tile_rows = job.tile_rows;
    const int statistic = static_cast<int>(threadIdx.x / WARP), lane = static_cast<int>(threadIdx.x % WARP);
    double sum = 0;
    for (int64_t batch = 0; batch < job.batch; batch++)
        for (int64_t i = lane; i < tile_rows; i += WARP)
            sum += job.statistics[((batch * job.heads + head) * tile_rows + i) * LT_STATISTICS + statistic];
    sum = warp_sum(sum);
    if (lane == 0) sums[head * LT_STATISTICS + statistic] += sum;
}

void lt_cuda_attention_forward(lt_device *base, const lt_attention *shape) {
    if (rows_of(shape) == 0) return;
    cuda_device *device = cuda_of(base);
    const attention_job job = open_job(shape);
    if (!lt_cuda_attention_is_fast(shape->head_size))
        lt_cuda_attention_general_forward(device, job);
    else if (device->capability != HOPPER || !job.wide || !lt_cuda_attention_sm90_forward(device, job))
        lt_cuda_attention_fast_forward(device, job);
}

void lt_cuda_attention_backward(lt_device *base, const lt_attention *shape,
                                const lt_attention_gradients *gradients) {
    if (rows_of(shape) == 0) return;
    cuda_device *device = cuda_of(base);
    attention_job job = open_job(shape);
    job.d_output = bf16_of(gradients->d_output);
    job.d_q = bf16_of(gradients->d_q);
    job.d_k = bf16_of(gradients->d_k);
    job.d_v = bf16_of(gradients->d_v);
    job.d_bias = floats_of(gradients->d_bias);
    job.d_tau = floats_of(gradients->d_tau);
    job.wide = job.wide && is_wide(job.d_output, 0) && is_wide(job.d_q, 0) && is_wide(job.d_k, 0) &&
               is_wide(job.d_v, 0);
    carver scratch = {device->scratch, 0};
    place_backward(base, shape, &scratch, &job);
    const unsigned blocks = static_cast<unsigned>(divide_up(rows_of(shape), int64_t{WARPS}));
    lt_cuda_note(device, "attention backward (rows)",
                 LT_LAUNCH(row_gradients, blocks, THREADS, 0, device->stream, job));
    if (!lt_cuda_attention_is_fast(shape->head_size)) {
        lt_cuda_attention_general_backward(device, job);
    } else if (lt_cuda_backward_in_one_kernel(base, shape)) {
        if (device->capability != HOPPER || !job.wide || !lt_cuda_attention_sm90_backward(device, job))
            lt_cuda_attention_fast_backward(device, job);
    } else {
        lt_cuda_attention_fast_queries(device, job);
        lt_cuda_attention_fast_keys(device, job);
    }
    if (lt_cuda_attention_is_fast(shape->head_size) && shape->bias_length > 0)
        lt_cuda_note(device, "attention backward (bias)",
                     LT_LAUNCH(sum_biases, static_cast<unsigned>(shape->heads * bias_parts(job)),
                               SUM_DISTANCES * SUM_WARPS, 0, device->stream, job));
    if (shape->bias_length > 0)
        lt_cuda_note(device, "attention backward (tau)",
                     LT_LAUNCH(sum_tau_terms, static_cast<unsigned>(shape->heads), TAU_THREADS, 0,
                               device->stream, job));
}

void lt_cuda_attention_statistics(lt_device *base, const lt_attention *shape, lt_mem statistics) {
    if (rows_of(shape) == 0) return;
    cuda_device *device = cuda_of(base);
    attention_job job = open_job(shape);
    carver scratch = {device->scratch, 0};
    place_statistics(shape, &scratch, &job);
    (lt_cuda_attention_is_fast(shape->head_size) ? lt_cuda_attention_fast_statistics
                                                 : lt_cuda_attention_general_statistics)(device, job);
    lt_cuda_note(device, "attention statistics (sums)",
                 LT_LAUNCH(sum_statistics, static_cast<unsigned>(shape->heads), WARP * LT_STATISTICS, 0,
                           device->stream, job, doubles_of(statistics)));
}
