#include "tests/gpu/cudnn_attention.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* ---- the graphs: what cuDNN takes for flash attention, in the order that it knows ---- */

/* [batch, heads, rows, columns] of one attention. */
typedef struct shape {
    int64_t size[4];
} shape;

static shape of(const lt_attention *at, int64_t rows, int64_t columns) {
    return (shape){{at->batch, at->heads, rows, columns}};
}

/* Heads of tokens that are `stride` elements apart; transposed: as [batch, heads, head size, length]. */
static cudnn_tensor heads(cudnn_graph *g, const lt_attention *at, lt_mem mem, int64_t stride) {
    const int64_t strides[4] = {at->query_length * stride, at->head_size, stride, 1};
    return cudnn_stored(g, CUDNN_BFLOAT16, of(at, at->query_length, at->head_size).size, strides,
                        mem.address);
}

static cudnn_tensor heads_transposed(cudnn_graph *g, const lt_attention *at, lt_mem mem, int64_t stride) {
    const int64_t strides[4] = {at->query_length * stride, at->head_size, 1, stride};
    return cudnn_stored(g, CUDNN_BFLOAT16, of(at, at->head_size, at->query_length).size, strides,
                        mem.address);
}

static cudnn_tensor packed(cudnn_graph *g, const lt_attention *at, int64_t columns, lt_mem mem) {
    const int64_t rows = at->query_length,
                  strides[4] = {at->heads * rows * columns, rows * columns, columns, 1};
    return cudnn_stored(g, CUDNN_FLOAT, of(at, rows, columns).size, strides, mem.address);
}

/* What is never stored: a number for each pair of a query and a key, for each query. */
static cudnn_tensor pairs(cudnn_graph *g, const lt_attention *at) {
    return cudnn_between(g, CUDNN_FLOAT, of(at, at->query_length, at->query_length).size);
}

static cudnn_tensor rows(cudnn_graph *g, const lt_attention *at) {
    return cudnn_between(g, CUDNN_FLOAT, of(at, at->query_length, 1).size);
}

static cudnn_tensor root(cudnn_graph *g, const lt_attention *at) {
    return cudnn_number(g, 1 / sqrtf((float)at->head_size));
}

void cudnn_attention_forward(cudnn_graph *g, const lt_attention *at) {
    const int64_t hidden = at->heads * at->head_size, length = at->query_length;
    const cudnn_tensor q = heads(g, at, at->q, at->query_stride),
                       k_t = heads_transposed(g, at, at->k, at->key_stride),
                       v = heads(g, at, at->v, at->key_stride), o = heads(g, at, at->output, hidden),
                       log_sums = packed(g, at, 1, at->saved),
                       p = cudnn_between(g, CUDNN_BFLOAT16, of(at, length, length).size);

    /* S = Q K^T / sqrt(D), P = exp(S - max S) / sum, O = P V */
    cudnn_tensor s = cudnn_product(g, q, k_t, pairs(g, at));
    s = cudnn_of_two(g, CUDNN_MULTIPLY, s, root(g, at), pairs(g, at));
    s = cudnn_lower_triangle(g, s, cudnn_number(g, -INFINITY), pairs(g, at));
    const cudnn_tensor most = cudnn_largest(g, s, rows(g, at));
    s = cudnn_of_two(g, CUDNN_SUBTRACT, s, most, pairs(g, at));
    s = cudnn_of_one(g, CUDNN_EXP, s, pairs(g, at));
    const cudnn_tensor sum = cudnn_sum(g, s, rows(g, at)),
                       log_sum = cudnn_of_one(g, CUDNN_LOG, sum, rows(g, at));
    cudnn_of_two(g, CUDNN_ADD, most, log_sum, log_sums);
    cudnn_of_two(g, CUDNN_DIVIDE, s, sum, p);
    cudnn_product(g, p, v, o);
}

int64_t cudnn_sums(const lt_attention *at) {
    return at->batch * at->heads * at->query_length * (at->head_size + 1);
}

void cudnn_attention_backward(cudnn_graph *g, const lt_attention *at, const lt_attention_gradients *gradients,
                              lt_mem sums) {
    const int64_t hidden = at->heads * at->head_size, queries = at->batch * at->query_length;
    const cudnn_tensor q = heads(g, at, at->q, at->query_stride),
                       k_t = heads_transposed(g, at, at->k, at->key_stride),
                       v_t = heads_transposed(g, at, at->v, at->key_stride),
                       o = heads(g, at, at->output, hidden), d_o = heads(g, at, gradients->d_output, hidden),
                       d_q = heads(g, at, gradients->d_q, at->query_stride),
                       d_k = heads(g, at, gradients->d_k, at->key_stride),
                       d_v = heads(g, at, gradients->d_v, at->key_stride),
                       log_sums = packed(g, at, 1, at->saved), d_q_sums = packed(g, at, at->head_size, sums),
                       o_sums = packed(g, at, 1, lt_at(sums, queries * hidden)), scale = root(g, at),
                       products = cudnn_between(g, CUDNN_FLOAT, o.size);

    /* the sum of dO O over a head */
    cudnn_of_two(g, CUDNN_MULTIPLY, d_o, o, products);
    const cudnn_tensor sum = cudnn_sum(g, products, rows(g, at));
    cudnn_of_two(g, CUDNN_MULTIPLY, sum, cudnn_number(g, 1), o_sums);

    /* P = exp(Q K^T / sqrt(D) - log sum), dV = P^T dO */
    cudnn_tensor p = cudnn_product(g, q, k_t, pairs(g, at));
    p = cudnn_of_two(g, CUDNN_MULTIPLY, p, scale, pairs(g, at));
    p = cudnn_of_two(g, CUDNN_SUBTRACT, p, log_sums, pairs(g, at));
    p = cudnn_lower_triangle(g, p, cudnn_number(g, -INFINITY), pairs(g, at));
    p = cudnn_of_one(g, CUDNN_EXP, p, pairs(g, at));
    cudnn_product(g, cudnn_transposed(g, CUDNN_BFLOAT16, p), d_o, d_v);

    /* dS = (dO V^T - sum) P / sqrt(D), dK = dS^T Q, dQ = dS K */
    cudnn_tensor d_s = cudnn_product(g, d_o, v_t, pairs(g, at));
    d_s = cudnn_of_two(g, CUDNN_SUBTRACT, d_s, o_sums, pairs(g, at));
    d_s = cudnn_of_two(g, CUDNN_MULTIPLY, d_s, p, pairs(g, at));
    d_s = cudnn_of_two(g, CUDNN_MULTIPLY, d_s, scale, pairs(g, at));
    cudnn_product(g, cudnn_transposed(g, CUDNN_BFLOAT16, d_s), q, d_k);
    cudnn_product(g, d_s, cudnn_transposed(g, CUDNN_FLOAT, k_t), d_q_sums);
    cudnn_of_one(g, CUDNN_COPY, d_q_sums, d_q);
}

/* ---- on a device ---- */

static lt_status take(cudnn_attention *a, int which, lt_type type, int64_t count, lt_mem *mem) {
    const size_t bytes = (size_t)count * lt_type_bytes(type);
    LT_CHECK(a->device->ops->allocate(a->device, bytes, mem));
    mem->type = type;
    a->memory[which] = *mem;
    a->bytes[which] = bytes;
    return LT_OK;
}

lt_status cudnn_attention_open(cudnn_attention *a, const cudnn *library, lt_device *device,
                               const lt_attention *ours, const lt_attention_gradients *gradients) {
    enum { OUTPUT, SAVED, GRADIENTS, SUMS, WORKSPACE };
    const int64_t tokens = ours->batch * ours->query_length, hidden = ours->heads * ours->head_size;
    *a = (cudnn_attention){.device = device, .at = *ours, .gradients = *gradients};
    cudnn_begin(library, &a->forward);
    cudnn_begin(library, &a->backward);
    lt_mem d_qkv, sums, workspace;
    LT_CHECK(take(a, OUTPUT, LT_BFLOAT16, tokens * hidden, &a->at.output));
    LT_CHECK(take(a, SAVED, LT_FLOAT32, tokens * ours->heads, &a->at.saved));
    LT_CHECK(take(a, GRADIENTS, LT_BFLOAT16, tokens * ours->query_stride, &d_qkv));
    LT_CHECK(take(a, SUMS, LT_FLOAT32, cudnn_sums(ours), &sums));
    a->gradients.d_q = d_qkv;
    a->gradients.d_k.address = d_qkv.address + (gradients->d_k.address - gradients->d_q.address);
    a->gradients.d_v.address = d_qkv.address + (gradients->d_v.address - gradients->d_q.address);
    cudnn_attention_forward(&a->forward, &a->at);
    cudnn_attention_backward(&a->backward, &a->at, &a->gradients, sums);
    int64_t ahead = 0, back = 0;
    LT_CHECK(cudnn_plan(&a->forward, &ahead));
    LT_CHECK(cudnn_plan(&a->backward, &back));
    LT_CHECK(take(a, WORKSPACE, LT_BYTES, (ahead > back ? ahead : back) + 1, &workspace));
    LT_CHECK(cudnn_bind(&a->forward, workspace.address));
    return cudnn_bind(&a->backward, workspace.address);
}

void cudnn_attention_close(cudnn_attention *a) {
    cudnn_end(&a->forward);
    cudnn_end(&a->backward);
    for (size_t i = 0; i < sizeof a->bytes / sizeof *a->bytes; i++)
        if (a->bytes[i] > 0) a->device->ops->release(a->device, a->memory[i], a->bytes[i]);
}

static double value(uint16_t bits16) {
    const uint32_t bits = (uint32_t)bits16 << 16;
    float number;
    memcpy(&number, &bits, sizeof number);
    return (double)number;
}

/* Raises *difference to that of one tensor, of tokens `stride` elements apart. */
static lt_status compare(const cudnn_attention *a, lt_mem ours, lt_mem theirs, int64_t stride,
                         double *difference) {
    const int64_t tokens = a->at.batch * a->at.query_length, hidden = a->at.heads * a->at.head_size,
                  count = (tokens - 1) * stride + hidden;
    uint16_t *const x = malloc(2 * (size_t)count * sizeof *x);
    if (x == NULL) return lt_fail(LT_IO, "no memory to compare in");
    uint16_t *const y = x + count;
    lt_status status = a->device->ops->download(a->device, x, ours, count);
    if (status == LT_OK) status = a->device->ops->download(a->device, y, theirs, count);
    double most = 0, apart = 0;
    for (int64_t token = 0; status == LT_OK && token < tokens; token++)
        for (int64_t i = token * stride; i < token * stride + hidden; i++) {
            const double from = fabs(value(x[i]) - value(y[i]));
            most = fmax(most, fabs(value(x[i])));
            apart = fmax(apart, isnan(from) ? INFINITY : from);
        }
    free(x);
    *difference = fmax(*difference, most > 0 ? apart / most : INFINITY);
    return status;
}

lt_status cudnn_attention_compare(const cudnn_attention *a, const lt_attention *ours,
                                  const lt_attention_gradients *gradients, double *difference) {
    const lt_attention_gradients *theirs = &a->gradients;
    *difference = 0;
    LT_CHECK(compare(a, ours->output, a->at.output, a->at.heads * a->at.head_size, difference));
    LT_CHECK(compare(a, gradients->d_q, theirs->d_q, a->at.query_stride, difference));
    LT_CHECK(compare(a, gradients->d_k, theirs->d_k, a->at.key_stride, difference));
    return compare(a, gradients->d_v, theirs->d_v, a->at.key_stride, difference);
}
