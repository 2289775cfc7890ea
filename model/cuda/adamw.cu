/* The optimiser. Bound by memory: 80 to 90 % of its bandwidth are expected (not measured). */
#include "model/cuda/vector.h"

constexpr unsigned THREADS = 256;
constexpr int FOUR = 4;

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

struct adamw_groups {
    adamw_factors of[LT_ADAMW_GROUPS];
    bool frozen[LT_ADAMW_GROUPS];
};

/* A block a piece, all parameters in one launch. Where places are aligned a thread has 4 elements of each
 * array at a time. 16 bytes read and 12 written an element, one pass for all: bound by memory. */
static __global__ void __launch_bounds__(THREADS)
    adamw(float *weights, const float *gradients, float *m, float *v, const lt_flat_piece *pieces, bool aligned,
          adamw_groups groups) {
    const lt_flat_piece piece = pieces[blockIdx.x];
    if (groups.frozen[piece.group]) return;
    const adamw_factors factors = groups.of[piece.group];
    const int thread = static_cast<int>(threadIdx.x), threads = THREADS;
    const int packed = aligned && piece.first % FOUR == 0 ? piece.count / FOUR * FOUR : 0;
    weights += piece.first, gradients += piece.first, m += piece.first, v += piece.first;
#pragma unroll 2
    for (int i = thread * FOUR; i < packed; i += threads * FOUR) {
        float weight[FOUR], gradient[FOUR], first[FOUR], second[FOUR];
        load_all(weights + i, weight);
        load_all(gradients + i, gradient);
        load_all(m + i, first);
        load_all(v + i, second);
#pragma unroll
        for (int j = 0; j < FOUR; j++) update(factors, gradient[j], weight[j], first[j], second[j]);
        store_all(weights + i, weight);
        store_all(m + i, first);
        store_all(v + i, second);
    }
    for (int i = packed + thread; i < piece.count; i += threads)
        update(factors, gradients[i], weights[i], m[i], v[i]);
}

static adamw_factors factors_of(const lt_adamw *options) {
    return {
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
}

void lt_cuda_adamw(lt_device *base, lt_mem weights, lt_mem gradients, lt_mem m, lt_mem v, lt_mem pieces,
                   int64_t count, const lt_adamw options[LT_ADAMW_GROUPS]) {
    cuda_device *device = cuda_of(base);
    if (count == 0) return;
    adamw_groups groups;
    for (int i = 0; i < LT_ADAMW_GROUPS; i++) {
        groups.of[i] = factors_of(&options[i]);
        groups.frozen[i] = options[i].frozen;
    }
    lt_cuda_note(device, "AdamW",
                 LT_LAUNCH(adamw, blocks(count), THREADS, 0, device->stream, floats_of(weights),
                           floats_of(gradients), floats_of(m), floats_of(v), pieces_of(pieces),
                           all_aligned(weights, gradients, m, v), groups));
}
