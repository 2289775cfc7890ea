/* Attention backward for head sizes D of 64, 96 and 128: the gradients of queries and of biases
 * (lazy-attention.md, "Backward").
 *
 * A block of 8 warps has 128 queries of one head, 16 for each warp, whose q and do stay in registers as a of
 * products; tiles of 64 keys and values go by in shared memory, copied two deep, and a warp takes 32 keys at
 * a time: s = q k, g = do v where the tile is live, ds = p (g - delta) in registers, which as they lie are a
 * of dq += ds k. 2 + f products a tile; values of tiles that are dead for all 8 warps are not copied.
 *
 * db: a warp adds up the diagonals of its ds by shuffles, 79 sums a tile, which go to shared memory. After
 * the next barrier thread i of the block adds those of the 8 warps to the sum of distance i modulo 256: the
 * block's 191 distances move on by 64 with each tile, so each thread has one sum at a time, and stores it
 * when its distance has gone by; attention.cu adds up the blocks of a head in order. Tiles beyond W skip all
 * of it.
 *
 * Bytes moved for 64 keys of a block: 256 D where live, 128 D where dead.
 *
 * One block a multiprocessor. Each product takes one ldmatrix for two mma: shared memory and an A100's tensor
 * cores are equally busy. Not measured: half of the mma rate is expected.
 *
 * ptxas of CUDA 13.0, none spilled: registers for sm_80 and sm_90a, bytes of shared memory of a block.
 *   query_gradients<64, true>     192  208   43520
 *   query_gradients<96, true>     226  240   59904
 *   query_gradients<128, true>    248  255   76288
 *   query_gradients<64, false>    162  186   43520
 *   query_gradients<96, false>    206  218   59904
 *   query_gradients<128, false>   236  250   76288
 */
#include "model/cuda/attention_tiles.h"

namespace {

/* Keys that a warp takes at a time. */
enum { HALF_TILE = TILE_KEYS / 2 };

/* Diagonals of a warp's 16 x 64 tile: row - column + TILE_KEYS is 1 .. 79. */
enum { DIAGONALS = TILE_ROWS + TILE_KEYS };

template <int D> struct queries_shared {
    bf16 keys[2][TILE_KEYS * PITCH<D>];   /* first the block's q; at the end dq */
    bf16 values[2][TILE_KEYS * PITCH<D>]; /* first the block's do */
    float window[2][WINDOW];
    float diagonals[2][WARPS][DIAGONALS];
};
static_assert(takes_bytes<queries_shared>(43520, 59904, 76288));

/* Of a lane's two rows. */
struct lane_rows {
    float max[2], inverse[2], offset[2], delta[2];
};

/* A row beyond the last query, and one that sees a single key (whose p is 1 whatever its score), get ds = 0
 * by p = 0. */
__device__ __forceinline__ lane_rows open_rows(const attention_job &job, const query_block &block,
                                               const warp_view &view) {
    lane_rows rows;
    for (int r = 0; r < 2; r++) {
        const int row = own_warp() * TILE_ROWS + own_lane() / 4 + 8 * r;
        attention_row own = {0.0f, 0.0f, 0.0f, 0.0f};
        if (row < block.count) own = job.rows[block.pair * job.query_length + block.begin + row];
        rows.max[r] = own.max;
        rows.inverse[r] = view.first[r] == view.last[r] ? 0.0f : own.inverse_sum;
        rows.offset[r] = own.offset;
        rows.delta[r] = own.delta;
    }
    return rows;
}

/* ---- live bits of the tile at hand ---- */

struct tile_bits {
    int word; /* of which these are */
    uint32_t block, warp;
};

/* Softmax attention has no dead tiles. */
template <bool LAZY>
__device__ __forceinline__ void find_bits(tile_bits &bits, const attention_job &job, const query_block &block,
                                          int tile) {
    if (bits.word == tile / 32) return;
    bits.word = tile / 32;
    bits.block = bits.warp = 0xffffffffu;
    if (!LAZY) return;
    const int tile_row = block.begin / TILE_ROWS + own_warp();
    bits.block = live_in_block(job, block, bits.word);
    bits.warp = tile_row < job.tile_rows ? live_words(job, block.pair, tile_row)[bits.word] : 0;
}

__device__ __forceinline__ bool has(uint32_t bits, int tile) {
    return (bits >> tile % 32 & 1) != 0;
}

/* ---- biases ---- */

/* The sums of a half tile's ds along its diagonals: diagonals[i], in lanes with t = 0, is that of row -
 * column = 8 (i - 4) + g. A diagonal runs on from (g, t, e) to (g + 1, e - 1) and (g + 2, t + 1), and beyond
 * g = 7 to the next higher i of g = 0. */
__device__ __forceinline__ void add_diagonals(const float (&ds)[HALF_TILE / 8][4], float (&diagonals)[6]) {
    const int lane = own_lane();
    float even[7], odd[7]; /* e = 0 and 1, of i from 0 on; 7: what lies beyond */
#pragma unroll
    for (int i = 0; i < 7; i++) {
        /* Row block r and column block n with r - n = i - 4. */
        const int lower = 4 - i, upper = 5 - i;
        even[i] = (lower >= 0 && lower < 4 ? ds[lower & 3][0] : 0.0f) +
                  (upper >= 0 && upper < 4 ? ds[upper & 3][2] : 0.0f);
        odd[i] = (lower >= 0 && lower < 4 ? ds[lower & 3][1] : 0.0f) +
                 (upper >= 0 && upper < 4 ? ds[upper & 3][3] : 0.0f);
    }
#pragma unroll
    for (int i = 0; i < 6; i++)
        even[i] += __shfl_sync(0xffffffffu, lane / 4 == 0 ? odd[i + 1] : odd[i], (lane + 4) & 31);
#pragma unroll
    for (int i = 0; i < 6; i++)
        odd[i] = even[i] + __shfl_sync(0xffffffffu, lane / 4 < 2 ? even[i + 1] : even[i], (lane + 9) & 31);
    odd[6] = 0.0f;
#pragma unroll
    for (int i = 0; i < 6; i++)
        diagonals[i] =
            odd[i] + __shfl_sync(0xffffffffu, lane / 4 < 4 ? odd[i + 1] : odd[i], (lane + 18) & 31);
}

/* A thread's sum, of one distance at a time. */
struct distance_sum {
    int distance; /* -1: none yet */
    float sum;
};

__device__ __forceinline__ void store_distance(const attention_job &job, const query_block &block,
                                               const distance_sum &own) {
    if (own.distance >= 0 && own.distance < job.bias_length)
        job.bias_sums[(block.pair * job.bias_blocks + block.number) * job.bias_length + own.distance] =
            own.sum;
}

/* Distances that no tile of the block has. */
__device__ __forceinline__ void zero_distances(const attention_job &job, const query_block &block) {
    distance_sum none = {block.position - block.first_tile * TILE_KEYS + BLOCK_QUERIES, 0.0f};
    for (none.distance += static_cast<int>(threadIdx.x); none.distance < job.bias_length;
         none.distance += THREADS)
        store_distance(job, block, none);
}

/* Takes in the diagonals of a tile, in the order of the warps. */
__device__ __forceinline__ void take_diagonals(distance_sum &own, const float (*diagonals)[DIAGONALS],
                                               const attention_job &job, const query_block &block, int tile) {
    const int nearest = block.position - tile * TILE_KEYS - (TILE_KEYS - 1);
    const int thread = static_cast<int>(threadIdx.x), place = (thread - nearest) & (THREADS - 1);
    if (place >= WINDOW - 1) return;
    if (own.distance != nearest + place) {
        store_distance(job, block, own);
        own = {nearest + place, 0.0f};
    }
    for (int warp = 0; warp < WARPS; warp++) {
        const int diagonal = place + 1 - TILE_ROWS * warp;
        if (diagonal >= 1 && diagonal < DIAGONALS) own.sum += diagonals[warp][diagonal];
    }
}

/* ---- the kernel ---- */

template <int D>
__device__ __forceinline__ void load_tile(queries_shared<D> &shared, int stage, const attention_job &job,
                                          const query_block &block, int tile, bool values) {
    const int key = tile * TILE_KEYS, there = static_cast<int>(job.key_length) - key;
    load_rows<D, TILE_KEYS>(shared.keys[stage], key_rows(job, block, job.k, key), job.key_stride, there,
                            job.wide);
    if (values)
        load_rows<D, TILE_KEYS>(shared.values[stage], key_rows(job, block, job.v, key), job.key_stride, there,
                                job.wide);
    if (has_bias(job, block, tile)) load_window(shared.window[stage], job, block, tile);
}

/* ds of 32 keys: scores, then gradients, in place. */
template <int D, bool LAZY>
__device__ __forceinline__ void score_gradients(float (&s)[HALF_TILE / 8][4], const lane_rows &rows,
                                                const unsigned (&d_output)[D / 16][4], const bf16 *values,
                                                bool live) {
    float g[HALF_TILE / 8][4] = {};
    if (live) multiply_rows<D>(g, d_output, values);
#pragma unroll
    for (int n = 0; n < HALF_TILE / 8; n++)
#pragma unroll
        for (int i = 0; i < 4; i++) {
            const int r = i / 2;
            const float p = recomputed_probability(s[n][i], rows.max[r], rows.inverse[r]);
            const bool alive = !LAZY || (live && weight_alive(p, rows.offset[r]));
            s[n][i] = p * ((alive ? g[n][i] : 0.0f) - rows.delta[r]);
        }
}

template <int D, bool LAZY> __global__ void __launch_bounds__(THREADS, 1) query_gradients(attention_job job) {
    LT_DYNAMIC_SHARED(queries_shared<D>, shared);
    const query_block block = open_block(job);
    const warp_view view = open_view(job, block);
    const int warp = own_warp(), lane = own_lane(), g = lane / 4, t = lane % 4, row = warp * TILE_ROWS;
    load_rows<D, BLOCK_QUERIES>(shared->keys[0], job.q + query_place(job, block, block.begin),
                                job.query_stride, block.count, job.wide);
    load_rows<D, BLOCK_QUERIES>(shared->values[0], job.d_output + output_place(job, block, block.begin),
                                job.heads * job.head_size, block.count, job.wide);
    copy_async_commit();
    const lane_rows rows = open_rows(job, block, view);
    copy_async_wait<0>();
    __syncthreads();
    unsigned q[D / 16][4], d_output[D / 16][4];
    load_fragments<D>(q, shared->keys[0] + row * PITCH<D>);
    load_fragments<D>(d_output, shared->values[0] + row * PITCH<D>);
    __syncthreads();

    float dq[D / 8][4] = {};
    distance_sum distance = {-1, 0.0f};
    tile_bits bits = {-1, 0, 0};
    int stage = 0;
    bool biased = false; /* the tile before left diagonals */
    find_bits<LAZY>(bits, job, block, block.last_tile);
    bool live = has(bits.warp, block.last_tile);
    load_tile(*shared, 0, job, block, block.last_tile, has(bits.block, block.last_tile));
    copy_async_commit();
    for (int tile = block.last_tile; tile >= block.first_tile; tile--, stage ^= 1) {
        const bool own_live = live;
        copy_async_wait<0>();
        __syncthreads();
        if (tile > block.first_tile) {
            find_bits<LAZY>(bits, job, block, tile - 1);
            live = has(bits.warp, tile - 1);
            load_tile(*shared, stage ^ 1, job, block, tile - 1, has(bits.block, tile - 1));
        }
        copy_async_commit();
        if (biased) take_diagonals(distance, shared->diagonals[stage ^ 1], job, block, tile + 1);
        biased = LAZY && has_bias(job, block, tile);
        float left[2] = {0.0f, 0.0f}; /* the first half's diagonals that the second shares */
        float *diagonals = shared->diagonals[stage][warp];
        if (!sees_tile(view, tile)) {
            if (biased)
                for (int i = lane; i < DIAGONALS; i += WARP) diagonals[i] = 0.0f;
            continue;
        }
#pragma unroll 1
        for (int first = 0; first < TILE_KEYS; first += HALF_TILE) {
            const bf16 *keys = shared->keys[stage] + first * PITCH<D>;
            float s[HALF_TILE / 8][4];
            score_keys<D>(s, q, keys, shared->window[stage], job, block, view, tile * TILE_KEYS + first,
                          -INFINITY);
            score_gradients<D, LAZY>(s, rows, d_output, shared->values[stage] + first * PITCH<D>, own_live);
#pragma unroll
            for (int k = 0; k < HALF_TILE / 16; k++) {
                const unsigned ds[4] = {
                    pack_bf16(s[2 * k][0], s[2 * k][1]), pack_bf16(s[2 * k][2], s[2 * k][3]),
                    pack_bf16(s[2 * k + 1][0], s[2 * k + 1][1]), pack_bf16(s[2 * k + 1][2], s[2 * k + 1][3])};
                add_product<D>(dq, ds, keys + 16 * k * PITCH<D>);
            }
            if (!biased) continue;
            float sums[6];
            add_diagonals(s, sums);
            /* Of the second half these lie 32 columns, 4 places, further on. */
            sums[4] += left[0], sums[5] += left[1];
#pragma unroll
            for (int i = 0; i < 6; i++)
                if (t == 0 && (i >= 2 || first > 0)) diagonals[TILE_KEYS - first + 8 * (i - 4) + g] = sums[i];
            left[0] = sums[0], left[1] = sums[1];
        }
    }
    __syncthreads();
    if (biased) take_diagonals(distance, shared->diagonals[stage ^ 1], job, block, block.first_tile);
    if (LAZY) {
        store_distance(job, block, distance);
        zero_distances(job, block);
    }
    const float scale = job.scale / LOG2_E;
    scale_all(dq, scale, scale);
    store_rows<D>(job.d_q + query_place(job, block, block.begin + row), job.query_stride, block.count - row,
                  shared->keys[0] + row * PITCH<D>, dq, job.wide);
}

template <int D> cudaError_t launch(cuda_device *device, const attention_job &job) {
    const int64_t blocks = job.batch * job.heads * divide_up(job.query_length, int64_t{BLOCK_QUERIES});
    const auto kernel = job.bias_length > 0 ? query_gradients<D, true> : query_gradients<D, false>;
    const cudaError_t error =
        cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, sizeof(queries_shared<D>));
    if (error != cudaSuccess) return error;
    return LT_LAUNCH(kernel, static_cast<unsigned>(blocks), THREADS, sizeof(queries_shared<D>),
                     device->stream, job);
}

} // namespace

void lt_cuda_attention_fast_queries(cuda_device *device, const attention_job &job) {
    const auto of_size = job.head_size == 64 ? launch<64> : job.head_size == 96 ? launch<96> : launch<128>;
    lt_cuda_note(device, "attention backward (queries)", of_size(device, job));
}
