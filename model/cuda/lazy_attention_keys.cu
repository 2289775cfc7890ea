/* Attention backward for head sizes D of 64, 96 and 128: the gradients of keys and values (lazy-attention.md,
 * "Backward").
 *
 * A block of 8 warps has 128 keys of one key head, 16 for each warp, with dk and dv in registers, where k
 * (and v, but for D = 128) stay as b of products too; the queries that see them go by, of one query head
 * after the other, in tiles of q and do in shared memory (64 rows; 32 for D = 128), copied two deep together
 * with what backward knows of each row. A warp takes 16 queries at a time: s = q k, g = do v where the tile
 * is live, a and ds. Their transposes, 8 x 8 by 8 x 8 in registers, are a of dv += a^T do, where live, and dk
 * += ds^T q. 2 + 2 f products a tile; nothing is added up outside the block, so there is one order of sums.
 *
 * Bytes moved for 64 queries of a block: 256 D + 1.25 KiB.
 *
 * Head size 64, 96, 128: 198, 244, 254 registers (softmax 181, 234, 252; none spilled), 40.1, 56.2, 70.5 KiB
 * of shared memory, one block a multiprocessor. Four ldmatrix, five where values stay in shared memory, for
 * eight mma: shared memory and an A100's tensor cores are about equally busy. Not measured: half of the mma
 * rate is expected, 0.4 for D = 128.
 */
#include "model/cuda/attention_tiles.h"

namespace {

enum { BLOCK_KEYS = TILE_ROWS * WARPS };

template <int D> constexpr int ROWS = D == 128 ? 32 : 64; /* queries of a tile */
template <int D> constexpr bool VALUES_STAY = D == 128;   /* in shared memory */
template <int D> constexpr int VALUE_ROWS = VALUES_STAY<D> ? BLOCK_KEYS : 1;
template <int D> constexpr int DISTANCES = BLOCK_KEYS + ROWS<D>; /* of a row and a column */

template <int D> struct keys_shared {
    bf16 tiles[2][2][ROWS<D> * PITCH<D>]; /* q and do; first the block's keys, at the end dk and dv */
    bf16 values[VALUE_ROWS<D> * PITCH<D>];
    attention_row rows[2][ROWS<D>];
    int first[2][ROWS<D>]; /* key that each query sees */
    float window[2][DISTANCES<D>];
};

/* Keys begin .. of one key head, and the queries that see them: tiles first_tile .. first_tile + tiles - 1 of
 * each query head. */
struct key_block {
    int batch, key_head, begin, count;
    int first_tile, tiles;
};

/* How many queries have a first key of `key` at most; first keys never fall. A warp looks at 32 at a time. */
__device__ __forceinline__ int queries_from(const int32_t *starts, int queries, int key) {
    int low = 0, high = queries;
    while (low < high) {
        const int step = divide_up(high - low, int{WARP}), own = low + own_lane() * step;
        const int sees = __popc(__ballot_sync(0xffffffffu, own < high && starts[own] <= key));
        const int begin = low;
        low = sees == 0 ? begin : begin + (sees - 1) * step + 1;
        high = min(high, begin + sees * step);
    }
    return low;
}

/* The keys that most queries see come first. */
template <int D> __device__ __forceinline__ key_block open_keys(const attention_job &job) {
    key_block block;
    const int keys = static_cast<int>(job.key_length), queries = static_cast<int>(job.query_length),
              blocks = divide_up(keys, int{BLOCK_KEYS}), number = static_cast<int>(blockIdx.x),
              key_heads = static_cast<int>(job.key_heads);
    block.batch = number / blocks / key_heads;
    block.key_head = number / blocks % key_heads;
    block.begin = number % blocks * BLOCK_KEYS;
    block.count = min(keys - block.begin, int{BLOCK_KEYS});
    block.first_tile = max(block.begin - (keys - queries), 0) / ROWS<D>;
    const int end = job.starts == nullptr ? queries
                                          : queries_from(job.starts + block.batch * job.query_length, queries,
                                                         block.begin + block.count - 1);
    block.tiles = max(divide_up(end, ROWS<D>) - block.first_tile, 0);
    return block;
}

/* A tile of queries of one head. */
struct query_tile {
    int head, pair, begin, count;
    int position;     /* of its first query, among the keys */
    uint32_t live[4]; /* of each 16 of its queries: the word that has the block's tiles of keys */
};

template <int D, bool LAZY>
__device__ __forceinline__ query_tile open_tile(const attention_job &job, const key_block &block,
                                                int number) {
    query_tile tile;
    const int queries = static_cast<int>(job.query_length);
    tile.head = block.key_head * static_cast<int>(job.heads / job.key_heads) + number / block.tiles;
    tile.pair = block.batch * static_cast<int>(job.heads) + tile.head;
    tile.begin = (block.first_tile + number % block.tiles) * ROWS<D>;
    tile.count = min(queries - tile.begin, ROWS<D>);
    tile.position = static_cast<int>(job.key_length) - queries + tile.begin;
#pragma unroll
    for (int i = 0; i < ROWS<D> / TILE_ROWS; i++) {
        const int tile_row = tile.begin / TILE_ROWS + i;
        tile.live[i] = !LAZY ? 0xffffffffu
                       : tile_row < job.tile_rows
                           ? live_words(job, tile.pair, tile_row)[block.begin / TILE_KEYS / 32]
                           : 0;
    }
    return tile;
}

/* Whether the tile has a pair nearer than W. */
template <int D>
__device__ __forceinline__ bool is_near(const attention_job &job, const key_block &block,
                                        const query_tile &tile) {
    return job.bias_length > 0 && tile.position - block.begin - (BLOCK_KEYS - 1) < job.bias_length;
}

template <int D>
__device__ __forceinline__ void load_tile(keys_shared<D> &shared, int stage, const attention_job &job,
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
    if (is_near<D>(job, block, tile) && own_warp() < DISTANCES<D> / WARP) {
        const bool there = distance >= 0 && distance < job.bias_length;
        copy_async_4(&shared.window[stage][own],
                     job.bias + tile.head * job.bias_length + (there ? distance : 0), there);
    }
}

/* s = a b of 16 rows in shared memory and 16 keys in registers, in the order of multiply_rows(). */
template <int D>
__device__ __forceinline__ void multiply_keys(float (&s)[2][4], const bf16 *rows,
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

/* The transpose of 16 x 16 values as a of products. */
__device__ __forceinline__ void transpose(unsigned (&to)[4], const float (&from)[2][4]) {
    to[0] = transposed_matrix(pack_bf16(from[0][0], from[0][1]));
    to[1] = transposed_matrix(pack_bf16(from[1][0], from[1][1]));
    to[2] = transposed_matrix(pack_bf16(from[0][2], from[0][3]));
    to[3] = transposed_matrix(pack_bf16(from[1][2], from[1][3]));
}

/* Scores s and g = do v to ds and a, in place. `single`: the row sees one key, so that p is 1 whatever its
 * score. */
template <bool LAZY>
__device__ __forceinline__ void differentiate(float (&s)[2][4], float (&g)[2][4],
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

/* What 16 queries, those of chunk `chunk` of a tile, add to the warp's keys. */
template <int D, bool LAZY>
__device__ __forceinline__ void
add_queries(float (&dk)[D / 8][4], float (&dv)[D / 8][4], const keys_shared<D> &shared, int stage,
            const attention_job &job, const key_block &block, const query_tile &tile, int chunk,
            const unsigned (&keys)[D / 16][4], const unsigned (&values)[D / 16][4]) {
    const int lane = own_lane(), g = lane / 4, t = lane % 4, row = chunk * TILE_ROWS;
    const int key = block.begin + own_warp() * TILE_ROWS, position = tile.position + row;
    const int end = min(tile.count, row + TILE_ROWS); /* of the chunk's queries */
    const int *first = shared.first[stage];
    if (row >= end || key > tile.position + end - 1 || key + TILE_ROWS <= first[row]) return;
    const bool live = (tile.live[chunk] >> key / TILE_KEYS % 32 & 1) != 0;
    const bf16 *q = shared.tiles[stage][0] + row * PITCH<D>,
               *d_output = shared.tiles[stage][1] + row * PITCH<D>;
    float s[2][4], d[2][4] = {};
    multiply_keys<D>(s, q, keys);
    const float *window = shared.window[stage] + BLOCK_KEYS - 1 + row + g - own_warp() * TILE_ROWS - 2 * t;
    add_bias(s, job.scale, is_near<D>(job, block, tile) ? window : nullptr);
    bool single[2] = {false, false};
    if (key + TILE_ROWS - 1 > position || first[end - 1] > key) {
        const int firsts[2] = {first[row + g], first[row + g + 8]},
                  lasts[2] = {position + g, position + g + 8};
        hide(s, firsts, lasts, key + 2 * t, -INFINITY);
        for (int r = 0; r < 2; r++) single[r] = firsts[r] == lasts[r];
    }
    if (live) {
        if (VALUES_STAY<D>) {
            unsigned of[D / 16][4];
            load_fragments<D>(of, shared.values + own_warp() * TILE_ROWS * PITCH<D>);
            multiply_keys<D>(d, d_output, of);
        } else {
            multiply_keys<D>(d, d_output, values);
        }
    }
    const attention_row rows[2] = {shared_read(&shared.rows[stage][row + g]),
                                   shared_read(&shared.rows[stage][row + g + 8])};
    differentiate<LAZY>(s, d, rows, single, live);
    unsigned transposed[4];
    transpose(transposed, s);
    add_product<D>(dk, transposed, q);
    if (!live) return;
    transpose(transposed, d);
    add_product<D>(dv, transposed, d_output);
}

/* The warp's keys, and values, to fragments; values that stay, to their place. */
template <int D>
__device__ __forceinline__ void open_fragments(keys_shared<D> &shared, const attention_job &job,
                                               const key_block &block, unsigned (&keys)[D / 16][4],
                                               unsigned (&values)[D / 16][4]) {
    const int64_t from = (block.batch * job.key_length + block.begin) * job.key_stride + block.key_head * D;
    bf16 *of_keys = shared.tiles[0][0], *of_values = VALUES_STAY<D> ? shared.values : shared.tiles[1][0];
    const int own = own_warp() * TILE_ROWS * PITCH<D>;
    load_rows<D, BLOCK_KEYS>(of_keys, job.k + from, job.key_stride, block.count, job.wide);
    load_rows<D, BLOCK_KEYS>(of_values, job.v + from, job.key_stride, block.count, job.wide);
    copy_async_commit();
    copy_async_wait<0>();
    __syncthreads();
    load_fragments<D>(keys, of_keys + own);
    if (!VALUES_STAY<D>) load_fragments<D>(values, of_values + own);
    __syncthreads();
}

template <int D, bool LAZY> __global__ void __launch_bounds__(THREADS, 1) key_gradients(attention_job job) {
    LT_DYNAMIC_SHARED(keys_shared<D>, shared);
    const key_block block = open_keys<D>(job);
    const int tiles = block.tiles * static_cast<int>(job.heads / job.key_heads);
    unsigned keys[D / 16][4], values[D / 16][4] = {};
    float dk[D / 8][4] = {}, dv[D / 8][4] = {};
    open_fragments(*shared, job, block, keys, values);
    query_tile next = {};
    if (tiles > 0) {
        next = open_tile<D, LAZY>(job, block, 0);
        load_tile(*shared, 0, job, block, next);
    }
    copy_async_commit();
    for (int number = 0, stage = 0; number < tiles; number++, stage ^= 1) {
        const query_tile tile = next;
        copy_async_wait<0>();
        __syncthreads();
        if (number + 1 < tiles) {
            next = open_tile<D, LAZY>(job, block, number + 1);
            load_tile(*shared, stage ^ 1, job, block, next);
        }
        copy_async_commit();
#pragma unroll
        for (int chunk = 0; chunk < ROWS<D> / TILE_ROWS; chunk++)
            add_queries<D, LAZY>(dk, dv, *shared, stage, job, block, tile, chunk, keys, values);
    }
    __syncthreads();
    const int row = own_warp() * TILE_ROWS;
    const int64_t to =
        (block.batch * job.key_length + block.begin + row) * job.key_stride + block.key_head * D;
    bf16 *rows = shared->tiles[0][0] + row * PITCH<D>;
    const float scale = job.scale / LOG2_E;
    scale_all(dk, scale, scale);
    store_rows<D>(job.d_k + to, job.key_stride, block.count - row, rows, dk, job.wide);
    store_rows<D>(job.d_v + to, job.key_stride, block.count - row, rows, dv, job.wide);
}

template <int D> cudaError_t launch(cuda_device *device, const attention_job &job) {
    const int64_t blocks = job.batch * job.key_heads * divide_up(job.key_length, int64_t{BLOCK_KEYS});
    const auto kernel = job.bias_length > 0 ? key_gradients<D, true> : key_gradients<D, false>;
    const cudaError_t error =
        cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, sizeof(keys_shared<D>));
    if (error != cudaSuccess) return error;
    return LT_LAUNCH(kernel, static_cast<unsigned>(blocks), THREADS, sizeof(keys_shared<D>), device->stream,
                     job);
}

} // namespace

void lt_cuda_attention_fast_keys(cuda_device *device, const attention_job &job) {
    const auto of_size = job.head_size == 64 ? launch<64> : job.head_size == 96 ? launch<96> : launch<128>;
    lt_cuda_note(device, "attention backward (keys)", of_size(device, job));
}
