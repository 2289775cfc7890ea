/* What the fast kernels of attention share: blocks of 8 warps over tiles in shared memory, and products of
 * tensor cores.
 *
 * Rows of a tile lie PITCH<D> = D + 8 elements apart, an odd number of 16-byte units: the 8 rows of a matrix
 * of ldmatrix lie in different banks, and so do the 8 rows x 4 columns of units that a warp moves at a time
 * and the pairs (g, t) of a fragment. Shared memory is used without bank conflicts;
 * tests/emulation/test_attention.cpp counts them.
 *
 * Scores are always q (as a) times k (as b), summed from element 0 of the head on, so that they have the same
 * bits in every kernel. Lanes: g = lane / 4, t = lane % 4; a fragment c [n][2 r + e] of 16 x 8 N scores is
 * row g + 8 r, column 8 n + 2 t + e.
 */
#ifndef LT_MODEL_CUDA_ATTENTION_TILES_H
#define LT_MODEL_CUDA_ATTENTION_TILES_H

#include "model/cuda/attention.h"

enum { WARP = 32, WARPS = BLOCK_QUERIES / TILE_ROWS, THREADS = WARP * WARPS };
static_assert(BLOCK_KEYS == TILE_ROWS * WARPS, "each warp has 16 of a block's keys");

template <int D> constexpr int PITCH = D + 8;

/* Whether a block's shared memory for head sizes 64, 96 and 128 is what a kernel's figures say. */
template <template <int> class layout> constexpr bool takes_bytes(size_t of_64, size_t of_96, size_t of_128) {
    return sizeof(layout<64>) == of_64 && sizeof(layout<96>) == of_96 && sizeof(layout<128>) == of_128;
}

static __device__ __forceinline__ int own_warp() {
    return static_cast<int>(threadIdx.x) / WARP;
}

static __device__ __forceinline__ int own_lane() {
    return static_cast<int>(threadIdx.x) % WARP;
}

/* ---- tiles ---- */

/* Begins to copy 8 elements; not `wide`, their places are not aligned to 16 bytes, and they are there at
 * once. */
static __device__ __forceinline__ void copy_unit(bf16 *to, const bf16 *from, bool there, bool wide) {
    if (wide) {
        copy_async_16(to, from, there);
        return;
    }
#pragma unroll 1
    for (int e = 0; e < 8; e++) to[e] = there ? from[e] : __float2bfloat16_rn(0.0f);
}

/* Begins to copy ROWS rows of a head to a tile; those from `there` on become 0. By warps FROM to FROM + COUNT
 * - 1 of the block, 8 rows x 4 units at a time each; the others pass by. */
template <int D, int ROWS, int FROM = 0, int COUNT = WARPS>
static __device__ __forceinline__ void load_rows(bf16 *to, const bf16 *from, int64_t stride, int there,
                                                 bool wide) {
    static_assert(ROWS % (8 * COUNT) == 0, "every warp has the same number of rows");
    const int warp = own_warp() - FROM, column = own_lane() / 8 * 8;
    if (warp < 0 || warp >= COUNT) return;
#pragma unroll
    for (int first = 0; first < ROWS; first += 8 * COUNT) {
        const int row = first + warp * 8 + own_lane() % 8;
        const bf16 *source = (row < there ? from + row * stride : from) + column;
#pragma unroll
        for (int unit = 0; unit < D; unit += 32)
            copy_unit(to + row * PITCH<D> + column + unit, source + unit, row < there, wide);
    }
}

/* A lane's place in the first 16 x 16 block of a tile, for load_matrices() of any block. Of the registers, as
 * a of a product: all four. As b, of rows that are columns of b: 0 and 2 of the first eight, 1 and 3 of the
 * others. Transposed, as b of which they are rows: 0 and 1 of the first eight columns, 2 and 3 of the others.
 */
template <int D> static __device__ __forceinline__ int lane_place() {
    return own_lane() % 16 * PITCH<D> + own_lane() / 16 * 8;
}

/* 16 rows as a of products. */
template <int D>
static __device__ __forceinline__ void load_fragments(unsigned (&to)[D / 16][4], const bf16 *rows) {
#pragma unroll
    for (int k = 0; k < D / 16; k++) load_matrices(to[k], rows + lane_place<D>() + 16 * k);
}

/* c [16, 8 N] = a [16, D] times the transpose of the 8 N rows at `rows`. */
template <int D, int N>
static __device__ __forceinline__ void multiply_rows(float (&c)[N][4], const unsigned (&a)[D / 16][4],
                                                     const bf16 *rows) {
#pragma unroll
    for (int n = 0; n < N; n++) c[n][0] = c[n][1] = c[n][2] = c[n][3] = 0.0f;
#pragma unroll
    for (int k = 0; k < D / 16; k++)
#pragma unroll
        for (int n = 0; n < N; n += 2) {
            unsigned b[4];
            load_matrices(b, rows + lane_place<D>() + 8 * n * PITCH<D> + 16 * k);
            multiply_add(c[n], a[k], b[0], b[2]);
            multiply_add(c[n + 1], a[k], b[1], b[3]);
        }
}

/* c [16, 8 N] += a [16, 16] times 8 N columns of the 16 rows at `rows`. */
template <int D, int N>
static __device__ __forceinline__ void add_product(float (&c)[N][4], const unsigned (&a)[4],
                                                   const bf16 *rows) {
#pragma unroll
    for (int n = 0; n < N; n += 2) {
        unsigned b[4];
        load_matrices_transposed(b, rows + lane_place<D>() + 8 * n);
        multiply_add(c[n], a, b[0], b[1]);
        multiply_add(c[n + 1], a, b[2], b[3]);
    }
}

/* The warp's 16 rows c [16, D] to `there` rows of a head, by way of 16 rows of a tile that are its own. */
template <int D>
static __device__ __forceinline__ void store_rows(bf16 *to, int64_t stride, int there, bf16 *rows,
                                                  const float (&c)[D / 8][4], bool wide) {
    constexpr int ACROSS = D / 32;
    const int lane = own_lane();
    unsigned *pairs = reinterpret_cast<unsigned *>(rows + lane / 4 * PITCH<D> + lane % 4 * 2);
#pragma unroll
    for (int n = 0; n < D / 8; n++) {
        shared_write(pairs + 4 * n, pack_bf16(c[n][0], c[n][1]));
        shared_write(pairs + 4 * n + 4 * PITCH<D>, pack_bf16(c[n][2], c[n][3]));
    }
    __syncwarp();
#pragma unroll
    for (int unit = 0; unit < 2 * ACROSS; unit++) {
        const int row = unit / ACROSS * 8 + lane % 8, column = unit % ACROSS * 32 + lane / 8 * 8;
        const bf16 *from = rows + row * PITCH<D> + column;
        const uint4 eight = shared_read(reinterpret_cast<const uint4 *>(from));
        if (row >= there) continue;
        if (wide)
            *reinterpret_cast<uint4 *>(to + row * stride + column) = eight;
        else
            for (int e = 0; e < 8; e++) to[row * stride + column + e] = from[e];
    }
    __syncwarp();
}

/* Two neighbouring elements, by one store where `wide`. */
static __device__ __forceinline__ void store_pair(bf16 *to, float low, float high, bool wide) {
    if (wide) {
        *reinterpret_cast<unsigned *>(to) = pack_bf16(low, high);
        return;
    }
    to[0] = __float2bfloat16_rn(low);
    to[1] = __float2bfloat16_rn(high);
}

template <int N> static __device__ __forceinline__ void scale_all(float (&c)[N][4], float low, float high) {
#pragma unroll
    for (int n = 0; n < N; n++) {
        c[n][0] *= low, c[n][1] *= low;
        c[n][2] *= high, c[n][3] *= high;
    }
}

/* ---- what a block of queries sees ---- */

/* BLOCK_QUERIES queries of one head, 16 for each warp, and the tiles of keys that they see. */
struct query_block {
    int batch, head, key_head, pair; /* pair: batch and head */
    int number, begin, count;        /* of the head's blocks; its first query, and how many there are */
    int position;                    /* of its first query, among the keys */
    int first_tile, last_tile;
};

/* The longest blocks of a head come first; heads one after the other, so that they find their keys in L2. */
static __device__ __forceinline__ query_block open_block(const attention_job &job) {
    query_block block;
    const int blocks = divide_up(static_cast<int>(job.query_length), int{BLOCK_QUERIES}),
              heads = static_cast<int>(job.heads), number = static_cast<int>(blockIdx.x);
    block.pair = number / blocks;
    block.batch = block.pair / heads;
    block.head = block.pair % heads;
    block.key_head = block.head / (heads / static_cast<int>(job.key_heads));
    block.number = blocks - 1 - number % blocks;
    block.begin = block.number * BLOCK_QUERIES;
    block.count = min(static_cast<int>(job.query_length) - block.begin, int{BLOCK_QUERIES});
    block.position = static_cast<int>(job.key_length - job.query_length) + block.begin;
    block.first_tile =
        job.starts == nullptr ? 0 : job.starts[block.batch * job.query_length + block.begin] / TILE_KEYS;
    block.last_tile = (block.position + block.count - 1) / TILE_KEYS;
    return block;
}

static __device__ __forceinline__ const bf16 *key_rows(const attention_job &job, const query_block &block,
                                                       const bf16 *from, int key) {
    return from + (block.batch * job.key_length + key) * job.key_stride + block.key_head * job.head_size;
}

static __device__ __forceinline__ int64_t query_place(const attention_job &job, const query_block &block,
                                                      int query) {
    return (block.batch * job.query_length + query) * job.query_stride + block.head * job.head_size;
}

static __device__ __forceinline__ int64_t output_place(const attention_job &job, const query_block &block,
                                                       int query) {
    return ((block.batch * job.query_length + query) * job.heads + block.head) * job.head_size;
}

/* The keys that a lane's two queries see, and those of the warp's 16; those beyond the last query see none.
 */
struct warp_view {
    int first[2], last[2];
    int lowest_first, highest_first, lowest_last, highest_last;
};

static __device__ __forceinline__ warp_view open_view(const attention_job &job, const query_block &block) {
    warp_view view;
    for (int r = 0; r < 2; r++) {
        const int row = own_warp() * TILE_ROWS + own_lane() / 4 + 8 * r;
        const bool there = row < block.count;
        view.first[r] = !there ? INT32_MAX
                        : job.starts == nullptr
                            ? 0
                            : job.starts[block.batch * job.query_length + block.begin + row];
        view.last[r] = there ? block.position + row : -1;
    }
    view.lowest_first = min(view.first[0], view.first[1]);
    view.highest_first = max(view.first[0], view.first[1]);
    view.lowest_last = min(view.last[0], view.last[1]);
    view.highest_last = max(view.last[0], view.last[1]);
    for (int lanes = WARP / 2; lanes > 0; lanes /= 2) {
        view.lowest_first = min(view.lowest_first, __shfl_xor_sync(0xffffffffu, view.lowest_first, lanes));
        view.highest_first = max(view.highest_first, __shfl_xor_sync(0xffffffffu, view.highest_first, lanes));
        view.lowest_last = min(view.lowest_last, __shfl_xor_sync(0xffffffffu, view.lowest_last, lanes));
        view.highest_last = max(view.highest_last, __shfl_xor_sync(0xffffffffu, view.highest_last, lanes));
    }
    return view;
}

static __device__ __forceinline__ bool sees_tile(const warp_view &view, int tile) {
    return tile * TILE_KEYS <= view.highest_last && tile * TILE_KEYS + TILE_KEYS > view.lowest_first;
}

static __device__ __forceinline__ bool sees_all(const warp_view &view, int tile) {
    return tile * TILE_KEYS + TILE_KEYS - 1 <= view.lowest_last && tile * TILE_KEYS >= view.highest_first;
}

/* ---- scores ---- */

/* The biases that a block of queries and a tile of keys can meet: one for every difference of a row and a
 * column, from -(TILE_KEYS - 1) on. */
enum { WINDOW = BLOCK_QUERIES + TILE_KEYS, WINDOW_ZERO = TILE_KEYS - 1 };

/* Whether a pair of this tile is nearer than W. */
static __device__ __forceinline__ bool has_bias(const attention_job &job, const query_block &block,
                                                int tile) {
    return job.bias_length > 0 && block.position - tile * TILE_KEYS - WINDOW_ZERO < job.bias_length;
}

/* Begins to copy a tile's biases, 0 where there are none. By all threads of the block. */
static __device__ __forceinline__ void load_window(float *window, const attention_job &job,
                                                   const query_block &block, int tile) {
    if (own_warp() >= WINDOW / WARP) return;
    const int64_t distance = block.position - tile * TILE_KEYS - WINDOW_ZERO + static_cast<int>(threadIdx.x);
    const bool there = distance >= 0 && distance < job.bias_length;
    copy_async_4(window + threadIdx.x, job.bias + block.head * job.bias_length + (there ? distance : 0),
                 there);
}

/* Products to scores. `window`: where the bias of row g, column 2 t of the fragment lies, or nullptr. */
template <int N>
static __device__ __forceinline__ void add_bias(float (&s)[N][4], float scale, const float *window) {
    if (window == nullptr) {
#pragma unroll
        for (int n = 0; n < N; n++)
            for (int i = 0; i < 4; i++) s[n][i] = __fmul_rn(s[n][i], scale);
        return;
    }
    /* Row g + 8 meets in columns n what row g meets in columns n - 1. */
    float upper[2] = {shared_read(window + 8) * LOG2_E, shared_read(window + 7) * LOG2_E};
#pragma unroll
    for (int n = 0; n < N; n++)
        for (int e = 0; e < 2; e++) {
            const float lower = shared_read(window - 8 * n - e) * LOG2_E;
            s[n][e] = fmaf(s[n][e], scale, lower);
            s[n][2 + e] = fmaf(s[n][2 + e], scale, upper[e]);
            upper[e] = lower;
        }
}

/* Puts `hidden` where a query does not see a key: a lane's two see `first` to `last`; `key` is that of column
 * 2 t. */
template <int N>
static __device__ __forceinline__ void hide(float (&s)[N][4], const int (&first)[2], const int (&last)[2],
                                            int key, float hidden) {
#pragma unroll
    for (int n = 0; n < N; n++)
        for (int i = 0; i < 4; i++) {
            const int own = key + 8 * n + i % 2;
            if (own < first[i / 2] || own > last[i / 2]) s[n][i] = hidden;
        }
}

/* A warp's products with 8 N keys, from `key` on, to scores; `window` is that of their tile. Hidden ones are
 * `hidden`. */
template <int N>
static __device__ __forceinline__ void finish_scores(float (&s)[N][4], const float *window,
                                                     const attention_job &job, const query_block &block,
                                                     const warp_view &view, int key, float hidden) {
    const int g = own_lane() / 4, t = own_lane() % 4, tile = key / TILE_KEYS;
    window += WINDOW_ZERO + own_warp() * TILE_ROWS + g - 2 * t - key % TILE_KEYS;
    add_bias(s, job.scale, has_bias(job, block, tile) ? window : nullptr);
    if (!sees_all(view, tile)) hide(s, view.first, view.last, key + 2 * t, hidden);
}

/* The products too, with keys that lie at `keys`. */
template <int D, int N>
__device__ __forceinline__ void
score_keys(float (&s)[N][4], const unsigned (&q)[D / 16][4], const bf16 *keys, const float *window,
           const attention_job &job, const query_block &block, const warp_view &view, int key, float hidden) {
    multiply_rows<D>(s, q, keys);
    finish_scores(s, window, job, block, view, key, hidden);
}

/* ---- dead tiles ---- */

/* The words of live bits of one tile row, one bit for each tile of keys. */
static __device__ __forceinline__ uint32_t *live_words(const attention_job &job, int64_t pair,
                                                       int64_t tile_row) {
    return job.live + (pair * job.tile_rows + tile_row) * job.live_words;
}

/* Of all tile rows of a block. */
static __device__ __forceinline__ uint32_t live_in_block(const attention_job &job, const query_block &block,
                                                         int word) {
    uint32_t live = 0;
    for (int i = 0; i < divide_up(block.count, int{TILE_ROWS}); i++)
        live |= live_words(job, block.pair, block.begin / TILE_ROWS + i)[word];
    return live;
}

#endif
