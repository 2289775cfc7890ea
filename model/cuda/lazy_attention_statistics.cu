/* Attention statistics for head sizes D of 64, 96 and 128, of weights that forward has kept the rows' maxima
 * and sums of.
 *
 * As the first pass of forward: 128 queries of one head in a block, 16 for each warp, with q in registers,
 * and tiles of 64 keys in shared memory, copied two deep. Scores, weights, and counts in each lane; a warp's
 * sums are those of its tile row. 1 product a tile, 128 D bytes for 64 keys of a block. Not measured: an
 * exponential and some ten operations more take two to three times as long as an entry's share of the product
 * at D = 64, so a quarter of an A100's mma rate is expected there, 0.4 at D = 128.
 *
 * ptxas of CUDA 13.0, none spilled: registers for sm_80 and sm_90a, bytes of shared memory of a block.
 *   count_statistics<64>    128  128   19968
 *   count_statistics<96>    128  142   28160
 *   count_statistics<128>   150  150   36352
 */
#include "model/cuda/attention_tiles.h"

namespace {

template <int D> struct statistics_shared {
    bf16 keys[2][TILE_KEYS * PITCH<D>]; /* first the block's queries */
    float window[2][WINDOW];
};
static_assert(takes_bytes<statistics_shared>(19968, 28160, 36352));

/* Of a lane. */
struct lane_counts {
    double visible, zeros, mass, sink, tiles, live_tiles;
};

/* Takes in a tile's scores, of which hidden ones are NaN. */
template <int N>
__device__ __forceinline__ void count_tile(lane_counts &counts, const float (&s)[N][4],
                                           const attention_row (&rows)[2], bool lazy, const warp_view &view,
                                           int key) {
    int visible = 0, zeros = 0;
    float mass = 0.0f;
#pragma unroll
    for (int n = 0; n < N; n++)
#pragma unroll
        for (int i = 0; i < 4; i++) {
            const int r = i / 2;
            const float p = recomputed_probability(s[n][i], rows[r].max, rows[r].inverse_sum);
            if (!(p >= 0.0f)) continue;
            const float weight = !lazy || weight_alive(p, rows[r].offset) ? p + rows[r].offset : 0.0f;
            visible++;
            zeros += weight == 0.0f ? 1 : 0;
            mass += weight;
            if (key + 8 * n + i % 2 == view.first[r] && view.first[r] < view.last[r])
                counts.sink += static_cast<double>(weight);
        }
    counts.visible += visible;
    counts.zeros += zeros;
    counts.mass += static_cast<double>(mass);
    counts.tiles += __any_sync(0xffffffffu, visible > 0) ? 1 : 0;
    counts.live_tiles += __any_sync(0xffffffffu, visible > zeros) ? 1 : 0;
}

/* The sums of a warp's rows. Tiles have been counted by every lane. */
__device__ __forceinline__ void store_counts(const attention_job &job, const query_block &block,
                                             const warp_view &view, const lane_counts &counts) {
    const int tile_row = block.begin / TILE_ROWS + own_warp();
    const double visible = warp_sum(counts.visible), zeros = warp_sum(counts.zeros),
                 mass = warp_sum(counts.mass), sink = warp_sum(counts.sink);
    /* The four lanes of a row hold it alike. */
    double rows = 0, sink_rows = 0;
    for (int r = 0; r < 2; r++) {
        rows += view.last[r] >= 0 ? 0.25 : 0;
        sink_rows += view.last[r] > view.first[r] ? 0.25 : 0;
    }
    rows = warp_sum(rows);
    sink_rows = warp_sum(sink_rows);
    if (own_lane() != 0 || tile_row >= job.tile_rows) return;
    double *statistics = job.statistics + (block.pair * job.tile_rows + tile_row) * LT_STATISTICS;
    statistics[LT_STAT_VISIBLE] = visible;
    statistics[LT_STAT_ZEROS] = zeros;
    statistics[LT_STAT_MASS] = mass;
    statistics[LT_STAT_ROWS] = rows;
    statistics[LT_STAT_SINK] = sink;
    statistics[LT_STAT_SINK_ROWS] = sink_rows;
    statistics[LT_STAT_TILES] = counts.tiles;
    statistics[LT_STAT_LIVE_TILES] = counts.live_tiles;
}

template <int D>
__device__ __forceinline__ void load_tile(statistics_shared<D> &shared, int stage, const attention_job &job,
                                          const query_block &block, int tile) {
    const int key = tile * TILE_KEYS, there = static_cast<int>(job.key_length) - key;
    load_rows<D, TILE_KEYS>(shared.keys[stage], key_rows(job, block, job.k, key), job.key_stride, there,
                            job.wide);
    if (has_bias(job, block, tile)) load_window(shared.window[stage], job, block, tile);
}

template <int D> __global__ void __launch_bounds__(THREADS, 1) count_statistics(attention_job job) {
    LT_DYNAMIC_SHARED(statistics_shared<D>, shared);
    const query_block block = open_block(job);
    const warp_view view = open_view(job, block);
    unsigned q[D / 16][4];
    load_rows<D, BLOCK_QUERIES>(shared->keys[0], job.q + query_place(job, block, block.begin),
                                job.query_stride, block.count, job.wide);
    copy_async_commit();
    copy_async_wait<0>();
    __syncthreads();
    load_fragments<D>(q, shared->keys[0] + own_warp() * TILE_ROWS * PITCH<D>);
    __syncthreads();
    attention_row rows[2];
    for (int r = 0; r < 2; r++) {
        const int row = own_warp() * TILE_ROWS + own_lane() / 4 + 8 * r;
        float2 softmax = {0.0f, 0.0f};
        if (row < block.count) softmax = job.softmax[block.pair * job.query_length + block.begin + row];
        rows[r] = {softmax.x, softmax.y, offset_of(job, block.head, view.first[r], view.last[r]), 0.0f};
    }
    lane_counts counts = {};
    int stage = 0;
    load_tile(*shared, 0, job, block, block.last_tile);
    copy_async_commit();
    for (int tile = block.last_tile; tile >= block.first_tile; tile--, stage ^= 1) {
        copy_async_wait<0>();
        __syncthreads();
        if (tile > block.first_tile) load_tile(*shared, stage ^ 1, job, block, tile - 1);
        copy_async_commit();
        if (!sees_tile(view, tile)) continue;
        float s[TILE_KEYS / 8][4];
        score_keys<D>(s, q, shared->keys[stage], shared->window[stage], job, block, view, tile * TILE_KEYS,
                      NAN);
        count_tile(counts, s, rows, job.bias_length > 0, view, tile * TILE_KEYS + own_lane() % 4 * 2);
    }
    store_counts(job, block, view, counts);
}

template <int D> cudaError_t launch(cuda_device *device, const attention_job &job) {
    const int64_t blocks = job.batch * job.heads * divide_up(job.query_length, int64_t{BLOCK_QUERIES});
    const cudaError_t error = cudaFuncSetAttribute(
        count_statistics<D>, cudaFuncAttributeMaxDynamicSharedMemorySize, sizeof(statistics_shared<D>));
    if (error != cudaSuccess) return error;
    return LT_LAUNCH(count_statistics<D>, static_cast<unsigned>(blocks), THREADS,
                     sizeof(statistics_shared<D>), device->stream, job);
}

} // namespace

void lt_cuda_attention_fast_statistics(cuda_device *device, const attention_job &job) {
    const auto of_size = job.head_size == 64 ? launch<64> : job.head_size == 96 ? launch<96> : launch<128>;
    lt_cuda_note(device, "attention statistics", of_size(device, job));
}
