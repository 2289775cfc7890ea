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
 * One block a multiprocessor. Four ldmatrix, five where values stay in shared memory, for eight mma: shared
 * memory and an A100's tensor cores are about equally busy. Not measured: half of the mma rate is expected,
 * 0.4 for D = 128.
 *
 * ptxas of CUDA 13.0, none spilled: registers for sm_80 and sm_90a, bytes of shared memory of a block.
 *   key_gradients<64, true>     192  196   40976
 *   key_gradients<96, true>     238  244   57360
 *   key_gradients<128, true>    254  252   72192
 *   key_gradients<64, false>    183  183   40976
 *   key_gradients<96, false>    236  236   57360
 *   key_gradients<128, false>   250  252   72192
 */
#include "model/cuda/attention_keys.h"

namespace {

template <int D> constexpr bool VALUES_STAY = D == 128; /* in shared memory */

template <int D> struct keys_shared {
    query_stages<D> queries;
    bf16 values[VALUES_STAY<D> ? BLOCK_KEYS * PITCH<D> : 1];
};
static_assert(takes_bytes<keys_shared>(40976, 57360, 72192));

template <int D, bool LAZY> __global__ void __launch_bounds__(THREADS, 1) key_gradients(attention_job job) {
    LT_DYNAMIC_SHARED(keys_shared<D>, shared);
    /* The keys that most queries see come first. */
    const int blocks = divide_up(static_cast<int>(job.key_length), int{BLOCK_KEYS}),
              number = static_cast<int>(blockIdx.x);
    const key_block block = open_keys<ROWS<D>>(job, number / blocks, number % blocks);
    const int tiles = block.tiles * static_cast<int>(job.heads / job.key_heads);
    query_stages<D> &queries = shared->queries;
    own_keys<D, false, VALUES_STAY<D>> own;
    float dk[D / 8][4] = {}, dv[D / 8][4] = {};
    open_own(own, queries.tiles[0][0], VALUES_STAY<D> ? shared->values : queries.tiles[1][0], job, block);
    query_tile next = {};
    if (tiles > 0) {
        next = open_tile<ROWS<D>, LAZY>(job, block, 0);
        load_tile(queries, 0, job, block, next);
    }
    copy_async_commit();
    for (int i = 0, stage = 0; i < tiles; i++, stage ^= 1) {
        const query_tile tile = next;
        copy_async_wait<0>();
        __syncthreads();
        if (i + 1 < tiles) {
            next = open_tile<ROWS<D>, LAZY>(job, block, i + 1);
            load_tile(queries, stage ^ 1, job, block, next);
        }
        copy_async_commit();
#pragma unroll
        for (int chunk = 0; chunk < ROWS<D> / TILE_ROWS; chunk++)
            add_queries<D, LAZY>(dk, dv, kept_nowhere{}, queries, stage, job, block, tile, chunk, own);
    }
    __syncthreads();
    store_key_gradients<D>(dk, dv, queries.tiles[0][0], job, block);
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
