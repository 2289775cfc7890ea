/* What kernels share that make all gradients of a block of keys: the turns in which blocks add to a tile's
 * dq, and the sums of the biases' gradients. lazy_attention_backward.cu says why no order of starting can
 * lock. */
#ifndef LT_MODEL_CUDA_ATTENTION_TURNS_H
#define LT_MODEL_CUDA_ATTENTION_TURNS_H

#include "model/cuda/attention_blocks.h"

/* ---- turns ---- */

/* Tiles of QUERIES of all heads: job.turns has a count for each, and then the ticket. */
template <int QUERIES> static __host__ __device__ int64_t turns_of(const attention_job &job) {
    return job.batch * job.heads * divide_up(job.query_length, int64_t{QUERIES});
}

/* The ticket of this block. */
template <int QUERIES>
static __device__ __forceinline__ int take_ticket(unsigned &ticket, const attention_job &job) {
    if (threadIdx.x == 0) ticket = atomicAdd(job.turns + turns_of<QUERIES>(job), 1u);
    __syncthreads();
    return static_cast<int>(ticket);
}

/* A block's turn to add to a tile of queries. */
struct turn {
    int64_t tile; /* of all heads */
    unsigned number;
    bool last;
};

template <int QUERIES>
static __device__ __forceinline__ turn turn_of(const attention_job &job, const key_block &block,
                                               const query_tile &tile, int first_key) {
    turn own;
    const int keys = static_cast<int>(job.key_length), last_key = min(tile.position + QUERIES, keys) - 1;
    own.tile = tile.pair * divide_up(job.query_length, int64_t{QUERIES}) + tile.begin / QUERIES;
    own.number = static_cast<unsigned>(last_key / BLOCK_KEYS - block.begin / BLOCK_KEYS);
    own.last = first_key / BLOCK_KEYS == block.begin / BLOCK_KEYS;
    return own;
}

/* Lets the next block add, after a barrier behind which no thread has more to do. By one thread. */
static __device__ __forceinline__ void hand_on(const attention_job &job, const turn &own) {
    if (!own.last) write_release(job.turns + own.tile, own.number + 1);
}

/* ---- gradients of biases ---- */

/* Where the sum of distance 0 of a query head and the block's keys lies. */
static __device__ __forceinline__ float *bias_sums(const attention_job &job, const key_block &block,
                                                   int head) {
    return job.bias_sums +
           ((block.batch * job.heads + head) * job.bias_blocks + block.begin / BLOCK_KEYS) * job.bias_length;
}

/* A thread's sum, of one distance at a time. */
struct distance_sum {
    int head, distance; /* -1: none yet */
    float sum;
};

static __device__ __forceinline__ void store_distance(const attention_job &job, const key_block &block,
                                                      const distance_sum &own) {
    if (own.distance >= 0 && own.distance < job.bias_length)
        bias_sums(job, block, own.head)[own.distance] = own.sum;
}

/* Distances that no tile has stay 0; what store_distance() puts is the same thread's affair. */
static __device__ __forceinline__ void zero_distances(const attention_job &job, const key_block &block) {
    const int group = static_cast<int>(job.heads / job.key_heads);
    for (int head = block.key_head * group; head < (block.key_head + 1) * group; head++)
        for (int distance = static_cast<int>(threadIdx.x); distance < job.bias_length; distance += THREADS)
            bias_sums(job, block, head)[distance] = 0.0f;
}

/* Takes in the diagonals of a tile's ds, whose rows lie PITCH_DS apart, each by one thread, rows in ascending
 * order. By threads 0 to THREADS - 1 of the block. */
template <int QUERIES, int PITCH_DS>
static __device__ __forceinline__ void take_diagonals(distance_sum &own, const float *ds,
                                                      const attention_job &job, const key_block &block,
                                                      const query_tile &tile) {
    const int nearest = tile.position - block.begin - (BLOCK_KEYS - 1);
    const int thread = static_cast<int>(threadIdx.x), place = (thread - nearest) & (THREADS - 1),
              begin = (thread - own_lane() - nearest) & (THREADS - 1); /* the warp's first lane's */
    const bool there = place < BLOCK_KEYS + QUERIES - 1;
    if (there && (own.distance != nearest + place || own.head != tile.head)) {
        store_distance(job, block, own);
        own = {tile.head, nearest + place, 0.0f};
    }
    /* Rows that cross the warp's diagonals, which begin anew at place 0 where they pass 255. */
    const bool anew = begin > THREADS - WARP;
    const int low = anew ? 0 : max(begin - (BLOCK_KEYS - 1), 0),
              high = min(anew ? WARP : begin + WARP, QUERIES);
    for (int row = low; row < high; row++) {
        const int column = row + BLOCK_KEYS - 1 - place, inside = min(max(column, 0), BLOCK_KEYS - 1);
        const float value = shared_read(ds + row * PITCH_DS + inside);
        if (column == inside) own.sum += value;
    }
}

/* ---- launches ---- */

/* Queues `kernel` for all blocks of keys, with turns that nobody has taken. */
template <int QUERIES, typename function, typename... arguments>
static cudaError_t launch_in_turns(function kernel, int threads, size_t shared_bytes, cudaStream_t stream,
                                   const attention_job &job, const arguments &...rest) {
    const int64_t blocks = job.batch * job.key_heads * divide_up(job.key_length, int64_t{BLOCK_KEYS});
    cudaError_t error = cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize,
                                             static_cast<int>(shared_bytes));
    if (error == cudaSuccess)
        error = cudaMemsetAsync(job.turns, 0,
                                static_cast<size_t>(turns_of<QUERIES>(job) + 1) * sizeof *job.turns, stream);
    if (error != cudaSuccess) return error;
    return LT_LAUNCH(kernel, static_cast<unsigned>(blocks), static_cast<unsigned>(threads), shared_bytes,
                     stream, job, rest...);
}

#endif
