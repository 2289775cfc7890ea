/* Kernels over one row of a matrix: norms, rotation, activation, loss. */
#include "model/cpu/kernels/names.h"

void LT_KERNEL(lt_rmsnorm_forward)(const float *x, const float *weight, float epsilon, int64_t hidden,
                                   float *y, float *inverse_rms) {
    vec squares = v_set(0.0f);
    int64_t i = 0;
    for (; i + LANES <= hidden; i += LANES) squares = v_fma(v_load(x + i), v_load(x + i), squares);
    if (i < hidden) {
        const vec end = v_load_part(x + i, hidden - i, 0.0f);
        squares = v_fma(end, end, squares);
    }
    const float inverse = 1.0f / sqrtf(v_sum(squares) / (float)hidden + epsilon);
    *inverse_rms = inverse;
    for (i = 0; i + LANES <= hidden; i += LANES)
        v_store(y + i, v_load(x + i) * v_set(inverse) * v_load(weight + i));
    for (; i < hidden; i++) y[i] = x[i] * inverse * weight[i];
}

/* With x^ = x inverse: d_x += inverse (w d_y - x^ mean(x^ w d_y)). */
void LT_KERNEL(lt_rmsnorm_backward)(const float *x, const float *weight, float inverse_rms, const float *d_y,
                                    int64_t hidden, float *d_x, float *d_weight) {
    vec dot = v_set(0.0f);
    int64_t i = 0;
    for (; i + LANES <= hidden; i += LANES)
        dot = v_fma(v_load(x + i), v_load(weight + i) * v_load(d_y + i), dot);
    float rest = 0.0f;
    for (; i < hidden; i++) rest += x[i] * weight[i] * d_y[i];
    const float mean = (v_sum(dot) + rest) * inverse_rms / (float)hidden;
    const vec inverse = v_set(inverse_rms), means = v_set(mean);
    for (i = 0; i + LANES <= hidden; i += LANES) {
        const vec normed = v_load(x + i) * inverse, gradient = v_load(d_y + i);
        const vec inner = v_load(weight + i) * gradient - normed * means;
        v_store(d_x + i, v_fma(inverse, inner, v_load(d_x + i)));
        v_store(d_weight + i, v_fma(gradient, normed, v_load(d_weight + i)));
    }
    for (; i < hidden; i++) {
        const float normed = x[i] * inverse_rms;
        d_x[i] += inverse_rms * (weight[i] * d_y[i] - normed * mean);
        d_weight[i] += d_y[i] * normed;
    }
}

void LT_KERNEL(lt_rope)(float *x, const float *angles, int64_t heads, int64_t head_size, bool inverse) {
    const int64_t half = head_size / 2;
    const float *cosine = angles, *sine = angles + half, sign = inverse ? -1.0f : 1.0f;
    for (int64_t head = 0; head < heads; head++, x += head_size) {
        int64_t d = 0;
        for (; d + LANES <= half; d += LANES) {
            const vec low = v_load(x + d), high = v_load(x + half + d);
            const vec c = v_load(cosine + d), s = v_load(sine + d) * v_set(sign);
            v_store(x + d, low * c - high * s);
            v_store(x + half + d, high * c + low * s);
        }
        for (; d < half; d++) {
            const float low = x[d], high = x[half + d], s = sine[d] * sign;
            x[d] = low * cosine[d] - high * s;
            x[half + d] = high * cosine[d] + low * s;
        }
    }
}

void LT_KERNEL(lt_swiglu_forward)(const float *gate, const float *up, int64_t ffn, float *out) {
    int64_t i = 0;
    for (; i + LANES <= ffn; i += LANES) {
        const vec g = v_load(gate + i);
        v_store(out + i, g * v_sigmoid(g) * v_load(up + i));
    }
    if (i == ffn) return;
    const vec g = v_load_part(gate + i, ffn - i, 0.0f);
    v_store_part(out + i, g * v_sigmoid(g) * v_load_part(up + i, ffn - i, 0.0f), ffn - i);
}

/* silu'(g) = sigmoid(g) (1 + g (1 - sigmoid(g))). */
LT_INLINE void swiglu_gradients(vec g, vec u, vec d, vec *d_gate, vec *d_up, vec *out) {
    const vec one = v_set(1.0f), sigmoid = v_sigmoid(g), silu = g * sigmoid;
    *d_gate = d * u * sigmoid * (one + g * (one - sigmoid));
    *d_up = d * silu;
    *out = silu * u;
}

void LT_KERNEL(lt_swiglu_backward)(const float *gate, const float *up, const float *d_out, int64_t ffn,
                                   float *d_gate, float *d_up, float *out) {
    vec dg, du, o;
    int64_t i = 0;
    for (; i + LANES <= ffn; i += LANES) {
        swiglu_gradients(v_load(gate + i), v_load(up + i), v_load(d_out + i), &dg, &du, &o);
        v_store(d_gate + i, dg);
        v_store(d_up + i, du);
        v_store(out + i, o);
    }
    const int64_t rest = ffn - i;
    if (rest == 0) return;
    swiglu_gradients(v_load_part(gate + i, rest, 0.0f), v_load_part(up + i, rest, 0.0f),
                     v_load_part(d_out + i, rest, 0.0f), &dg, &du, &o);
    v_store_part(d_gate + i, dg, rest);
    v_store_part(d_up + i, du, rest);
    v_store_part(out + i, o, rest);
}

/* Sums of at most this many values are kept in float32 lanes before they go to double. */
enum { LOSS_RUN = 1024 };

LT_INLINE double exponentials(float *logits, int64_t count, bool keep, float *largest_logit) {
    vec largest = v_set(-INFINITY);
    int64_t i = 0;
    for (; i + LANES <= count; i += LANES) largest = v_max(v_load(logits + i), largest);
    if (i < count) largest = v_max(v_load_part(logits + i, count - i, -INFINITY), largest);
    const float max = *largest_logit = v_largest(largest);

    double sum = 0;
    for (int64_t begin = 0; begin < count; begin += LOSS_RUN) {
        const int64_t end = begin + LOSS_RUN < count ? begin + LOSS_RUN : count;
        vec run = v_set(0.0f);
        for (i = begin; i + LANES <= end; i += LANES) {
            const vec e = v_exp(v_load(logits + i) - v_set(max));
            if (keep) v_store(logits + i, e);
            run = run + e;
        }
        if (i < end) {
            const vec e = v_exp(v_load_part(logits + i, end - i, -INFINITY) - v_set(max));
            if (keep) v_store_part(logits + i, e, end - i);
            run = run + e;
        }
        sum += v_sum_double(run);
    }
    return sum;
}

LT_INLINE void multiply(float *values, float factor, int64_t count) {
    int64_t i = 0;
    for (; i + LANES <= count; i += LANES) v_store(values + i, v_load(values + i) * v_set(factor));
    for (; i < count; i++) values[i] *= factor;
}

double LT_KERNEL(lt_cross_entropy)(float *logits, int64_t vocabulary, int32_t target, float scale,
                                   bool gradient) {
    float largest;
    const float target_logit = logits[target];
    const double sum = exponentials(logits, vocabulary, gradient, &largest);
    if (gradient) {
        multiply(logits, (float)((double)scale / sum), vocabulary);
        logits[target] -= scale;
    }
    return log(sum) + ((double)largest - (double)target_logit);
}

double LT_KERNEL(lt_exponentials)(float *logits, int64_t count, bool keep, float *largest) {
    return exponentials(logits, count, keep, largest);
}

void LT_KERNEL(lt_multiply)(float *values, float factor, int64_t count) {
    multiply(values, factor, count);
}
