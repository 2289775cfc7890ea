/* Lazy and softmax attention by the formulas of the paper, one (row of the batch, head) at a time. */
#include "tests/reference/reference.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* Of one row and head: probabilities and weights [Tq, Tk], 0 where masked. */
typedef struct weights {
    double *p, *a;
} weights;

static const double *query(const ref_attention *at, int64_t b, int64_t i, int64_t h) {
    return at->q + (b * at->query_length + i) * at->query_stride + h * at->head_size;
}

/* Offset of key j, the key head that query head h reads, in k and v. */
static int64_t key_offset(const ref_attention *at, int64_t b, int64_t j, int64_t h) {
    int64_t key_head = h / (at->heads / at->key_heads);
    return (b * at->key_length + j) * at->key_stride + key_head * at->head_size;
}

static double dot(const double *x, const double *y, int64_t count) {
    double sum = 0.0;
    for (int64_t c = 0; c < count; c++) sum += x[c] * y[c];
    return sum;
}

static int64_t position(const ref_attention *at, int64_t i) {
    return at->key_length - at->query_length + i;
}

static int64_t start(const ref_attention *at, int64_t b, int64_t i) {
    return at->document_starts == NULL ? 0 : at->document_starts[b * at->query_length + i];
}

/* tau / n of query i, 0 under softmax. */
static double offset(const ref_attention *at, int64_t b, int64_t i, int64_t h) {
    return at->bias_length == 0 ? 0.0 : at->tau[h] / (double)(position(at, i) - start(at, b, i) + 1);
}

/* How far p + t lies from 0, relative to the greater of the two. At tau = 0 an entry is dead only where p
 * underflows, which happens earlier in float32. */
static double distance(double p, double t) {
    if (t == 0.0) return p < 1e-30 ? 0.0 : 1.0;
    return fabs(p + t) / fmax(p, fabs(t));
}

static void fill_weights(const ref_attention *at, int64_t b, int64_t h, weights *w, double *kink) {
    memset(w->p, 0, sizeof(double) * (size_t)(at->query_length * at->key_length));
    memset(w->a, 0, sizeof(double) * (size_t)(at->query_length * at->key_length));
    for (int64_t i = 0; i < at->query_length; i++) {
        int64_t first = start(at, b, i), last = position(at, i);
        double *p = w->p + i * at->key_length, *a = w->a + i * at->key_length;
        double largest = -INFINITY, sum = 0.0, nearest = INFINITY, t = offset(at, b, i, h);
        for (int64_t j = first; j <= last; j++) {
            p[j] = dot(query(at, b, i, h), at->k + key_offset(at, b, j, h), at->head_size) /
                   sqrt((double)at->head_size);
            if (last - j < at->bias_length) p[j] += at->bias[h * at->bias_length + last - j];
            largest = fmax(largest, p[j]);
        }
        for (int64_t j = first; j <= last; j++) sum += exp(p[j] - largest);
        for (int64_t j = first; j <= last; j++) {
            p[j] = exp(p[j] - largest) / sum;
            a[j] = at->bias_length == 0 ? p[j] : fmax(0.0, p[j] + t);
            if (at->bias_length > 0 && last > first) nearest = fmin(nearest, distance(p[j], t));
        }
        if (kink != NULL) kink[(b * at->query_length + i) * at->heads + h] = nearest;
    }
}

static void count_statistics(const ref_attention *at, int64_t b, const weights *w, double *s) {
    for (int64_t i = 0; i < at->query_length; i++) {
        int64_t first = start(at, b, i), last = position(at, i);
        const double *a = w->a + i * at->key_length;
        s[LT_STAT_ROWS] += 1.0;
        if (last > first) {
            s[LT_STAT_SINK] += a[first];
            s[LT_STAT_SINK_ROWS] += 1.0;
        }
        for (int64_t j = first; j <= last; j++) {
            s[LT_STAT_VISIBLE] += 1.0;
            s[LT_STAT_ZEROS] += a[j] == 0.0 ? 1.0 : 0.0;
            s[LT_STAT_MASS] += a[j];
        }
    }
}

void ref_attention_forward(const ref_attention *at, double *output, double *statistics, double *kink) {
    int64_t pairs = at->query_length * at->key_length, width = at->heads * at->head_size;
    weights w = {ref_new(pairs), ref_new(pairs)};
    for (int64_t b = 0; b < at->batch; b++)
        for (int64_t h = 0; h < at->heads; h++) {
            fill_weights(at, b, h, &w, kink);
            if (statistics != NULL) count_statistics(at, b, &w, statistics + h * LT_STATISTICS);
            for (int64_t i = 0; i < at->query_length; i++) {
                double *out = output + (b * at->query_length + i) * width + h * at->head_size;
                memset(out, 0, sizeof(double) * (size_t)at->head_size);
                for (int64_t j = 0; j < at->key_length; j++)
                    for (int64_t c = 0; c < at->head_size; c++)
                        out[c] += w.a[i * at->key_length + j] * at->v[key_offset(at, b, j, h) + c];
            }
        }
    free(w.p);
    free(w.a);
}

typedef struct gradients {
    const double *d_output;
    double *d_q, *d_k, *d_v, *d_bias, *d_tau;
} gradients;

static void backward_row(const ref_attention *at, int64_t b, int64_t h, int64_t i, const weights *w,
                         double *g, const gradients *to) {
    int64_t first = start(at, b, i), last = position(at, i), size = at->head_size;
    const double *p = w->p + i * at->key_length, *a = w->a + i * at->key_length;
    const double *d_out = to->d_output + ((b * at->query_length + i) * at->heads + h) * size;
    const double *q = query(at, b, i, h);
    double *d_q = to->d_q + (q - at->q), delta = 0.0, live = 0.0, scale = 1.0 / sqrt((double)size);
    for (int64_t j = first; j <= last; j++) {
        bool alive = at->bias_length == 0 || a[j] > 0.0;
        g[j] = alive ? dot(d_out, at->v + key_offset(at, b, j, h), size) : 0.0;
        delta += p[j] * g[j];
        live += g[j];
    }
    if (at->bias_length > 0) to->d_tau[h] += live / (double)(last - first + 1);
    for (int64_t j = first; j <= last; j++) {
        double ds = p[j] * (g[j] - delta);
        int64_t key = key_offset(at, b, j, h);
        if (last - j < at->bias_length) to->d_bias[h * at->bias_length + last - j] += ds;
        for (int64_t c = 0; c < size; c++) {
            d_q[c] += ds * at->k[key + c] * scale;
            to->d_k[key + c] += ds * q[c] * scale;
            to->d_v[key + c] += a[j] * d_out[c];
        }
    }
}

/* Zeroes the heads of every token, not what lies between them. */
static void zero_heads(double *x, int64_t tokens, int64_t stride, int64_t width) {
    for (int64_t t = 0; t < tokens; t++) memset(x + t * stride, 0, sizeof(double) * (size_t)width);
}

void ref_attention_backward(const ref_attention *at, const double *d_output, double *d_q, double *d_k,
                            double *d_v, double *d_bias, double *d_tau) {
    int64_t pairs = at->query_length * at->key_length;
    weights w = {ref_new(pairs), ref_new(pairs)};
    double *g = ref_new(at->key_length);
    gradients to = {d_output, d_q, d_k, d_v, d_bias, d_tau};
    zero_heads(d_q, at->batch * at->query_length, at->query_stride, at->heads * at->head_size);
    zero_heads(d_k, at->batch * at->key_length, at->key_stride, at->key_heads * at->head_size);
    zero_heads(d_v, at->batch * at->key_length, at->key_stride, at->key_heads * at->head_size);
    for (int64_t b = 0; b < at->batch; b++)
        for (int64_t h = 0; h < at->heads; h++) {
            fill_weights(at, b, h, &w, NULL);
            for (int64_t i = 0; i < at->query_length; i++) backward_row(at, b, h, i, &w, g, &to);
        }
    free(w.p);
    free(w.a);
    free(g);
}
