/* Small matrix products for attention tiles: c [m, n] = a [m, k] b [k, n] (+ c).
 *
 * A register block of ROWS x 2 vectors of c is kept in registers over the whole of k; a is read as scalars
 * through two strides (so a transposed a costs nothing), b as whole vectors. One element of c is always the
 * same chain of fused multiply-adds over k, whichever block it falls in: forward and backward compute the
 * same scores bit by bit. ROWS: 8 with 32 vector registers, 6 with 16 (12 sums, 2 vectors of b, 1 of a).
 */
#ifndef LT_MODEL_CPU_KERNELS_PRODUCT_H
#define LT_MODEL_CPU_KERNELS_PRODUCT_H

#include "model/cpu/kernels/vector.h"

#if defined(__AVX512F__)
#define LT_BLOCK_ROWS 8
#else
#define LT_BLOCK_ROWS 6
#endif

typedef struct lt_product {
    int64_t m, n, k; /* n a multiple of LANES */
    const float *a, *b;
    int64_t a_row, a_k; /* a[i, p] lies at i * a_row + p * a_k */
    int64_t ldb;
    float *c;
    int64_t ldc;
    bool accumulate;
} lt_product;

LT_INLINE void product_block(const lt_product *p, const float *a, const float *b, float *c, const int rows,
                             const int vectors) {
    vec sum[LT_BLOCK_ROWS][2];
#pragma GCC unroll 8
    for (int i = 0; i < rows; i++)
#pragma GCC unroll 2
        for (int j = 0; j < vectors; j++)
            sum[i][j] = p->accumulate ? v_load(c + i * p->ldc + j * LANES) : v_set(0.0f);
    const int64_t k = p->k, a_row = p->a_row, a_k = p->a_k, ldb = p->ldb;
    for (int64_t step = 0; step < k; step++, a += a_k, b += ldb) {
        vec right[2];
#pragma GCC unroll 2
        for (int j = 0; j < vectors; j++) right[j] = v_load(b + j * LANES);
#pragma GCC unroll 8
        for (int i = 0; i < rows; i++) {
            const vec left = v_set(a[i * a_row]);
#pragma GCC unroll 2
            for (int j = 0; j < vectors; j++) sum[i][j] = v_fma(left, right[j], sum[i][j]);
        }
    }
#pragma GCC unroll 8
    for (int i = 0; i < rows; i++)
#pragma GCC unroll 2
        for (int j = 0; j < vectors; j++) v_store(c + i * p->ldc + j * LANES, sum[i][j]);
}

LT_INLINE void product_rows(const lt_product *p, int64_t row, const int rows) {
    const float *a = p->a + row * p->a_row;
    float *c = p->c + row * p->ldc;
    int64_t column = 0;
    for (; column + 2 * LANES <= p->n; column += 2 * LANES)
        product_block(p, a, p->b + column, c + column, rows, 2);
    if (column < p->n) product_block(p, a, p->b + column, c + column, rows, 1);
}

static __attribute__((noinline, unused)) void product(const lt_product *p) {
    int64_t row = 0;
    for (; row + LT_BLOCK_ROWS <= p->m; row += LT_BLOCK_ROWS) product_rows(p, row, LT_BLOCK_ROWS);
    for (; row + 2 <= p->m; row += 2) product_rows(p, row, 2);
    if (row < p->m) product_rows(p, row, 1);
}

#endif
