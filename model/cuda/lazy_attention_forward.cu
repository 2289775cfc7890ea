/* Attention forward for head sizes D of 64, 96 and 128 (lazy-attention.md, "Forward").
 *
 * A block of 8 warps has 128 queries of one head, 16 for each warp, whose q stay in registers as a of
 * products; tiles of 64 keys go by in shared memory, from the diagonal outwards, copied two deep by cp.async.
 * A tile of a warp is 16 queries x 64 keys.
 *
 * Lazy attention takes two passes. The first finds each row's maximum m and sum l (1 product a tile, q k),
 * and with them the tiles that may hold a weight above 0: 2^(s - m) / l only falls as m and l grow, so a tile
 * whose largest entry does not pass -tau/n by the running m and l is dead. The second visits the others
 * alone: s anew, then o += a v and u += [a > 0] v, which share the fragments of v, where an entry is alive in
 * truth; that bit is kept for backward. Tiles that are dead for all 8 warps are not even copied. 1 + 3 f
 * products a tile. Softmax attention takes one pass, with o scaled anew where m grows: 2 products a tile.
 *
 * Bytes moved for 64 keys of a block: 128 D in the first pass, 256 D for a live tile in the second (16 KiB
 * and 32 KiB at D = 128), from L2 mostly, since the blocks of a head run side by side.
 *
 * One block a multiprocessor. For 16 queries, 16 keys and 16 elements of a head q k takes one ldmatrix, 4
 * clocks of shared memory, and two mma, 4 clocks of an A100's tensor cores; a v and u together take one and
 * four. Not measured: half of the first pass's mma rate and more of the second's is what that balance lets
 * one expect, and shared memory as the bound on chips whose mma is faster.
 *
 * ptxas of CUDA 13.0, none spilled: registers for sm_80 and sm_90a, bytes of shared memory of a block.
 *   lazy_forward<64>       190  188   38400
 *   lazy_forward<96>       244  244   54784
 *   lazy_forward<128>      250  254   71168
 *   softmax_forward<64>    143  148   38400
 *   softmax_forward<96>    169  174   54784
 *   softmax_forward<128>   203  205   71168
 */
#include "model/cuda/attention_forward.h"

namespace {

/* Keys that lazy attention's second pass has of a tile at a time: o and u leave few registers for more. */
enum { HALF_TILE = TILE_KEYS / 2 };

/* At the end there are o, and u, in two times 128 rows. */
template <int D> struct forward_shared {
    bf16 keys[2][TILE_KEYS * PITCH<D>]; /* in the second pass HALF_TILE keys, then as many values */
    union {
        bf16 queries[BLOCK_QUERIES * PITCH<D>];
        bf16 values[2][TILE_KEYS * PITCH<D>]; /* of softmax attention, once queries are in registers */
    };
    float window[2][WINDOW];
};
static_assert(takes_bytes<forward_shared>(38400, 54784, 71168));

template <int D> using fragments = unsigned[D / 16][4];

/* Queries stay in shared memory alone where registers are few. */
template <int D> constexpr bool QUERIES_STAY = D == 128;

template <int D>
__device__ __forceinline__ void load_tile(forward_shared<D> &shared, int stage, const attention_job &job,
                                          const query_block &block, int tile, bool values) {
    const int key = tile * TILE_KEYS, there = static_cast<int>(job.key_length) - key;
    load_rows<D, TILE_KEYS>(shared.keys[stage], key_rows(job, block, job.k, key), job.key_stride, there,
                            job.wide);
    if (values)
        load_rows<D, TILE_KEYS>(shared.values[stage], key_rows(job, block, job.v, key), job.key_stride, there,
                                job.wide);
    if (has_bias(job, block, tile)) load_window(shared.window[stage], job, block, tile);
}

/* Ends with no copy under way. */
template <int D>
__device__ __forceinline__ void open_queries(forward_shared<D> &shared, const attention_job &job,
                                             const query_block &block, unsigned (&q)[D / 16][4]) {
    load_rows<D, BLOCK_QUERIES>(shared.queries, job.q + query_place(job, block, block.begin),
                                job.query_stride, block.count, job.wide);
    copy_async_commit();
    copy_async_wait<0>();
    __syncthreads();
    load_fragments<D>(q, shared.queries + own_warp() * TILE_ROWS * PITCH<D>);
    __syncthreads();
}

/* ---- the first pass of lazy attention ---- */

/* m and l of the warp's rows; bits of tiles that may be live, to job.live. */
template <int D>
__device__ void first_pass(forward_shared<D> &shared, const attention_job &job, const query_block &block,
                           const warp_view &view, const unsigned (&q)[D / 16][4], const float (&offset)[2],
                           running &rows) {
    const int tile_row = block.begin / TILE_ROWS + own_warp();
    uint32_t bits = 0;
    int stage = 0;
    load_tile(shared, 0, job, block, block.last_tile, false);
    copy_async_commit();
    for (int tile = block.last_tile; tile >= block.first_tile; tile--, stage ^= 1) {
        copy_async_wait<0>();
        __syncthreads();
        if (tile > block.first_tile) load_tile(shared, stage ^ 1, job, block, tile - 1, false);
        copy_async_commit();
        if (sees_tile(view, tile)) {
            float s[TILE_KEYS / 8][4], scale[2], largest[2];
            score_keys<D>(s, q, shared.keys[stage], shared.window[stage], job, block, view, tile * TILE_KEYS,
                          -INFINITY);
            take_in(rows, s, scale, largest);
            if (may_be_live(largest, rows, offset)) bits |= 1u << tile % 32;
        }
        if (tile % 32 != 0 && tile != block.first_tile) continue;
        if (tile_row < job.tile_rows && own_lane() == 0)
            live_words(job, block.pair, tile_row)[tile / 32] = bits;
        bits = 0;
    }
    __syncthreads();
}

/* ---- the second pass ---- */

/* Half tiles that some warp of the block may need, in descending order of tiles. */
struct live_half {
    int tile;  /* -1: none yet, or no more */
    int first; /* of its keys: 0 or HALF_TILE */
    bool own;  /* of this warp */
    int word;  /* of live bits; `block` and `warp` are what is left of it, and its own */
    uint32_t block, warp;
};

__device__ __forceinline__ void next_half(live_half &at, const attention_job &job, const query_block &block) {
    if (at.tile >= 0 && at.first == 0) {
        at.first = HALF_TILE;
        return;
    }
    at.tile = -1;
    at.first = 0;
    while (at.block == 0) {
        if (--at.word < block.first_tile / 32) return;
        const int tile_row = block.begin / TILE_ROWS + own_warp();
        at.block = live_in_block(job, block, at.word);
        at.warp = tile_row < job.tile_rows ? live_words(job, block.pair, tile_row)[at.word] : 0;
    }
    const int bit = 31 - __clz(static_cast<int>(at.block));
    at.block ^= 1u << bit;
    at.own = (at.warp >> bit & 1) != 0;
    at.tile = at.word * 32 + bit;
}

template <int D>
__device__ __forceinline__ void load_half(forward_shared<D> &shared, int stage, const attention_job &job,
                                          const query_block &block, const live_half &at) {
    const int key = at.tile * TILE_KEYS + at.first, there = static_cast<int>(job.key_length) - key;
    bf16 *keys = shared.keys[stage], *values = keys + HALF_TILE * PITCH<D>;
    load_rows<D, HALF_TILE, 0, WARPS / 2>(keys, key_rows(job, block, job.k, key), job.key_stride, there,
                                          job.wide);
    load_rows<D, HALF_TILE, WARPS / 2, WARPS / 2>(values, key_rows(job, block, job.v, key), job.key_stride,
                                                  there, job.wide);
    if (has_bias(job, block, at.tile)) load_window(shared.window[stage], job, block, at.tile);
}

/* o += a v and u += [a > 0] v. */
template <int D>
__device__ __forceinline__ void add_values(float (&o)[D / 8][4], float (&u)[D / 8][4],
                                           const unsigned (&weights)[HALF_TILE / 16][4],
                                           const unsigned (&ones)[HALF_TILE / 16][4], const bf16 *values) {
#pragma unroll
    for (int k = 0; k < HALF_TILE / 16; k++)
#pragma unroll
        for (int n = 0; n < D / 8; n += 2) {
            unsigned v[4];
            load_matrices_transposed(v, values + lane_place<D>() + 16 * k * PITCH<D> + 8 * n);
            multiply_add(o[n], weights[k], v[0], v[1]);
            multiply_add(o[n + 1], weights[k], v[2], v[3]);
            multiply_add(u[n], ones[k], v[0], v[1]);
            multiply_add(u[n + 1], ones[k], v[2], v[3]);
        }
}

/* o and u, from live tiles alone; what is alive in truth, to job.live. */
template <int D>
__device__ void second_pass(forward_shared<D> &shared, const attention_job &job, const query_block &block,
                            const warp_view &view, const unsigned (&q)[D / 16][4], const float (&offset)[2],
                            const running &rows, const float (&inverse)[2], float (&o)[D / 8][4],
                            float (&u)[D / 8][4]) {
    const int tile_row = block.begin / TILE_ROWS + own_warp();
    live_half next = {-1, 0, false, block.last_tile / 32 + 1, 0, 0};
    uint32_t bits = 0;
    int stage = 0;
    next_half(next, job, block);
    if (next.tile >= 0) load_half(shared, 0, job, block, next);
    copy_async_commit();
    for (; next.tile >= 0; stage ^= 1) {
        const int tile = next.tile, key = tile * TILE_KEYS + next.first;
        const bool own = next.own;
        copy_async_wait<0>();
        next_half(next, job, block);
        __syncthreads();
        if (next.tile >= 0) load_half(shared, stage ^ 1, job, block, next);
        copy_async_commit();
        if (own) {
            const bf16 *keys = shared.keys[stage];
            float s[HALF_TILE / 8][4];
            unsigned weights[HALF_TILE / 16][4], ones[HALF_TILE / 16][4];
            fragments<D> anew;
            if (QUERIES_STAY<D>) load_fragments<D>(anew, shared.queries + own_warp() * TILE_ROWS * PITCH<D>);
            const fragments<D> &own_q = QUERIES_STAY<D> ? const_cast<const fragments<D> &>(anew) : q;
            score_keys<D>(s, own_q, keys, shared.window[stage], job, block, view, key, NAN);
            if (weigh(s, rows, inverse, offset, weights, ones)) {
                bits |= 1u << tile % 32;
                add_values<D>(o, u, weights, ones, keys + HALF_TILE * PITCH<D>);
            }
        }
        if (next.tile >= 0 && next.tile / 32 == tile / 32) continue;
        if (tile_row < job.tile_rows && own_lane() == 0)
            live_words(job, block.pair, tile_row)[tile / 32] = bits;
        bits = 0;
    }
    __syncthreads();
}

template <int D> __global__ void __launch_bounds__(THREADS, 1) lazy_forward(attention_job job) {
    LT_DYNAMIC_SHARED(forward_shared<D>, shared);
    const query_block block = open_block(job);
    const warp_view view = open_view(job, block);
    unsigned q[D / 16][4];
    open_queries(*shared, job, block, q);
    float offset[2], inverse[2];
    for (int r = 0; r < 2; r++) offset[r] = offset_of(job, block.head, view.first[r], view.last[r]);
    running rows = none_yet();
    first_pass(*shared, job, block, view, q, offset, rows);
    keep(job, block, rows, inverse);
    float o[D / 8][4] = {}, u[D / 8][4] = {};
    second_pass(*shared, job, block, view, q, offset, rows, inverse, o, u);
    store_block<D>(job.output, shared->keys[0], job, block, o);
    store_block<D>(job.live_sum, shared->queries, job, block, u);
}

/* ---- softmax ---- */

template <int D> __global__ void __launch_bounds__(THREADS, 1) softmax_forward(attention_job job) {
    LT_DYNAMIC_SHARED(forward_shared<D>, shared);
    const query_block block = open_block(job);
    const warp_view view = open_view(job, block);
    unsigned q[D / 16][4];
    open_queries(*shared, job, block, q);
    running rows = none_yet();
    float o[D / 8][4] = {}, inverse[2];
    int stage = 0;
    load_tile(*shared, 0, job, block, block.last_tile, true);
    copy_async_commit();
    for (int tile = block.last_tile; tile >= block.first_tile; tile--, stage ^= 1) {
        copy_async_wait<0>();
        __syncthreads();
        if (tile > block.first_tile) load_tile(*shared, stage ^ 1, job, block, tile - 1, true);
        copy_async_commit();
        if (!sees_tile(view, tile)) continue;
        float s[TILE_KEYS / 8][4], scale[2], largest[2];
        score_keys<D>(s, q, shared->keys[stage], shared->window[stage], job, block, view, tile * TILE_KEYS,
                      -INFINITY);
        take_in(rows, s, scale, largest);
        scale_all(o, scale[0], scale[1]);
#pragma unroll
        for (int k = 0; k < TILE_KEYS / 16; k++) {
            const unsigned weights[4] = {
                pack_bf16(s[2 * k][0], s[2 * k][1]), pack_bf16(s[2 * k][2], s[2 * k][3]),
                pack_bf16(s[2 * k + 1][0], s[2 * k + 1][1]), pack_bf16(s[2 * k + 1][2], s[2 * k + 1][3])};
            add_product<D>(o, weights, shared->values[stage] + 16 * k * PITCH<D>);
        }
    }
    __syncthreads();
    keep(job, block, rows, inverse);
    scale_all(o, inverse[0], inverse[1]);
    store_block<D>(job.output, shared->keys[0], job, block, o);
}

template <int D> cudaError_t launch(cuda_device *device, const attention_job &job) {
    const int64_t blocks = job.batch * job.heads * divide_up(job.query_length, int64_t{BLOCK_QUERIES});
    const auto kernel = job.bias_length > 0 ? lazy_forward<D> : softmax_forward<D>;
    const cudaError_t error =
        cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, sizeof(forward_shared<D>));
    if (error != cudaSuccess) return error;
    return LT_LAUNCH(kernel, static_cast<unsigned>(blocks), THREADS, sizeof(forward_shared<D>),
                     device->stream, job);
}

} // namespace

void lt_cuda_attention_fast_forward(cuda_device *device, const attention_job &job) {
    const auto of_size = job.head_size == 64 ? launch<64> : job.head_size == 96 ? launch<96> : launch<128>;
    lt_cuda_note(device, "attention forward", of_size(device, job));
}
