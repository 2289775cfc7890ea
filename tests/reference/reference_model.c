/* The whole model: x += o_proj(attention(norm(x))), x += down(silu(gate(norm(x))) * up(norm(x))), final norm,
 * head. */
#include "tests/reference/reference.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* What one layer keeps for its backward pass; widths in elements a token. */
typedef struct layer_state {
    double *x;            /* input [hidden] */
    double *normed, *rms; /* attention norm: output [hidden], 1 / rms [1] */
    double *qkv;          /* rotated [(heads + 2 key_heads) head_size] */
    double *mixed;        /* attention output [hidden] */
    double *y;            /* after the attention branch [hidden] */
    double *mlp_normed, *mlp_rms;
    double *gate_up; /* [2 ffn] */
    double *product; /* [ffn] */
} layer_state;

typedef struct pass {
    const lt_model_shape *shape;
    const lt_registry *registry;
    const double *parameters;
    double *gradients;
    const ref_batch *batch;
    int64_t tokens, width; /* of qkv */
    double *table;         /* of rope */
    layer_state *layers;
    double *x, *normed, *rms, *logits; /* after the last layer */
} pass;

static int64_t offset_of(const pass *p, int64_t layer, const char *name) {
    char full[128];
    if (layer < 0)
        snprintf(full, sizeof full, "%s", name);
    else
        snprintf(full, sizeof full, "model.layers.%lld.%s", (long long)layer, name);
    const lt_parameter *parameter = lt_registry_find(p->registry, full);
    if (parameter == NULL) {
        fprintf(stderr, "reference: no parameter %s\n", full);
        abort();
    }
    return parameter->offset;
}

static const double *weight_of(const pass *p, int64_t layer, const char *name) {
    return p->parameters + offset_of(p, layer, name);
}

static double *gradient_of(const pass *p, int64_t layer, const char *name) {
    return p->gradients + offset_of(p, layer, name);
}

static const char *head_name(const pass *p) {
    return p->shape->tied ? "model.embeddings.weight" : "lm_head.weight";
}

/* y [tokens, ldy] (+)= x [tokens, inputs] weight^T, weight [outputs, inputs]. */
static void linear(const pass *p, const double *x, int64_t inputs, const double *weight, int64_t outputs,
                   double *y, int64_t ldy, bool accumulate) {
    ref_gemm_shape g = {.m = p->tokens,
                        .n = outputs,
                        .k = inputs,
                        .lda = inputs,
                        .ldb = inputs,
                        .ldc = ldy,
                        .b_transposed = true,
                        .accumulate = accumulate};
    ref_gemm(&g, x, weight, y);
}

/* d_x += d_y weight and d_weight += d_y^T x. */
static void linear_backward(const pass *p, const double *x, int64_t inputs, const double *weight,
                            int64_t outputs, const double *d_y, int64_t ldy, double *d_x, double *d_weight) {
    ref_gemm_shape to_x = {.m = p->tokens,
                           .n = inputs,
                           .k = outputs,
                           .lda = ldy,
                           .ldb = inputs,
                           .ldc = inputs,
                           .accumulate = true};
    ref_gemm(&to_x, d_y, weight, d_x);
    ref_gemm_shape to_weight = {.m = outputs,
                                .n = inputs,
                                .k = p->tokens,
                                .lda = ldy,
                                .ldb = inputs,
                                .ldc = inputs,
                                .a_transposed = true,
                                .accumulate = true};
    ref_gemm(&to_weight, d_y, x, d_weight);
}

static ref_attention attention_of(const pass *p, int64_t layer, const layer_state *s) {
    const lt_model_shape *shape = p->shape;
    int64_t size = lt_head_size(shape);
    bool lazy = shape->attention == LT_ATTENTION_LAZY;
    return (ref_attention){
        .batch = p->batch->rows,
        .query_length = p->batch->length,
        .key_length = p->batch->length,
        .heads = shape->heads,
        .key_heads = shape->key_heads,
        .head_size = size,
        .bias_length = lazy ? shape->bias_length : 0,
        .q = s->qkv,
        .k = s->qkv + shape->heads * size,
        .v = s->qkv + (shape->heads + shape->key_heads) * size,
        .query_stride = p->width,
        .key_stride = p->width,
        .bias = lazy ? weight_of(p, layer, "attn.learnable_bias_diagonals") : NULL,
        .tau = lazy ? weight_of(p, layer, "attn.tau") : NULL,
        .document_starts = p->batch->document_starts,
    };
}

/* q and k are neighbours, so one rotation serves both. */
static void rotate(const pass *p, double *qkv, bool inverse) {
    int64_t heads = p->shape->heads + p->shape->key_heads;
    ref_rope(qkv, p->width, p->table, p->tokens, p->batch->length, 0, heads, lt_head_size(p->shape), inverse);
}

static void forward_layer(pass *p, int64_t layer, ref_result *result) {
    const lt_model_shape *shape = p->shape;
    layer_state *s = &p->layers[layer];
    int64_t hidden = shape->hidden, ffn = shape->intermediate, keys = shape->key_heads * lt_head_size(shape);
    size_t bytes = sizeof(double) * (size_t)(p->tokens * hidden);
    memcpy(s->x, p->x, bytes);
    ref_rmsnorm_forward(s->x, weight_of(p, layer, "attn_norm.weight"), shape->norm_eps, p->tokens, hidden,
                        s->normed, s->rms);
    linear(p, s->normed, hidden, weight_of(p, layer, "attn.q_proj.weight"), hidden, s->qkv, p->width, false);
    linear(p, s->normed, hidden, weight_of(p, layer, "attn.k_proj.weight"), keys, s->qkv + hidden, p->width,
           false);
    linear(p, s->normed, hidden, weight_of(p, layer, "attn.v_proj.weight"), keys, s->qkv + hidden + keys,
           p->width, false);
    rotate(p, s->qkv, false);

    ref_attention at = attention_of(p, layer, s);
    double *statistics =
        result->statistics == NULL ? NULL : result->statistics + layer * shape->heads * LT_STATISTICS;
    double *kink = ref_new(p->tokens * shape->heads);
    ref_attention_forward(&at, s->mixed, statistics, kink);
    for (int64_t i = 0; i < p->tokens * shape->heads; i++) result->kink = fmin(result->kink, kink[i]);
    free(kink);

    memcpy(s->y, s->x, bytes);
    linear(p, s->mixed, hidden, weight_of(p, layer, "attn.o_proj.weight"), hidden, s->y, hidden, true);
    ref_rmsnorm_forward(s->y, weight_of(p, layer, "mlp_norm.weight"), shape->norm_eps, p->tokens, hidden,
                        s->mlp_normed, s->mlp_rms);
    linear(p, s->mlp_normed, hidden, weight_of(p, layer, "mlp.gate_proj.weight"), ffn, s->gate_up, 2 * ffn,
           false);
    linear(p, s->mlp_normed, hidden, weight_of(p, layer, "mlp.up_proj.weight"), ffn, s->gate_up + ffn,
           2 * ffn, false);
    ref_swiglu_forward(s->gate_up, p->tokens, ffn, s->product);
    memcpy(p->x, s->y, bytes);
    linear(p, s->product, ffn, weight_of(p, layer, "mlp.down_proj.weight"), hidden, p->x, hidden, true);
}

/* d_x [tokens, hidden]: the gradient of the layer's output on entry, of its input on return. */
static void backward_mlp(const pass *p, int64_t layer, double *d_x) {
    const layer_state *s = &p->layers[layer];
    int64_t hidden = p->shape->hidden, ffn = p->shape->intermediate;
    double *d_product = ref_new(p->tokens * ffn), *d_gate_up = ref_new(p->tokens * 2 * ffn);
    double *d_normed = ref_new(p->tokens * hidden);
    linear_backward(p, s->product, ffn, weight_of(p, layer, "mlp.down_proj.weight"), hidden, d_x, hidden,
                    d_product, gradient_of(p, layer, "mlp.down_proj.weight"));
    ref_swiglu_backward(s->gate_up, d_product, p->tokens, ffn, d_gate_up);
    linear_backward(p, s->mlp_normed, hidden, weight_of(p, layer, "mlp.gate_proj.weight"), ffn, d_gate_up,
                    2 * ffn, d_normed, gradient_of(p, layer, "mlp.gate_proj.weight"));
    linear_backward(p, s->mlp_normed, hidden, weight_of(p, layer, "mlp.up_proj.weight"), ffn, d_gate_up + ffn,
                    2 * ffn, d_normed, gradient_of(p, layer, "mlp.up_proj.weight"));
    ref_rmsnorm_backward(s->y, weight_of(p, layer, "mlp_norm.weight"), s->mlp_rms, d_normed, p->tokens,
                         hidden, d_x, gradient_of(p, layer, "mlp_norm.weight"));
    free(d_product);
    free(d_gate_up);
    free(d_normed);
}

static void backward_attention(const pass *p, int64_t layer, double *d_x) {
    const lt_model_shape *shape = p->shape;
    const layer_state *s = &p->layers[layer];
    int64_t hidden = shape->hidden, keys = shape->key_heads * lt_head_size(shape);
    double *d_mixed = ref_new(p->tokens * hidden), *d_qkv = ref_new(p->tokens * p->width);
    double *d_normed = ref_new(p->tokens * hidden);
    bool lazy = shape->attention == LT_ATTENTION_LAZY;
    linear_backward(p, s->mixed, hidden, weight_of(p, layer, "attn.o_proj.weight"), hidden, d_x, hidden,
                    d_mixed, gradient_of(p, layer, "attn.o_proj.weight"));
    ref_attention at = attention_of(p, layer, s);
    ref_attention_backward(&at, d_mixed, d_qkv, d_qkv + hidden, d_qkv + hidden + keys,
                           lazy ? gradient_of(p, layer, "attn.learnable_bias_diagonals") : NULL,
                           lazy ? gradient_of(p, layer, "attn.tau") : NULL);
    rotate(p, d_qkv, true);
    linear_backward(p, s->normed, hidden, weight_of(p, layer, "attn.q_proj.weight"), hidden, d_qkv, p->width,
                    d_normed, gradient_of(p, layer, "attn.q_proj.weight"));
    linear_backward(p, s->normed, hidden, weight_of(p, layer, "attn.k_proj.weight"), keys, d_qkv + hidden,
                    p->width, d_normed, gradient_of(p, layer, "attn.k_proj.weight"));
    linear_backward(p, s->normed, hidden, weight_of(p, layer, "attn.v_proj.weight"), keys,
                    d_qkv + hidden + keys, p->width, d_normed, gradient_of(p, layer, "attn.v_proj.weight"));
    ref_rmsnorm_backward(s->x, weight_of(p, layer, "attn_norm.weight"), s->rms, d_normed, p->tokens, hidden,
                         d_x, gradient_of(p, layer, "attn_norm.weight"));
    free(d_mixed);
    free(d_qkv);
    free(d_normed);
}

/* Expects the gradient of the logits where the logits were. */
static void backward(const pass *p) {
    const lt_model_shape *shape = p->shape;
    double *d_normed = ref_new(p->tokens * shape->hidden), *d_x = ref_new(p->tokens * shape->hidden);
    linear_backward(p, p->normed, shape->hidden, weight_of(p, -1, head_name(p)), shape->vocabulary, p->logits,
                    shape->vocabulary, d_normed, gradient_of(p, -1, head_name(p)));
    ref_rmsnorm_backward(p->x, weight_of(p, -1, "model.norm.weight"), p->rms, d_normed, p->tokens,
                         shape->hidden, d_x, gradient_of(p, -1, "model.norm.weight"));
    for (int64_t layer = shape->layers - 1; layer >= 0; layer--) {
        backward_mlp(p, layer, d_x);
        backward_attention(p, layer, d_x);
    }
    ref_embedding_backward(p->batch->inputs, d_x, p->tokens, shape->hidden,
                           gradient_of(p, -1, "model.embeddings.weight"));
    free(d_normed);
    free(d_x);
}

static void open_pass(pass *p) {
    const lt_model_shape *shape = p->shape;
    int64_t size = lt_head_size(shape), n = p->tokens, hidden = shape->hidden, ffn = shape->intermediate;
    p->width = (shape->heads + 2 * shape->key_heads) * size;
    p->table = ref_new(p->batch->length * size);
    ref_rope_table(shape->rope_theta, p->batch->length, size, p->table);
    p->layers = calloc((size_t)shape->layers, sizeof *p->layers);
    if (p->layers == NULL) abort();
    for (int64_t l = 0; l < shape->layers; l++)
        p->layers[l] = (layer_state){.x = ref_new(n * hidden),
                                     .normed = ref_new(n * hidden),
                                     .rms = ref_new(n),
                                     .qkv = ref_new(n * p->width),
                                     .mixed = ref_new(n * hidden),
                                     .y = ref_new(n * hidden),
                                     .mlp_normed = ref_new(n * hidden),
                                     .mlp_rms = ref_new(n),
                                     .gate_up = ref_new(n * 2 * ffn),
                                     .product = ref_new(n * ffn)};
    p->x = ref_new(n * hidden);
    p->normed = ref_new(n * hidden);
    p->rms = ref_new(n);
    p->logits = ref_new(n * shape->vocabulary);
}

static void close_pass(pass *p) {
    for (int64_t l = 0; l < p->shape->layers; l++) {
        layer_state *s = &p->layers[l];
        double *all[] = {s->x, s->normed,     s->rms,     s->qkv,     s->mixed,
                         s->y, s->mlp_normed, s->mlp_rms, s->gate_up, s->product};
        for (size_t i = 0; i < sizeof all / sizeof all[0]; i++) free(all[i]);
    }
    free(p->layers);
    free(p->table);
    free(p->x);
    free(p->normed);
    free(p->rms);
    free(p->logits);
}

void ref_model(const lt_model_shape *shape, const lt_registry *registry, const double *parameters,
               const ref_batch *batch, double scale, ref_result *result) {
    pass p = {.shape = shape,
              .registry = registry,
              .parameters = parameters,
              .gradients = result->gradients,
              .batch = batch,
              .tokens = batch->rows * batch->length};
    open_pass(&p);
    result->kink = INFINITY;
    ref_embedding_forward(batch->inputs, weight_of(&p, -1, "model.embeddings.weight"), p.tokens,
                          shape->hidden, p.x);
    for (int64_t layer = 0; layer < shape->layers; layer++) forward_layer(&p, layer, result);
    ref_rmsnorm_forward(p.x, weight_of(&p, -1, "model.norm.weight"), shape->norm_eps, p.tokens, shape->hidden,
                        p.normed, p.rms);
    linear(&p, p.normed, shape->hidden, weight_of(&p, -1, head_name(&p)), shape->vocabulary, p.logits,
           shape->vocabulary, false);
    if (result->logits != NULL)
        memcpy(result->logits, p.logits, sizeof(double) * (size_t)(p.tokens * shape->vocabulary));

    double *losses = ref_new(p.tokens);
    ref_cross_entropy(p.logits, batch->targets, p.tokens, shape->vocabulary, scale, p.gradients != NULL,
                      losses);
    ref_sum_segments(losses, batch->rows, batch->length, result->loss_sums);
    free(losses);
    if (p.gradients != NULL) backward(&p);
    close_pass(&p);
}
