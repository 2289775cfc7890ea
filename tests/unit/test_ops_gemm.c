/* Matrix products of a device against the float64 reference: all four layouts, with and without accumulation,
 * rows that are longer than the matrix is wide.
 *
 * Tolerance: a sum of k products of N(0, 1) values is of the order of sqrt(k) and carries a rounding error of
 * about 6e-8 sqrt(k) times that; 1e-5 of the largest entry leaves a factor of ten at k = 301. Products of
 * bfloat16 are summed in float32, so that only a rounded c has more to allow for. */
#include "tests/reference/fixture.h"
#include "tests/reference/reference.h"

#include <math.h>
#include <string.h>

typedef struct size_case {
    const char *name;
    int64_t m, n, k;
} size_case;

static const size_case CASES[] = {
    {"1 x 1 x 1", 1, 1, 1},           {"1 x 300 x 7", 1, 300, 7},       {"300 x 1 x 5", 300, 1, 5},
    {"17 x 33 x 1", 17, 33, 1},       {"3 x 5 x 301", 3, 5, 301},       {"48 x 64 x 65", 48, 64, 65},
    {"100 x 100 x 99", 100, 100, 99}, {"129 x 97 x 211", 129, 97, 211}, {"255 x 257 x 31", 255, 257, 31},
    {"13 x 299 x 3", 13, 299, 3},     {"299 x 13 x 3", 299, 13, 3},     {"700 x 500 x 300", 700, 500, 300},
};
enum { CASE_COUNT = sizeof CASES / sizeof CASES[0] };

typedef struct problem {
    int64_t m, n, k;
    const float *a, *b, *start, *start_rounded; /* [m, k], [k, n], [m, n] */
    const double *product;
} problem;

/* The matrix, transposed if asked for, with NaN in the `padding` elements that end each stored row. */
static float *store(const float *matrix, int64_t rows, int64_t columns, bool transposed, int64_t padding) {
    int64_t stored_rows = transposed ? columns : rows, width = transposed ? rows : columns;
    float *stored = TEST_NEW(float, stored_rows *(width + padding));
    for (int64_t i = 0; i < stored_rows; i++)
        for (int64_t j = 0; j < width + padding; j++)
            stored[i * (width + padding) + j] = j >= width   ? NAN
                                                : transposed ? matrix[j * columns + i]
                                                             : matrix[i * columns + j];
    return stored;
}

typedef enum adding { NOTHING, ITSELF, ANOTHER, ADDINGS } adding;

static void multiply(test_arena *arena, const problem *p, bool a_transposed, bool b_transposed, adding adds,
                     lt_type type) {
    const bool rounded = type == TEST_COMPUTE_TYPE;
    const float *start = rounded ? p->start_rounded : p->start;
    int64_t padding = adds == NOTHING ? 0 : 3, lda = (a_transposed ? p->m : p->k) + padding;
    int64_t ldb = (b_transposed ? p->k : p->n) + padding, ldc = p->n + 2 * padding;
    const float *a = store(p->a, p->m, p->k, a_transposed, padding);
    const float *b = store(p->b, p->k, p->n, b_transposed, padding);
    const float *c = store(start, p->m, p->n, false, 2 * padding);
    lt_gemm gemm = {.m = p->m,
                    .n = p->n,
                    .k = p->k,
                    .a = test_compute_buffer(arena, a, (a_transposed ? p->k : p->m) * lda),
                    .b = test_compute_buffer(arena, b, (b_transposed ? p->n : p->k) * ldb),
                    .lda = lda,
                    .ldb = ldb,
                    .ldc = ldc,
                    .a_transposed = a_transposed,
                    .b_transposed = b_transposed};
    lt_mem (*const buffer)(test_arena *, const float *, int64_t) =
        rounded ? test_compute_buffer : test_float_buffer;
    gemm.c = buffer(arena, adds == ITSELF ? c : NULL, p->m * ldc);
    if (adds != NOTHING) gemm.addend = adds == ITSELF ? gemm.c : buffer(arena, c, p->m * ldc);
    arena->device->ops->gemm(arena->device, &gemm);
    const float *got = test_read_floats(arena, gemm.c, p->m * ldc);
    float *dense = TEST_NEW(float, p->m * p->n);
    double *expected = TEST_NEW(double, p->m * p->n);
    for (int64_t i = 0; i < p->m; i++)
        for (int64_t j = 0; j < ldc; j++) {
            if (j >= p->n) {
                assert_true(isnan(got[i * ldc + j]));
                continue;
            }
            dense[i * p->n + j] = got[i * ldc + j];
            expected[i * p->n + j] =
                p->product[i * p->n + j] + (adds == NOTHING ? 0.0 : (double)start[i * p->n + j]);
        }
    (rounded ? test_close_rounded : test_close)("c", dense, expected, p->m * p->n, 1e-5, 0.0);
}

/* cuBLASLt has other kernels for other alignments. */
static int kernels_of(const test_arena *arena) {
    if (TEST_COMPUTE_TYPE == LT_FLOAT32 || arena->offset % 8 == 0) return 0;
    return arena->offset % 4 == 0 ? 1 : 2;
}

static void run_layouts(test_arena *arena, const void *context) {
    arena->kernels = kernels_of(arena);
    test_reserve(arena, NULL, 1, 1, 1);
    for (int way = 0; way < 4; way++)
        for (adding adds = NOTHING; adds < ADDINGS; adds++) {
            multiply(arena, context, (way & 1) != 0, (way & 2) != 0, adds, TEST_COMPUTE_TYPE);
            if (TEST_COMPUTE_TYPE != LT_FLOAT32)
                multiply(arena, context, (way & 1) != 0, (way & 2) != 0, adds, LT_FLOAT32);
        }
}

static void test_case(void **state) {
    const size_case *c = *state;
    test_random random = {(uint64_t)(c - CASES)};
    float *a = test_values(&random, c->m * c->k, 0.0, 1.0), *b = test_values(&random, c->k * c->n, 0.0, 1.0);
    double *product = TEST_NEW(double, c->m * c->n);
    ref_gemm_shape shape = {.m = c->m, .n = c->n, .k = c->k, .lda = c->k, .ldb = c->n, .ldc = c->n};
    ref_gemm(&shape, test_widen(a, c->m * c->k), test_widen(b, c->k * c->n), product);
    const float *start = test_floats(&random, c->m * c->n, 0.0, 1.0);
    float *start_rounded = TEST_NEW(float, c->m * c->n);
    memcpy(start_rounded, start, sizeof *start * (size_t)(c->m * c->n));
    test_round(start_rounded, c->m * c->n);
    problem p = {c->m, c->n, c->k, a, b, start, start_rounded, product};
    test_every_device(run_layouts, &p);
}

int main(void) {
    struct CMUnitTest tests[CASE_COUNT];
    for (int i = 0; i < CASE_COUNT; i++)
        tests[i] = (struct CMUnitTest){CASES[i].name, test_case, NULL, test_free_all, (void *)&CASES[i]};
    return cmocka_run_group_tests_name("matrix products on a device", tests, NULL, NULL);
}
