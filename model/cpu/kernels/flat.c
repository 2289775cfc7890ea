/* Kernels over flat arrays: sums and the optimiser. */
#include "model/cpu/kernels/names.h"

void LT_KERNEL(lt_add)(float *to, const float *from, int64_t count) {
    int64_t i = 0;
    for (; i + LANES <= count; i += LANES) v_store(to + i, v_load(to + i) + v_load(from + i));
    for (; i < count; i++) to[i] += from[i];
}

/* Squares are summed as doubles: a gradient of 1e30 is large, not infinite. */
double LT_KERNEL(lt_sum_squares)(const float *values, int64_t count) {
    enum { PARTS = 16 };
    double part[PARTS] = {0};
    int64_t i = 0;
    for (; i + PARTS <= count; i += PARTS)
        for (int j = 0; j < PARTS; j++) part[j] += (double)values[i + j] * (double)values[i + j];
    for (; i < count; i++) part[i % PARTS] += (double)values[i] * (double)values[i];
    double sum = 0;
    for (int j = 0; j < PARTS; j++) sum += part[j];
    return sum;
}

typedef struct adamw_factors {
    vec scale, keep1, add1, keep2, add2, step, root_scale, epsilon, decay;
} adamw_factors;

/* lr (mhat / (sqrt(vhat) + eps) + decay w), with the bias corrections folded into `step` and `root_scale`. */
LT_INLINE void adamw_update(const adamw_factors *f, vec *w, vec g, vec *m, vec *v) {
    g = g * f->scale;
    *m = v_fma(*m, f->keep1, g * f->add1);
    *v = v_fma(*v, f->keep2, g * g * f->add2);
    const vec denominator = v_fma(v_sqrt(*v), f->root_scale, f->epsilon);
    *w = *w - v_fma(f->decay, *w, f->step * (*m / denominator));
}

void LT_KERNEL(lt_adamw)(float *weights, const float *gradients, float *m, float *v, int64_t count,
                         const lt_adamw *options) {
    const adamw_factors factors = {
        .scale = v_set((float)options->gradient_scale),
        .keep1 = v_set((float)options->beta1),
        .add1 = v_set((float)(1 - options->beta1)),
        .keep2 = v_set((float)options->beta2),
        .add2 = v_set((float)(1 - options->beta2)),
        .step = v_set((float)(options->learning_rate / options->bias_correction1)),
        .root_scale = v_set((float)(1 / sqrt(options->bias_correction2))),
        .epsilon = v_set((float)options->epsilon),
        .decay = v_set((float)(options->learning_rate * options->weight_decay)),
    };
    vec w1, m1, v1;
    int64_t i = 0;
    for (; i + LANES <= count; i += LANES) {
        w1 = v_load(weights + i), m1 = v_load(m + i), v1 = v_load(v + i);
        adamw_update(&factors, &w1, v_load(gradients + i), &m1, &v1);
        v_store(weights + i, w1);
        v_store(m + i, m1);
        v_store(v + i, v1);
    }
    const int64_t rest = count - i;
    if (rest == 0) return;
    w1 = v_load_part(weights + i, rest, 0.0f), m1 = v_load_part(m + i, rest, 0.0f),
    v1 = v_load_part(v + i, rest, 0.0f);
    adamw_update(&factors, &w1, v_load_part(gradients + i, rest, 0.0f), &m1, &v1);
    v_store_part(weights + i, w1, rest);
    v_store_part(m + i, m1, rest);
    v_store_part(v + i, v1, rest);
}
