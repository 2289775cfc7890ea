/* The operations that treat tokens one by one, matrix products and the optimiser. */
#include "tests/reference/reference.h"

#include <math.h>
#include <stdlib.h>

double *ref_new(int64_t count) {
    double *values = calloc((size_t)(count > 0 ? count : 1), sizeof *values);
    if (values == NULL) abort();
    return values;
}

void ref_gemm(const ref_gemm_shape *shape, const double *a, const double *b, double *c) {
    for (int64_t i = 0; i < shape->m; i++)
        for (int64_t j = 0; j < shape->n; j++) {
            double sum = shape->accumulate ? c[i * shape->ldc + j] : 0.0;
            for (int64_t l = 0; l < shape->k; l++) {
                double left = shape->a_transposed ? a[l * shape->lda + i] : a[i * shape->lda + l];
                double right = shape->b_transposed ? b[j * shape->ldb + l] : b[l * shape->ldb + j];
                sum += left * right;
            }
            c[i * shape->ldc + j] = sum;
        }
}

void ref_embedding_forward(const int32_t *tokens, const double *weight, int64_t rows, int64_t hidden,
                           double *out) {
    for (int64_t t = 0; t < rows; t++)
        for (int64_t c = 0; c < hidden; c++) out[t * hidden + c] = weight[tokens[t] * hidden + c];
}

void ref_embedding_backward(const int32_t *tokens, const double *d_out, int64_t rows, int64_t hidden,
                            double *d_weight) {
    for (int64_t t = 0; t < rows; t++)
        for (int64_t c = 0; c < hidden; c++) d_weight[tokens[t] * hidden + c] += d_out[t * hidden + c];
}

void ref_rmsnorm_forward(const double *x, const double *weight, double epsilon, int64_t rows, int64_t hidden,
                         double *y, double *inverse_rms) {
    for (int64_t t = 0; t < rows; t++) {
        double squares = 0.0;
        for (int64_t c = 0; c < hidden; c++) squares += x[t * hidden + c] * x[t * hidden + c];
        inverse_rms[t] = 1.0 / sqrt(squares / (double)hidden + epsilon);
        for (int64_t c = 0; c < hidden; c++)
            y[t * hidden + c] = x[t * hidden + c] * inverse_rms[t] * weight[c];
    }
}

/* With r = 1 / rms: y_c = x_c r w_c and dr/dx_c = -r^3 x_c / hidden. */
void ref_rmsnorm_backward(const double *x, const double *weight, const double *inverse_rms, const double *d_y,
                          int64_t rows, int64_t hidden, double *d_x, double *d_weight) {
    for (int64_t t = 0; t < rows; t++) {
        double r = inverse_rms[t], d_r = 0.0;
        for (int64_t c = 0; c < hidden; c++) {
            d_r += d_y[t * hidden + c] * x[t * hidden + c] * weight[c];
            d_weight[c] += d_y[t * hidden + c] * x[t * hidden + c] * r;
        }
        for (int64_t c = 0; c < hidden; c++)
            d_x[t * hidden + c] +=
                d_y[t * hidden + c] * weight[c] * r - d_r * r * r * r * x[t * hidden + c] / (double)hidden;
    }
}

void ref_rope_table(double theta, int64_t positions, int64_t head_size, double *table) {
    int64_t half = head_size / 2;
    for (int64_t p = 0; p < positions; p++)
        for (int64_t i = 0; i < half; i++) {
            double angle = (double)p * pow(theta, -2.0 * (double)i / (double)head_size);
            table[p * head_size + i] = cos(angle);
            table[p * head_size + half + i] = sin(angle);
        }
}

void ref_rope(double *x, int64_t stride, const double *table, int64_t rows, int64_t length, int64_t first,
              int64_t heads, int64_t head_size, bool inverse) {
    int64_t half = head_size / 2;
    for (int64_t t = 0; t < rows; t++) {
        const double *cosine = table + (first + t % length) * head_size, *sine = cosine + half;
        for (int64_t h = 0; h < heads; h++) {
            double *low = x + t * stride + h * head_size, *high = low + half;
            for (int64_t i = 0; i < half; i++) {
                double s = inverse ? -sine[i] : sine[i], a = low[i], b = high[i];
                low[i] = a * cosine[i] - b * s;
                high[i] = b * cosine[i] + a * s;
            }
        }
    }
}

static double sigmoid(double x) {
    return 1.0 / (1.0 + exp(-x));
}

void ref_swiglu_forward(const double *gate_up, int64_t rows, int64_t ffn, double *out) {
    for (int64_t t = 0; t < rows; t++)
        for (int64_t c = 0; c < ffn; c++) {
            double gate = gate_up[t * 2 * ffn + c], up = gate_up[t * 2 * ffn + ffn + c];
            out[t * ffn + c] = gate * sigmoid(gate) * up;
        }
}

void ref_swiglu_backward(const double *gate_up, const double *d_out, int64_t rows, int64_t ffn,
                         double *d_gate_up) {
    for (int64_t t = 0; t < rows; t++)
        for (int64_t c = 0; c < ffn; c++) {
            double gate = gate_up[t * 2 * ffn + c], up = gate_up[t * 2 * ffn + ffn + c];
            double s = sigmoid(gate), d = d_out[t * ffn + c];
            d_gate_up[t * 2 * ffn + c] = d * up * (s + gate * s * (1.0 - s));
            d_gate_up[t * 2 * ffn + ffn + c] = d * gate * s;
        }
}

void ref_cross_entropy(double *logits, const int32_t *targets, int64_t rows, int64_t vocabulary, double scale,
                       bool gradient, double *losses) {
    for (int64_t t = 0; t < rows; t++) {
        double *row = logits + t * vocabulary, largest = row[0], sum = 0.0;
        for (int64_t w = 1; w < vocabulary; w++) largest = fmax(largest, row[w]);
        for (int64_t w = 0; w < vocabulary; w++) sum += exp(row[w] - largest);
        losses[t] = log(sum) + largest - row[targets[t]];
        if (!gradient) continue;
        for (int64_t w = 0; w < vocabulary; w++)
            row[w] = (exp(row[w] - largest) / sum - (w == targets[t] ? 1.0 : 0.0)) * scale;
    }
}

void ref_sum_segments(const double *values, int64_t segments, int64_t length, double *sums) {
    for (int64_t s = 0; s < segments; s++) {
        sums[s] = 0.0;
        for (int64_t i = 0; i < length; i++) sums[s] += values[s * length + i];
    }
}

double ref_sum_squares(const double *values, int64_t count) {
    double sum = 0.0;
    for (int64_t i = 0; i < count; i++) sum += values[i] * values[i];
    return sum;
}

void ref_adamw(double *weights, const double *gradients, double *m, double *v, int64_t count,
               const lt_adamw *adamw) {
    for (int64_t i = 0; i < count; i++) {
        double g = gradients[i] * adamw->gradient_scale;
        m[i] = adamw->beta1 * m[i] + (1.0 - adamw->beta1) * g;
        v[i] = adamw->beta2 * v[i] + (1.0 - adamw->beta2) * g * g;
        double step =
            m[i] / adamw->bias_correction1 / (sqrt(v[i] / adamw->bias_correction2) + adamw->epsilon);
        weights[i] -= adamw->learning_rate * (step + adamw->weight_decay * weights[i]);
    }
}
