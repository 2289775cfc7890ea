/* What the kernels of attention share: the operation as kernels see it, what a forward pass keeps, and the
 * arithmetic of one score and its weight (lazy-attention.md).
 *
 * Scores are kept in units of log 2: s' = s log2(e), so that p = 2^(s' - max') / sum needs no other factor.
 * Where entries are equal to the row's maximum 2^0 is exactly 1. One predicate decides whether a weight is
 * above 0, in forward, backward and statistics: weight_alive(), of a p that is rounded before it is compared.
 * A score has the same bits in all kernels of one path, which sum its products in one order, but for the
 * forward kernel of compute capability 9.0: backward and statistics take its maximum for the largest score
 * there is.
 */
#ifndef LT_MODEL_CUDA_ATTENTION_H
#define LT_MODEL_CUDA_ATTENTION_H

#include "model/cuda/device.h"
#include "model/cuda/instructions.h"

/* A tile of queries and keys of one head: what fast kernels keep a live bit for, and statistics count. */
enum { TILE_ROWS = 16, TILE_KEYS = 64 };

/* Queries, or keys, of a block of fast kernels. */
enum { BLOCK_QUERIES = 128, BLOCK_KEYS = 128 };

/* What backward needs of a query of a head, by one load. */
struct alignas(16) attention_row {
    float max, inverse_sum, offset, delta; /* offset: tau / n */
};

struct attention_job {
    int64_t batch, query_length, key_length, heads, key_heads, head_size, bias_length;
    int64_t query_stride, key_stride;
    float scale; /* log2(e) / sqrt(head_size) */
    const bf16 *q, *k, *v;
    const float *bias, *tau;
    const int32_t *starts; /* or nullptr */
    bf16 *output;
    bool wide; /* q, k, v, the output and their gradients lie so that 16 bytes can be moved at a time */
    /* What forward keeps. Rows are (batch, head, query). */
    float2 *softmax; /* of each row: its largest score, and 1 / the sum of 2^(score - largest) */
    bf16 *live_sum;  /* u, as the output lies */
    uint32_t *live;  /* fast kernels: of each tile a bit, words [batch, heads, tile_rows, live_words] */
    int64_t tile_rows, live_words;
    /* Backward. */
    const bf16 *d_output;
    bf16 *d_q, *d_k, *d_v;
    float *d_bias, *d_tau;
    attention_row *rows; /* of each row */
    float *tau_terms;    /* of each row: (sum_j g_ij) / n_i */
    float *bias_sums;    /* fast kernels: of each block of a head, [W] */
    int64_t bias_blocks; /* of a head: of queries, or of keys where one kernel does it all */
    float *query_sums;   /* one kernel: of each tile of queries, dq so far, as its fragments lie */
    unsigned *turns;     /* one kernel: of each of those tiles, how many blocks have added; then the ticket */
    double *statistics;  /* of each tile row (batch, head, TILE_ROWS queries) */
};

constexpr float LOG2_E = 1.4426950408889634f;

/* tau / n of a query that sees keys first .. last; 0 where there are none, and under softmax. */
__device__ __forceinline__ float offset_of(const attention_job &job, int64_t head, int64_t first,
                                           int64_t last) {
    return job.bias_length == 0 || last < first ? 0.0f : job.tau[head] / static_cast<float>(last - first + 1);
}

/* A query of one head and what it sees: keys first .. last. */
struct attention_query {
    int64_t batch, head, query, first, last;
    float offset;
};

__device__ __forceinline__ attention_query query_at(const attention_job &job, int64_t batch, int64_t head,
                                                    int64_t query) {
    attention_query at;
    at.batch = batch;
    at.head = head;
    at.query = query;
    at.first = job.starts == nullptr ? 0 : job.starts[batch * job.query_length + query];
    at.last = job.key_length - job.query_length + query;
    at.offset = offset_of(job, head, at.first, at.last);
    return at;
}

__device__ __forceinline__ attention_query query_of_row(const attention_job &job, int64_t row) {
    const int64_t pair = row / job.query_length;
    return query_at(job, pair / job.heads, pair % job.heads, row % job.query_length);
}

__device__ __forceinline__ float probability(float score, float max, float inverse_sum) {
    return __fmul_rn(power_of_two(score - max), inverse_sum);
}

/* Of a score that another kernel, which may have rounded otherwise, took `max` of. */
__device__ __forceinline__ float recomputed_probability(float score, float max, float inverse_sum) {
    return __fmul_rn(power_of_two(smaller_or_nan(score - max, 0.0f)), inverse_sum);
}

__device__ __forceinline__ bool weight_alive(float p, float offset) {
    return p > -offset;
}

template <typename number> __device__ __forceinline__ number warp_sum(number value) {
    for (int lanes = 16; lanes > 0; lanes /= 2) value += __shfl_xor_sync(0xffffffffu, value, lanes);
    return value;
}

/* Head sizes that the fast kernels are built for. */
static inline bool lt_cuda_attention_is_fast(int64_t head_size) {
    return head_size == 64 || head_size == 96 || head_size == 128;
}

/* Of these, queries in a tile that goes by a block of keys: registers are few where D = 128. */
constexpr int query_tile_rows(int64_t head_size) {
    return head_size == 128 ? 32 : 64;
}

/* These head sizes: model/cuda/lazy_attention_forward.cu, lazy_attention_queries.cu (d_q, bias_sums),
 * lazy_attention_keys.cu (d_k, d_v), lazy_attention_backward.cu (all of these in one kernel; turns are zeroed
 * by it), lazy_attention_statistics.cu. */
void lt_cuda_attention_fast_forward(cuda_device *, const attention_job &);
void lt_cuda_attention_fast_queries(cuda_device *, const attention_job &);
void lt_cuda_attention_fast_keys(cuda_device *, const attention_job &);
void lt_cuda_attention_fast_backward(cuda_device *, const attention_job &);
size_t lt_cuda_attention_backward_shared_bytes(int64_t head_size); /* of a block of the one kernel */
void lt_cuda_attention_fast_statistics(cuda_device *, const attention_job &);

/* model/cuda/lazy_attention_forward_sm90.cu, lazy_attention_backward_sm90.cu (in one kernel): the same head
 * sizes, for compute capability 9.0 and jobs that are `wide`. False: nothing is done, since the driver has no
 * maps of such rows. */
bool lt_cuda_attention_sm90_forward(cuda_device *, const attention_job &);
bool lt_cuda_attention_sm90_backward(cuda_device *, const attention_job &);

/* model/cuda/attention_general.cu: any shape. Queue kernels that fill output, softmax and live_sum; d_q, d_k,
 * d_v and d_bias, from rows; statistics. */
void lt_cuda_attention_general_forward(cuda_device *, const attention_job &);
void lt_cuda_attention_general_backward(cuda_device *, const attention_job &);
void lt_cuda_attention_general_statistics(cuda_device *, const attention_job &);

#endif
