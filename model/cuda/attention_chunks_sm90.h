/* Scores of backward where keys are the rows of products and queries the columns (compute capability 9.0):
 * from products to weights a and to ds, 16 x 16 at a time. A lane (g, t) has keys g and g + 8, and of the
 * queries 2 t, 2 t + 1 and the same 8 further on: element [n][2 r + e] is that of key g + 8 r, query 8 n + 2
 * t + e. Pointers are to the lane's first key and query.
 */
#ifndef LT_MODEL_CUDA_ATTENTION_CHUNKS_SM90_H
#define LT_MODEL_CUDA_ATTENTION_CHUNKS_SM90_H

#include "model/cuda/attention_groups_sm90.h"

/* From one query's exact ds to the next's: lanes of a fragment are in different banks. */
enum { PITCH_DS = BLOCK_KEYS + 4 };

/* A warp's 16 keys and 16 queries, which share live bits. */
typedef float chunk[2][4];

/* Products to scores, as add_bias() of attention_tiles.h. `window`: where the bias of the chunk's first query
 * and the lane's first key lies, or nullptr. */
static __device__ __forceinline__ void add_biases(chunk &s, float scale, const float *window) {
    if (window == nullptr) {
        for (int n = 0; n < 2; n++)
            for (int i = 0; i < 4; i++) s[n][i] = __fmul_rn(s[n][i], scale);
        return;
    }
    /* Row g + 8 meets in columns n what row g meets in columns n - 1. */
    for (int e = 0; e < 2; e++) {
        const float bias[3] = {shared_read(window + e - 8) * LOG2_E, shared_read(window + e) * LOG2_E,
                               shared_read(window + e + 8) * LOG2_E};
        for (int n = 0; n < 2; n++) {
            s[n][e] = fmaf(s[n][e], scale, bias[n + 1]);
            s[n][2 + e] = fmaf(s[n][2 + e], scale, bias[n]);
        }
    }
}

/* Where a query does not see a key: a score of -inf. `key`: the lane's first. */
static __device__ __forceinline__ void hide_unseen(chunk &s, int key, int position, const int *first) {
    for (int n = 0; n < 2; n++)
        for (int i = 0; i < 4; i++) {
            const int own = key + i / 2 * 8, column = 8 * n + i % 2;
            if (own < first[column] || own > position + column) s[n][i] = -INFINITY;
        }
}

/* ds of queries that see one key is 0, since p does not depend on it. */
static __device__ __forceinline__ void drop_single(chunk &ds, int position, const int *first) {
    for (int n = 0; n < 2; n++)
        for (int i = 0; i < 4; i++)
            if (first[8 * n + i % 2] == position + 8 * n + i % 2) ds[n][i] = 0.0f;
}

/* Scores to weights a, and g to ds, in place. Where p is hidden both are 0. Forward's word on which tiles are
 * dead is final, however p is rounded here. */
template <bool LAZY>
static __device__ __forceinline__ void differentiate(chunk &s, chunk &g, const attention_row *rows,
                                                     bool live) {
    for (int n = 0; n < 2; n++)
        for (int e = 0; e < 2; e++) {
            const attention_row row = shared_read(rows + 8 * n + e);
            for (int i = e; i < 4; i += 2) {
                const float p = recomputed_probability(s[n][i], row.max, row.inverse_sum);
                const bool alive = live && (!LAZY || (weight_alive(p, row.offset) && s[n][i] > -INFINITY));
                s[n][i] = alive ? p + row.offset : 0.0f;
                g[n][i] = p * ((alive ? g[n][i] : 0.0f) - row.delta);
            }
        }
}

/* ds as they are, a row for each query. `to`: the lane's first key, first query of the chunk. */
static __device__ __forceinline__ void store_exact(float *to, const chunk &ds) {
    for (int n = 0; n < 2; n++)
        for (int i = 0; i < 4; i++) shared_write(to + (8 * n + i % 2) * PITCH_DS + i / 2 * 8, ds[n][i]);
}

static __device__ __forceinline__ void pack(unsigned (&to)[4], const chunk &from) {
#pragma unroll
    for (int i = 0; i < 4; i++) to[i] = pack_bf16(from[i / 2][i % 2 * 2], from[i / 2][i % 2 * 2 + 1]);
}

#endif
