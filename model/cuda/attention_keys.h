/* What kernels share whose blocks of 8 warps have 128 keys of one key head, 16 for each warp, with dk and dv
 * in registers, by which the queries that see them go: of one query head after the other, in tiles of q and
 * do in shared memory, copied two deep together with what backward knows of each row.
 */
#ifndef LT_MODEL_CUDA_ATTENTION_KEYS_H
#define LT_MODEL_CUDA_ATTENTION_KEYS_H

#include "model/cuda/attention_blocks.h"

template <int D> constexpr int ROWS = query_tile_rows(D);        /* queries of a tile */
template <int D> constexpr int DISTANCES = BLOCK_KEYS + ROWS<D>; /* of a row and a column */

template <int D> struct query_stages {
    bf16 tiles[2][2]
              [ROWS<D> * PITCH<D>]; /* q and do; room for the rows of the block's keys before and after */
    attention_row rows[2][ROWS<D>];
    int first[2][ROWS<D>]; /* key that each query sees */
    float window[2][DISTANCES<D>];
};

template <int D>
static __device__ __forceinline__ void load_tile(query_stages<D> &shared, int stage, const attention_job &job,
                                                 const key_block &block, const query_tile &tile) {
    const int64_t token = block.batch * job.query_length + tile.begin;
    load_rows<D, ROWS<D>, 0, WARPS / 2>(shared.tiles[stage][0],
                                        job.q + token * job.query_stride + tile.head * D, job.query_stride,
                                        tile.count, job.wide);
    load_rows<D, ROWS<D>, WARPS / 2, WARPS / 2>(shared.tiles[stage][1],
                                                job.d_output + (token * job.heads + tile.head) * D,
                                                job.heads * D, tile.count, job.wide);
    const int own = static_cast<int>(threadIdx.x),
              distance = tile.position - block.begin - (BLOCK_KEYS - 1) + own;
    if (own_warp() < ROWS<D> / WARP) {
        const bool there = own < tile.count;
        const int64_t row = tile.pair * job.query_length + tile.begin + own;
        copy_async_16(&shared.rows[stage][own], job.rows + (there ? row : 0), there);
        copy_async_4(&shared.first[stage][own], job.starts + (there ? token + own : 0),
                     there && job.starts != nullptr);
    }
    if (is_near(job, block, tile) && own_warp() < DISTANCES<D> / WARP) {
        const bool there = distance >= 0 && distance < job.bias_length;
        copy_async_4(&shared.window[stage][own],
                     job.bias + tile.head * job.bias_length + (there ? distance : 0), there);
    }
}

/* s = a b of 16 rows in shared memory and 16 keys in registers, in the order of multiply_rows(). */
template <int D>
static __device__ __forceinline__ void multiply_keys(float (&s)[2][4], const bf16 *rows,
                                                     const unsigned (&keys)[D / 16][4]) {
    for (int n = 0; n < 2; n++) s[n][0] = s[n][1] = s[n][2] = s[n][3] = 0.0f;
#pragma unroll
    for (int k = 0; k < D / 16; k++) {
        unsigned a[4];
        load_matrices(a, rows + lane_place<D>() + 16 * k);
        multiply_add(s[0], a, keys[k][0], keys[k][2]);
        multiply_add(s[1], a, keys[k][1], keys[k][3]);
    }
}

/* 16 x 16 values as a of products. */
static __device__ __forceinline__ void pack_square(unsigned (&to)[4], const float (&from)[2][4]) {
    to[0] = pack_bf16(from[0][0], from[0][1]);
    to[1] = pack_bf16(from[0][2], from[0][3]);
    to[2] = pack_bf16(from[1][0], from[1][1]);
    to[3] = pack_bf16(from[1][2], from[1][3]);
}

/* The transpose of such an a. */
static __device__ __forceinline__ void transpose(unsigned (&to)[4], const unsigned (&from)[4]) {
    to[0] = transposed_matrix(from[0]);
    to[1] = transposed_matrix(from[2]);
    to[2] = transposed_matrix(from[1]);
    to[3] = transposed_matrix(from[3]);
}

/* Scores s and g = do v to ds and a, in place. `single`: the row sees one key, so that p is 1 whatever its
 * score. */
template <bool LAZY>
static __device__ __forceinline__ void differentiate(float (&s)[2][4], float (&g)[2][4],
                                                     const attention_row (&rows)[2], const bool (&single)[2],
                                                     bool live) {
#pragma unroll
    for (int n = 0; n < 2; n++)
#pragma unroll
        for (int i = 0; i < 4; i++) {
            const attention_row &row = rows[i / 2];
            const float p = recomputed_probability(s[n][i], row.max, row.inverse_sum);
            const bool alive = !LAZY || (live && weight_alive(p, row.offset) && s[n][i] > -INFINITY);
            s[n][i] = single[i / 2] ? 0.0f : p * ((alive ? g[n][i] : 0.0f) - row.delta);
            g[n][i] = alive ? p + row.offset : 0.0f;
        }
}

/* Where the warp's keys and values are as b of products: in registers, or those that STAY in shared memory,
 * to be loaded for each product. */
template <int D, bool KEYS_STAY, bool VALUES_STAY> struct own_keys {
    unsigned keys[KEYS_STAY ? 1 : D / 16][4], values[VALUES_STAY ? 1 : D / 16][4];
    const bf16 *keys_at, *values_at; /* their 16 rows, where they stay */
};

template <int D, int N>
static __device__ __forceinline__ void multiply_own(float (&c)[2][4], const bf16 *rows,
                                                    const unsigned (&fragments)[N][4], const bf16 *at) {
    if constexpr (N == D / 16) {
        multiply_keys<D>(c, rows, fragments);
    } else {
        unsigned anew[D / 16][4];
        load_fragments<D>(anew, at);
        multiply_keys<D>(c, rows, anew);
    }
}

/* Loads the block's keys and values to 128 rows each; those that do not stay are fragments then, and their
 * rows free. */
template <int D, bool KEYS_STAY, bool VALUES_STAY>
static __device__ __forceinline__ void open_own(own_keys<D, KEYS_STAY, VALUES_STAY> &own, bf16 *keys,
                                                bf16 *values, const attention_job &job,
                                                const key_block &block) {
    const int64_t from = (block.batch * job.key_length + block.begin) * job.key_stride + block.key_head * D;
    load_rows<D, BLOCK_KEYS>(keys, job.k + from, job.key_stride, block.count, job.wide);
    load_rows<D, BLOCK_KEYS>(values, job.v + from, job.key_stride, block.count, job.wide);
    copy_async_commit();
    copy_async_wait<0>();
    __syncthreads();
    own.keys_at = keys + own_warp() * TILE_ROWS * PITCH<D>;
    own.values_at = values + own_warp() * TILE_ROWS * PITCH<D>;
    if constexpr (!KEYS_STAY) load_fragments<D>(own.keys, own.keys_at);
    if constexpr (!VALUES_STAY) load_fragments<D>(own.values, own.values_at);
    __syncthreads();
}

/* Whether some of a tile's queries `row` to row + 15, whose first keys are at `first`, sees one of the 16
 * keys from `key` on. */
static __device__ __forceinline__ bool sees_square(const query_tile &tile, const int *first, int row,
                                                   int key) {
    const int end = min(tile.count, row + TILE_ROWS);
    return row < end && key <= tile.position + end - 1 && key + TILE_ROWS > first[row];
}

/* Puts 16 x 16 values, packed as a of products, to a tile with rows of BLOCK_KEYS. */
static __device__ __forceinline__ void store_square(bf16 *to, const unsigned (&packed)[4]) {
    unsigned *pairs =
        reinterpret_cast<unsigned *>(to + own_lane() / 4 * PITCH<BLOCK_KEYS> + own_lane() % 4 * 2);
    shared_write(pairs, packed[0]);
    shared_write(pairs + 4 * PITCH<BLOCK_KEYS>, packed[1]);
    shared_write(pairs + 4, packed[2]);
    shared_write(pairs + 4 * PITCH<BLOCK_KEYS> + 4, packed[3]);
}

/* The same as they are. */
static __device__ __forceinline__ void store_square(float *to, const float (&values)[2][4]) {
    to += own_lane() / 4 * PITCH<BLOCK_KEYS> + own_lane() % 4 * 2;
    for (int n = 0; n < 2; n++)
        for (int r = 0; r < 2; r++)
            shared_write(reinterpret_cast<float2 *>(to + 8 * r * PITCH<BLOCK_KEYS> + 8 * n),
                         float2{values[n][2 * r], values[n][2 * r + 1]});
}

/* Where ds of a tile of queries by the block's keys go to shared memory: nowhere; as operands of products;
 * and as they are, or nowhere (nullptr). */
struct kept_nowhere {};
struct kept_ds {
    bf16 *operands;
    float *values;
};

static __device__ __forceinline__ void keep_ds(const kept_nowhere &, int, const float (&)[2][4],
                                               const unsigned (&)[4]) {}

static __device__ __forceinline__ void keep_ds(const kept_ds &to, int row, const float (&ds)[2][4],
                                               const unsigned (&packed)[4]) {
    const int place = row * PITCH<BLOCK_KEYS> + own_warp() * TILE_ROWS;
    store_square(to.operands + place, packed);
    if (to.values != nullptr) store_square(to.values + place, ds);
}

/* What 16 queries, those of chunk `chunk` of a tile, add to the warp's keys. */
template <int D, bool LAZY, typename destination, bool KEYS_STAY, bool VALUES_STAY>
static __device__ __forceinline__ void
add_queries(float (&dk)[D / 8][4], float (&dv)[D / 8][4], const destination &kept,
            const query_stages<D> &shared, int stage, const attention_job &job, const key_block &block,
            const query_tile &tile, int chunk, const own_keys<D, KEYS_STAY, VALUES_STAY> &own) {
    const int lane = own_lane(), g = lane / 4, t = lane % 4, row = chunk * TILE_ROWS;
    const int key = block.begin + own_warp() * TILE_ROWS, position = tile.position + row;
    const int end = min(tile.count, row + TILE_ROWS); /* of the chunk's queries */
    const int *first = shared.first[stage];
    unsigned packed[4] = {0, 0, 0, 0}, transposed[4];
    float s[2][4] = {}, d[2][4] = {};
    if (!sees_square(tile, first, row, key)) {
        keep_ds(kept, row, s, packed);
        return;
    }
    const bool live = (tile.live[chunk] >> key / TILE_KEYS % 32 & 1) != 0;
    const bf16 *q = shared.tiles[stage][0] + row * PITCH<D>,
               *d_output = shared.tiles[stage][1] + row * PITCH<D>;
    multiply_own<D>(s, q, own.keys, own.keys_at);
    const float *window = shared.window[stage] + BLOCK_KEYS - 1 + row + g - own_warp() * TILE_ROWS - 2 * t;
    add_bias(s, job.scale, is_near(job, block, tile) ? window : nullptr);
    bool single[2] = {false, false};
    if (key + TILE_ROWS - 1 > position || first[end - 1] > key) {
        const int firsts[2] = {first[row + g], first[row + g + 8]},
                  lasts[2] = {position + g, position + g + 8};
        hide(s, firsts, lasts, key + 2 * t, -INFINITY);
        for (int r = 0; r < 2; r++) single[r] = firsts[r] == lasts[r];
    }
    if (live) multiply_own<D>(d, d_output, own.values, own.values_at);
    const attention_row rows[2] = {shared_read(&shared.rows[stage][row + g]),
                                   shared_read(&shared.rows[stage][row + g + 8])};
    differentiate<LAZY>(s, d, rows, single, live);
    pack_square(packed, s);
    keep_ds(kept, row, s, packed);
    transpose(transposed, packed);
    add_product<D>(dk, transposed, q);
    if (!live) return;
    pack_square(packed, d);
    transpose(transposed, packed);
    add_product<D>(dv, transposed, d_output);
}

#endif
