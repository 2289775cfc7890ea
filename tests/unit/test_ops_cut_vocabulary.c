/* The operations over a vocabulary that is cut among ranks: embedding and loss, against the float64 reference
 * of the whole. All ranks are played by one device; tolerances are those of test_ops_rows.c. */
#include "tests/reference/fixture.h"
#include "tests/reference/reference.h"

#include <math.h>
#include <string.h>

static const double TOLERANCE = 5e-6;

typedef struct cut_case {
    int64_t rows, vocabulary, hidden;
    int ranks;
    double scale; /* of logits */
} cut_case;

static const cut_case CASES[] = {{1, 1, 3, 2, 1.0},     {5, 2, 1, 2, 1.0},     {33, 257, 17, 4, 3.0},
                                 {7, 5001, 64, 3, 1.0}, {6, 17, 70, 7, 5000},  {9, 5, 33, 4, 1e4},
                                 {4, 1003, 5, 2, 5000}, {2, 31, 130, 2, 1e-3}, {40, 6, 9, 3, 2.0},
                                 {0, 9, 5, 2, 1.0},     {6, 61, 8, 4, 3.0},    {2, 8208, 16, 2, 3.0},
                                 {2, 9001, 8, 2, 1.0}};

/* Equal parts, the last ones padded. */
static lt_vocabulary part_of(const cut_case *c, int rank) {
    const int64_t width = (c->vocabulary + c->ranks - 1) / c->ranks, first = rank * width;
    const int64_t rest = c->vocabulary - first;
    return (lt_vocabulary){.first = first,
                           .count = rest < 0       ? 0
                                    : rest < width ? rest
                                                   : width,
                           .width = width};
}

/* ---- embedding ---- */

/* The rows of a part of the embedding, and NaN in its padding. */
static float *rows_of(const float *weight, const lt_vocabulary *part, int64_t hidden) {
    float *rows = TEST_NEW(float, part->width *hidden);
    for (int64_t i = 0; i < part->width * hidden; i++) rows[i] = NAN;
    memcpy(rows, weight + part->first * hidden, sizeof(float) * (size_t)(part->count * hidden));
    return rows;
}

static void run_embedding(test_arena *arena, const void *context) {
    const cut_case *c = context;
    const lt_ops *ops = arena->device->ops;
    test_random random = {(uint64_t)(c->rows * 1000 + c->vocabulary)};
    const int64_t out_count = c->rows * c->hidden, weight_count = c->vocabulary * c->hidden;
    const int32_t *tokens = test_tokens(&random, c->rows, c->vocabulary);
    const float *weight = test_values(&random, weight_count, 1.0, 0.1);
    const float *d_out = test_values(&random, out_count, 0.0, 1.0);
    double *out = TEST_NEW(double, out_count), *d_weight = test_widen(weight, weight_count);
    ref_embedding_forward(tokens, test_widen(weight, weight_count), c->rows, c->hidden, out);
    ref_embedding_backward(tokens, test_widen(d_out, out_count), c->rows, c->hidden, d_weight);

    test_reserve(arena, NULL, c->rows, c->hidden, weight_count);
    const lt_mem ids = test_integer_buffer(arena, tokens, c->rows),
                 to = test_compute_buffer(arena, NULL, out_count);
    const lt_mem from = test_compute_buffer(arena, d_out, out_count);
    for (int rank = 0; rank < c->ranks; rank++) {
        const lt_vocabulary part = part_of(c, rank);
        const int64_t count = part.width * c->hidden;
        const float *rows = rows_of(weight, &part, c->hidden);
        ops->embedding_forward(arena->device, ids, &part, test_compute_buffer(arena, rows, count), c->rows,
                               c->hidden, to);
        const float *got = test_read_floats(arena, to, out_count);
        for (int64_t i = 0; i < out_count; i++) {
            const int64_t token = tokens[i / c->hidden];
            const bool here = token >= part.first && token < part.first + part.count;
            assert_true((double)got[i] == (here ? out[i] : 0.0));
        }
        const lt_mem d_rows = test_float_buffer(arena, rows, count);
        ops->embedding_backward(arena->device, ids, &part, from, c->rows, c->hidden, d_rows);
        const float *sums = test_read_floats(arena, d_rows, count);
        test_close("d_weight", sums, d_weight + part.first * c->hidden, part.count * c->hidden, TOLERANCE,
                   0.0);
        for (int64_t i = part.count * c->hidden; i < count; i++) assert_true(isnan(sums[i]));
    }
}

/* ---- loss ---- */

/* The logits of a part, and NaN in its padding. */
static float *columns_of(const cut_case *c, const float *logits, const lt_vocabulary *part) {
    float *columns = TEST_NEW(float, c->rows * part->width);
    for (int64_t i = 0; i < c->rows * part->width; i++) {
        const int64_t row = i / part->width, column = i % part->width;
        columns[i] = column < part->count ? logits[row * c->vocabulary + part->first + column] : NAN;
    }
    return columns;
}

/* What each rank gives, then what each makes of all parts: the same losses, and in `logits[r]` its own. */
static void run_ranks(test_arena *arena, const cut_case *c, lt_cut_loss *loss, lt_mem *logits,
                      const float *values) {
    const lt_ops *ops = arena->device->ops;
    const double *losses = NULL;
    for (int half = 0; half < 2; half++)
        for (loss->rank = 0; loss->rank < c->ranks; loss->rank++) {
            loss->vocabulary = part_of(c, loss->rank);
            if (half == 0)
                logits[loss->rank] = test_compute_buffer(arena, columns_of(c, values, &loss->vocabulary),
                                                         c->rows * loss->vocabulary.width);
            loss->logits = logits[loss->rank];
            if (half == 0) {
                ops->cross_entropy_part(arena->device, loss);
            } else {
                ops->cross_entropy_join(arena->device, loss);
                const double *again = test_read_doubles(arena, loss->losses, c->rows);
                if (losses != NULL) assert_memory_equal(again, losses, sizeof(double) * (size_t)c->rows);
                losses = again;
            }
        }
}

/* Gradients in the columns of a part, 0 in its padding; or the logits as they were. */
static void check_logits(const cut_case *c, const lt_vocabulary *part, const float *got,
                         const double *gradient, const float *values) {
    const float *before = columns_of(c, values, part);
    double *expected = TEST_NEW(double, c->rows * part->width);
    for (int64_t i = 0; i < c->rows * part->width; i++) {
        const int64_t row = i / part->width, column = i % part->width;
        const bool padding = column >= part->count;
        if (gradient == NULL) {
            assert_true(padding || got[i] == before[i]);
            continue;
        }
        expected[i] = padding ? 0.0 : gradient[row * c->vocabulary + part->first + column];
        assert_true(!padding || got[i] == 0.0f);
    }
    if (gradient != NULL)
        test_close_rounded("d_logits", got, expected, c->rows * part->width, TOLERANCE, 0.125);
}

static void run_loss(test_arena *arena, const void *context) {
    const cut_case *c = context;
    test_random random = {(uint64_t)(c->rows * 1000 + c->vocabulary)};
    const int64_t count = c->rows * c->vocabulary;
    float *logits = test_floats(&random, count, 0.0, c->scale);
    const int32_t *targets = test_tokens(&random, c->rows, c->vocabulary);
    for (int64_t t = 0; t < c->rows; t += 2)
        logits[t * c->vocabulary + targets[t]] += (float)(2.0 * c->scale);
    test_round(logits, count);
    double *losses = TEST_NEW(double, c->rows), *gradient = test_widen(logits, count);
    ref_cross_entropy(gradient, targets, c->rows, c->vocabulary, 0.125, true, losses);

    test_reserve(arena, NULL, c->rows, c->vocabulary, count);
    for (int with_gradient = 0; with_gradient < 2; with_gradient++) {
        lt_mem there[8];
        lt_cut_loss loss = {.rows = c->rows,
                            .ranks = c->ranks,
                            .targets = test_integer_buffer(arena, targets, c->rows),
                            .parts = test_double_buffer(arena, NULL, c->ranks * c->rows * LT_LOSS_PARTS),
                            .gradient = with_gradient,
                            .scale = 0.125,
                            .losses = test_double_buffer(arena, NULL, c->rows)};
        run_ranks(arena, c, &loss, there, logits);
        const double floor = c->vocabulary == 1 ? 0.0 : 1.0;
        test_close_doubles("losses", test_read_doubles(arena, loss.losses, c->rows), losses, c->rows, 1e-6,
                           floor);
        for (int rank = 0; rank < c->ranks; rank++) {
            const lt_vocabulary part = part_of(c, rank);
            const float *got = test_read_floats(arena, there[rank], c->rows * part.width);
            check_logits(c, &part, got, with_gradient ? gradient : NULL, logits);
        }
    }
}

static void test_case(void **state) {
    (void)state;
    for (size_t i = 0; i < sizeof CASES / sizeof CASES[0]; i++) {
        test_every_device(run_embedding, &CASES[i]);
        test_every_device(run_loss, &CASES[i]);
    }
}

/* One logit that is not finite shows in the loss, whichever rank has it. */
static void run_broken_logits(test_arena *arena, const void *context) {
    (void)context;
    static const cut_case c = {.rows = 5, .vocabulary = 5, .ranks = 3};
    const float bad[2] = {NAN, INFINITY};
    test_reserve(arena, NULL, c.rows, c.vocabulary, c.rows * c.vocabulary);
    for (int which = 0; which < 2; which++) {
        float logits[25] = {0};
        const int32_t targets[5] = {0};
        for (int t = 0; t < 5; t++) logits[t * 5 + t] = bad[which];
        lt_mem there[8];
        lt_cut_loss loss = {.rows = c.rows,
                            .ranks = c.ranks,
                            .targets = test_integer_buffer(arena, targets, c.rows),
                            .parts = test_double_buffer(arena, NULL, c.ranks * c.rows * LT_LOSS_PARTS),
                            .losses = test_double_buffer(arena, NULL, c.rows)};
        run_ranks(arena, &c, &loss, there, logits);
        double losses[5];
        assert_int_equal(arena->device->ops->download(arena->device, losses, loss.losses, c.rows), LT_OK);
        for (int t = 0; t < 5; t++) assert_true(!isfinite(losses[t]));
    }
}

static void test_broken_logits(void **state) {
    (void)state;
    test_every_device(run_broken_logits, NULL);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_teardown(test_case, test_free_all),
        cmocka_unit_test_teardown(test_broken_logits, test_free_all),
    };
    return cmocka_run_group_tests_name("a cut vocabulary on a device", tests, NULL, NULL);
}
