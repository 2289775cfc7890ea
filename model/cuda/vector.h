/* What kernels over rows and flat arrays share: several neighbouring elements at a time, as float32, and sums
 * over a block of threads.
 *
 * `wide` says that every pack is whole and aligned to what is moved at a time (is_wide() tells); otherwise
 * elements are moved one by one, `left` of them: those beyond are `fill`, and are not stored. The same thread
 * takes the same elements either way, so that alignment changes no bit of a sum.
 */
#ifndef LT_MODEL_CUDA_VECTOR_H
#define LT_MODEL_CUDA_VECTOR_H

#include "model/cuda/device.h"

/* Neighbouring elements of a row that a thread takes at a time: 16 bytes of bfloat16. */
constexpr int PACK = 8;

static __device__ __forceinline__ float read(const float *from) {
    return *from;
}

static __device__ __forceinline__ float read(const bf16 *from) {
    return __bfloat162float(*from);
}

static __device__ __forceinline__ void write(float *to, float value) {
    *to = value;
}

static __device__ __forceinline__ void write(bf16 *to, float value) {
    *to = __float2bfloat16(value);
}

static __device__ __forceinline__ void unpack(unsigned bits, float *to) {
    to[0] = __uint_as_float(bits << 16);
    to[1] = __uint_as_float(bits & 0xffff0000u);
}

static __device__ __forceinline__ unsigned packed(const float *from) {
    const bf16x2 pair = __floats2bfloat162_rn(from[0], from[1]);
    unsigned bits;
    memcpy(&bits, &pair, sizeof bits);
    return bits;
}

static __device__ __forceinline__ void load_all(const float *from, float (&to)[4]) {
    const float4 four = *reinterpret_cast<const float4 *>(from);
    to[0] = four.x, to[1] = four.y, to[2] = four.z, to[3] = four.w;
}

static __device__ __forceinline__ void load_all(const float *from, float (&to)[8]) {
    const float4 low = reinterpret_cast<const float4 *>(from)[0],
                 high = reinterpret_cast<const float4 *>(from)[1];
    to[0] = low.x, to[1] = low.y, to[2] = low.z, to[3] = low.w;
    to[4] = high.x, to[5] = high.y, to[6] = high.z, to[7] = high.w;
}

static __device__ __forceinline__ void load_all(const bf16 *from, float (&to)[4]) {
    const uint2 pairs = *reinterpret_cast<const uint2 *>(from);
    unpack(pairs.x, to), unpack(pairs.y, to + 2);
}

static __device__ __forceinline__ void load_all(const bf16 *from, float (&to)[8]) {
    const uint4 pairs = *reinterpret_cast<const uint4 *>(from);
    unpack(pairs.x, to), unpack(pairs.y, to + 2), unpack(pairs.z, to + 4), unpack(pairs.w, to + 6);
}

static __device__ __forceinline__ void store_all(float *to, const float (&from)[4]) {
    *reinterpret_cast<float4 *>(to) = make_float4(from[0], from[1], from[2], from[3]);
}

static __device__ __forceinline__ void store_all(float *to, const float (&from)[8]) {
    reinterpret_cast<float4 *>(to)[0] = make_float4(from[0], from[1], from[2], from[3]);
    reinterpret_cast<float4 *>(to)[1] = make_float4(from[4], from[5], from[6], from[7]);
}

static __device__ __forceinline__ void store_all(bf16 *to, const float (&from)[4]) {
    *reinterpret_cast<uint2 *>(to) = make_uint2(packed(from), packed(from + 2));
}

static __device__ __forceinline__ void store_all(bf16 *to, const float (&from)[8]) {
    *reinterpret_cast<uint4 *>(to) =
        make_uint4(packed(from), packed(from + 2), packed(from + 4), packed(from + 6));
}

template <bool wide, int count, typename number>
__device__ __forceinline__ void load(const number *from, int64_t left, float (&to)[count],
                                     float fill = 0.0f) {
    if constexpr (wide) {
        load_all(from, to);
    } else {
#pragma unroll
        for (int i = 0; i < count; i++) to[i] = i < left ? read(from + i) : fill;
    }
}

template <bool wide, int count, typename number>
__device__ __forceinline__ void store(number *to, int64_t left, const float (&from)[count]) {
    if constexpr (wide) {
        store_all(to, from);
    } else {
#pragma unroll
        for (int i = 0; i < count; i++)
            if (i < left) write(to + i, from[i]);
    }
}

/* Of a row or array that may end within the pack, whether places are aligned or not. */
template <bool aligned, int count, typename number>
__device__ __forceinline__ void load_end(const number *from, int64_t left, float (&to)[count],
                                         float fill = 0.0f) {
    if (aligned && left >= count)
        load_all(from, to);
    else
        load<false>(from, left, to, fill);
}

/* ---- sums over a block of whole warps: every thread gets the same bits ---- */

template <typename number> __device__ __forceinline__ number warp_sum(number own) {
#pragma unroll
    for (int lanes = 16; lanes > 0; lanes /= 2) own += __shfl_xor_sync(0xffffffffu, own, lanes);
    return own;
}

template <typename number> __device__ __forceinline__ number block_sum(number own) {
    LT_SHARED(number, sums, 32);
    own = warp_sum(own);
    __syncthreads(); /* who still reads the sums before these */
    if (threadIdx.x % 32 == 0) sums[threadIdx.x / 32] = own;
    __syncthreads();
    number sum = sums[0];
    for (unsigned warp = 1; warp < blockDim.x / 32; warp++) sum += sums[warp];
    return sum;
}

/* NaN counts as less than anything. */
static __device__ __forceinline__ float block_largest(float own) {
    LT_SHARED(float, largest, 32);
#pragma unroll
    for (int lanes = 16; lanes > 0; lanes /= 2) own = fmaxf(own, __shfl_xor_sync(0xffffffffu, own, lanes));
    __syncthreads();
    if (threadIdx.x % 32 == 0) largest[threadIdx.x / 32] = own;
    __syncthreads();
    float result = largest[0];
    for (unsigned warp = 1; warp < blockDim.x / 32; warp++) result = fmaxf(result, largest[warp]);
    return result;
}

/* ---- on the host ---- */

/* Whether all places are multiples of 16 bytes. */
template <typename... places> bool all_aligned(places... at) {
    return ((reinterpret_cast<uintptr_t>(at.address) % 16 == 0) && ...);
}

/* The same of every row of `width` elements there. */
template <typename... places> bool is_wide(int64_t width, places... at) {
    return width % PACK == 0 && all_aligned(at...);
}

/* Whole warps for as many items, at most `most` threads. */
static inline unsigned threads_for(int64_t items, unsigned most) {
    return items >= most ? most : static_cast<unsigned>(divide_up<int64_t>(items, 32)) * 32;
}

static inline unsigned blocks(int64_t count) {
    return static_cast<unsigned>(count);
}

/* Blocks of `threads` threads that cut rows into chunks of a pack a thread. */
struct row_chunks {
    unsigned threads, a_row; /* chunks */
};

static inline row_chunks chunks_of(int64_t width, unsigned most_threads) {
    const int64_t packs = divide_up<int64_t>(width, PACK);
    const unsigned threads = threads_for(packs, most_threads);
    return {threads, static_cast<unsigned>(divide_up<int64_t>(packs, threads))};
}

/* Of the thread: its row, and its pack's first column, which may lie beyond the row. */
static __device__ __forceinline__ int64_t row_of(unsigned chunks_a_row) {
    return blockIdx.x / chunks_a_row;
}

static __device__ __forceinline__ int64_t column_of(unsigned chunks_a_row) {
    return (static_cast<int64_t>(blockIdx.x % chunks_a_row) * blockDim.x + threadIdx.x) * PACK;
}

#endif
