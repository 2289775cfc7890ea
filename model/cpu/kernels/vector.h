/* One SIMD vector of float32, as wide as the instruction set that this file is compiled for, and what the
 * kernels do with it. Three backends: AVX-512, AVX2 with FMA, and GCC's generic vectors (SSE2, NEON). */
#ifndef LT_MODEL_CPU_KERNELS_VECTOR_H
#define LT_MODEL_CPU_KERNELS_VECTOR_H

#include <math.h>
#include <stdbool.h>
#include <stdint.h>
#include <string.h>

#define LT_JOIN_(a, b) a##_##b
#define LT_JOIN(a, b) LT_JOIN_(a, b)
/* The name of a kernel in this instruction set: lt_rope_avx2. */
#define LT_KERNEL(name) LT_JOIN(name, LT_ISA)

#define LT_INLINE static inline __attribute__((always_inline, unused))

#if defined(__AVX512F__)
#include <immintrin.h>
enum { LANES = 16 };
typedef __m512 vec;
typedef __mmask16 vmask;
LT_INLINE vec v_load(const float *p) {
    return _mm512_loadu_ps(p);
}
LT_INLINE void v_store(float *p, vec x) {
    _mm512_storeu_ps(p, x);
}
LT_INLINE vec v_set(float x) {
    return _mm512_set1_ps(x);
}
LT_INLINE vec v_fma(vec a, vec b, vec c) {
    return _mm512_fmadd_ps(a, b, c);
}
LT_INLINE vec v_max(vec a, vec b) {
    return _mm512_max_ps(a, b);
}
LT_INLINE vec v_sqrt(vec a) {
    return _mm512_sqrt_ps(a);
}
LT_INLINE vmask v_greater(vec a, vec b) {
    return _mm512_cmp_ps_mask(a, b, _CMP_GT_OQ);
}
LT_INLINE vec v_select(vmask mask, vec yes, vec no) {
    return _mm512_mask_blend_ps(mask, no, yes);
}
LT_INLINE int v_mask_count(vmask mask) {
    return __builtin_popcount(mask);
}
LT_INLINE vec v_round(vec x) {
    return _mm512_roundscale_ps(x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
}
/* 2^n for a whole number -126 <= n <= 127. */
LT_INLINE vec v_power_of_two(vec n) {
    return _mm512_castsi512_ps(
        _mm512_slli_epi32(_mm512_add_epi32(_mm512_cvtps_epi32(n), _mm512_set1_epi32(127)), 23));
}
#elif defined(__AVX2__) && defined(__FMA__)
#include <immintrin.h>
enum { LANES = 8 };
typedef __m256 vec;
typedef __m256 vmask;
LT_INLINE vec v_load(const float *p) {
    return _mm256_loadu_ps(p);
}
LT_INLINE void v_store(float *p, vec x) {
    _mm256_storeu_ps(p, x);
}
LT_INLINE vec v_set(float x) {
    return _mm256_set1_ps(x);
}
LT_INLINE vec v_fma(vec a, vec b, vec c) {
    return _mm256_fmadd_ps(a, b, c);
}
LT_INLINE vec v_max(vec a, vec b) {
    return _mm256_max_ps(a, b);
}
LT_INLINE vec v_sqrt(vec a) {
    return _mm256_sqrt_ps(a);
}
LT_INLINE vmask v_greater(vec a, vec b) {
    return _mm256_cmp_ps(a, b, _CMP_GT_OQ);
}
LT_INLINE vec v_select(vmask mask, vec yes, vec no) {
    return _mm256_blendv_ps(no, yes, mask);
}
LT_INLINE int v_mask_count(vmask mask) {
    return __builtin_popcount((unsigned)_mm256_movemask_ps(mask));
}
LT_INLINE vec v_round(vec x) {
    return _mm256_round_ps(x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
}
LT_INLINE vec v_power_of_two(vec n) {
    return _mm256_castsi256_ps(
        _mm256_slli_epi32(_mm256_add_epi32(_mm256_cvtps_epi32(n), _mm256_set1_epi32(127)), 23));
}
#else
enum { LANES = 4 };
typedef float vec __attribute__((vector_size(16)));
typedef int32_t vmask __attribute__((vector_size(16)));
LT_INLINE vec v_load(const float *p) {
    vec x;
    memcpy(&x, p, sizeof x);
    return x;
}
LT_INLINE void v_store(float *p, vec x) {
    memcpy(p, &x, sizeof x);
}
LT_INLINE vec v_set(float x) {
    return (vec){x, x, x, x};
}
LT_INLINE vec v_fma(vec a, vec b, vec c) {
    return a * b + c;
}
LT_INLINE vec v_select(vmask mask, vec yes, vec no) {
    return (vec)((mask & (vmask)yes) | (~mask & (vmask)no));
}
LT_INLINE vec v_max(vec a, vec b) {
    return v_select(a > b, a, b);
}
LT_INLINE vec v_sqrt(vec a) {
    return (vec){sqrtf(a[0]), sqrtf(a[1]), sqrtf(a[2]), sqrtf(a[3])};
}
LT_INLINE vmask v_greater(vec a, vec b) {
    return a > b;
}
LT_INLINE int v_mask_count(vmask mask) {
    return -(mask[0] + mask[1] + mask[2] + mask[3]);
}
/* Adding and taking away 1.5 * 2^23 leaves the nearest whole number for |x| < 2^22. */
LT_INLINE vec v_round(vec x) {
    const vec magic = {12582912.0f, 12582912.0f, 12582912.0f, 12582912.0f};
    return (x + magic) - magic;
}
LT_INLINE vec v_power_of_two(vec n) {
    return (vec)((__builtin_convertvector(n, vmask) + 127) << 23);
}
#endif

/* Lanes are summed in a fixed order. */
LT_INLINE float v_sum(vec x) {
    float lane[LANES];
    v_store(lane, x);
    for (int width = LANES / 2; width > 0; width /= 2)
        for (int i = 0; i < width; i++) lane[i] += lane[i + width];
    return lane[0];
}

LT_INLINE double v_sum_double(vec x) {
    float lane[LANES];
    v_store(lane, x);
    double sum = 0;
    for (int i = 0; i < LANES; i++) sum += (double)lane[i];
    return sum;
}

LT_INLINE float v_largest(vec x) {
    float lane[LANES];
    v_store(lane, x);
    float largest = lane[0];
    for (int i = 1; i < LANES; i++) largest = lane[i] > largest ? lane[i] : largest;
    return largest;
}

/* The first `count` < LANES values, the others `rest`; and the way back. So the ends of arrays go through the
 * same arithmetic as their middles, and an element's bits do not depend on where an array was cut. */
LT_INLINE vec v_load_part(const float *p, int64_t count, float rest) {
    float lane[LANES];
    for (int i = 0; i < LANES; i++) lane[i] = i < count ? p[i] : rest;
    return v_load(lane);
}

LT_INLINE void v_store_part(float *p, vec x, int64_t count) {
    float lane[LANES];
    v_store(lane, x);
    for (int64_t i = 0; i < count; i++) p[i] = lane[i];
}

/* Keeps the compiler from fusing the rounding of x away: what follows sees x as it would be stored. */
LT_INLINE vec v_rounded(vec x) {
#if defined(__x86_64__)
    __asm__("" : "+v"(x));
#elif defined(__aarch64__)
    __asm__("" : "+w"(x));
#endif
    return x;
}

/* exp(x) for x <= 0 (also -infinity and NaN) within 1 ulp or so: x = n ln 2 + r, a polynomial of degree 7 in
 * r (coefficients: Cephes, expf), times 2^n. exp(0) is exactly 1; below -87.33, where results would be
 * denormal, 0. */
LT_INLINE vec v_exp(vec x) {
    const vec n = v_round(x * v_set(1.44269504088896341f));
    vec r = v_fma(n, v_set(-0.693359375f), x);
    r = v_fma(n, v_set(2.12194440e-4f), r);
    vec p = v_set(1.9875691500e-4f);
    p = v_fma(p, r, v_set(1.3981999507e-3f));
    p = v_fma(p, r, v_set(8.3334519073e-3f));
    p = v_fma(p, r, v_set(4.1665795894e-2f));
    p = v_fma(p, r, v_set(1.6666665459e-1f));
    p = v_fma(p, r, v_set(5.0000001201e-1f));
    p = v_fma(p, r * r, r) + v_set(1.0f);
    return v_select(v_greater(v_set(-87.33f), x), v_set(0.0f), p * v_power_of_two(n));
}

/* 1 / (1 + exp(-x)). */
LT_INLINE vec v_sigmoid(vec x) {
    const vec e = v_exp(v_set(0.0f) - v_max(x, v_set(0.0f) - x));
    const vec numerator = v_select(v_greater(v_set(0.0f), x), e, v_set(1.0f));
    return numerator / (v_set(1.0f) + e);
}

#endif
