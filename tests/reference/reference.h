/* The float64 reference: every operation of model/ops.h, and the whole model, written as plainly as the
 * formulas.
 *
 * Nothing here is fast and nothing is clever: attention fills whole T x T matrices, sums run in index order.
 * That is what makes it fit to judge a device by. tests/unit/test_reference.c checks it against finite
 * differences and a case worked out by hand; the tests of a device and of the model then compare with it.
 * Shapes, names and `+=` are those of model/ops.h. All functions are local; a missing allocation aborts the
 * test program.
 */
#ifndef LT_TESTS_REFERENCE_H
#define LT_TESTS_REFERENCE_H

#include "model/ops.h"
#include "model/registry.h"

/* `count` zeroed doubles, to be freed by the caller. */
double *ref_new(int64_t count);

/* c [m, n] = a [m, k] b [k, n] (+ c); transposes and row lengths as lt_gemm has them. */
typedef struct ref_gemm_shape {
    int64_t m, n, k, lda, ldb, ldc;
    bool a_transposed, b_transposed, accumulate;
} ref_gemm_shape;

void ref_gemm(const ref_gemm_shape *shape, const double *a, const double *b, double *c);

void ref_embedding_forward(const int32_t *tokens, const double *weight, int64_t rows, int64_t hidden,
                           double *out);
void ref_embedding_backward(const int32_t *tokens, const double *d_out, int64_t rows, int64_t hidden,
                            double *d_weight);

void ref_rmsnorm_forward(const double *x, const double *weight, double epsilon, int64_t rows, int64_t hidden,
                         double *y, double *inverse_rms);
void ref_rmsnorm_backward(const double *x, const double *weight, const double *inverse_rms, const double *d_y,
                          int64_t rows, int64_t hidden, double *d_x, double *d_weight);

/* table [positions, head_size]: cos, then sin, of position * theta^(-2 i / head_size). */
void ref_rope_table(double theta, int64_t positions, int64_t head_size, double *table);
void ref_rope(double *x, int64_t stride, const double *table, int64_t rows, int64_t length, int64_t first,
              int64_t heads, int64_t head_size, bool inverse);

void ref_swiglu_forward(const double *gate_up, int64_t rows, int64_t ffn, double *out);
void ref_swiglu_backward(const double *gate_up, const double *d_out, int64_t rows, int64_t ffn,
                         double *d_gate_up);

void ref_cross_entropy(double *logits, const int32_t *targets, int64_t rows, int64_t vocabulary, double scale,
                       bool gradient, double *losses);

void ref_sum_segments(const double *values, int64_t segments, int64_t length, double *sums);
double ref_sum_squares(const double *values, int64_t count);
void ref_adamw(double *weights, const double *gradients, double *m, double *v, int64_t count,
               const lt_adamw *adamw);

/* As lt_attention. */
typedef struct ref_attention {
    int64_t batch, query_length, key_length, heads, key_heads, head_size, bias_length;
    const double *q, *k, *v;
    int64_t query_stride, key_stride;
    const double *bias, *tau;
    const int32_t *document_starts;
} ref_attention;

/* output [batch * Tq, heads * head_size]. Where they are not NULL: `statistics` [heads, LT_STATISTICS] gains
 * this pass's sums (tiles, which are a device's own, excepted), and `kink` [batch * Tq, heads] becomes how
 * near each row's entries come to the threshold: the least |p + tau/n| / max(p, |tau|/n). A computation in
 * float32 may take the other side, with other gradients, where this is of the order of its rounding. Rows
 * with one visible key count as far (p is exactly 1 in any arithmetic), and so does every row of softmax
 * attention. */
void ref_attention_forward(const ref_attention *attention, double *output, double *statistics, double *kink);

/* Overwrites d_q, d_k, d_v (strides as q, k, v); adds to d_bias and d_tau, which may be NULL under softmax.
 */
void ref_attention_backward(const ref_attention *attention, const double *d_output, double *d_q, double *d_k,
                            double *d_v, double *d_bias, double *d_tau);

/* The whole model over one micro-batch. */
typedef struct ref_batch {
    int64_t rows, length;
    const int32_t *inputs, *targets, *document_starts; /* [rows, length]; starts may be NULL */
} ref_batch;

typedef struct ref_result {
    double *loss_sums;  /* [rows] */
    double *gradients;  /* registry layout, +=, of the loss sum times scale; NULL: forward only */
    double *logits;     /* [rows * length, vocabulary], or NULL */
    double *statistics; /* [layers, heads, LT_STATISTICS], +=, or NULL */
    double kink;        /* the least of ref_attention_forward() over all layers */
} ref_result;

/* `parameters` in registry layout. */
void ref_model(const lt_model_shape *shape, const lt_registry *registry, const double *parameters,
               const ref_batch *batch, double scale, ref_result *result);

#endif
