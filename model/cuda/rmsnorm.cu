/* RMSNorm: statistics in float32, inputs and outputs rounded once. Bound by memory: 70 to 80 % of its
 * bandwidth are expected (not measured). */
#include "model/cuda/vector.h"

constexpr unsigned MOST_THREADS = 256;

/* A block a row, 8 columns a thread and turn. The row is read twice, the second time from the cache: 2 bytes
 * read and 2 written an element. */
template <bool wide>
static __global__ void __launch_bounds__(MOST_THREADS)
    normalise(const bf16 *x, const float *weight, float epsilon, int64_t hidden, bf16 *y,
              float *inverse_rms) {
    float own[PACK], scale[PACK], squares = 0.0f;
    x += blockIdx.x * hidden;
    y += blockIdx.x * hidden;
    for (int64_t i = threadIdx.x * PACK; i < hidden; i += blockDim.x * PACK) {
        load<wide>(x + i, hidden - i, own);
#pragma unroll
        for (int j = 0; j < PACK; j++) squares = fmaf(own[j], own[j], squares);
    }
    const float inverse = 1.0f / sqrtf(block_sum(squares) / static_cast<float>(hidden) + epsilon);
    if (threadIdx.x == 0) inverse_rms[blockIdx.x] = inverse;
    for (int64_t i = threadIdx.x * PACK; i < hidden; i += blockDim.x * PACK) {
        load<wide>(x + i, hidden - i, own);
        load<wide>(weight + i, hidden - i, scale);
#pragma unroll
        for (int j = 0; j < PACK; j++) own[j] = own[j] * inverse * scale[j];
        store<wide>(y + i, hidden - i, own);
    }
}

void lt_cuda_rmsnorm_forward(lt_device *base, lt_mem x, lt_mem weight, double epsilon, int64_t rows,
                             int64_t hidden, lt_mem y, lt_mem inverse_rms) {
    cuda_device *device = cuda_of(base);
    if (rows == 0) return;
    const auto kernel = is_wide(hidden, x, weight, y) ? normalise<true> : normalise<false>;
    lt_cuda_note(device, "a norm",
                 LT_LAUNCH(kernel, blocks(rows), threads_for(divide_up<int64_t>(hidden, PACK), MOST_THREADS),
                           0, device->stream, bf16_of(x), floats_of(weight), static_cast<float>(epsilon),
                           hidden, bf16_of(y), floats_of(inverse_rms)));
}

/* The backward pass sums d_weight over rows in two steps: a block each for at most MOST_PARTS runs of rows,
 * whose sums lie in scratch, then over the runs. A run's sums are in shared memory while it goes on, or where
 * rows are too long for that in scratch at once. The number of runs depends on that of the rows alone. */
constexpr int64_t MOST_PARTS = 1024, MOST_SHARED = 8192; /* columns: 32 KiB */

static int64_t rows_per_part(int64_t rows) {
    return divide_up(rows, MOST_PARTS);
}

/* Fewer rows may make more parts, but never more than there are rows. */
size_t lt_cuda_rmsnorm_scratch_bytes(int64_t rows, int64_t hidden) {
    return sizeof(float) * static_cast<size_t>((rows < MOST_PARTS ? rows : MOST_PARTS) * hidden);
}

/* With x^ = x inverse: d_x += inverse (w d_y - x^ mean(x^ w d_y)), and the part += d_y x^. Each thread has
 * its columns of the part to itself. Rows are read twice, the second time from the cache: 6 bytes read (x,
 * d_y, d_x) and 2 written an element; in shared memory 4 and 4. */
template <bool wide, bool in_shared>
static __global__ void __launch_bounds__(MOST_THREADS)
    normalise_backward(const bf16 *x, const float *weight, const float *inverse_rms, const bf16 *d_y,
                       int64_t rows, int64_t per_part, int64_t hidden, bf16 *d_x, float *parts) {
    LT_DYNAMIC_SHARED(float, shared);
    float *part = parts + blockIdx.x * hidden, *sums = in_shared ? shared : part;
    float own[PACK], scale[PACK], gradient[PACK], result[PACK], sum[PACK] = {};
    const int64_t begin = blockIdx.x * per_part, end = rows - begin < per_part ? rows : begin + per_part;
    for (int64_t i = threadIdx.x * PACK; i < hidden; i += blockDim.x * PACK)
        store<wide>(sums + i, hidden - i, sum);
    for (int64_t row = begin; row < end; row++) {
        const bf16 *row_x = x + row * hidden, *row_d = d_y + row * hidden;
        const float inverse = inverse_rms[row];
        float dot = 0.0f;
        for (int64_t i = threadIdx.x * PACK; i < hidden; i += blockDim.x * PACK) {
            load<wide>(row_x + i, hidden - i, own);
            load<wide>(row_d + i, hidden - i, gradient);
            load<wide>(weight + i, hidden - i, scale);
#pragma unroll
            for (int j = 0; j < PACK; j++) dot = fmaf(own[j] * scale[j], gradient[j], dot);
        }
        const float mean = block_sum(dot) * inverse / static_cast<float>(hidden);
        for (int64_t i = threadIdx.x * PACK; i < hidden; i += blockDim.x * PACK) {
            const int64_t left = hidden - i;
            load<wide>(row_x + i, left, own);
            load<wide>(row_d + i, left, gradient);
            load<wide>(weight + i, left, scale);
            load<wide>(d_x + row * hidden + i, left, result);
            load<wide>(sums + i, left, sum);
#pragma unroll
            for (int j = 0; j < PACK; j++) {
                const float normed = own[j] * inverse;
                result[j] = fmaf(inverse, fmaf(scale[j], gradient[j], -(normed * mean)), result[j]);
                sum[j] = fmaf(gradient[j], normed, sum[j]);
            }
            store<wide>(d_x + row * hidden + i, left, result);
            store<wide>(sums + i, left, sum);
        }
    }
    for (int64_t i = threadIdx.x * PACK; in_shared && i < hidden; i += blockDim.x * PACK) {
        load<wide>(sums + i, hidden - i, sum);
        store<wide>(part + i, hidden - i, sum);
    }
}

/* d_weight += parts. A block has 32 columns and up to 32 groups of parts: thread (c, g) of G groups adds
 * parts g, g + G, ... of column c, and then the first 32 threads what lies in shared memory (4 KiB), in
 * order. */
constexpr unsigned COLUMNS = 32, MOST_GROUPS = 32;

static __global__ void __launch_bounds__(COLUMNS *MOST_GROUPS)
    add_parts(const float *parts, int64_t count, int64_t hidden, float *d_weight) {
    LT_SHARED(float, sums, MOST_GROUPS *COLUMNS);
    const int64_t column = static_cast<int64_t>(blockIdx.x) * COLUMNS + threadIdx.x;
    float sum = 0.0f;
#pragma unroll 8
    for (int64_t part = threadIdx.y; part < count; part += blockDim.y)
        if (column < hidden) sum += parts[part * hidden + column];
    sums[threadIdx.y * COLUMNS + threadIdx.x] = sum;
    __syncthreads();
    if (threadIdx.y > 0 || column >= hidden) return;
    for (unsigned group = 1; group < blockDim.y; group++) sum += sums[group * COLUMNS + threadIdx.x];
    d_weight[column] += sum;
}

void lt_cuda_rmsnorm_backward(lt_device *base, lt_mem x, lt_mem weight, lt_mem inverse_rms, lt_mem d_y,
                              int64_t rows, int64_t hidden, lt_mem d_x, lt_mem d_weight) {
    cuda_device *device = cuda_of(base);
    if (rows == 0) return;
    const bool wide = is_wide(hidden, x, weight, d_y, d_x), in_shared = hidden <= MOST_SHARED;
    const auto kernel =
        wide ? (in_shared ? normalise_backward<true, true> : normalise_backward<true, false>)
             : (in_shared ? normalise_backward<false, true> : normalise_backward<false, false>);
    const int64_t per_part = rows_per_part(rows), parts = divide_up(rows, per_part);
    float *scratch = reinterpret_cast<float *>(device->scratch);
    lt_cuda_note(device, "a norm's backward pass",
                 LT_LAUNCH(kernel, blocks(parts), threads_for(divide_up<int64_t>(hidden, PACK), MOST_THREADS),
                           in_shared ? sizeof(float) * static_cast<size_t>(hidden) : 0, device->stream,
                           bf16_of(x), floats_of(weight), floats_of(inverse_rms), bf16_of(d_y), rows,
                           per_part, hidden, bf16_of(d_x), scratch));
    lt_cuda_note(device, "a norm's backward pass",
                 LT_LAUNCH(add_parts, blocks(divide_up<int64_t>(hidden, COLUMNS)),
                           dim3(COLUMNS, parts < MOST_GROUPS ? blocks(parts) : MOST_GROUPS), 0,
                           device->stream, scratch, parts, hidden, floats_of(d_weight)));
}
