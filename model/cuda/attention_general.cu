/* Attention of any head size, one warp a row: the path of shapes that have no fast kernels. All arithmetic is
 * float32 on bfloat16 inputs.
 *
 * A warp takes 32 keys (or queries) of its row at a time: each lane works out one score, by a dot product of
 * its own, then the lanes stand for 32 elements of the head and add the 32 weighted vectors in order. Heads
 * wider than 32 go through once for every 32 elements, with their scores worked out anew. So a pair of a
 * query and a key costs 2 + D/32 dot products forward and 4 D/32 backward (and 2 within W), read through the
 * caches. Each of a dot product's multiply-adds waits for two loads of 2 bytes, in lanes that lie a row
 * apart. Not measured: one or two hundredths of the float32 rate are expected, a thousandth of the tensor
 * cores'.
 *
 * ptxas of CUDA 13.0, none spilled: registers for sm_80 and sm_90a, bytes of shared memory of a block.
 *   forward             56   56     512
 *   query_gradients     64   56     512
 *   key_gradients       64   64    1024
 *   bias_gradients      48   40       0
 *   count_statistics    72   76     512
 */
#include "model/cuda/attention.h"

enum { WARP = 32, WARPS = 4, THREADS = WARP * WARPS };

static unsigned blocks_for(int64_t warps) {
    return static_cast<unsigned>(divide_up(warps, int64_t{WARPS}));
}

static __device__ __forceinline__ int64_t own_warp() {
    return static_cast<int64_t>(blockIdx.x) * WARPS + threadIdx.x / WARP;
}

static __device__ __forceinline__ int own_lane() {
    return static_cast<int>(threadIdx.x % WARP);
}

static __device__ __forceinline__ float dot(const bf16 *x, const bf16 *y, int64_t count) {
    float sum = 0.0f;
    for (int64_t i = 0; i < count; i++) sum = fmaf(__bfloat162float(x[i]), __bfloat162float(y[i]), sum);
    return sum;
}

/* ---- places ---- */

static __device__ __forceinline__ int64_t query_place(const attention_job &job, const attention_query &at) {
    return (at.batch * job.query_length + at.query) * job.query_stride + at.head * job.head_size;
}

static __device__ __forceinline__ int64_t output_place(const attention_job &job, const attention_query &at) {
    return ((at.batch * job.query_length + at.query) * job.heads + at.head) * job.head_size;
}

static __device__ __forceinline__ int64_t key_place(const attention_job &job, const attention_query &at,
                                                    int64_t key) {
    const int64_t key_head = at.head / (job.heads / job.key_heads);
    return (at.batch * job.key_length + key) * job.key_stride + key_head * job.head_size;
}

static __device__ __forceinline__ int64_t row_of(const attention_job &job, const attention_query &at) {
    return (at.batch * job.heads + at.head) * job.query_length + at.query;
}

/* ---- one pair of a query and a key that it sees ---- */

static __device__ __forceinline__ float score_of(const attention_job &job, const attention_query &at,
                                                 int64_t key) {
    const float product = dot(job.q + query_place(job, at), job.k + key_place(job, at, key), job.head_size);
    const int64_t distance = at.last - key;
    return distance < job.bias_length
               ? fmaf(product, job.scale, job.bias[at.head * job.bias_length + distance] * LOG2_E)
               : __fmul_rn(product, job.scale);
}

static __device__ __forceinline__ float weight_of(float p, float offset) {
    return weight_alive(p, offset) ? p + offset : 0.0f;
}

struct pair_gradients {
    float weight, d_score; /* a_ij, ds_ij */
};

/* A query that sees one key has p = 1 whatever its score. */
static __device__ __forceinline__ pair_gradients gradients_of(const attention_job &job,
                                                              const attention_query &at,
                                                              const attention_row &row, int64_t key) {
    const float p = probability(score_of(job, at, key), row.max, row.inverse_sum);
    const bool alive = weight_alive(p, row.offset) || job.bias_length == 0;
    const float g =
        alive ? dot(job.d_output + output_place(job, at), job.v + key_place(job, at, key), job.head_size)
              : 0.0f;
    return {weight_of(p, row.offset), at.first == at.last ? 0.0f : p * (g - row.delta)};
}

/* ---- forward ---- */

/* The largest score of a row and 1 / sum. All lanes. */
static __device__ float2 softmax_of(const attention_job &job, const attention_query &at) {
    float max = -INFINITY, sum = 0.0f;
    for (int64_t key = at.first + own_lane(); key <= at.last; key += WARP)
        max = fmaxf(max, score_of(job, at, key));
    for (int lanes = WARP / 2; lanes > 0; lanes /= 2)
        max = fmaxf(max, __shfl_xor_sync(0xffffffffu, max, lanes));
    for (int64_t key = at.first + own_lane(); key <= at.last; key += WARP)
        sum += power_of_two(score_of(job, at, key) - max);
    return {max, 1.0f / warp_sum(sum)};
}

/* One warp a row (batch, head, query). */
static __global__ void forward(attention_job job) {
    LT_SHARED(float, shared_weights, THREADS);
    float *weights = shared_weights + threadIdx.x / WARP * WARP;
    const int lane = own_lane();
    const int64_t row = own_warp();
    if (row >= job.batch * job.heads * job.query_length) return;
    const attention_query at = query_of_row(job, row);
    const float2 softmax = softmax_of(job, at);
    if (lane == 0) job.softmax[row] = softmax;
    for (int64_t element = lane; element - lane < job.head_size; element += WARP) {
        float sum = 0.0f, live = 0.0f;
        for (int64_t begin = at.first; begin <= at.last; begin += WARP) {
            const int64_t own = begin + lane, end = min(begin + WARP, at.last + 1);
            __syncwarp();
            if (own < end)
                weights[lane] =
                    weight_of(probability(score_of(job, at, own), softmax.x, softmax.y), at.offset);
            __syncwarp();
            for (int64_t key = begin; key < end && element < job.head_size; key++) {
                const float weight = weights[key - begin],
                            value = __bfloat162float(job.v[key_place(job, at, key) + element]);
                sum = fmaf(weight, value, sum);
                live += weight > 0.0f ? value : 0.0f;
            }
        }
        if (element >= job.head_size) continue;
        job.output[output_place(job, at) + element] = __float2bfloat16_rn(sum);
        if (job.bias_length > 0) job.live_sum[output_place(job, at) + element] = __float2bfloat16_rn(live);
    }
}

void lt_cuda_attention_general_forward(cuda_device *device, const attention_job &job) {
    const unsigned blocks = blocks_for(job.batch * job.heads * job.query_length);
    lt_cuda_note(device, "attention forward", LT_LAUNCH(forward, blocks, THREADS, 0, device->stream, job));
}

/* ---- backward ---- */

/* One warp a row: dq_i = sum_j ds_ij k_j / sqrt(D). */
static __global__ void query_gradients(attention_job job) {
    LT_SHARED(float, shared_d_scores, THREADS);
    float *d_scores = shared_d_scores + threadIdx.x / WARP * WARP;
    const int lane = own_lane();
    const int64_t row = own_warp();
    if (row >= job.batch * job.heads * job.query_length) return;
    const attention_query at = query_of_row(job, row);
    for (int64_t element = lane; element - lane < job.head_size; element += WARP) {
        float sum = 0.0f;
        for (int64_t begin = at.first; begin <= at.last; begin += WARP) {
            const int64_t own = begin + lane, end = min(begin + WARP, at.last + 1);
            __syncwarp();
            if (own < end) d_scores[lane] = gradients_of(job, at, job.rows[row], own).d_score;
            __syncwarp();
            for (int64_t key = begin; key < end && element < job.head_size; key++)
                sum = fmaf(d_scores[key - begin], __bfloat162float(job.k[key_place(job, at, key) + element]),
                           sum);
        }
        if (element < job.head_size)
            job.d_q[query_place(job, at) + element] = __float2bfloat16_rn(sum * (job.scale / LOG2_E));
    }
}

/* What the 32 queries from `begin` on of one head add to element `element` of dk_j and dv_j. */
static __device__ void add_queries(const attention_job &job, int64_t batch, int64_t head, int64_t key,
                                   int64_t begin, int64_t element, pair_gradients *pairs, float *dk,
                                   float *dv) {
    const int64_t own = begin + own_lane(), end = min(begin + WARP, job.query_length);
    __syncwarp();
    pairs[own_lane()] = {0.0f, 0.0f};
    if (own < end) {
        const attention_query at = query_at(job, batch, head, own);
        if (at.first <= key) pairs[own_lane()] = gradients_of(job, at, job.rows[row_of(job, at)], key);
    }
    __syncwarp();
    for (int64_t query = begin; query < end && element < job.head_size; query++) {
        attention_query at = {};
        at.batch = batch;
        at.head = head;
        at.query = query;
        const pair_gradients pair = pairs[query - begin];
        *dk = fmaf(pair.d_score, __bfloat162float(job.q[query_place(job, at) + element]), *dk);
        *dv = fmaf(pair.weight, __bfloat162float(job.d_output[output_place(job, at) + element]), *dv);
    }
}

/* One warp a key (batch, key head, key): dk_j = sum_i ds_ij q_i / sqrt(D) and dv_j = sum_i a_ij do_i, the
 * heads of the key head in order. */
static __global__ void key_gradients(attention_job job) {
    LT_SHARED(pair_gradients, shared_pairs, THREADS);
    pair_gradients *pairs = shared_pairs + threadIdx.x / WARP * WARP;
    const int64_t number = own_warp(), group = job.heads / job.key_heads;
    if (number >= job.batch * job.key_heads * job.key_length) return;
    const int64_t key = number % job.key_length, key_head = number / job.key_length % job.key_heads,
                  batch = number / job.key_length / job.key_heads;
    const int64_t earliest = max(key - (job.key_length - job.query_length), int64_t{0});
    const int64_t to = (batch * job.key_length + key) * job.key_stride + key_head * job.head_size;
    for (int64_t element = own_lane(); element - own_lane() < job.head_size; element += WARP) {
        float dk = 0.0f, dv = 0.0f;
        for (int64_t head = key_head * group; head < (key_head + 1) * group; head++)
            for (int64_t begin = earliest; begin < job.query_length; begin += WARP)
                add_queries(job, batch, head, key, begin, element, pairs, &dk, &dv);
        if (element >= job.head_size) continue;
        job.d_k[to + element] = __float2bfloat16_rn(dk * (job.scale / LOG2_E));
        job.d_v[to + element] = __float2bfloat16_rn(dv);
    }
}

/* One warp a bias (head, distance): db += sum of ds_ij at that distance. */
static __global__ void bias_gradients(attention_job job) {
    const int64_t number = own_warp();
    if (number >= job.heads * job.bias_length) return;
    const int64_t head = number / job.bias_length, distance = number % job.bias_length;
    float sum = 0.0f;
    for (int64_t batch = 0; batch < job.batch; batch++)
        for (int64_t query = own_lane(); query < job.query_length; query += WARP) {
            const attention_query at = query_at(job, batch, head, query);
            if (at.last - distance >= at.first)
                sum += gradients_of(job, at, job.rows[row_of(job, at)], at.last - distance).d_score;
        }
    sum = warp_sum(sum);
    if (own_lane() == 0) job.d_bias[number] += sum;
}

void lt_cuda_attention_general_backward(cuda_device *device, const attention_job &job) {
    const int64_t rows = job.batch * job.heads * job.query_length;
    lt_cuda_note(device, "attention backward (queries)",
                 LT_LAUNCH(query_gradients, blocks_for(rows), THREADS, 0, device->stream, job));
    lt_cuda_note(device, "attention backward (keys)",
                 LT_LAUNCH(key_gradients, blocks_for(job.batch * job.key_heads * job.key_length), THREADS, 0,
                           device->stream, job));
    if (job.bias_length > 0)
        lt_cuda_note(device, "attention backward (bias)",
                     LT_LAUNCH(bias_gradients, blocks_for(job.heads * job.bias_length), THREADS, 0,
                               device->stream, job));
}

/* ---- statistics ---- */

/* What a lane saw, of doubles so that counts are exact. */
struct lane_counts {
    double visible, zeros, mass, sink;
};

/* Counts this lane's keys of one row of a tile; whether they hold a visible pair, and one above 0. */
static __device__ void count_keys(const attention_job &job, const attention_query &at, float2 softmax,
                                  int64_t begin, lane_counts *counts, bool *visible, bool *live) {
    for (int64_t key = begin + own_lane(); key < begin + TILE_KEYS; key += WARP) {
        if (key < at.first || key > at.last) continue;
        const float weight = weight_of(probability(score_of(job, at, key), softmax.x, softmax.y), at.offset);
        counts->visible += 1;
        counts->zeros += weight == 0.0f ? 1 : 0;
        counts->mass += static_cast<double>(weight);
        if (key == at.first && at.last > at.first) counts->sink += static_cast<double>(weight);
        *visible = true;
        *live = *live || weight > 0.0f;
    }
}

/* One warp a tile row (batch, head, TILE_ROWS queries). */
static __global__ void count_statistics(attention_job job) {
    LT_SHARED(float2, shared_softmax, WARPS * TILE_ROWS);
    float2 *softmax = shared_softmax + threadIdx.x / WARP * TILE_ROWS;
    const int64_t tile_rows = divide_up(job.query_length, int64_t{TILE_ROWS}), number = own_warp();
    if (number >= job.batch * job.heads * tile_rows) return;
    const int64_t batch = number / tile_rows / job.heads, head = number / tile_rows % job.heads,
                  begin = number % tile_rows * TILE_ROWS, end = min(begin + TILE_ROWS, job.query_length);
    double tiles = 0, live_tiles = 0, sink_rows = 0;
    lane_counts counts = {};
    for (int64_t query = begin; query < end; query++) {
        const attention_query at = query_at(job, batch, head, query);
        softmax[query - begin] = softmax_of(job, at);
        sink_rows += at.last > at.first ? 1 : 0;
    }
    __syncwarp();
    const int64_t first = query_at(job, batch, head, begin).first / TILE_KEYS * TILE_KEYS;
    for (int64_t key = first; key <= query_at(job, batch, head, end - 1).last; key += TILE_KEYS) {
        bool visible = false, live = false;
        for (int64_t query = begin; query < end; query++)
            count_keys(job, query_at(job, batch, head, query), softmax[query - begin], key, &counts, &visible,
                       &live);
        tiles += __any_sync(0xffffffffu, visible) ? 1 : 0;
        live_tiles += __any_sync(0xffffffffu, live) ? 1 : 0;
    }
    counts = {warp_sum(counts.visible), warp_sum(counts.zeros), warp_sum(counts.mass), warp_sum(counts.sink)};
    if (own_lane() != 0) return;
    double *statistics = job.statistics + number * LT_STATISTICS;
    statistics[LT_STAT_VISIBLE] = counts.visible;
    statistics[LT_STAT_ZEROS] = counts.zeros;
    statistics[LT_STAT_MASS] = counts.mass;
    statistics[LT_STAT_ROWS] = static_cast<double>(end - begin);
    statistics[LT_STAT_SINK] = counts.sink;
    statistics[LT_STAT_SINK_ROWS] = sink_rows;
    statistics[LT_STAT_TILES] = tiles;
    statistics[LT_STAT_LIVE_TILES] = live_tiles;
}

void lt_cuda_attention_general_statistics(cuda_device *device, const attention_job &job) {
    const int64_t tile_rows = job.batch * job.heads * divide_up(job.query_length, int64_t{TILE_ROWS});
    lt_cuda_note(device, "attention statistics",
                 LT_LAUNCH(count_statistics, blocks_for(tile_rows), THREADS, 0, device->stream, job));
}
