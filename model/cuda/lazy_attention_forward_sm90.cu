/* Attention forward of lazy_attention_forward.cu for compute capability 9.0, by wgmma: the same two passes,
 * the same live bits, head sizes D of 64, 96 and 128, where 16 bytes can be moved at a time.
 *
 * A block of three warpgroups has 128 queries of one head. Two of them compute, 64 queries each, 16 for each
 * warp; the third copies tiles of 64 keys, or of as many values, from the diagonal outwards to a ring of
 * SLOTS places in shared memory. An mbarrier tells when a place is full (128 arrivals, of all who copied),
 * another when it is empty (8, of all warps that compute). Products are m64n64k16, queries and keys both from
 * shared memory, and m64nDk16, weights from registers: a warpgroup waits for its own, and while it takes
 * exponentials the other one's products go on.
 *
 * Copies are cp.async, 16 bytes each, since wgmma wants its operands' units permuted: bulk copies without a
 * tensor map keep bytes in order, so they would be 16 bytes long as well, and tensor maps are made by a
 * function of the driver's library and do not take every stride. Two tiles are under way at a time. cp.async
 * writes by the generic proxy: who copied waits, calls fence_async_proxy() and then arrives.
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
 * Head size 64, 96, 128: 69, 101, 133 KiB of shared memory, one block a multiprocessor; 168 registers at
 * launch, of which those who copy give up 128 for the others to have 232; none spilled. Not measured. Bounds,
 * for a tile of 64 x 64 of one warpgroup: q k takes 2 D clocks of tensor cores, and as many of shared memory
 * (4 KiB for each m64n64k16, at 128 bytes a clock); a v and u take 2 D each, and D of shared memory; 4096
 * exponentials take 256 clocks of special function units, what q k takes at D = 128. With two warpgroups in
 * turns 50 to 60 % of the peak rate is what that lets one expect at D = 128, and 30 to 40 % at D = 64.
 */
#include "model/cuda/attention_forward.h"
#include "model/cuda/instructions_sm90.h"

namespace {

enum { GROUP = 4 * WARP, GROUPS = 2, GROUP_ROWS = BLOCK_QUERIES / GROUPS };
enum { BLOCK = GROUP * (GROUPS + 1) };
enum { SLOTS = 6, UNDER_WAY = 2 };

/* Elements of a row of an operand: 128 bytes where D is made of such, or 64. A tile is D / SPAN matrices of
 * all its rows, one after the other. */
template <int D> constexpr int SPAN = D % 64 == 0 ? 64 : 32;
template <int D> constexpr int EIGHT_ROWS = 8 * SPAN<D> * 2; /* bytes */

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
    uint64_t full[SLOTS], empty[SLOTS];
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

/* ---- the warpgroup that copies ---- */

struct supply {
    place next, told; /* who computes has been told of those before `told` */
    int under_way;
};

__device__ __forceinline__ int own_thread() {
    return static_cast<int>(threadIdx.x) - GROUPS * GROUP;
}

/* Begins to copy ROWS rows of a head as an operand; those from `there` on become 0. */
template <int D, int ROWS>
__device__ __forceinline__ void load_operand(bf16 *to, const bf16 *from, int64_t stride, int there) {
    constexpr int UNITS = SPAN<D> / 8, AT_ONCE = GROUP / UNITS;
    const int unit = own_thread() % UNITS;
#pragma unroll 1
    for (int row = own_thread() / UNITS; row < ROWS; row += AT_ONCE) {
        const bf16 *source = (row < there ? from + row * stride : from) + unit * 8;
        bf16 *place = to + swizzled<SPAN<D> * 2>((row * SPAN<D> + unit * 8) * 2) / 2;
#pragma unroll
        for (int span = 0; span < D / SPAN<D>; span++)
            copy_async_16(place + span * ROWS * SPAN<D>, source + span * SPAN<D>, row < there);
    }
}

__device__ __forceinline__ void load_biases(float *window, const attention_job &job, const query_block &block,
                                            int tile) {
    for (int i = own_thread(); i < WINDOW; i += GROUP) {
        const int64_t distance = block.position - tile * TILE_KEYS - WINDOW_ZERO + i;
        const bool there = distance >= 0 && distance < job.bias_length;
        copy_async_4(window + i, job.bias + block.head * job.bias_length + (there ? distance : 0), there);
    }
}

template <int D> __device__ __forceinline__ void tell(forward_shared<D> &shared, supply &of) {
    fence_async_proxy();
    phases_arrive(&shared.full[of.told.slot]);
    go_on(of.told);
    of.under_way--;
}

/* The next place, once it is empty. */
template <int D> __device__ __forceinline__ int begin_place(forward_shared<D> &shared, const supply &of) {
    phases_wait(&shared.empty[of.next.slot], of.next.round ^ 1);
    return of.next.slot;
}

template <int D> __device__ __forceinline__ void end_place(forward_shared<D> &shared, supply &of) {
    copy_async_commit();
    go_on(of.next);
    if (++of.under_way <= UNDER_WAY) return;
    copy_async_wait<UNDER_WAY>();
    tell(shared, of);
}

template <int D> __device__ __forceinline__ void end_supply(forward_shared<D> &shared, supply &of) {
    copy_async_wait<0>();
    while (of.under_way > 0) tell(shared, of);
}

template <int D>
__device__ __forceinline__ void supply_keys(forward_shared<D> &shared, supply &of, const attention_job &job,
                                            const query_block &block, int tile, const visit &what) {
    const int slot = begin_place(shared, of), key = tile * TILE_KEYS;
    if (own_thread() == 0) shared.visits[slot] = what;
    load_operand<D, TILE_KEYS>(shared.ring[slot], key_rows(job, block, job.k, key), job.key_stride,
                               static_cast<int>(job.key_length) - key);
    if (has_bias(job, block, tile)) load_biases(shared.window[slot], job, block, tile);
    end_place(shared, of);
}

template <int D>
__device__ __forceinline__ void supply_values(forward_shared<D> &shared, supply &of, const attention_job &job,
                                              const query_block &block, int tile) {
    const int slot = begin_place(shared, of), key = tile * TILE_KEYS;
    load_operand<D, TILE_KEYS>(shared.ring[slot], key_rows(job, block, job.v, key), job.key_stride,
                               static_cast<int>(job.key_length) - key);
    end_place(shared, of);
}

/* All tiles; queries come with the first. */
template <int D>
__device__ void supply_all(forward_shared<D> &shared, supply &of, const attention_job &job,
                           const query_block &block, bool values) {
    load_operand<D, BLOCK_QUERIES>(shared.queries, job.q + query_place(job, block, block.begin),
                                   job.query_stride, block.count);
    for (int tile = block.last_tile; tile >= block.first_tile; tile--) {
        supply_keys(shared, of, job, block, tile, {tile, 0});
        if (values) supply_values(shared, of, job, block, tile);
    }
    end_supply(shared, of);
}

/* The tiles that the first pass left, and which warpgroups need them. Live bits are read here alone, before
 * those who compute put those of the second pass in their place. */
template <int D>
__device__ void supply_live(forward_shared<D> &shared, supply &of, const attention_job &job,
                            const query_block &block) {
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
            supply_keys(shared, of, job, block, tile, {tile, groups});
            supply_values(shared, of, job, block, tile);
        }
    const int slot = begin_place(shared, of);
    if (own_thread() == 0) shared.visits[slot] = {-1, 0};
    end_place(shared, of);
    end_supply(shared, of);
}

/* ---- the warpgroups that compute ---- */

/* What a warpgroup's 64 queries see. */
struct group_tiles {
    int first, last;
};

__device__ __forceinline__ int own_group() {
    return own_warp() / 4;
}

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
    __syncwarp();
    if (own_lane() == 0) phases_arrive(&shared.empty[at.slot]);
    go_on(at);
}

/* Of operands of ROWS rows: 16 elements of their rows, k times 16 from the first, in units of a descriptor.
 */
template <int D, int ROWS> constexpr uint64_t along_rows(int k) {
    return static_cast<uint64_t>(16 * k / SPAN<D> * ROWS * SPAN<D> + 16 * k % SPAN<D>) * 2 / 16;
}

/* s = q times the transpose of the keys of a place. */
template <int D>
__device__ __forceinline__ void multiply_queries(float (&s)[TILE_KEYS / 8][4], forward_shared<D> &shared,
                                                 int slot) {
    const uint64_t queries = operand<SPAN<D> * 2>(shared.queries + own_group() * GROUP_ROWS * SPAN<D>, 16,
                                                  EIGHT_ROWS<D>),
                   keys = operand<SPAN<D> * 2>(shared.ring[slot], 16, EIGHT_ROWS<D>);
    multiply_fence(s);
#pragma unroll
    for (int k = 0; k < D / 16; k++)
        multiply_async(s, queries + along_rows<D, BLOCK_QUERIES>(k), keys + along_rows<D, TILE_KEYS>(k),
                       k > 0);
    multiply_commit();
    multiply_wait(s);
}

/* The values of a place, 16 keys from 16 k on. */
template <int D> __device__ __forceinline__ uint64_t values_of(forward_shared<D> &shared, int slot, int k) {
    return operand<SPAN<D> * 2>(shared.ring[slot], TILE_KEYS * SPAN<D> * 2, EIGHT_ROWS<D>) +
           static_cast<uint64_t>(k * 2 * EIGHT_ROWS<D> / 16);
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

template <int D, bool LAZY>
__device__ void supply_block(forward_shared<D> &shared, const attention_job &job, const query_block &block) {
    supply of = {};
    supply_all(shared, of, job, block, !LAZY);
    if (LAZY) {
        __syncthreads();
        supply_live(shared, of, job, block);
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

template <int D, bool LAZY> __global__ void __launch_bounds__(BLOCK, 1) forward(attention_job job) {
    LT_DYNAMIC_SHARED(forward_shared<D>, shared);
    const query_block block = open_block(job);
    if (threadIdx.x == 0)
        for (int slot = 0; slot < SLOTS; slot++) {
            phases_open(&shared->full[slot], GROUP);
            phases_open(&shared->empty[slot], GROUPS * 4);
        }
    __syncthreads();
    if (own_group() == GROUPS) {
        registers_at_most<40>();
        supply_block<D, LAZY>(*shared, job, block);
    } else {
        registers_at_least<232>();
        compute_block<D, LAZY>(*shared, job, block);
    }
}

template <int D> cudaError_t launch(cuda_device *device, const attention_job &job) {
    const int64_t blocks = job.batch * job.heads * divide_up(job.query_length, int64_t{BLOCK_QUERIES});
    const auto kernel = job.bias_length > 0 ? forward<D, true> : forward<D, false>;
    const cudaError_t error =
        cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, sizeof(forward_shared<D>));
    if (error != cudaSuccess) return error;
    return LT_LAUNCH(kernel, static_cast<unsigned>(blocks), BLOCK, sizeof(forward_shared<D>), device->stream,
                     job);
}

} // namespace

void lt_cuda_attention_sm90_forward(cuda_device *device, const attention_job &job) {
    const auto of_size = job.head_size == 64 ? launch<64> : job.head_size == 96 ? launch<96> : launch<128>;
    lt_cuda_note(device, "attention forward", of_size(device, job));
}
