/* The operations of a device that treat tokens one by one, against the float64 reference.
 *
 * Tolerance: each output is a handful of float32 operations (2^-24 = 6e-8 each) on values of the order of its
 * tensor's largest entry, or a sum of at most some thousand such terms: 5e-6 of the largest entry. In
 * bfloat16 the arithmetic is the same, of rounded inputs, and each output is rounded once more. Outputs
 * marked `+=` start from values of the order of 1, others from NaN. */
#include "tests/reference/fixture.h"
#include "tests/reference/reference.h"

#include <math.h>
#include <string.h>

static const double TOLERANCE = 5e-6;

/* ---- embedding
 * ---------------------------------------------------------------------------------------------- */

typedef struct matrix_case {
    int64_t rows, width;
    double scale;
} matrix_case;

typedef struct embedding_case {
    int64_t rows, width, vocabulary;
} embedding_case;

static void run_embedding(test_arena *arena, const void *context) {
    const embedding_case *c = context;
    const lt_ops *ops = arena->device->ops;
    test_random random = {(uint64_t)(c->rows * 1000 + c->width)};
    int64_t out_count = c->rows * c->width, weight_count = c->vocabulary * c->width;
    const int32_t *tokens = test_tokens(&random, c->rows, c->vocabulary);
    const float *weight = test_values(&random, weight_count, 0.0, 1.0);
    const float *d_out = test_values(&random, out_count, 0.0, 1.0);
    double *out = TEST_NEW(double, out_count), *d_weight = test_widen(weight, weight_count);
    ref_embedding_forward(tokens, test_widen(weight, weight_count), c->rows, c->width, out);
    ref_embedding_backward(tokens, test_widen(d_out, out_count), c->rows, c->width, d_weight);

    test_reserve(arena, NULL, c->rows, c->width, weight_count);
    lt_mem ids = test_integer_buffer(arena, tokens, c->rows),
           to = test_compute_buffer(arena, NULL, out_count);
    const lt_vocabulary all = {0, c->vocabulary, c->vocabulary};
    ops->embedding_forward(arena->device, ids, &all, test_compute_buffer(arena, weight, weight_count),
                           c->rows, c->width, to);
    test_close("out", test_read_floats(arena, to, out_count), out, out_count, 0.0, 0.0);
    lt_mem sums = test_float_buffer(arena, weight, weight_count);
    ops->embedding_backward(arena->device, ids, &all, test_compute_buffer(arena, d_out, out_count), c->rows,
                            c->width, sums);
    test_close("d_weight", test_read_floats(arena, sums, weight_count), d_weight, weight_count, TOLERANCE,
               0.0);
}

static void test_embedding(void **state) {
    (void)state;
    /* Few tokens, so that they repeat; more rows than a device may sort at a time, and longer ones than it
     * may take at a time. */
    static const embedding_case cases[] = {{0, 5, 3},    {1, 1, 5},     {3, 7, 5},       {50, 64, 5},
                                           {51, 65, 5},  {300, 200, 5}, {2600, 24, 700}, {5121, 3, 40},
                                           {4, 1032, 3}, {5, 1101, 2}};
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) test_every_device(run_embedding, &cases[i]);
}

/* Rows are added in order: what comes first is lost in a number of 2^24, what comes after it is gone is not.
 */
static void run_order(test_arena *arena, const void *context) {
    (void)context;
    enum { ROWS = 1500, PERIOD = 3 };
    const float terms[PERIOD] = {0x1p24f, 1.0f, -0x1p24f};
    float d_out[ROWS];
    int32_t tokens[ROWS];
    for (int row = 0; row < ROWS; row++) {
        tokens[row] = 1 + row % 2; /* each token meets the terms in this order, those of the other between */
        d_out[row] = terms[row / 2 % PERIOD];
    }
    test_reserve(arena, NULL, ROWS, 1, 3);
    const float start[3] = {0};
    lt_mem sums = test_float_buffer(arena, start, 3);
    const lt_vocabulary all = {0, 3, 3};
    arena->device->ops->embedding_backward(arena->device, test_integer_buffer(arena, tokens, ROWS), &all,
                                           test_compute_buffer(arena, d_out, ROWS), ROWS, 1, sums);
    const float *got = test_read_floats(arena, sums, 3);
    for (int token = 0; token < 3; token++) assert_true(got[token] == 0.0f);
}

static void test_order(void **state) {
    (void)state;
    test_every_device(run_order, NULL);
}

/* ---- rmsnorm
 * ------------------------------------------------------------------------------------------------ */

static void run_rmsnorm(test_arena *arena, const void *context) {
    const matrix_case *c = context;
    const lt_ops *ops = arena->device->ops;
    const double epsilon = 1e-6;
    test_random random = {(uint64_t)(c->rows * 1000 + c->width)};
    int64_t rows = c->rows, hidden = c->width, count = rows * hidden;
    const float *x = test_values(&random, count, 0.0, c->scale),
                *weight = test_floats(&random, hidden, 1.0, 0.3);
    const float *d_y = test_values(&random, count, 0.0, 1.0);
    const float *x_start = test_values(&random, count, 0.0, 1.0 / c->scale);
    const float *weight_start = test_floats(&random, hidden, 0.0, 1.0);
    double *y = TEST_NEW(double, count), *inverse_rms = TEST_NEW(double, rows);
    double *d_x = test_widen(x_start, count), *d_weight = test_widen(weight_start, hidden);
    ref_rmsnorm_forward(test_widen(x, count), test_widen(weight, hidden), epsilon, rows, hidden, y,
                        inverse_rms);
    ref_rmsnorm_backward(test_widen(x, count), test_widen(weight, hidden), inverse_rms,
                         test_widen(d_y, count), rows, hidden, d_x, d_weight);

    test_reserve(arena, NULL, rows + 1, hidden, count); /* of fewer rows than were planned for */
    lt_mem from = test_compute_buffer(arena, x, count), scale = test_float_buffer(arena, weight, hidden);
    lt_mem to = test_compute_buffer(arena, NULL, count), rms = test_float_buffer(arena, NULL, rows);
    ops->rmsnorm_forward(arena->device, from, scale, epsilon, rows, hidden, to, rms);
    test_close_rounded("y", test_read_floats(arena, to, count), y, count, TOLERANCE, 0.0);
    test_close("inverse_rms", test_read_floats(arena, rms, rows), inverse_rms, rows, TOLERANCE, 0.0);
    lt_mem to_x = test_compute_buffer(arena, x_start, count),
           to_weight = test_float_buffer(arena, weight_start, hidden);
    ops->rmsnorm_backward(arena->device, from, scale, rms, test_compute_buffer(arena, d_y, count), rows,
                          hidden, to_x, to_weight);
    test_close_rounded("d_x", test_read_floats(arena, to_x, count), d_x, count, TOLERANCE, 0.0);
    test_close("d_weight", test_read_floats(arena, to_weight, hidden), d_weight, hidden, TOLERANCE, 0.0);
}

static void test_rmsnorm(void **state) {
    (void)state;
    /* At a scale of 1e-3 epsilon is as large as the mean square. */
    static const matrix_case cases[] = {{0, 5, 1.0},    {1, 1, 1.0},      {3, 2, 1.0},    {32, 40, 1.0},
                                        {50, 15, 1.0},  {2, 17, 1.0},     {7, 64, 1e-3},  {9, 100, 1e3},
                                        {33, 769, 1.0}, {2050, 11, 1e-3}, {257, 48, 1.0}, {1100, 264, 1.0},
                                        {5, 2056, 1.0}, {3, 12304, 1.0},  {2, 12301, 1.0}};
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) test_every_device(run_rmsnorm, &cases[i]);
}

/* ---- rope
 * --------------------------------------------------------------------------------------------------- */

typedef struct rope_case {
    int64_t rows, length, first, heads, head_size, stride;
} rope_case;

static void run_rope(test_arena *arena, const void *context) {
    const rope_case *c = context;
    test_random random = {(uint64_t)c->stride};
    int64_t count = c->rows * c->stride, positions = c->first + c->length, angles = positions * c->head_size;
    const float *x = test_values(&random, count, 0.0, 1.0);
    float *table = TEST_NEW(float, angles);
    double *exact = TEST_NEW(double, angles);
    ref_rope_table(10000.0, positions, c->head_size, exact);
    for (int64_t i = 0; i < angles; i++) table[i] = (float)exact[i];
    const double *rounded = test_widen(table, angles);
    double *forward = test_widen(x, count), *back = test_widen(x, count);
    ref_rope(forward, c->stride, rounded, c->rows, c->length, c->first, c->heads, c->head_size, false);
    ref_rope(back, c->stride, rounded, c->rows, c->length, c->first, c->heads, c->head_size, true);

    test_reserve(arena, NULL, c->rows, c->stride, count);
    lt_mem angles_there = test_float_buffer(arena, table, angles);
    for (int inverse = 0; inverse < 2; inverse++) {
        lt_mem to = test_compute_buffer(arena, x, count);
        arena->device->ops->rope(arena->device, to, c->stride, angles_there, c->rows, c->length, c->first,
                                 c->heads, c->head_size, inverse);
        const float *got = test_read_floats(arena, to, count);
        test_close_rounded(inverse ? "rotated back" : "rotated", got, inverse ? back : forward, count,
                           TOLERANCE, 0.0);
        for (int64_t t = 0; t < c->rows; t++) /* what lies between tokens keeps its bits */
            for (int64_t i = c->heads * c->head_size; i < c->stride; i++)
                assert_true(got[t * c->stride + i] == x[t * c->stride + i]);
    }
}

static void test_rope(void **state) {
    (void)state;
    static const rope_case cases[] = {
        {1, 1, 0, 1, 2, 2},       {6, 3, 0, 2, 6, 17},   {10, 10, 3, 3, 64, 200}, {4, 1, 77, 2, 128, 256},
        {300, 100, 0, 4, 16, 97}, {14, 7, 1, 1, 96, 96}, {0, 3, 0, 2, 6, 12},     {3, 2, 5, 40, 128, 5128}};
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) test_every_device(run_rope, &cases[i]);
}

/* ---- swiglu
 * ------------------------------------------------------------------------------------------------- */

static void run_swiglu(test_arena *arena, const void *context) {
    const matrix_case *c = context;
    const lt_ops *ops = arena->device->ops;
    test_random random = {(uint64_t)(c->rows * 1000 + c->width)};
    int64_t count = c->rows * c->width;
    const float *gate_up = test_values(&random, 2 * count, 0.0, c->scale);
    const float *d_out = test_values(&random, count, 0.0, 1.0);
    double *out = TEST_NEW(double, count), *d_gate_up = TEST_NEW(double, 2 * count);
    ref_swiglu_forward(test_widen(gate_up, 2 * count), c->rows, c->width, out);
    ref_swiglu_backward(test_widen(gate_up, 2 * count), test_widen(d_out, count), c->rows, c->width,
                        d_gate_up);

    test_reserve(arena, NULL, c->rows, 2 * c->width, 2 * count);
    lt_mem from = test_compute_buffer(arena, gate_up, 2 * count),
           to = test_compute_buffer(arena, NULL, count);
    ops->swiglu_forward(arena->device, from, c->rows, c->width, to);
    test_close_rounded("out", test_read_floats(arena, to, count), out, count, TOLERANCE, 0.0);
    lt_mem back = test_compute_buffer(arena, NULL, 2 * count),
           again = test_compute_buffer(arena, NULL, count);
    ops->swiglu_backward(arena->device, from, test_compute_buffer(arena, d_out, count), c->rows, c->width,
                         back, again);
    test_close_rounded("d_gate_up", test_read_floats(arena, back, 2 * count), d_gate_up, 2 * count, TOLERANCE,
                       0.0);
    test_close_rounded("out again", test_read_floats(arena, again, count), out, count, TOLERANCE, 0.0);
}

static void test_swiglu(void **state) {
    (void)state;
    /* A scale of 60 brings gates whose exponential overflows float32. */
    static const matrix_case cases[] = {{1, 1, 1.0},   {3, 3, 1.0},   {20, 64, 1.0},  {5, 100, 1.0},
                                        {7, 257, 1.0}, {3, 33, 60.0}, {200, 17, 1.0}, {40, 1027, 2.0},
                                        {0, 8, 1.0},   {3, 1032, 1.0}};
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) test_every_device(run_swiglu, &cases[i]);
}

/* ---- cross entropy
 * ------------------------------------------------------------------------------------------ */

/* Padding between rows is NaN, and its gradients are 0. */
static void check_cross_entropy(test_arena *arena, const matrix_case *c, int64_t padding) {
    const lt_ops *ops = arena->device->ops;
    test_random random = {(uint64_t)(c->rows * 1000 + c->width)};
    const int64_t rows = c->rows, vocabulary = c->width, count = rows * vocabulary,
                  width = vocabulary + padding, all = rows * width;
    float *logits = test_floats(&random, count, 0.0, c->scale);
    const int32_t *targets = test_tokens(&random, rows, vocabulary);
    for (int64_t t = 0; t < rows; t += 2) logits[t * vocabulary + targets[t]] += (float)(2.0 * c->scale);
    test_round(logits, count);
    double *losses = TEST_NEW(double, rows), *gradient = test_widen(logits, count);
    ref_cross_entropy(gradient, targets, rows, vocabulary, 0.125, true, losses);

    float *laid = TEST_NEW(float, all);
    for (int64_t i = 0; i < all; i++)
        laid[i] = i % width < vocabulary ? logits[i / width * vocabulary + i % width] : NAN;
    double *laid_gradient = TEST_NEW(double, all);
    for (int64_t i = 0; i < count; i++) laid_gradient[i / vocabulary * width + i % vocabulary] = gradient[i];
    test_reserve(arena, NULL, rows, vocabulary, all);
    lt_mem ids = test_integer_buffer(arena, targets, rows);
    for (int with_gradient = 0; with_gradient < 2; with_gradient++) {
        lt_mem at = test_compute_buffer(arena, laid, all), to = test_double_buffer(arena, NULL, rows);
        ops->cross_entropy(arena->device, at, ids, rows, vocabulary, width, 0.125, with_gradient, to);
        /* log(sum) is rounded where sum is near 1; with one token in the vocabulary nothing is, and losses
         * are 0. */
        double floor = vocabulary == 1 ? 0.0 : 1.0;
        test_close_doubles("losses", test_read_doubles(arena, to, rows), losses, rows, 1e-6, floor);
        const float *got = test_read_floats(arena, at, all);
        if (with_gradient)
            test_close_rounded("d_logits", got, laid_gradient, all, TOLERANCE, 0.0);
        else
            for (int64_t i = 0; i < all; i++)
                assert_true(got[i] == laid[i] || (isnan(got[i]) && isnan(laid[i])));
    }
}

static void run_cross_entropy(test_arena *arena, const void *context) {
    for (int64_t padding = 0; padding < 8; padding += 7) check_cross_entropy(arena, context, padding);
}

static void test_cross_entropy(void **state) {
    (void)state;
    static const matrix_case cases[] = {{1, 1, 1.0},     {5, 2, 1.0},   {33, 257, 3.0},    {7, 5001, 1.0},
                                        {6, 17, 5000.0}, {3, 1, 1e4},   {4, 1003, 5000.0}, {2, 31, 1e-3},
                                        {0, 9, 1.0},     {2, 4104, 3.0}};
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++)
        test_every_device(run_cross_entropy, &cases[i]);
}

/* A logit of -inf is a token that cannot come. */
static void run_impossible_tokens(test_arena *arena, const void *context) {
    (void)context;
    enum { VOCABULARY = 40, POSSIBLE = 3 };
    float logits[VOCABULARY];
    double expected[VOCABULARY] = {0};
    for (int i = 0; i < VOCABULARY; i++) {
        logits[i] = i < VOCABULARY - POSSIBLE ? -INFINITY : 2.0f;
        if (i >= VOCABULARY - POSSIBLE) expected[i] = 1.0 / POSSIBLE;
    }
    const int32_t target = VOCABULARY - 1;
    const double loss = log(POSSIBLE);
    expected[target] -= 1.0;
    test_reserve(arena, NULL, 1, VOCABULARY, VOCABULARY);
    lt_mem at = test_compute_buffer(arena, logits, VOCABULARY), to = test_double_buffer(arena, NULL, 1);
    arena->device->ops->cross_entropy(arena->device, at, test_integer_buffer(arena, &target, 1), 1,
                                      VOCABULARY, VOCABULARY, 1.0, true, to);
    test_close_doubles("loss", test_read_doubles(arena, to, 1), &loss, 1, 1e-6, 0.0);
    test_close_rounded("d_logits", test_read_floats(arena, at, VOCABULARY), expected, VOCABULARY, TOLERANCE,
                       0.0);
}

static void test_impossible_tokens(void **state) {
    (void)state;
    test_every_device(run_impossible_tokens, NULL);
}

/* A run stops on a loss that is not finite: one broken logit must show, wherever it lies. */
static void run_broken_logits(test_arena *arena, const void *context) {
    (void)context;
    enum { VOCABULARY = 37 };
    const float bad[2] = {NAN, INFINITY};
    test_reserve(arena, NULL, VOCABULARY, VOCABULARY, VOCABULARY * VOCABULARY);
    for (int which = 0; which < 2; which++) {
        float logits[VOCABULARY * VOCABULARY] = {0};
        int32_t targets[VOCABULARY] = {0};
        for (int t = 0; t < VOCABULARY; t++) logits[t * VOCABULARY + t] = bad[which];
        lt_mem to = test_double_buffer(arena, NULL, VOCABULARY);
        arena->device->ops->cross_entropy(arena->device,
                                          test_compute_buffer(arena, logits, VOCABULARY * VOCABULARY),
                                          test_integer_buffer(arena, targets, VOCABULARY), VOCABULARY,
                                          VOCABULARY, VOCABULARY, 1.0, false, to);
        double losses[VOCABULARY];
        assert_int_equal(arena->device->ops->download(arena->device, losses, to, VOCABULARY), LT_OK);
        for (int t = 0; t < VOCABULARY; t++) assert_true(!isfinite(losses[t]));
    }
}

static void test_broken_logits(void **state) {
    (void)state;
    test_every_device(run_broken_logits, NULL);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_teardown(test_embedding, test_free_all),
        cmocka_unit_test_teardown(test_order, test_free_all),
        cmocka_unit_test_teardown(test_rmsnorm, test_free_all),
        cmocka_unit_test_teardown(test_rope, test_free_all),
        cmocka_unit_test_teardown(test_swiglu, test_free_all),
        cmocka_unit_test_teardown(test_cross_entropy, test_free_all),
        cmocka_unit_test_teardown(test_impossible_tokens, test_free_all),
        cmocka_unit_test_teardown(test_broken_logits, test_free_all),
    };
    return cmocka_run_group_tests_name("rows on a device", tests, NULL, NULL);
}
