/* Attention backward for head sizes D of 64, 96 and 128 in one kernel: the gradients of queries, keys, values
 * and biases (lazy-attention.md, "Backward"). attention.cu says which shapes it serves.
 *
 * A block of 8 warps has 128 keys of one key head, 16 for each warp, with dk and dv in registers; the queries
 * that see them go by as in lazy_attention_keys.cu (tiles of 64; 32 for D = 128). A warp takes 16 queries at
 * a time: s = q k, g = do v where the tile is live, a and ds; dv += a^T do, where live, and dk += ds^T q. ds
 * goes to shared memory too, and after a barrier each warp has 16 queries of the tile and a half of the head
 * (D = 128: a quarter) of dq = ds k over all 128 keys. 3 + 2 f products a tile: q k, ds^T q and ds k, and
 * where live do v and a^T do. Two kernels form q k and do v once more: 4 + 3 f.
 *
 * dq is summed over blocks of keys in float32, in device memory, in a fixed order: a tile of queries is added
 * to by the block of its diagonal first, then by each one before, and `turns` counts who has. The last one
 * rounds it to d_q; the first does not read, so that sums need not be zeroed. Blocks are numbered by a ticket
 * that each takes when it starts, in descending order of keys, so that a block only ever waits for one that
 * holds a lower ticket, has started and itself waits for lower ones alone: no order of starting can lock.
 * Since a block begins at its diagonal, where it is the first to add, and those before it in turn are two
 * tiles (four for D = 128) ahead, blocks that start together and are equally fast do not wait at all; in
 * ascending order each would wait for a pass of the one before. The price: a head's longest block starts
 * last.
 *
 * A dead tile still owes ds = -p delta, so every block that sees a tile of queries takes its turn, live or
 * not: the order is that of positions and first keys alone. First keys never fall, so what a tile of queries
 * sees has no gap, and the blocks that take turns are those from its first query's first key to its last
 * query.
 *
 * db: thread i of the block has the sum of distance i modulo 256, to which it adds a diagonal of each tile of
 * ds, which lies in shared memory in float32 too; of a tile a block has 191 (D = 128: 159), which move on by
 * a tile with each. A thread stores its sum when its distance has gone by; attention.cu adds up the blocks of
 * a head in order. Tiles beyond W skip all of it.
 *
 * Bytes moved for 64 queries of a block: 256 D + 1.25 KiB, and 512 D of sums, which stay in L2 while a head
 * is at work. Two kernels move 512 D for the same pairs.
 *
 * One block a multiprocessor; chips whose blocks have less shared memory (sm_86, sm_89: 99 KiB) take two
 * kernels. For 16 queries, 16 keys and 16 elements of a head ten mma take 20 clocks of an A100's tensor
 * cores, and 5.5 ldmatrix, 7.5 where keys and values stay in shared memory, 22 and 30 of shared memory; two
 * barriers a tile. Not measured: half of the mma rate is expected at D = 64, 0.4 at others.
 *
 * ptxas of CUDA 13.0, none spilled: registers for sm_80 and sm_90a, bytes of shared memory of a block.
 *   all_gradients<64, true>     232  239  111648
 *   all_gradients<96, true>     250  255  162832
 *   all_gradients<128, true>    255  253  133136
 *   all_gradients<64, false>    214  216  111648
 *   all_gradients<96, false>    232  238  162832
 *   all_gradients<128, false>   240  248  133136
 */
#include "model/cuda/attention_keys.h"
#include "model/cuda/attention_turns.h"

namespace {

/* Which of keys and values stay in shared memory alone, where registers are few. Keys lie there anyhow, for
 * dq.
 */
template <int D> constexpr bool KEYS_STAY = D >= 96;
template <int D> constexpr bool VALUES_STAY = D >= 96;

template <int D> struct backward_shared {
    query_stages<D> queries;
    bf16 keys[BLOCK_KEYS * PITCH<D>];
    bf16 values[VALUES_STAY<D> ? BLOCK_KEYS * PITCH<D> : 1];
    alignas(16) bf16 ds[ROWS<D> * PITCH<BLOCK_KEYS>];
    float exact_ds[ROWS<D> * PITCH<BLOCK_KEYS>]; /* of tiles with pairs nearer than W */
    unsigned ticket;
};
static_assert(takes_bytes<backward_shared>(111648, 162832, 133136));

/* ---- dq ---- */

/* Elements of the head that a warp has of 16 queries of a tile. */
template <int D> constexpr int PART = D *ROWS<D> / BLOCK_KEYS;

template <int D> using part_sums = float[PART<D> / 8][4];

/* Of the warp, in a tile. */
template <int D> __device__ __forceinline__ int part_row() {
    return own_warp() % (ROWS<D> / TILE_ROWS) * TILE_ROWS;
}

template <int D> __device__ __forceinline__ int part_column() {
    return own_warp() / (ROWS<D> / TILE_ROWS) * PART<D>;
}

/* ds k of the warp's part, keys in ascending order. */
template <int D>
__device__ __forceinline__ void multiply_part(part_sums<D> &dq, const backward_shared<D> &shared, int stage,
                                              const key_block &block, const query_tile &tile) {
    const bf16 *ds = shared.ds + part_row<D>() * PITCH<BLOCK_KEYS> + lane_place<BLOCK_KEYS>();
    for (int key = 0; key < BLOCK_KEYS; key += TILE_ROWS) {
        if (!sees_square(tile, shared.queries.first[stage], part_row<D>(), block.begin + key)) continue;
        unsigned a[4];
        load_matrices(a, ds + key);
        add_product<D>(dq, a, shared.keys + key * PITCH<D> + part_column<D>());
    }
}

/* Adds the warp's part to the sums so far, or, as the last, stores it. By all threads, in their turn. */
template <int D>
__device__ __forceinline__ void add_part(const attention_job &job, const backward_shared<D> &shared,
                                         int stage, const key_block &block, const query_tile &tile,
                                         const turn &own) {
    constexpr int N = PART<D> / 8;
    float4 *sums = reinterpret_cast<float4 *>(job.query_sums) + ((own.tile * WARPS + own_warp()) * N) * WARP +
                   own_lane();
    float4 before[N];
#pragma unroll
    for (int n = 0; n < N; n++)
        before[n] = own.number > 0 ? __ldcg(sums + n * WARP) : make_float4(0.0f, 0.0f, 0.0f, 0.0f);
    part_sums<D> dq = {};
    multiply_part<D>(dq, shared, stage, block, tile);
    const int row = part_row<D>() + own_lane() / 4;
    const float scale = job.scale / LOG2_E;
    bf16 *to = job.d_q + (block.batch * job.query_length + tile.begin + row) * job.query_stride +
               tile.head * D + part_column<D>() + own_lane() % 4 * 2;
#pragma unroll
    for (int n = 0; n < N; n++) {
        const float4 sum = make_float4(before[n].x + dq[n][0], before[n].y + dq[n][1], before[n].z + dq[n][2],
                                       before[n].w + dq[n][3]);
        if (!own.last) {
            __stcg(sums + n * WARP, sum);
            continue;
        }
        if (row < tile.count) store_pair(to + 8 * n, sum.x * scale, sum.y * scale, job.wide);
        if (row + 8 < tile.count)
            store_pair(to + 8 * job.query_stride + 8 * n, sum.z * scale, sum.w * scale, job.wide);
    }
}

/* ---- the kernel ---- */

template <int D, bool LAZY> __global__ void __launch_bounds__(THREADS, 1) all_gradients(attention_job job) {
    LT_DYNAMIC_SHARED(backward_shared<D>, shared);
    const int ticket = take_ticket<ROWS<D>>(shared->ticket, job),
              blocks = divide_up(static_cast<int>(job.key_length), int{BLOCK_KEYS});
    const key_block block = open_keys<ROWS<D>>(job, ticket / blocks, blocks - 1 - ticket % blocks);
    const int tiles = block.tiles * static_cast<int>(job.heads / job.key_heads);
    query_stages<D> &queries = shared->queries;
    own_keys<D, KEYS_STAY<D>, VALUES_STAY<D>> own;
    float dk[D / 8][4] = {}, dv[D / 8][4] = {};
    open_own(own, shared->keys, VALUES_STAY<D> ? shared->values : queries.tiles[0][0], job, block);
    distance_sum distance = {-1, -1, 0.0f};
    if (LAZY) zero_distances(job, block);
    query_tile next = {};
    turn before = {0, 0, true}; /* at the tile before */
    if (tiles > 0) {
        next = open_tile<ROWS<D>, LAZY>(job, block, 0);
        load_tile(queries, 0, job, block, next);
    }
    copy_async_commit();
    for (int i = 0, stage = 0; i < tiles; i++, stage ^= 1) {
        const query_tile tile = next;
        copy_async_wait<0>();
        __syncthreads();
        if (threadIdx.x == 0) hand_on(job, before);
        if (i + 1 < tiles) {
            next = open_tile<ROWS<D>, LAZY>(job, block, i + 1);
            load_tile(queries, stage ^ 1, job, block, next);
        }
        copy_async_commit();
        const bool near = LAZY && is_near(job, block, tile);
        const kept_ds kept = {shared->ds, near ? shared->exact_ds : nullptr};
#pragma unroll
        for (int chunk = 0; chunk < ROWS<D> / TILE_ROWS; chunk++)
            add_queries<D, LAZY>(dk, dv, kept, queries, stage, job, block, tile, chunk, own);
        before = turn_of<ROWS<D>>(job, block, tile, queries.first[stage][0]);
        if (threadIdx.x == 0 && before.number > 0) wait_for(job.turns + before.tile, before.number);
        __syncthreads();
        add_part<D>(job, *shared, stage, block, tile, before);
        if (near) take_diagonals<ROWS<D>, PITCH<BLOCK_KEYS>>(distance, shared->exact_ds, job, block, tile);
    }
    __syncthreads();
    if (threadIdx.x == 0) hand_on(job, before);
    if (LAZY) store_distance(job, block, distance);
    store_key_gradients<D>(dk, dv, queries.tiles[0][0], job, block);
}

template <int D> cudaError_t launch(cuda_device *device, const attention_job &job) {
    return launch_in_turns<ROWS<D>>(job.bias_length > 0 ? all_gradients<D, true> : all_gradients<D, false>,
                                    THREADS, sizeof(backward_shared<D>), device->stream, job);
}

} // namespace

size_t lt_cuda_attention_backward_shared_bytes(int64_t head_size) {
    return head_size == 64   ? sizeof(backward_shared<64>)
           : head_size == 96 ? sizeof(backward_shared<96>)
                             : sizeof(backward_shared<128>);
}

void lt_cuda_attention_fast_backward(cuda_device *device, const attention_job &job) {
    const auto of_size = job.head_size == 64 ? launch<64> : job.head_size == 96 ? launch<96> : launch<128>;
    lt_cuda_note(device, "attention backward (one kernel)", of_size(device, job));
}
