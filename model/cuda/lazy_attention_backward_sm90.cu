/* Attention backward of lazy_attention_backward.cu for compute capability 9.0, by wgmma: one kernel again,
 * with the same blocks of 128 keys, turns and tickets, tiles of 64 queries, head sizes D of 64, 96 and 128,
 * where 16 bytes can be moved at a time and the driver makes maps of the rows.
 *
 * A block has three warpgroups. Two compute, 64 keys each, with dk and dv in registers. Keys are the rows of
 * their products, so that what they make of scores is the next product's first operand where it is: s = k q,
 * and where live g = v do; a and ds are registers of dv += a do and of dk += ds q. That goes by chunks of 16
 * queries, which are a k of these: while exponentials of one are taken, what the one before adds is under
 * way. ds goes to shared memory too, a row for each key, and when both have met each has half of the head
 * of dq = ds^T k over all 128 keys (D = 96 has three spans of 32: one warpgroup forms its span twice). ds is
 * double, so that one meeting a tile suffices, but for tiles that have pairs nearer than W, whose exact ds
 * are summed up along diagonals.
 *
 * Of the third warpgroup one warp copies, bulk copies of keys, values and tiles of queries and do, two deep,
 * and what is known of each row; one thread of another keeps the block's turns, for those who compute to
 * wait in shared memory alone. Its other two warps have nothing to do: registers are given up by warpgroups.
 * Registers are few: what a tile is stays in shared memory, places in fragments are found anew, and what a
 * tile needs is one piece of code for each way to see it, where the compiler sees which products are under
 * way (it says so, C7520, where it does not and waits for each).
 *
 * Scores may differ from forward's in the last bits (lazy_attention_forward_sm90.cu): tiles that forward
 * found dead are dead here. dk, dv and dq may differ so from those of the other kernels.
 *
 * Products: 3 + 2 f (D = 96: 3.33 + 2 f), where this f is of 64 x 64, and dq counts 128 keys where a query
 * sees one. Bytes moved for 64 queries of a block: 256 D + 1.25 KiB, and 512 D of sums, which stay in L2
 * while a head is at work.
 *
 * One block a multiprocessor; of the registers at launch those who copy give up 128 for the others to have
 * 232. Not measured. Bounds for a tile of 64 queries and 128 keys: each of the five products takes 4 D clocks
 * of tensor cores; of shared memory s, g and dq take 4 D each, dv and dk 2 D; 8192 exponentials take 512
 * clocks, some ten other operations for each entry 640. The meeting and dq's way to L2 and back are not
 * hidden within a warpgroup: half of the peak rate is what that lets one expect at D = 128, a third at D =
 * 64.
 *
 * ptxas of CUDA 13.0, none spilled: registers for sm_80 and sm_90a, bytes of shared memory of a block.
 *   all_gradients<64, true>       -  168  142336
 *   all_gradients<96, true>       -  168  175104
 *   all_gradients<128, true>      -  168  207872
 *   all_gradients<64, false>      -  168  142336
 *   all_gradients<96, false>      -  168  175104
 *   all_gradients<128, false>     -  168  207872
 */
#include "model/cuda/attention_chunks_sm90.h"
#include "model/cuda/attention_turns.h"

namespace {

enum { GROUP_KEYS = BLOCK_KEYS / GROUPS };
enum { QUERIES = 64, CHUNKS = QUERIES / TILE_ROWS, STAGES = 2, DISTANCES = BLOCK_KEYS + QUERIES };
enum { TURNS_WARP = COPYING_WARP + 1, MEETING = 1 };
static_assert(GROUP_KEYS == int{TILE_KEYS}, "live bits are those of a warpgroup's keys");

/* A part of dq is one SPAN wide. */
template <int D> constexpr int SPAN = D % 128 == 0 ? 64 : 32;
constexpr int EIGHT_KEYS = 8 * QUERIES * 2; /* of ds: bytes */

/* A tile as a warpgroup's 64 keys see it: not at all, dead, alive. */
enum sight { NOT_SEEN, DEAD, ALIVE };
constexpr unsigned ALL_LIVE = (1u << CHUNKS) - 1;

/* A tile that goes by. It stays in shared memory, since registers are few. */
struct visit {
    query_tile tile;
    turn own;
    bool near; /* has a pair nearer than W */
    sight seen[GROUPS];
    bool all[GROUPS];      /* every query sees every key of the warpgroup */
    unsigned live[GROUPS]; /* its tiles of 16 queries, a bit each */
};

/* What is there of a tile. */
template <int D> struct alignas(1024) tile_stage {
    bf16 q[QUERIES * D], d_output[QUERIES * D];
    bf16 ds[BLOCK_KEYS * QUERIES];
    attention_row rows[QUERIES];
    int first[QUERIES]; /* key that each query sees */
    float window[DISTANCES];
    visit what;
    uint64_t full, empty;
};

template <int D> struct backward_shared {
    alignas(1024) bf16 keys[BLOCK_KEYS * D]; /* with values: at the end, dk and dv */
    bf16 values[BLOCK_KEYS * D];
    tile_stage<D> stages[STAGES];
    float exact_ds[QUERIES * PITCH_DS]; /* of a tile with pairs nearer than W */
    distance_sum distances[THREADS];
    key_block block;
    int tiles;   /* of all the key head's query heads */
    float scale; /* the job's; registers are few */
    uint64_t own_full;    /* keys and values are there */
    uint64_t turn, added; /* the block may add to a tile's sums; it has */
    unsigned ticket;
};
static_assert(takes_bytes<backward_shared>(142336, 175104, 207872));

/* What bulk copies read. */
struct operand_maps {
    CUtensorMap q, d_output, k, v;
};

__device__ __forceinline__ unsigned parity_of(int round) {
    return static_cast<unsigned>(round) & 1;
}

/* ---- the warp that copies ---- */

/* What is known of each query, and the biases. */
template <int D>
__device__ __forceinline__ void copy_rows(tile_stage<D> &stage, const attention_job &job,
                                          const key_block &block) {
    const query_tile &tile = stage.what.tile;
    const int64_t row = tile.pair * job.query_length + tile.begin,
                  token = block.batch * job.query_length + tile.begin;
#pragma unroll
    for (int i = own_lane(); i < QUERIES; i += WARP) {
        const bool there = i < tile.count;
        copy_async_16(&stage.rows[i], job.rows + (there ? row + i : 0), there);
        copy_async_4(&stage.first[i], job.starts + (there ? token + i : 0),
                     there && job.starts != nullptr);
    }
    if (!stage.what.near) return;
#pragma unroll 1
    for (int i = own_lane(); i < DISTANCES; i += WARP) {
        const int distance = tile.position - block.begin - (BLOCK_KEYS - 1) + i;
        const bool there = distance >= 0 && distance < job.bias_length;
        copy_async_4(&stage.window[i],
                     job.bias + tile.head * job.bias_length + (there ? distance : 0), there);
    }
}

__device__ __forceinline__ int first_key(const attention_job &job, int batch, int query) {
    return job.starts == nullptr ? 0 : job.starts[batch * job.query_length + query];
}

/* By one thread. */
template <bool LAZY>
__device__ __forceinline__ void open_visit(visit &of, const attention_job &job, const key_block &block,
                                           const query_tile &tile) {
    const int lowest = first_key(job, block.batch, tile.begin),
              highest = first_key(job, block.batch, tile.begin + tile.count - 1);
    of.tile = tile;
    of.own = turn_of<QUERIES>(job, block, tile, lowest);
    of.near = is_near(job, block, tile);
#pragma unroll 1
    for (int group = 0; group < GROUPS; group++) {
        const int key = block.begin + group * GROUP_KEYS;
        unsigned live = LAZY ? 0 : ALL_LIVE;
#pragma unroll 1
        for (int row = 0; LAZY && row < tile.count; row += TILE_ROWS)
            live |= (live_words(job, tile.pair, (tile.begin + row) / TILE_ROWS)[key / TILE_KEYS / 32] >>
                         key / TILE_KEYS % 32 &
                     1)
                    << row / TILE_ROWS;
        of.live[group] = live;
        of.seen[group] = key >= tile.position + tile.count || key + GROUP_KEYS <= lowest ? NOT_SEEN
                         : live != 0                                                    ? ALIVE
                                                                                        : DEAD;
        of.all[group] = key + GROUP_KEYS - 1 <= tile.position && highest <= key;
    }
}

template <int D, bool LAZY>
__device__ void copy_all(backward_shared<D> &shared, const attention_job &job, const operand_maps &maps,
                         const key_block &block, int tiles) {
    const bool first_lane = own_lane() == 0;
    if (first_lane) {
        phases_expect(&shared.own_full, sizeof shared.keys + sizeof shared.values);
        copy_operand<D, SPAN<D>, BLOCK_KEYS>(shared.keys, maps.k, block.key_head, block.begin, block.batch,
                                    &shared.own_full);
        copy_operand<D, SPAN<D>, BLOCK_KEYS>(shared.values, maps.v, block.key_head, block.begin, block.batch,
                                    &shared.own_full);
    }
    for (int i = 0; i < tiles; i++) {
        tile_stage<D> &stage = shared.stages[i % STAGES];
        phases_wait(&stage.empty, parity_of(i / STAGES) ^ 1);
        if (first_lane) {
            const query_tile tile = open_tile<QUERIES, false>(job, block, i);
            open_visit<LAZY>(stage.what, job, block, tile);
            phases_expect(&stage.full, sizeof stage.q + sizeof stage.d_output);
            copy_operand<D, SPAN<D>, QUERIES>(stage.q, maps.q, tile.head, tile.begin, block.batch, &stage.full);
            copy_operand<D, SPAN<D>, QUERIES>(stage.d_output, maps.d_output, tile.head, tile.begin, block.batch,
                                     &stage.full);
        }
        __syncwarp();
        copy_rows(stage, job, block);
        phases_arrive_copied(&stage.full);
    }
}

/* ---- the thread that keeps turns ---- */

template <int D>
__device__ void keep_turns(backward_shared<D> &shared, const attention_job &job, const key_block &block,
                           int tiles) {
    for (int i = 0; i < tiles; i++) {
        const query_tile tile = open_tile<QUERIES, false>(job, block, i);
        const turn own = turn_of<QUERIES>(job, block, tile, first_key(job, block.batch, tile.begin));
        if (own.number > 0) wait_for(job.turns + own.tile, own.number);
        phases_arrive(&shared.turn);
        phases_wait(&shared.added, parity_of(i));
        hand_on(job, own);
    }
}

/* ---- products ---- */

/* Of a warpgroup's keys, rows, and a tile's queries. */
typedef float scores[QUERIES / 8][4];

/* c = the warpgroup's keys, or values, times the transpose of a tile's queries, or do. */
template <int D>
__device__ __forceinline__ void multiply_own(scores &c, const bf16 *own, const bf16 *tile) {
    const uint64_t a = operand<SPAN<D> * 2>(own + own_group() * GROUP_KEYS * SPAN<D>, 16, EIGHT_ROWS<SPAN<D>>),
                   b = operand<SPAN<D> * 2>(tile, 16, EIGHT_ROWS<SPAN<D>>);
#pragma unroll
    for (int k = 0; k < D / 16; k++)
        multiply_async(c, further(a, along_rows<SPAN<D>, BLOCK_KEYS>(k)), further(b, along_rows<SPAN<D>, QUERIES>(k)), k > 0);
}

/* c += a, of chunk number `number`, times a tile's do, or queries. */
template <int D>
__device__ __forceinline__ void add_chunk(float (&c)[D / 8][4], const unsigned (&a)[4], const bf16 *tile,
                                          int number) {
    const uint64_t b = operand<SPAN<D> * 2>(tile, QUERIES * SPAN<D> * 2, EIGHT_ROWS<SPAN<D>>);
    multiply_add_async(c, a, further(b, number * 2 * EIGHT_ROWS<SPAN<D>>));
}

/* dq, a span of the head, += ds^T k over all keys of the block. */
template <int D>
__device__ __forceinline__ void multiply_span(float (&dq)[SPAN<D> / 8][4], const bf16 *ds, const bf16 *keys,
                                              int span) {
    const uint64_t a = operand<2 * QUERIES>(ds, 16, EIGHT_KEYS),
                   b = operand<SPAN<D> * 2>(keys + span * BLOCK_KEYS * SPAN<D>, 16, EIGHT_ROWS<SPAN<D>>);
#pragma unroll
    for (int k = 0; k < BLOCK_KEYS / 16; k++)
        multiply_across_async(dq, further(a, k * 2 * EIGHT_KEYS), further(b, k * 2 * EIGHT_ROWS<SPAN<D>>));
}

/* ---- dq ---- */

/* Spans that a warpgroup has, at most: the others are the other one's. */
template <int D> constexpr int SPANS = (D / SPAN<D> + 1) / 2;
template <int D> using part_sums = float[SPANS<D>][SPAN<D> / 8][4];

template <int D> __device__ __forceinline__ bool has_span(int i) {
    return D / SPAN<D> % GROUPS == 0 || own_group() + GROUPS * i < D / SPAN<D>;
}

template <int D>
__device__ __forceinline__ void multiply_part(part_sums<D> &dq, const bf16 *ds, const bf16 *keys) {
#pragma unroll
    for (int i = 0; i < SPANS<D>; i++) {
        multiply_fence(dq[i]);
        multiply_span<D>(dq[i], ds, keys, has_span<D>(i) ? own_group() + GROUPS * i : own_group());
    }
    multiply_commit();
}

/* Adds the warpgroup's part to the sums so far, or, as the last, stores it. In the block's turn. */
template <int D>
__device__ __forceinline__ void add_part(const attention_job &job, const part_sums<D> &dq, int batch,
                                         float scale, const visit &of) {
    const query_tile &tile = of.tile;
    const turn &own = of.own;
    constexpr int N = SPAN<D> / 8;
    const fragment_place place = own_place();
    const int row = place.warp % 4 * 16 + place.g;
    scale *= 1.0f / LOG2_E;
#pragma unroll
    for (int i = 0; i < SPANS<D>; i++) {
        if (!has_span<D>(i)) continue;
        const int span = place.warp / 4 + GROUPS * i;
        float4 *sums = reinterpret_cast<float4 *>(job.query_sums) +
                       ((own.tile * (D / SPAN<D>)+span) * 4 + place.warp % 4) * N * WARP + 4 * place.g +
                       place.t;
        bf16 *to = job.d_q + (batch * job.query_length + tile.begin + row) * job.query_stride +
                   tile.head * D + span * SPAN<D> + 2 * place.t;
        float4 before[N];
#pragma unroll
        for (int n = 0; n < N; n++)
            before[n] = own.number > 0 ? __ldcg(sums + n * WARP) : make_float4(0.0f, 0.0f, 0.0f, 0.0f);
#pragma unroll
        for (int n = 0; n < N; n++) {
            const float4 sum = make_float4(before[n].x + dq[i][n][0], before[n].y + dq[i][n][1],
                                           before[n].z + dq[i][n][2], before[n].w + dq[i][n][3]);
            if (!own.last) {
                __stcg(sums + n * WARP, sum);
                continue;
            }
            if (row < tile.count) store_pair(to + 8 * n, sum.x * scale, sum.y * scale, true);
            if (row + 8 < tile.count)
                store_pair(to + 8 * job.query_stride + 8 * n, sum.z * scale, sum.w * scale, true);
        }
    }
}

/* ---- the warpgroups that compute ---- */

/* ds of a chunk to shared memory, as an operand whose rows are keys: unit n of eight queries lies at unit n ^ g. */
__device__ __forceinline__ void store_operand(bf16 *ds, const unsigned (&packed)[4], int number) {
    const fragment_place own = own_place();
    const int place = swizzled<2 * QUERIES>((own.warp * 16 + own.g) * 2 * QUERIES) + own.t * 4;
    unsigned char *bytes = reinterpret_cast<unsigned char *>(ds);
#pragma unroll
    for (int n = 0; n < 2; n++)
#pragma unroll
        for (int r = 0; r < 2; r++)
            shared_write(reinterpret_cast<unsigned *>(bytes + (place ^ 16 * (2 * number + n)) + r * EIGHT_KEYS),
                         packed[n * 2 + r]);
}

/* For a tile of which no query sees the warpgroup's keys. */
template <int D>
__device__ __forceinline__ void store_nothing(backward_shared<D> &shared, tile_stage<D> &stage, bool near) {
    const fragment_place own = own_place();
    const unsigned none[4] = {};
    const chunk zeros = {};
#pragma unroll
    for (int i = 0; i < CHUNKS; i++) store_operand(stage.ds, none, i);
    for (int query = 0; near && query < QUERIES; query += TILE_ROWS)
        store_exact(shared.exact_ds + (query + 2 * own.t) * PITCH_DS + own.warp * 16 + own.g, zeros);
}

template <int D> struct key_gradients {
    float dk[D / 8][4], dv[D / 8][4];
};

/* s and g of a chunk to a and ds, in place. */
template <int D, bool LAZY, bool LIVE>
__device__ __forceinline__ void differentiate_chunk(chunk &s, chunk &g, backward_shared<D> &shared,
                                                    tile_stage<D> &stage, int number) {
    const visit &what = stage.what;
    const bool near = LAZY && what.near;
    const fragment_place own = own_place();
    const int key = own.warp * 16 + own.g, query = number * TILE_ROWS + 2 * own.t;
    add_biases(s, shared.scale, near ? stage.window + BLOCK_KEYS - 1 - key + query : nullptr);
    const bool masked = !what.all[own.warp / 4];
    if (masked) hide_unseen(s, shared.block.begin + key, what.tile.position + query, stage.first + query);
    differentiate<LAZY>(s, g, stage.rows + query, LIVE && (what.live[own.warp / 4] >> number & 1) != 0);
    if (masked) drop_single(g, what.tile.position + query, stage.first + query);
    if (near) store_exact(shared.exact_ds + query * PITCH_DS + key, g);
}

/* Makes a and ds of a tile. What a chunk adds to dv and dk is under way while the next one's exponentials are
 * taken, and when this returns. */
template <int D, bool LAZY, bool LIVE>
__device__ __forceinline__ void add_queries(key_gradients<D> &sums, backward_shared<D> &shared,
                                            tile_stage<D> &stage) {
    scores s, g;
    unsigned weights[CHUNKS][4], packed[CHUNKS][4];
    multiply_fence(s, g);
    multiply_own<D>(s, shared.keys, stage.q);
    if (LIVE) multiply_own<D>(g, shared.values, stage.d_output);
    multiply_commit();
    multiply_wait(s, g);
#pragma unroll
    for (int i = 0; i < CHUNKS; i++) {
        chunk &of_s = reinterpret_cast<chunk &>(s[2 * i]), &of_g = reinterpret_cast<chunk &>(g[2 * i]);
        differentiate_chunk<D, LAZY, LIVE>(of_s, of_g, shared, stage, i);
        pack(weights[i], of_s);
        pack(packed[i], of_g);
        store_operand(stage.ds, packed[i], i);
        multiply_fence(sums.dv, sums.dk, weights[i], packed[i]);
        if (LIVE) add_chunk<D>(sums.dv, weights[i], stage.d_output, i);
        add_chunk<D>(sums.dk, packed[i], stage.q, i);
        multiply_commit();
    }
}

/* All that a tile adds. Each of three ways is one piece, so that the compiler sees which products are under
 * way. */
template <int D, bool LAZY, sight SEEN>
__device__ __forceinline__ void take_tile(key_gradients<D> &sums, backward_shared<D> &shared,
                                          tile_stage<D> &stage, unsigned parity, const attention_job &job) {
    const visit &what = stage.what;
    if (SEEN == NOT_SEEN)
        store_nothing(shared, stage, LAZY && what.near);
    else
        add_queries<D, LAZY, SEEN == ALIVE>(sums, shared, stage);
    fence_async_proxy();
    meet<THREADS>(MEETING);
    part_sums<D> dq = {};
    multiply_part<D>(dq, stage.ds, shared.keys);
    if (SEEN == NOT_SEEN)
        multiply_wait(dq[0], dq[SPANS<D> - 1]);
    else
        multiply_wait(sums.dk, sums.dv, dq[0], dq[SPANS<D> - 1]);
    phases_wait(&shared.turn, parity);
    add_part<D>(job, dq, shared.block.batch, shared.scale, what);
    arrive(&shared.added);
    if (LAZY && what.near) {
        distance_sum &own = shared.distances[anew(static_cast<int>(threadIdx.x))];
        take_diagonals<QUERIES, PITCH_DS>(own, shared.exact_ds, job, shared.block, what.tile);
        meet<THREADS>(MEETING);
    }
    arrive(&stage.empty);
}

template <int D, bool LAZY>
__device__ void compute_all(backward_shared<D> &shared, const attention_job &job) {
    key_gradients<D> sums = {};
    if (LAZY) zero_distances(job, shared.block);
    shared.distances[threadIdx.x] = {-1, -1, 0.0f};
    phases_wait(&shared.own_full, 0);
    for (int i = 0; i < shared.tiles; i++) {
        tile_stage<D> &stage = shared.stages[i % STAGES];
        phases_wait(&stage.full, parity_of(i / STAGES));
        const sight seen = stage.what.seen[own_group()];
        if (seen == NOT_SEEN)
            take_tile<D, LAZY, NOT_SEEN>(sums, shared, stage, parity_of(i), job);
        else if (!LAZY || seen == ALIVE)
            take_tile<D, LAZY, ALIVE>(sums, shared, stage, parity_of(i), job);
        else
            take_tile<D, LAZY, DEAD>(sums, shared, stage, parity_of(i), job);
    }
    if (LAZY) store_distance(job, shared.block, shared.distances[threadIdx.x]);
    meet<THREADS>(MEETING);
    store_key_gradients<D>(sums.dk, sums.dv, shared.keys, job, shared.block);
}

template <int D, bool LAZY>
__global__ void __launch_bounds__(BLOCK, 1)
    all_gradients(const attention_job job, const __grid_constant__ operand_maps maps) {
    LT_DYNAMIC_SHARED(backward_shared<D>, shared);
    if (threadIdx.x == 0) {
        phases_open(&shared->own_full, 1);
        for (int stage = 0; stage < STAGES; stage++) {
            phases_open(&shared->stages[stage].full, 1 + WARP);
            phases_open(&shared->stages[stage].empty, WARPS);
        }
        phases_open(&shared->turn, 1);
        phases_open(&shared->added, WARPS);
        fence_async_proxy();
    }
    const int ticket = take_ticket<QUERIES>(shared->ticket, job),
              blocks = divide_up(static_cast<int>(job.key_length), int{BLOCK_KEYS});
    const key_block block = open_keys<QUERIES>(job, ticket / blocks, blocks - 1 - ticket % blocks);
    const int tiles = block.tiles * static_cast<int>(job.heads / job.key_heads);
    if (threadIdx.x == 0) {
        shared->block = block;
        shared->tiles = tiles;
        shared->scale = job.scale;
    }
    __syncthreads();
    if (own_group() < GROUPS) {
        registers_at_least<232>();
        compute_all<D, LAZY>(*shared, job);
        return;
    }
    registers_at_most<40>();
    if (own_warp() == COPYING_WARP)
        copy_all<D, LAZY>(*shared, job, maps, block, tiles);
    else if (own_warp() == TURNS_WARP && own_lane() == 0)
        keep_turns(*shared, job, block, tiles);
}

template <int D> cudaError_t launch(cuda_device *device, const attention_job &job, const operand_maps &maps) {
    return launch_in_turns<QUERIES>(job.bias_length > 0 ? all_gradients<D, true> : all_gradients<D, false>,
                                    BLOCK, sizeof(backward_shared<D>), device->stream, job, maps);
}

} // namespace

bool lt_cuda_attention_sm90_backward(cuda_device *device, const attention_job &job) {
    const int64_t size = job.head_size;
    const int columns = size == 128 ? SPAN<128> : SPAN<64>;
    operand_maps maps;
    if (!lt_cuda_map_rows(&maps.q, {job.q, size, job.heads, job.query_length, job.batch, job.query_stride},
                          columns, QUERIES) ||
        !lt_cuda_map_rows(&maps.d_output,
                          {job.d_output, size, job.heads, job.query_length, job.batch, job.heads * size},
                          columns, QUERIES) ||
        !lt_cuda_map_rows(&maps.k, {job.k, size, job.key_heads, job.key_length, job.batch, job.key_stride},
                          columns, BLOCK_KEYS) ||
        !lt_cuda_map_rows(&maps.v, {job.v, size, job.key_heads, job.key_length, job.batch, job.key_stride},
                          columns, BLOCK_KEYS))
        return false;
    const auto of_size = size == 64 ? launch<64> : size == 96 ? launch<96> : launch<128>;
    lt_cuda_note(device, "attention backward (one kernel)", of_size(device, job, maps));
    return true;
}
