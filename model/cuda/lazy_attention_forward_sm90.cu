/* Attention forward of lazy_attention_forward.cu for compute capability 9.0, by wgmma: the same two passes,
 * the same live bits, head sizes D of 64, 96 and 128, where 16 bytes can be moved at a time and the
 * driver makes maps of the rows.
 *
 * A block of three warpgroups has 128 queries of one head. Two of them compute, 64 queries each, 16 for each
 * warp. A warp of the third copies the queries, and tiles of 64 keys, or of as many values, from the diagonal
 * outwards to a ring of SLOTS places in shared memory; its other warps only give up their registers. An
 * mbarrier tells when a place is full (its bytes, and 33 arrivals), another when it is empty (8, of all warps
 * that compute). Products are m64n64k16, queries and keys both from shared memory, and m64nDk16, weights from
 * registers: a warpgroup waits for its own, and while it takes exponentials the other one's products go on.
 *
 * Rows are copied by tensor maps, in boxes of SPAN columns, by one thread, which tells the place's mbarrier
 * of their bytes and is done with it: such a copy permutes units as wgmma wants its operands, puts zeros
 * beyond the last row, and writes by the proxy by which wgmma reads. Biases are aligned to 4 bytes only: the
 * warp's lanes copy them by cp.async, 32 arrivals when they are there, at once where a tile has none.
 *
 * wgmma may add in another order than mma.sync does, and backward and statistics compute scores anew by
 * mma.sync. So their p differ from these in the last bits, and with them the answer to a > 0 where p is
 * nearer to -tau/n than that: a weight of about 0, whose term of ds is p g or is missing, as on either side
 * of the jump that the gradient has there. Which tiles are live, o and u are of this kernel alone, so a tile
 * that is dead here is dead in backward. Entries of the row's maximum, where at tau = -1 many may sit exactly
 * on the threshold, are not left to rounding: backward takes no score for greater than the maximum that is
 * kept (attention.h, recomputed_probability()), so that p <= 1/l, which here is what decides.
 *
 * Products: 1 for each tile of 64 x 64 in the first pass, and 3 for each in the second of whose four parts,
 * 16 queries each, any may be live: 1 + 3 f, where this f is of 64 x 64. Bytes moved for 64 keys of a block:
 * 128 D and 256 D, as in lazy_attention_forward.cu.
 *
 * One block a multiprocessor; of the registers at launch those who copy give up 128 for the others to have
 * 232. Not measured. Bounds, for a tile of 64 x 64 of one warpgroup: q k takes 2 D clocks of tensor cores,
 * and as many of shared memory (4 KiB for each m64n64k16, at 128 bytes a clock); a v and u take 2 D each, and
 * D of shared memory; 4096 exponentials take 256 clocks of special function units, what q k takes at D = 128.
 * With two warpgroups in turns 50 to 60 % of the peak rate is what that lets one expect at D = 128, and 30 to
 * 40 % at D = 64.
 *
 * ptxas of CUDA 13.0, none spilled: registers for sm_80 and sm_90a, bytes of shared memory of a block.
 *   forward<64, true>       -  168   70656
 *   forward<96, true>       -  168  103424
 *   forward<128, true>      -  168  136192
 *   forward<64, false>      -  168   70656
 *   forward<96, false>      -  168  103424
 *   forward<128, false>     -  168  136192
 */
#include "model/cuda/attention_forward.h"
#include "model/cuda/attention_groups_sm90.h"

namespace {

enum { GROUP_ROWS = BLOCK_QUERIES / GROUPS, SLOTS = 6 };

template <int D> constexpr int SPAN = D % 64 == 0 ? 64 : 32;

/* What a place holds in the second pass: keys, then values in the next. */
struct visit {
    int tile;   /* -1: no more */
    int groups; /* a bit for each warpgroup that may have a weight above 0 */
};

/* At the end o, then u, are where the ring was. */
template <int D> struct forward_shared {
    alignas(1024) bf16 queries[BLOCK_QUERIES * D];
    alignas(1024) bf16 ring[SLOTS][TILE_KEYS * D];
    float window[SLOTS][WINDOW];
    visit visits[SLOTS];
    uint64_t full[SLOTS], empty[SLOTS], queries_full;
};
static_assert(takes_bytes<forward_shared>(70656, 103424, 136192));

/* Of queries, keys and values. */
struct tensor_maps {
    CUtensorMap q, k, v;
};

/* A place of the ring, and the parity of its round. */
struct place {
    int slot;
    unsigned round;
};

__device__ __forceinline__ void go_on(place &at) {
    if (++at.slot < SLOTS) return;
    at.slot = 0;
    at.round ^= 1;
}

/* ---- the warp that copies ---- */

/* Begins to copy ROWS rows of a head as an operand, by one thread. */
template <int D, int ROWS>
__device__ __forceinline__ void load_operand(bf16 *to, const CUtensorMap &map, int head, int row, int batch,
                                             uint64_t *full) {
    phases_expect(full, ROWS * D * sizeof(bf16));
    copy_operand<D, SPAN<D>, ROWS>(to, map, head, row, batch, full);
}

__device__ __forceinline__ void load_biases(float *window, const attention_job &job, const query_block &block,
                                            int tile) {
#pragma unroll 2
    for (int i = own_lane(); i < WINDOW; i += WARP) {
        const int64_t distance = block.position - tile * TILE_KEYS - WINDOW_ZERO + i;
        const bool there = distance >= 0 && distance < job.bias_length;
        copy_async_4(window + i, job.bias + block.head * job.bias_length + (there ? distance : 0), there);
    }
}

/* Once the next place is empty. */
template <int D> __device__ __forceinline__ void begin_place(forward_shared<D> &shared, const place &next) {
    phases_wait(&shared.empty[next.slot], next.round ^ 1);
}

template <int D> __device__ __forceinline__ void end_place(forward_shared<D> &shared, place &next) {
    phases_arrive_copied(&shared.full[next.slot]);
    go_on(next);
}

template <int D>
__device__ __forceinline__ void load_tile(forward_shared<D> &shared, const place &next,
                                          const CUtensorMap &map, const query_block &block, int tile) {
    load_operand<D, TILE_KEYS>(shared.ring[next.slot], map, block.key_head, tile * TILE_KEYS, block.batch,
                               &shared.full[next.slot]);
}

template <int D>
__device__ __forceinline__ void supply_keys(forward_shared<D> &shared, place &next, const attention_job &job,
                                            const CUtensorMap &k, const query_block &block, int tile,
                                            int groups) {
    begin_place(shared, next);
    if (own_lane() == 0) {
        shared.visits[next.slot] = {tile, groups};
        load_tile(shared, next, k, block, tile);
    }
    if (has_bias(job, block, tile)) load_biases(shared.window[next.slot], job, block, tile);
    end_place(shared, next);
}

template <int D>
__device__ __forceinline__ void supply_values(forward_shared<D> &shared, place &next, const CUtensorMap &v,
                                              const query_block &block, int tile) {
    begin_place(shared, next);
    if (own_lane() == 0) load_tile(shared, next, v, block, tile);
    end_place(shared, next);
}

/* Queries, and all tiles. */
template <int D>
__device__ void supply_all(forward_shared<D> &shared, place &next, const attention_job &job,
                           const tensor_maps &maps, const query_block &block, bool values) {
    if (own_lane() == 0)
        load_operand<D, BLOCK_QUERIES>(shared.queries, maps.q, block.head, block.begin, block.batch,
                                       &shared.queries_full);
    for (int tile = block.last_tile; tile >= block.first_tile; tile--) {
        supply_keys(shared, next, job, maps.k, block, tile, 0);
        if (values) supply_values(shared, next, maps.v, block, tile);
    }
}

/* The tiles that the first pass left, and which warpgroups need them. Live bits are read here alone, before
 * those who compute put those of the second pass in their place. */
template <int D>
__device__ void supply_live(forward_shared<D> &shared, place &next, const attention_job &job,
                            const tensor_maps &maps, const query_block &block) {
    const int tile_rows = divide_up(block.count, int{TILE_ROWS});
    for (int word = block.last_tile / 32; word >= block.first_tile / 32; word--)
        for (uint32_t left = live_in_block(job, block, word); left != 0;) {
            const int bit = 31 - __clz(static_cast<int>(left)), tile = word * 32 + bit;
            int groups = 0;
#pragma unroll 1
            for (int i = 0; i < tile_rows; i++)
                if ((live_words(job, block.pair, block.begin / TILE_ROWS + i)[word] >> bit & 1) != 0)
                    groups |= 1 << i * TILE_ROWS / GROUP_ROWS;
            left ^= 1u << bit;
            supply_keys(shared, next, job, maps.k, block, tile, groups);
            supply_values(shared, next, maps.v, block, tile);
        }
    begin_place(shared, next);
    if (own_lane() == 0) {
        shared.visits[next.slot] = {-1, 0};
        phases_arrive(&shared.full[next.slot]);
    }
    end_place(shared, next);
}

/* ---- the warpgroups that compute ---- */

/* What a warpgroup's 64 queries see. */
struct group_tiles {
    int first, last;
};

__device__ __forceinline__ group_tiles tiles_of_group(const attention_job &job, const query_block &block) {
    const int row = own_group() * GROUP_ROWS;
    if (row >= block.count) return {INT32_MAX, -1};
    const int first =
                  job.starts == nullptr ? 0 : job.starts[block.batch * job.query_length + block.begin + row],
              last = block.position + min(row + GROUP_ROWS, block.count) - 1;
    return {first / TILE_KEYS, last / TILE_KEYS};
}

template <int D> __device__ __forceinline__ void await(forward_shared<D> &shared, const place &at) {
    phases_wait(&shared.full[at.slot], at.round);
}

/* The warp is done with a place. */
template <int D> __device__ __forceinline__ void release(forward_shared<D> &shared, place &at) {
    arrive(&shared.empty[at.slot]);
    go_on(at);
}

/* s = q times the transpose of the keys of a place. */
template <int D>
__device__ __forceinline__ void multiply_queries(float (&s)[TILE_KEYS / 8][4], forward_shared<D> &shared,
                                                 int slot) {
    const uint64_t queries = operand<SPAN<D> * 2>(shared.queries + own_group() * GROUP_ROWS * SPAN<D>, 16,
                                                  EIGHT_ROWS<SPAN<D>>),
                   keys = operand<SPAN<D> * 2>(shared.ring[slot], 16, EIGHT_ROWS<SPAN<D>>);
    multiply_fence(s);
#pragma unroll
    for (int k = 0; k < D / 16; k++)
        multiply_async(s, further(queries, along_rows<SPAN<D>, BLOCK_QUERIES>(k)),
                       further(keys, along_rows<SPAN<D>, TILE_KEYS>(k)), k > 0);
    multiply_commit();
    multiply_wait(s);
}

/* The values of a place, 16 keys from 16 k on. */
template <int D> __device__ __forceinline__ uint64_t values_of(forward_shared<D> &shared, int slot, int k) {
    return further(operand<SPAN<D> * 2>(shared.ring[slot], TILE_KEYS * SPAN<D> * 2, EIGHT_ROWS<SPAN<D>>),
                   k * 2 * EIGHT_ROWS<SPAN<D>>);
}

/* m and l of the warp's rows; bits of tiles that may be live, to job.live. */
template <int D>
__device__ void first_pass(forward_shared<D> &shared, place &at, const attention_job &job,
                           const query_block &block, const warp_view &view, const float (&offset)[2],
                           running &rows) {
    const group_tiles own = tiles_of_group(job, block);
    const int tile_row = block.begin / TILE_ROWS + own_warp();
    uint32_t bits = 0;
    for (int tile = block.last_tile; tile >= block.first_tile; tile--) {
        await(shared, at);
        if (tile < own.first || tile > own.last) {
            release(shared, at);
        } else {
            float s[TILE_KEYS / 8][4] = {}, scale[2], largest[2];
            multiply_queries(s, shared, at.slot);
            finish_scores(s, shared.window[at.slot], job, block, view, tile * TILE_KEYS, -INFINITY);
            release(shared, at);
            take_in(rows, s, scale, largest);
            if (may_be_live(largest, rows, offset)) bits |= 1u << tile % 32;
        }
        if (tile % 32 != 0 && tile != block.first_tile) continue;
        if (tile_row < job.tile_rows && own_lane() == 0)
            live_words(job, block.pair, tile_row)[tile / 32] = bits;
        bits = 0;
    }
}

/* o and u, from live tiles alone; what is alive in truth, to job.live. */
template <int D>
__device__ void second_pass(forward_shared<D> &shared, place &at, const attention_job &job,
                            const query_block &block, const warp_view &view, const float (&offset)[2],
                            const running &rows, const float (&inverse)[2], float (&o)[D / 8][4],
                            float (&u)[D / 8][4]) {
    const int tile_row = block.begin / TILE_ROWS + own_warp();
    int word = -1;
    uint32_t bits = 0;
    for (;;) {
        await(shared, at);
        const visit what = shared.visits[at.slot];
        if (word >= 0 && (what.tile < 0 || what.tile / 32 != word)) {
            if (tile_row < job.tile_rows && own_lane() == 0)
                live_words(job, block.pair, tile_row)[word] = bits;
            bits = 0;
        }
        if (what.tile < 0) return;
        word = what.tile / 32;
        if ((what.groups >> own_group() & 1) == 0) {
            release(shared, at);
            await(shared, at);
        } else {
            float s[TILE_KEYS / 8][4] = {};
            unsigned weights[TILE_KEYS / 16][4], ones[TILE_KEYS / 16][4];
            multiply_queries(s, shared, at.slot);
            finish_scores(s, shared.window[at.slot], job, block, view, what.tile * TILE_KEYS, NAN);
            release(shared, at);
            if (weigh(s, rows, inverse, offset, weights, ones)) bits |= 1u << what.tile % 32;
            await(shared, at);
            multiply_fence(o, u, weights, ones);
#pragma unroll
            for (int k = 0; k < TILE_KEYS / 16; k++) {
                multiply_add_async(o, weights[k], values_of(shared, at.slot, k));
                multiply_add_async(u, ones[k], values_of(shared, at.slot, k));
            }
            multiply_commit();
            multiply_wait(o, u);
        }
        release(shared, at);
    }
}

/* Softmax attention's one pass; o is not divided by l yet. */
template <int D>
__device__ void only_pass(forward_shared<D> &shared, place &at, const attention_job &job,
                          const query_block &block, const warp_view &view, running &rows,
                          float (&o)[D / 8][4]) {
    const group_tiles own = tiles_of_group(job, block);
    for (int tile = block.last_tile; tile >= block.first_tile; tile--) {
        await(shared, at);
        if (tile < own.first || tile > own.last) {
            release(shared, at);
            await(shared, at);
        } else {
            float s[TILE_KEYS / 8][4] = {}, scale[2], largest[2];
            unsigned weights[TILE_KEYS / 16][4];
            multiply_queries(s, shared, at.slot);
            release(shared, at);
            finish_scores(s, nullptr, job, block, view, tile * TILE_KEYS, -INFINITY);
            take_in(rows, s, scale, largest);
            scale_all(o, scale[0], scale[1]);
#pragma unroll
            for (int n = 0; n < TILE_KEYS / 8; n++)
#pragma unroll
                for (int r = 0; r < 2; r++)
                    weights[n / 2][n % 2 * 2 + r] = pack_bf16(s[n][2 * r], s[n][2 * r + 1]);
            await(shared, at);
            multiply_fence(o, weights);
#pragma unroll
            for (int k = 0; k < TILE_KEYS / 16; k++)
                multiply_add_async(o, weights[k], values_of(shared, at.slot, k));
            multiply_commit();
            multiply_wait(o);
        }
        release(shared, at);
    }
}

/* The other warps of this group have nothing to do but to give up their registers. */
template <int D, bool LAZY>
__device__ void supply_block(forward_shared<D> &shared, const attention_job &job, const tensor_maps &maps,
                             const query_block &block) {
    const bool copies = own_warp() == COPYING_WARP;
    place next = {};
    if (copies) supply_all(shared, next, job, maps, block, !LAZY);
    if (LAZY) {
        __syncthreads();
        if (copies) supply_live(shared, next, job, maps, block);
    }
    __syncthreads();
}

template <int D, bool LAZY>
__device__ void compute_block(forward_shared<D> &shared, const attention_job &job, const query_block &block) {
    const warp_view view = open_view(job, block);
    running rows = none_yet();
    place at = {};
    float o[D / 8][4] = {}, inverse[2];
    bf16 *rest = shared.ring[0];
    phases_wait(&shared.queries_full, 0);
    if (LAZY) {
        float offset[2], u[D / 8][4] = {};
        for (int r = 0; r < 2; r++) offset[r] = offset_of(job, block.head, view.first[r], view.last[r]);
        first_pass(shared, at, job, block, view, offset, rows);
        keep(job, block, rows, inverse);
        __syncthreads();
        second_pass(shared, at, job, block, view, offset, rows, inverse, o, u);
        __syncthreads();
        store_block<D>(job.live_sum, rest, job, block, u);
    } else {
        only_pass(shared, at, job, block, view, rows, o);
        keep(job, block, rows, inverse);
        scale_all(o, inverse[0], inverse[1]);
        __syncthreads();
    }
    store_block<D>(job.output, rest, job, block, o);
}

template <int D, bool LAZY>
__global__ void __launch_bounds__(BLOCK, 1)
    forward(attention_job job, const __grid_constant__ tensor_maps maps) {
    LT_DYNAMIC_SHARED(forward_shared<D>, shared);
    const query_block block = open_block(job);
    if (threadIdx.x == 0) {
        for (int slot = 0; slot < SLOTS; slot++) {
            phases_open(&shared->full[slot], 1 + WARP);
            phases_open(&shared->empty[slot], GROUPS * 4);
        }
        phases_open(&shared->queries_full, 1);
        fence_async_proxy();
    }
    __syncthreads();
    if (own_group() == GROUPS) {
        registers_at_most<40>();
        supply_block<D, LAZY>(*shared, job, maps, block);
    } else {
        registers_at_least<232>();
        compute_block<D, LAZY>(*shared, job, block);
    }
}

template <int D> bool open_maps(tensor_maps &maps, const attention_job &job) {
    const head_rows queries = {job.q, D, job.heads, job.query_length, job.batch, job.query_stride},
                    keys = {job.k, D, job.key_heads, job.key_length, job.batch, job.key_stride},
                    values = {job.v, D, job.key_heads, job.key_length, job.batch, job.key_stride};
    return lt_cuda_map_rows(&maps.q, queries, SPAN<D>, BLOCK_QUERIES) &&
           lt_cuda_map_rows(&maps.k, keys, SPAN<D>, TILE_KEYS) &&
           lt_cuda_map_rows(&maps.v, values, SPAN<D>, TILE_KEYS);
}

template <int D> cudaError_t launch(cuda_device *device, const attention_job &job, const tensor_maps &maps) {
    const int64_t blocks = job.batch * job.heads * divide_up(job.query_length, int64_t{BLOCK_QUERIES});
    const auto kernel = job.bias_length > 0 ? forward<D, true> : forward<D, false>;
    const cudaError_t error =
        cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, sizeof(forward_shared<D>));
    if (error != cudaSuccess) return error;
    return LT_LAUNCH(kernel, static_cast<unsigned>(blocks), BLOCK, sizeof(forward_shared<D>), device->stream,
                     job, maps);
}

template <int D> bool run(cuda_device *device, const attention_job &job) {
    tensor_maps maps;
    if (!open_maps<D>(maps, job)) return false;
    lt_cuda_note(device, "attention forward", launch<D>(device, job, maps));
    return true;
}

} // namespace

bool lt_cuda_attention_sm90_forward(cuda_device *device, const attention_job &job) {
    return (job.head_size == 64 ? run<64> : job.head_size == 96 ? run<96> : run<128>)(device, job);
}
