/* The loss, and its gradient in place of the logits: of a whole vocabulary, or of one that is cut among
 * ranks. Bound by memory, of whose bandwidth 70 % are expected (not measured); the exponentials take two
 * thirds of that time. */
#include "model/cuda/vector.h"

constexpr unsigned MOST_THREADS = 512;
/* Less than any logit but -inf, whose exponential is then 0 and not NaN. */
constexpr float LOWEST = -3.402823466e38f;

struct row_sum {
    float largest; /* logit */
    double sum;    /* of exp(logit - largest); NaN or inf where a logit is */
};

/* Of the block's row, for all threads. A thread goes once through its columns, with the largest logit so far
 * and a float32 sum of exponentials under it, of a few hundred terms at most; the threads' sums are doubles.
 */
template <bool wide>
static __device__ __forceinline__ row_sum sum_exponentials(const bf16 *logits, int64_t count) {
    float own[PACK], largest = LOWEST, sum = 0.0f;
    for (int64_t i = threadIdx.x * PACK; i < count; i += blockDim.x * PACK) {
        load_end<wide>(logits + i, count - i, own, -INFINITY);
        float before = largest;
#pragma unroll
        for (int j = 0; j < PACK; j++) largest = fmaxf(largest, own[j]);
        sum *= expf(before - largest);
#pragma unroll
        for (int j = 0; j < PACK; j++) sum += expf(own[j] - largest);
    }
    const float of_all = block_largest(largest);
    return {of_all, block_sum(static_cast<double>(sum) * exp(static_cast<double>(largest - of_all)))};
}

/* logits = (p - [target]) scale, from the logits; 0 from `count` to `width`. */
template <bool wide>
static __device__ __forceinline__ void write_gradients(bf16 *logits, int64_t count, int64_t width,
                                                       int64_t target, float largest, double sum,
                                                       double scale) {
    const float factor = static_cast<float>(scale / sum), less = static_cast<float>(-scale);
    float own[PACK];
    for (int64_t i = threadIdx.x * PACK; i < width; i += blockDim.x * PACK) {
        load_end<wide>(logits + i, count - i, own, -INFINITY);
#pragma unroll
        for (int j = 0; j < PACK; j++)
            own[j] = fmaf(expf(own[j] - largest), factor, i + j == target ? less : 0.0f);
        store<wide>(logits + i, width - i, own);
    }
}

/* A block a row, 8 columns a thread and turn: 2 bytes read and 2 written a logit, and 2 bytes more from the
 * L2, which the rows that the GPU has at a time fit into. */
template <bool wide>
static __global__ void __launch_bounds__(MOST_THREADS)
    lose(bf16 *logits, const int32_t *targets, int64_t vocabulary, int64_t width, double scale, bool gradient,
         double *losses) {
    const int64_t target = targets[blockIdx.x];
    logits += blockIdx.x * width;
    const float target_logit = read(logits + target);
    const row_sum row = sum_exponentials<wide>(logits, vocabulary);
    if (threadIdx.x == 0)
        losses[blockIdx.x] =
            log(row.sum) + (static_cast<double>(row.largest) - static_cast<double>(target_logit));
    if (gradient) write_gradients<wide>(logits, vocabulary, width, target, row.largest, row.sum, scale);
}

void lt_cuda_cross_entropy(lt_device *base, lt_mem logits, lt_mem targets, int64_t rows, int64_t vocabulary,
                           int64_t width, double scale, bool gradient, lt_mem losses) {
    cuda_device *device = cuda_of(base);
    if (rows == 0) return;
    const auto kernel = is_wide(width, logits) ? lose<true> : lose<false>;
    lt_cuda_note(device, "the loss",
                 LT_LAUNCH(kernel, blocks(rows),
                           threads_for(divide_up<int64_t>(width, PACK), MOST_THREADS), 0, device->stream,
                           bf16_of(logits), integers_of(targets), vocabulary, width, scale, gradient,
                           doubles_of(losses)));
}

/* ---- a cut vocabulary ---- */

/* lt_cut_loss as kernels take it. */
struct cut_rows {
    int64_t rows;
    int rank, ranks;
    lt_vocabulary vocabulary;
    bf16 *logits;
    const int32_t *targets;
    double *parts, *losses;
    double scale;
    bool gradient;
};

static __device__ __forceinline__ double *parts_of(const cut_rows &cut, int rank) {
    return cut.parts + (rank * cut.rows + blockIdx.x) * LT_LOSS_PARTS;
}

/* The column of the target's logit; -1 where another rank has it. */
static __device__ __forceinline__ int64_t target_of(const cut_rows &cut) {
    const int64_t column = cut.targets[blockIdx.x] - cut.vocabulary.first;
    return column >= 0 && column < cut.vocabulary.count ? column : -1;
}

/* The logits stay as they are: a gradient of them is rounded once, by the other half. A rank with no token
 * has a sum of 0. */
template <bool wide> static __global__ void __launch_bounds__(MOST_THREADS) give_part(cut_rows cut) {
    const bf16 *logits = cut.logits + blockIdx.x * cut.vocabulary.width;
    const row_sum row = sum_exponentials<wide>(logits, cut.vocabulary.count);
    if (threadIdx.x > 0) return;
    const int64_t target = target_of(cut);
    double *parts = parts_of(cut, cut.rank);
    parts[LT_LOSS_LARGEST] = row.largest;
    parts[LT_LOSS_SUM] = row.sum;
    parts[LT_LOSS_TARGET] = target < 0 ? 0.0 : static_cast<double>(read(logits + target));
}

/* Ranks in order. */
static __device__ row_sum join_parts(const cut_rows &cut, double *loss) {
    double largest = parts_of(cut, 0)[LT_LOSS_LARGEST], sum = 0.0, target = 0.0;
    for (int rank = 1; rank < cut.ranks; rank++)
        largest = fmax(largest, parts_of(cut, rank)[LT_LOSS_LARGEST]);
    for (int rank = 0; rank < cut.ranks; rank++) {
        const double *parts = parts_of(cut, rank);
        sum += parts[LT_LOSS_SUM] * exp(parts[LT_LOSS_LARGEST] - largest);
        target += parts[LT_LOSS_TARGET];
    }
    *loss = log(sum) + (largest - target);
    return {static_cast<float>(largest), sum};
}

template <bool wide> static __global__ void __launch_bounds__(MOST_THREADS) join(cut_rows cut) {
    LT_SHARED(row_sum, joined, 1);
    if (threadIdx.x == 0) joined[0] = join_parts(cut, cut.losses + blockIdx.x);
    if (!cut.gradient) return;
    __syncthreads();
    write_gradients<wide>(cut.logits + blockIdx.x * cut.vocabulary.width, cut.vocabulary.count,
                          cut.vocabulary.width, target_of(cut), joined[0].largest, joined[0].sum, cut.scale);
}

static void launch_cut(lt_device *base, const lt_cut_loss *loss, const char *half, void (*kernel)(cut_rows)) {
    cuda_device *device = cuda_of(base);
    if (loss->rows == 0) return;
    const cut_rows cut = {loss->rows,
                          loss->rank,
                          loss->ranks,
                          loss->vocabulary,
                          bf16_of(loss->logits),
                          integers_of(loss->targets),
                          doubles_of(loss->parts),
                          doubles_of(loss->losses),
                          loss->scale,
                          loss->gradient};
    const unsigned threads = threads_for(divide_up<int64_t>(loss->vocabulary.width, PACK), MOST_THREADS);
    lt_cuda_note(device, half, LT_LAUNCH(kernel, blocks(loss->rows), threads, 0, device->stream, cut));
}

void lt_cuda_cross_entropy_part(lt_device *base, const lt_cut_loss *loss) {
    const bool wide = is_wide(loss->vocabulary.width, loss->logits);
    launch_cut(base, loss, "a part of the loss", wide ? give_part<true> : give_part<false>);
}

void lt_cuda_cross_entropy_join(lt_device *base, const lt_cut_loss *loss) {
    const bool wide = is_wide(loss->vocabulary.width, loss->logits);
    launch_cut(base, loss, "joining parts of the loss", wide ? join<true> : join<false>);
}
