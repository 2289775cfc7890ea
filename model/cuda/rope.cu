/* Rotary positions. Bound by memory: 75 to 85 % of its bandwidth are expected (not measured). */
#include "model/cuda/vector.h"

constexpr unsigned MOST_THREADS = 256;

/* A block a token. A thread takes 8 neighbours of the first half of a head and the 8 that they are rotated
 * with: 2 bytes read and 2 written an element, 4 products for 2; the token's angles, float32, are read once
 * from memory and by the other heads from the cache. */
template <bool wide>
static __global__ void __launch_bounds__(MOST_THREADS)
    rotate(bf16 *x, int64_t stride, const float *table, unsigned length, int64_t first, int heads, int half,
           float sign) {
    const int packs = divide_up(half, PACK);
    const float *cosine = table + (first + blockIdx.x % length) * 2 * half, *sine = cosine + half;
    x += blockIdx.x * stride;
    for (int i = static_cast<int>(threadIdx.x); i < heads * packs; i += static_cast<int>(blockDim.x)) {
        const int at = i % packs * PACK, left = half - at;
        bf16 *low = x + static_cast<int64_t>(i / packs) * 2 * half + at, *high = low + half;
        float a[PACK], b[PACK], c[PACK], s[PACK];
        load<wide>(low, left, a);
        load<wide>(high, left, b);
        load<wide>(cosine + at, left, c);
        load<wide>(sine + at, left, s);
#pragma unroll
        for (int j = 0; j < PACK; j++) {
            const float from_low = a[j], turned = sign * s[j];
            a[j] = fmaf(from_low, c[j], -(b[j] * turned));
            b[j] = fmaf(b[j], c[j], from_low * turned);
        }
        store<wide>(low, left, a);
        store<wide>(high, left, b);
    }
}

void lt_cuda_rope(lt_device *base, lt_mem x, int64_t stride, lt_mem table, int64_t rows, int64_t length,
                  int64_t first, int64_t heads, int64_t head_size, bool inverse) {
    cuda_device *device = cuda_of(base);
    if (rows == 0) return;
    const int64_t half = head_size / 2;
    const auto kernel = is_wide(half, x, table) && stride % PACK == 0 ? rotate<true> : rotate<false>;
    lt_cuda_note(
        device, "rotary positions",
        LT_LAUNCH(kernel, blocks(rows), threads_for(heads * divide_up<int64_t>(half, PACK), MOST_THREADS), 0,
                  device->stream, bf16_of(x), stride, floats_of(table), static_cast<unsigned>(length), first,
                  static_cast<int>(heads), static_cast<int>(half), inverse ? -1.0f : 1.0f));
}
