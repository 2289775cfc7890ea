/* What attention's kernels for compute capability 9.0 share: blocks of three warpgroups, two that compute and
 * one that copies, and rows of heads in shared memory as operands of their products.
 *
 * ROWS rows of D elements are D / SPAN matrices one after the other, SPAN elements (128 or 64 bytes) of all
 * rows in each: one box of a tensor map.
 */
#ifndef LT_MODEL_CUDA_ATTENTION_GROUPS_SM90_H
#define LT_MODEL_CUDA_ATTENTION_GROUPS_SM90_H

#include "model/cuda/attention_tiles.h"
#include "model/cuda/instructions_sm90.h"

enum { GROUP = 4 * WARP, GROUPS = 2, BLOCK = GROUP * (GROUPS + 1), COPYING_WARP = WARPS };
static_assert(GROUP * GROUPS == int{THREADS}, "those who compute are the threads of other kernels");

/* From eight rows to the next eight, and to 16 elements of all rows, k times 16 from the first: bytes. */
template <int SPAN> constexpr int EIGHT_ROWS = 8 * SPAN * 2;
template <int SPAN, int ROWS> __host__ __device__ constexpr int along_rows(int k) {
    return (16 * k / SPAN * ROWS * SPAN + 16 * k % SPAN) * 2;
}

/* Begins to copy rows of a head. By one thread; `phases` expects the bytes. */
template <int D, int SPAN, int ROWS>
static __device__ __forceinline__ void copy_operand(bf16 *to, const CUtensorMap &map, int head, int row,
                                                    int batch, uint64_t *phases) {
#pragma unroll
    for (int column = 0; column < D; column += SPAN)
        copy_tensor(to + ROWS * column, map, column, head, row, batch, phases);
}

/* The thread's place in a fragment, found anew wherever it is asked for: registers are few. */
struct fragment_place {
    int warp, g, t;
};

static __device__ __forceinline__ fragment_place own_place() {
    const unsigned thread = static_cast<unsigned>(anew(static_cast<int>(threadIdx.x)));
    return {static_cast<int>(thread / WARP), static_cast<int>(thread % WARP / 4),
            static_cast<int>(thread % 4)};
}

static __device__ __forceinline__ int own_group() {
    return own_place().warp / 4;
}

/* The warp has done its part. */
static __device__ __forceinline__ void arrive(uint64_t *phases) {
    __syncwarp();
    const fragment_place own = own_place();
    if (own.g + own.t == 0) phases_arrive(phases);
}

#endif
