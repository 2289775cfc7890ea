/* A block of 128 keys of one key head, and the tiles of queries that see it, of one query head after the
 * other: how backward's kernels by keys share the work. */
#ifndef LT_MODEL_CUDA_ATTENTION_BLOCKS_H
#define LT_MODEL_CUDA_ATTENTION_BLOCKS_H

#include "model/cuda/attention_tiles.h"

/* Keys begin .. of one key head, and the queries that see them: tiles first_tile .. first_tile + tiles - 1 of
 * each query head, of QUERIES each. */
struct key_block {
    int batch, key_head, begin, count;
    int first_tile, tiles;
};

/* How many queries have a first key of `key` at most; first keys never fall. A warp looks at 32 at a time. */
static __device__ __forceinline__ int queries_from(const int32_t *starts, int queries, int key) {
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

/* Block `number` of the keys of `pair`, a batch row and key head. */
template <int QUERIES>
static __device__ __forceinline__ key_block open_keys(const attention_job &job, int pair, int number) {
    key_block block;
    const int keys = static_cast<int>(job.key_length), queries = static_cast<int>(job.query_length),
              key_heads = static_cast<int>(job.key_heads);
    block.batch = pair / key_heads;
    block.key_head = pair % key_heads;
    block.begin = number * BLOCK_KEYS;
    block.count = min(keys - block.begin, int{BLOCK_KEYS});
    block.first_tile = max(block.begin - (keys - queries), 0) / QUERIES;
    const int end = job.starts == nullptr ? queries
                                          : queries_from(job.starts + block.batch * job.query_length, queries,
                                                         block.begin + block.count - 1);
    block.tiles = max(divide_up(end, QUERIES) - block.first_tile, 0);
    return block;
}

/* A tile of queries of one head. */
struct query_tile {
    int head, pair, begin, count;
    int position;     /* of its first query, among the keys */
    uint32_t live[4]; /* of each 16 of its queries: the word that has the block's tiles of keys */
};

template <int QUERIES, bool LAZY>
static __device__ __forceinline__ query_tile open_tile(const attention_job &job, const key_block &block,
                                                       int number) {
    query_tile tile;
    const int queries = static_cast<int>(job.query_length);
    tile.head = block.key_head * static_cast<int>(job.heads / job.key_heads) + number / block.tiles;
    tile.pair = block.batch * static_cast<int>(job.heads) + tile.head;
    tile.begin = (block.first_tile + number % block.tiles) * QUERIES;
    tile.count = min(queries - tile.begin, QUERIES);
    tile.position = static_cast<int>(job.key_length) - queries + tile.begin;
#pragma unroll
    for (int i = 0; i < QUERIES / TILE_ROWS; i++) {
        const int tile_row = tile.begin / TILE_ROWS + i;
        tile.live[i] = !LAZY ? 0xffffffffu
                       : tile_row < job.tile_rows
                           ? live_words(job, tile.pair, tile_row)[block.begin / TILE_KEYS / 32]
                           : 0;
    }
    return tile;
}

/* Whether the tile has a pair nearer than W. */
static __device__ __forceinline__ bool is_near(const attention_job &job, const key_block &block,
                                               const query_tile &tile) {
    return job.bias_length > 0 && tile.position - block.begin - (BLOCK_KEYS - 1) < job.bias_length;
}

/* dk and dv to their places, by way of 16 rows of a tile that are the warp's own. */
template <int D>
static __device__ __forceinline__ void store_key_gradients(float (&dk)[D / 8][4], const float (&dv)[D / 8][4],
                                                           bf16 *tile, const attention_job &job,
                                                           const key_block &block) {
    const int row = own_warp() * TILE_ROWS;
    const int64_t to =
        (block.batch * job.key_length + block.begin + row) * job.key_stride + block.key_head * D;
    const float scale = job.scale / LOG2_E;
    tile += row * PITCH<D>;
    scale_all(dk, scale, scale);
    store_rows<D>(job.d_k + to, job.key_stride, block.count - row, tile, dk, job.wide);
    store_rows<D>(job.d_v + to, job.key_stride, block.count - row, tile, dv, job.wide);
}

#endif
