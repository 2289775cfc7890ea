/* Instructions of sm_80 and later that C++ has no words for, one function each. tests/emulation has a twin of
 * this header, with the layouts of fragments written down, and a test of what they do that GPUs run too.
 *
 * Lanes of a warp: g = lane / 4, t = lane % 4. All 32 call each function together, but for those of
 * arithmetic and those of one thread.
 */
#ifndef LT_MODEL_CUDA_INSTRUCTIONS_H
#define LT_MODEL_CUDA_INSTRUCTIONS_H

#include "model/cuda/launch.h"

static __device__ __forceinline__ unsigned shared_address(const void *at) {
    return static_cast<unsigned>(__cvta_generic_to_shared(at));
}

/* ldmatrix: four 8 x 8 matrices of 16-bit elements from shared memory. Lane i has the address of row i % 8 of
 * matrix i / 8, 16 bytes, aligned to that; to[m] gets elements (g, 2t) and (g, 2t + 1) of matrix m. */
static __device__ __forceinline__ void load_matrices(unsigned (&to)[4], const void *row) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(to[0]), "=r"(to[1]), "=r"(to[2]), "=r"(to[3])
                 : "r"(shared_address(row))
                 : "memory");
}

/* The same with each matrix transposed: to[m] gets elements (2t, g) and (2t + 1, g). */
static __device__ __forceinline__ void load_matrices_transposed(unsigned (&to)[4], const void *row) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(to[0]), "=r"(to[1]), "=r"(to[2]), "=r"(to[3])
                 : "r"(shared_address(row))
                 : "memory");
}

/* movmatrix: the transpose of an 8 x 8 matrix of which each lane has (g, 2t) and (g, 2t + 1). */
static __device__ __forceinline__ unsigned transposed_matrix(unsigned pair) {
    unsigned result;
    asm("movmatrix.sync.aligned.m8n8.trans.b16 %0, %1;" : "=r"(result) : "r"(pair));
    return result;
}

/* mma.sync m16n8k16: c [16, 8] += a [16, 16] b [16, 8], bfloat16 with float32 sums. */
static __device__ __forceinline__ void multiply_add(float (&c)[4], const unsigned (&a)[4], unsigned b0,
                                                    unsigned b1) {
    asm("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, "
        "{%0, %1, %2, %3};"
        : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}

/* cp.async: 16 bytes, both places aligned to that, or 4, from global to shared memory; zeros where they are
 * not `there` (then `from` is not read). They can be read once a wait for their group has returned in the
 * thread that asked for them, by other threads after a barrier too. */
static __device__ __forceinline__ void copy_async_16(void *to, const void *from, bool there) {
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(shared_address(to)), "l"(from),
                 "r"(there ? 16 : 0)
                 : "memory");
}

static __device__ __forceinline__ void copy_async_4(void *to, const void *from, bool there) {
    asm volatile("cp.async.ca.shared.global [%0], [%1], 4, %2;" ::"r"(shared_address(to)), "l"(from),
                 "r"(there ? 4 : 0)
                 : "memory");
}

/* Makes a group of this thread's copies since the last one. */
static __device__ __forceinline__ void copy_async_commit() {
    asm volatile("cp.async.commit_group;" ::: "memory");
}

/* Waits for all groups of this thread but the last LEFT. */
template <int LEFT> static __device__ __forceinline__ void copy_async_wait() {
    asm volatile("cp.async.wait_group %0;" ::"n"(LEFT) : "memory");
}

/* Shared memory, a lane's own place of 4, 8 or 16 bytes. */
template <typename element> static __device__ __forceinline__ element shared_read(const element *at) {
    return *at;
}

template <typename element> static __device__ __forceinline__ void shared_write(element *at, element value) {
    *at = value;
}

/* Global memory by which blocks tell each other how far they are, from one thread to one thread. What the
 * writer's block wrote before a barrier that the writer passed is seen by the reader's block after a barrier
 * that the reader reaches next. */
static __device__ __forceinline__ void write_release(unsigned *at, unsigned value) {
    asm volatile("st.release.gpu.global.u32 [%0], %1;" ::"l"(__cvta_generic_to_global(at)), "r"(value)
                 : "memory");
}

/* Returns once `value` is there. */
static __device__ __forceinline__ void wait_for(const unsigned *at, unsigned value) {
    for (;;) {
        unsigned seen;
        asm volatile("ld.acquire.gpu.global.u32 %0, [%1];"
                     : "=r"(seen)
                     : "l"(__cvta_generic_to_global(at))
                     : "memory");
        if (seen == value) return;
        __nanosleep(32);
    }
}

/* 2^x to 2 units of the last place; 2^0 is 1, and what would be below 2^-126 is 0. */
static __device__ __forceinline__ float power_of_two(float x) {
    float result;
    asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(result) : "f"(x));
    return result;
}

/* The smaller of two, or NaN where one is. */
static __device__ __forceinline__ float smaller_or_nan(float x, float y) {
    float result;
    asm("min.NaN.f32 %0, %1, %2;" : "=f"(result) : "f"(x), "f"(y));
    return result;
}

/* Two values rounded to bfloat16, the first in the lower half. */
static __device__ __forceinline__ unsigned pack_bf16(float low, float high) {
    unsigned result;
    asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(result) : "f"(high), "f"(low));
    return result;
}

#endif
