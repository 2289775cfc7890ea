/* The optimiser. Bound by memory: 80 to 90 % of its bandwidth are expected (not measured). */
#include "model/cuda/vector.h"

constexpr unsigned THREADS = 256;
constexpr int FOUR = 4;
constexpr int64_t BLOCK = static_cast<int64_t>(THREADS) * FOUR; /* elements */

struct adamw_factors {
    float scale, keep1, add1, keep2, add2, step, root_scale, epsilon, decay;
};

/* w -= lr (mhat / (sqrt(vhat) + eps) + decay w), with the bias corrections folded into `step` and
 * `root_scale`. What is fused is written out, so that the bits do not depend on where a compiler fuses. */
static __device__ __forceinline__ void update(const adamw_factors &f, float gradient, float &weight, float &m,
                                              float &v) {
    const float g = gradient * f.scale;
    m = fmaf(m, f.keep1, g * f.add1);
    v = fmaf(v, f.keep2, g * g * f.add2);
    const float denominator = fmaf(sqrtf(v), f.root_scale, f.epsilon);
    weight -= fmaf(f.decay, weight, f.step * (m / denominator));
}

/* A thread has 4 elements of each array: 16 bytes read and 12 written an element, one pass for all. */
template <bool wide>
static __global__ void __launch_bounds__(THREADS)
    adamw(float *weights, const float *gradients, float *m, float *v, int64_t count, adamw_factors factors) {
    const int64_t begin = blockIdx.x * BLOCK, end = count - begin < BLOCK ? count : begin + BLOCK;
    if (wide && end - begin == BLOCK) {
        const int64_t at = begin + threadIdx.x * FOUR;
        float weight[FOUR], gradient[FOUR], first[FOUR], second[FOUR];
        load_all(weights + at, weight);
        load_all(gradients + at, gradient);
        load_all(m + at, first);
        load_all(v + at, second);
#pragma unroll
        for (int i = 0; i < FOUR; i++) update(factors, gradient[i], weight[i], first[i], second[i]);
        store_all(weights + at, weight);
        store_all(m + at, first);
        store_all(v + at, second);
    } else {
        for (int64_t i = begin + threadIdx.x; i < end; i += THREADS)
            update(factors, gradients[i], weights[i], m[i], v[i]);
    }
}

void lt_cuda_adamw(lt_device *base, lt_mem weights, lt_mem gradients, lt_mem m, lt_mem v, int64_t count,
                   const lt_adamw *options) {
    cuda_device *device = cuda_of(base);
    if (count == 0) return;
    const adamw_factors factors = {
        static_cast<float>(options->gradient_scale),
        static_cast<float>(options->beta1),
        static_cast<float>(1 - options->beta1),
        static_cast<float>(options->beta2),
        static_cast<float>(1 - options->beta2),
        static_cast<float>(options->learning_rate / options->bias_correction1),
        static_cast<float>(1 / sqrt(options->bias_correction2)),
        static_cast<float>(options->epsilon),
        static_cast<float>(options->learning_rate * options->weight_decay),
    };
    const auto kernel = all_aligned(weights, gradients, m, v) ? adamw<true> : adamw<false>;
    lt_cuda_note(device, "AdamW",
                 LT_LAUNCH(kernel, blocks(divide_up(count, BLOCK)), THREADS, 0, device->stream,
                           floats_of(weights), floats_of(gradients), floats_of(m), floats_of(v), count,
                           factors));
}
