/* What the fast kernels of attention's forward pass share: the running maximum and sum of rows, which tiles
 * they prove dead, weights of scores, and what is kept. Fragments are those of attention_tiles.h.
 */
#ifndef LT_MODEL_CUDA_ATTENTION_FORWARD_H
#define LT_MODEL_CUDA_ATTENTION_FORWARD_H

#include "model/cuda/attention_tiles.h"

/* Of a lane's two rows. */
struct running {
    float max[2], sum[2];
};

static __device__ __forceinline__ float largest_of_four(float x) {
    x = fmaxf(x, __shfl_xor_sync(0xffffffffu, x, 1));
    return fmaxf(x, __shfl_xor_sync(0xffffffffu, x, 2));
}

static __device__ __forceinline__ float sum_of_four(float x) {
    x += __shfl_xor_sync(0xffffffffu, x, 1);
    return x + __shfl_xor_sync(0xffffffffu, x, 2);
}

/* Takes a tile into m and l, and turns its scores into 2^(s - m). Gives what earlier sums were scaled by, and
 * the tile's largest scores. */
template <int N>
static __device__ __forceinline__ void take_in(running &rows, float (&s)[N][4], float (&scale)[2],
                                               float (&largest)[2]) {
#pragma unroll
    for (int r = 0; r < 2; r++) {
        largest[r] = -INFINITY;
#pragma unroll
        for (int n = 0; n < N; n++) largest[r] = fmaxf(largest[r], fmaxf(s[n][2 * r], s[n][2 * r + 1]));
        largest[r] = largest_of_four(largest[r]);
        const float max = fmaxf(rows.max[r], largest[r]), base = max == -INFINITY ? 0.0f : max;
        float sum = 0.0f;
#pragma unroll
        for (int n = 0; n < N; n++)
#pragma unroll
            for (int e = 2 * r; e < 2 * r + 2; e++) {
                s[n][e] = power_of_two(s[n][e] - base);
                sum += s[n][e];
            }
        scale[r] = power_of_two(rows.max[r] - base);
        rows.sum[r] = fmaf(rows.sum[r], scale[r], sum_of_four(sum));
        rows.max[r] = max;
    }
}

static __device__ __forceinline__ running none_yet() {
    return {{-INFINITY, -INFINITY}, {0.0f, 0.0f}};
}

/* What backward needs of a row; a row beyond the last query gets no weight. */
static __device__ __forceinline__ void keep(const attention_job &job, const query_block &block, running &rows,
                                            float (&inverse)[2]) {
    for (int r = 0; r < 2; r++) {
        const int row = own_warp() * TILE_ROWS + own_lane() / 4 + 8 * r;
        inverse[r] = rows.sum[r] > 0.0f ? 1.0f / rows.sum[r] : 0.0f;
        if (row < block.count && own_lane() % 4 == 0)
            job.softmax[block.pair * job.query_length + block.begin + row] = {rows.max[r], inverse[r]};
    }
}

/* Rounding may make a running weight smaller than the final one, by far less than this. */
constexpr float SURELY = 1.0f - 1.0f / 256.0f;

/* Whether a weight of the warp's tile may be above 0, by its largest scores and the running m and l. */
static __device__ __forceinline__ bool may_be_live(const float (&largest)[2], const running &rows,
                                                   const float (&offset)[2]) {
    bool live = false;
    for (int r = 0; r < 2; r++)
        live = live || (largest[r] > -INFINITY &&
                        power_of_two(largest[r] - rows.max[r]) > -offset[r] * rows.sum[r] * SURELY);
    return __any_sync(0xffffffffu, live) != 0;
}

/* Scores to fragments of the weights a and of [a > 0], for 16 keys each; whether an entry is alive. A hidden
 * score is NaN, which is not alive. */
template <int N>
static __device__ __forceinline__ bool weigh(const float (&s)[N][4], const running &rows,
                                             const float (&inverse)[2], const float (&offset)[2],
                                             unsigned (&weights)[N / 2][4], unsigned (&ones)[N / 2][4]) {
    bool any = false;
#pragma unroll
    for (int n = 0; n < N; n++)
#pragma unroll
        for (int r = 0; r < 2; r++) {
            float weight[2];
            bool alive[2];
#pragma unroll
            for (int e = 0; e < 2; e++) {
                const float p = probability(s[n][2 * r + e], rows.max[r], inverse[r]);
                alive[e] = weight_alive(p, offset[r]);
                weight[e] = alive[e] ? p + offset[r] : 0.0f;
            }
            any = any || alive[0] || alive[1];
            weights[n / 2][n % 2 * 2 + r] = pack_bf16(weight[0], weight[1]);
            ones[n / 2][n % 2 * 2 + r] = (alive[0] ? 0x3f80u : 0) | (alive[1] ? 0x3f800000u : 0); /* 1.0 */
        }
    return __any_sync(0xffffffffu, any) != 0;
}

template <int D>
static __device__ __forceinline__ void store_block(bf16 *to, bf16 *shared, const attention_job &job,
                                                   const query_block &block, const float (&c)[D / 8][4]) {
    const int row = own_warp() * TILE_ROWS;
    store_rows<D>(to + output_place(job, block, block.begin + row), job.heads * job.head_size,
                  block.count - row, shared + row * PITCH<D>, c, job.wide);
}

#endif
