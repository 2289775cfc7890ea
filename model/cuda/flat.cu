/* Operations over flat arrays: what is bound by memory alone, and sums whose order is fixed. 80 to 90 % of
 * the memory's bandwidth are expected (not measured). */
#include "model/cuda/vector.h"

constexpr unsigned THREADS = 256;
constexpr int FOUR = 4, STRIPS = 2;
constexpr int64_t BLOCK = static_cast<int64_t>(THREADS) * FOUR * STRIPS; /* elements */

static unsigned blocks_of(int64_t count) {
    return blocks(divide_up(count, BLOCK));
}

/* to += from. A thread has 2 x 4 elements of each; 3 elements moved for one sum. */
template <bool wide, typename number>
static __global__ void __launch_bounds__(THREADS) add(number *to, const number *from, int64_t count) {
    const int64_t begin = blockIdx.x * BLOCK, end = count - begin < BLOCK ? count : begin + BLOCK;
    if (wide && end - begin == BLOCK) {
#pragma unroll
        for (int strip = 0; strip < STRIPS; strip++) {
            const int64_t i = begin + (strip * THREADS + threadIdx.x) * FOUR;
            float sum[FOUR], more[FOUR];
            load_all(to + i, sum);
            load_all(from + i, more);
#pragma unroll
            for (int j = 0; j < FOUR; j++) sum[j] += more[j];
            store_all(to + i, sum);
        }
    } else {
        for (int64_t i = begin + threadIdx.x; i < end; i += THREADS)
            write(to + i, read(to + i) + read(from + i));
    }
}

template <typename number>
static cudaError_t launch_add(cuda_device *device, bool wide, number *to, const number *from, int64_t count) {
    if (wide)
        return LT_LAUNCH((add<true, number>), blocks_of(count), THREADS, 0, device->stream, to, from, count);
    return LT_LAUNCH((add<false, number>), blocks_of(count), THREADS, 0, device->stream, to, from, count);
}

void lt_cuda_add(lt_device *base, lt_mem to, lt_mem from, int64_t count) {
    cuda_device *device = cuda_of(base);
    if (count == 0) return;
    const bool wide = all_aligned(to, from);
    lt_cuda_note(device, "adding",
                 to.type == LT_BFLOAT16 ? launch_add(device, wide, bf16_of(to), bf16_of(from), count)
                                        : launch_add(device, wide, floats_of(to), floats_of(from), count));
}

/* to = from, rounded to nearest, ties to even: 4 bytes read and 2 written an element. */
template <bool wide>
static __global__ void __launch_bounds__(THREADS) round_to(bf16 *to, const float *from, int64_t count) {
    const int64_t begin = blockIdx.x * BLOCK, end = count - begin < BLOCK ? count : begin + BLOCK;
    if (wide && end - begin == BLOCK) {
#pragma unroll
        for (int strip = 0; strip < STRIPS; strip++) {
            const int64_t i = begin + (strip * THREADS + threadIdx.x) * FOUR;
            float values[FOUR];
            load_all(from + i, values);
            store_all(to + i, values);
        }
    } else {
        for (int64_t i = begin + threadIdx.x; i < end; i += THREADS) write(to + i, from[i]);
    }
}

void lt_cuda_round_to(lt_device *base, lt_mem to, lt_mem from, int64_t count) {
    cuda_device *device = cuda_of(base);
    if (count == 0) return;
    const auto kernel = all_aligned(to, from) ? round_to<true> : round_to<false>;
    lt_cuda_note(
        device, "rounding",
        LT_LAUNCH(kernel, blocks_of(count), THREADS, 0, device->stream, bf16_of(to), floats_of(from), count));
}

/* A block sums a piece: thread t has elements 4 t ... of every 2,048 in one double, 64 squares in all, and
 * the threads' doubles are added along a fixed tree. Squares as doubles: a gradient of 1e30 is large, not
 * infinite. */
constexpr unsigned PIECE_THREADS = 512;

template <bool wide>
static __device__ __forceinline__ double square_thread(const float *values, int count) {
    double sum = 0.0;
#pragma unroll 4
    for (int i = static_cast<int>(threadIdx.x) * FOUR; i < count; i += static_cast<int>(PIECE_THREADS) * FOUR) {
        float own[FOUR];
        load_end<wide>(values + i, count - i, own);
#pragma unroll
        for (int j = 0; j < FOUR; j++)
            sum = fma(static_cast<double>(own[j]), static_cast<double>(own[j]), sum);
    }
    return sum;
}

static __global__ void __launch_bounds__(PIECE_THREADS)
    sum_squares(const float *values, const lt_flat_piece *pieces, bool wide, double *sums) {
    const lt_flat_piece piece = pieces[blockIdx.x];
    const double sum = block_sum(wide && piece.first % FOUR == 0
                                     ? square_thread<true>(values + piece.first, piece.count)
                                     : square_thread<false>(values + piece.first, piece.count));
    if (threadIdx.x == 0) sums[blockIdx.x] = sum;
}

void lt_cuda_sum_squares(lt_device *base, lt_mem values, lt_mem pieces, int64_t count, lt_mem sums) {
    cuda_device *device = cuda_of(base);
    if (count == 0) return;
    lt_cuda_note(device, "a sum of squares",
                 LT_LAUNCH(sum_squares, blocks(count), PIECE_THREADS, 0, device->stream, floats_of(values),
                           pieces_of(pieces), all_aligned(values), doubles_of(sums)));
}

/* A block a segment: its threads bring 1,024 doubles at a time to shared memory (8 KiB), and the first one
 * adds them in order, which is the contract. */
constexpr unsigned SEGMENT_THREADS = 256;
constexpr int BROUGHT = 1024;

static __global__ void __launch_bounds__(SEGMENT_THREADS)
    sum_segments(const double *values, int64_t length, double *sums) {
    LT_SHARED(double, brought, BROUGHT);
    values += blockIdx.x * length;
    double sum = 0.0;
    for (int64_t begin = 0; begin < length; begin += BROUGHT) {
        const int count = static_cast<int>(length - begin < BROUGHT ? length - begin : BROUGHT);
        for (int i = static_cast<int>(threadIdx.x); i < count; i += SEGMENT_THREADS)
            brought[i] = values[begin + i];
        __syncthreads();
#pragma unroll 8
        for (int i = 0; threadIdx.x == 0 && i < count; i++) sum += brought[i];
        __syncthreads();
    }
    if (threadIdx.x == 0) sums[blockIdx.x] = sum;
}

void lt_cuda_sum_segments(lt_device *base, lt_mem values, int64_t segments, int64_t length, lt_mem sums) {
    cuda_device *device = cuda_of(base);
    if (segments == 0) return;
    lt_cuda_note(device, "sums of segments",
                 LT_LAUNCH(sum_segments, blocks(segments), SEGMENT_THREADS, 0, device->stream,
                           doubles_of(values), length, doubles_of(sums)));
}
