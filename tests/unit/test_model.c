/* The whole model against the float64 reference: losses, gradients and their sums over micro-batches,
 * evaluation, statistics, the update.
 *
 * Tolerance: a gradient passes through some ten operations in each layer, each of which adds errors of about
 * 1e-6 of its largest entry; 3e-5 of a parameter's largest gradient is what the tests of the operations
 * allow, times three. Gradients of parameters are compared one parameter at a time, so that none hides behind
 * a larger one.
 *
 * In bfloat16 each of these roundings moves values by up to 2^-9 of their size, at random, so that some fifty
 * leave 1 or 2 % of a gradient's norm; an entry of an attention matrix that comes nearer to the threshold
 * than that may take the other side, and in problems of some hundred live entries each is a share of the
 * gradient that shows. The norm of a gradient's error is therefore held to 4 % of the gradient's under
 * softmax and to 30 % under lazy attention, whose kernels the tests of operations hold to the reference's own
 * side. A loss is a mean over a row's tokens of logits that are off by 2^-9 and more of some units. */
#include "tests/reference/model_problem.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static double allowed(double of_float32, double of_bfloat16) {
    return TEST_COMPUTE_TYPE == LT_BFLOAT16 ? of_bfloat16 : of_float32;
}

static double of_losses(void) {
    return allowed(1e-6, 5e-3);
}

#define LAZY LT_ATTENTION_LAZY
#define SOFTMAX LT_ATTENTION_SOFTMAX
#define SHAPE TEST_SHAPE

static const test_model_case CASES[] = {
    {"lazy", SHAPE(17, 32, 2, 2, 2, 48, false, LAZY, 8, -1.0), 21, 3, 0.2, {0}},
    {"lazy, tau = -1 exactly", SHAPE(17, 32, 2, 2, 2, 48, false, LAZY, 8, -1.0), 21, 1, 0.0, {0}},
    {"lazy, tied, grouped heads", SHAPE(257, 48, 3, 6, 2, 40, true, LAZY, 100, -1.0), 53, 1, 0.2, {0}},
    {"lazy, documents, one key head",
     SHAPE(257, 24, 2, 4, 1, 65, false, LAZY, 5, -0.9),
     67,
     3,
     0.2,
     {1, 2, 30, 48, 64}},
    {"lazy, tau of both signs", SHAPE(17, 20, 2, 2, 1, 33, false, LAZY, 1, 0.0), 33, 3, 0.6, {0}},
    {"lazy, one token a row", SHAPE(17, 16, 1, 2, 2, 16, true, LAZY, 4, -0.7), 1, 3, 0.1, {0}},
    {"softmax", SHAPE(257, 32, 2, 4, 2, 48, false, SOFTMAX, 0, 0.0), 49, 3, 0.0, {0}},
    {"softmax, tied, documents", SHAPE(17, 32, 2, 2, 2, 48, true, SOFTMAX, 0, 0.0), 40, 1, 0.0, {7, 8, 33}},
    {"logits in several pieces", SHAPE(16500, 4, 1, 1, 1, 4, false, LAZY, 16, -1.0), 130, 3, 0.2, {0}},
    {"logits in several pieces, tied", SHAPE(16500, 4, 1, 1, 1, 4, true, LAZY, 16, -1.0), 130, 3, 0.2, {0}},
};
enum { CASE_COUNT = sizeof CASES / sizeof CASES[0] };

/* A gradient of tau is a sum over rows of terms of both signs, all together of the order of 0.1 in these
 * problems, which may cancel to any value. */
static double floor_of(const lt_parameter *p) {
    return p->lazy && p->dimensions == 1 ? allowed(1e-2, 1e-1) : 0.0;
}

static void close_in_norm(const lt_parameter *p, const float *got, const double *expected, double share) {
    double error = 0.0, norm = 0.0, largest = 0.0;
    for (int64_t e = 0; e < p->count; e++) {
        const double off = (double)got[e] - expected[e];
        error += off * off;
        norm += expected[e] * expected[e];
        largest = fmax(largest, fabs(expected[e]));
    }
    const double scale = fmax(sqrt(norm), floor_of(p));
    if (getenv("TEST_SHOW_ERRORS") != NULL)
        fprintf(stderr, "  %-24s error %.2e of %.2e\n", p->name, sqrt(error) / scale, share);
    if (!(sqrt(error) <= share * scale))
        fail_msg("%s: an error of norm %.3g in a gradient of norm %.3g (largest entry %.3g)", p->name,
                 sqrt(error), sqrt(norm), largest);
}

/* expected = a of the first micro-batch's gradients plus b of the second's. */
static void check_gradients(const test_model_problem *problem, const float *got, double a, double b) {
    const bool lazy = problem->c->shape.attention == LAZY;
    for (int i = 0; i < problem->registry.count; i++) {
        const lt_parameter *p = &problem->registry.parameters[i];
        double *expected = TEST_NEW(double, p->count);
        for (int64_t e = 0; e < p->count; e++)
            expected[e] = a * problem->gradients[0][p->offset + e] + b * problem->gradients[1][p->offset + e];
        if (TEST_COMPUTE_TYPE == LT_BFLOAT16)
            close_in_norm(p, got + p->offset, expected, lazy ? 0.3 : 0.04);
        else
            test_close(p->name, got + p->offset, expected, p->count, 3e-5, floor_of(p));
    }
}

static void check_squares(const test_model_problem *problem, lt_model *model, const float *gradients) {
    double *squares = TEST_NEW(double, lt_model_square_sums(model));
    assert_int_equal(lt_model_results(model, 0, NULL, squares), LT_OK);
    for (int i = 0; i < problem->registry.count; i++) {
        const lt_parameter *p = &problem->registry.parameters[i];
        double expected = ref_sum_squares(test_widen(gradients + p->offset, p->count), p->count), sum = 0;
        for (int64_t pieces = lt_flat_pieces(p->count); pieces > 0; pieces--) sum += *squares++;
        test_close_doubles("sum of squares", &sum, &expected, 1, 1e-6, 0.0);
    }
}

/* The first micro-batch, then the second on top; the first again in the other buffer, added to both. Buffers
 * start with NaN in every byte, so that what `first` should replace and does not would show. */
static void run_gradients(test_arena *arena, const void *context) {
    const test_model_problem *problem = context;
    const int64_t rows = problem->c->rows;
    lt_model *model = test_model_create(problem, arena->device, true);
    float *unset = TEST_NEW(float, problem->registry.elements);
    memset(unset, 0xff, sizeof(float) * (size_t)problem->registry.elements);
    arena->device->ops->upload(arena->device, lt_model_gradients(model), unset, problem->registry.elements);

    const lt_tokens first = test_model_tokens(problem, 0), second = test_model_tokens(problem, 1);
    assert_int_equal(lt_model_forward_backward(model, &first, problem->scale, 0, true, 1, NULL), LT_OK);
    check_gradients(problem, test_model_read(arena, model, LT_ARRAY_GRADIENTS), 1.0, 0.0);
    assert_int_equal(lt_model_forward_backward(model, &second, problem->scale, 0, false, 0, NULL), LT_OK);
    check_gradients(problem, test_model_read(arena, model, LT_ARRAY_GRADIENTS), 1.0, 1.0);
    assert_int_equal(lt_model_forward_backward(model, &first, problem->scale, 1, true, 1 + rows, NULL),
                     LT_OK);
    lt_model_add_gradients(model, 0, 1, 0, problem->registry.elements);
    const float *gradients = test_model_read(arena, model, LT_ARRAY_GRADIENTS);
    check_gradients(problem, gradients, 2.0, 1.0);
    check_squares(problem, model, gradients);

    double *losses = TEST_NEW(double, 2 * rows + 1);
    assert_int_equal(lt_model_results(model, 2 * rows + 1, losses, NULL), LT_OK);
    test_note(arena, losses, sizeof(double) * (size_t)(2 * rows + 1));
    test_close_doubles("losses, second", losses, problem->loss_sums[1], 1, of_losses(), 0.0);
    test_close_doubles("losses, first", losses + 1, problem->loss_sums[0], rows, of_losses(), 0.0);
    assert_memory_equal(losses + 1, losses + 1 + rows, sizeof(double) * (size_t)rows);
    lt_model_destroy(model);
}

/* Evaluation gives the losses of training, with or without what training needs. */
static void run_evaluation(test_arena *arena, const void *context) {
    const test_model_problem *problem = context;
    const int64_t rows = problem->c->rows;
    for (int training = 0; training < 2; training++) {
        lt_model *model = test_model_create(problem, arena->device, training);
        double *sums = TEST_NEW(double, rows), *trained = TEST_NEW(double, rows);
        const lt_tokens first = test_model_tokens(problem, 0), second = test_model_tokens(problem, 1);
        assert_int_equal(lt_model_evaluate(model, &second, sums), LT_OK);
        test_close_doubles("loss sum, second", sums, problem->loss_sums[1], 1, of_losses(), 0.0);
        assert_int_equal(lt_model_evaluate(model, &first, sums), LT_OK);
        test_close_doubles("loss sums", sums, problem->loss_sums[0], rows, of_losses(), 0.0);
        test_note(arena, sums, sizeof(double) * (size_t)rows);
        if (training) {
            assert_int_equal(lt_model_forward_backward(model, &first, problem->scale, 0, true, 0, NULL),
                             LT_OK);
            assert_int_equal(lt_model_results(model, rows, trained, NULL), LT_OK);
            assert_memory_equal(sums, trained, sizeof(double) * (size_t)rows);
        }
        lt_model_destroy(model);
    }
}

static void run_statistics(test_arena *arena, const void *context) {
    const test_model_problem *problem = context;
    const int64_t heads = problem->c->shape.layers * problem->c->shape.heads;
    lt_model *model = test_model_create(problem, arena->device, false);
    double *got = TEST_NEW(double, heads *LT_STATISTICS);
    for (int64_t i = 0; i < heads * LT_STATISTICS; i++) got[i] = 2.0; /* added to */
    const lt_tokens tokens = test_model_tokens(problem, 0);
    assert_int_equal(lt_model_statistics(model, &tokens, got), LT_OK);
    test_note(arena, got, sizeof(double) * (size_t)(heads * LT_STATISTICS));
    for (int64_t h = 0; h < heads; h++) {
        const double *expected = problem->statistics + h * LT_STATISTICS;
        double s[LT_STATISTICS], rows = expected[LT_STAT_ROWS];
        for (int i = 0; i < LT_STATISTICS; i++) s[i] = got[h * LT_STATISTICS + i] - 2.0;
        const int exact[] = {LT_STAT_VISIBLE, LT_STAT_ROWS, LT_STAT_SINK_ROWS};
        for (int i = 0; i < 3; i++) assert_true(s[exact[i]] == expected[exact[i]]);
        const double zeros = fabs(s[LT_STAT_ZEROS] - expected[LT_STAT_ZEROS]);
        assert_true(zeros <= allowed(0.0, 0.02) * expected[LT_STAT_VISIBLE]);
        test_close_doubles("mass", &s[LT_STAT_MASS], &expected[LT_STAT_MASS], 1, allowed(3e-5, 5e-3), rows);
        test_close_doubles("sink", &s[LT_STAT_SINK], &expected[LT_STAT_SINK], 1, allowed(3e-5, 5e-3), rows);
        assert_true(s[LT_STAT_LIVE_TILES] <= s[LT_STAT_TILES] && s[LT_STAT_TILES] >= 1.0);
    }
    lt_model_destroy(model);
}

static void test_case(void **state) {
    test_model_problem problem;
    test_model_problem_open(&problem, *state, 400);
    test_every_device(run_gradients, &problem);
    test_every_device(run_evaluation, &problem);
    test_every_device(run_statistics, &problem);
    test_model_problem_close(&problem);
}

/* ---- update
 * ------------------------------------------------------------------------------------------------- */

static void put_all(const test_model_problem *problem, lt_model *model, lt_array array, const float *values) {
    for (int i = 0; i < problem->registry.count; i++) {
        const lt_parameter *p = &problem->registry.parameters[i];
        assert_int_equal(lt_model_put(model, array, p, 0, p->count, values + p->offset), LT_OK);
    }
}

/* Decay on matrices alone, not on the embedding; tau and bias at their own rate, or untouched. */
static void check_update(test_arena *arena, const test_model_problem *problem, bool freeze) {
    const lt_registry *registry = &problem->registry;
    const int64_t elements = registry->elements;
    test_random random = {500};
    const float *gradients = test_floats(&random, elements, 0.0, 1.0),
                *m = test_floats(&random, elements, 0.0, 0.3);
    float *v = test_floats(&random, elements, 0.0, 0.3);
    for (int64_t i = 0; i < elements; i++) v[i] *= v[i];
    lt_model *model = test_model_create(problem, arena->device, true);
    put_all(problem, model, LT_ARRAY_GRADIENTS, gradients);
    put_all(problem, model, LT_ARRAY_FIRST_MOMENT, m);
    put_all(problem, model, LT_ARRAY_SECOND_MOMENT, v);
    const lt_update update = {.step = 3,
                              .learning_rate = 0.02,
                              .lazy_learning_rate = 0.3,
                              .freeze_lazy = freeze,
                              .beta1 = 0.9,
                              .beta2 = 0.95,
                              .epsilon = 1e-8,
                              .weight_decay = 0.1,
                              .gradient_scale = 0.7};
    lt_model_update(model, &update);

    const float *weights = test_model_read(arena, model, LT_ARRAY_PARAMETERS);
    const float *new_m = test_model_read(arena, model, LT_ARRAY_FIRST_MOMENT);
    const float *new_v = test_model_read(arena, model, LT_ARRAY_SECOND_MOMENT);
    double *expected = test_widen(problem->parameters, elements);
    double *expected_m = test_widen(m, elements), *expected_v = test_widen(v, elements);
    for (int i = 0; i < registry->count; i++) {
        const lt_parameter *p = &registry->parameters[i];
        const bool lazy = strstr(p->name, "attn.tau") != NULL || strstr(p->name, "learnable_bias") != NULL;
        const bool matrix = strstr(p->name, "_proj") != NULL || strstr(p->name, "lm_head") != NULL;
        lt_adamw adamw = {.learning_rate = lazy ? 0.3 : 0.02,
                          .beta1 = 0.9,
                          .beta2 = 0.95,
                          .epsilon = 1e-8,
                          .weight_decay = matrix ? 0.1 : 0.0,
                          .bias_correction1 = 1.0 - 0.9 * 0.9 * 0.9,
                          .bias_correction2 = 1.0 - 0.95 * 0.95 * 0.95,
                          .gradient_scale = 0.7};
        const int64_t at = p->offset;
        if (!(lazy && freeze))
            ref_adamw(expected + at, test_widen(gradients + at, p->count), expected_m + at, expected_v + at,
                      p->count, &adamw);
        const double tolerance = lazy && freeze ? 0.0 : 2e-6;
        test_close(p->name, weights + at, expected + at, p->count, tolerance, 0.0);
        test_close(p->name, new_m + at, expected_m + at, p->count, tolerance, 0.0);
        test_close(p->name, new_v + at, expected_v + at, p->count, tolerance, 0.0);
    }
    lt_model_destroy(model);
}

static void run_update(test_arena *arena, const void *context) {
    check_update(arena, context, false);
    check_update(arena, context, true);
}

static void test_update(void **state) {
    (void)state;
    static const test_model_case cases[] = {
        {"", SHAPE(17, 32, 2, 2, 1, 48, false, LAZY, 8, -1.0), 5, 1, 0.2, {0}},
        {"", SHAPE(17, 32, 2, 2, 1, 48, true, SOFTMAX, 0, 0.0), 5, 1, 0.0, {0}},
    };
    for (int i = 0; i < 2; i++) {
        test_model_problem problem;
        test_model_problem_open(&problem, &cases[i], 501);
        test_every_device(run_update, &problem);
        test_model_problem_close(&problem);
    }
}

/* ---- creation
 * ----------------------------------------------------------------------------------------------- */

/* A new model holds zeros; initialise() draws the registry's values and clears the moments; get() and put()
 * take part of a parameter. */
static void run_initialise(test_arena *arena, const void *context) {
    const test_model_problem *problem = context;
    const lt_registry *registry = &problem->registry;
    const lt_model_options options = {problem->c->shape, problem->c->length, 1, true, 1, 1, 0, 0, NULL,
                                      LT_RECOMPUTE_NONE};
    lt_model *model = NULL;
    assert_int_equal(lt_model_create(&options, arena->device, &model), LT_OK);
    const float *zeros = test_model_read(arena, model, LT_ARRAY_PARAMETERS);
    for (int64_t i = 0; i < registry->elements; i++) assert_true(zeros[i] == 0.0f);
    put_all(problem, model, LT_ARRAY_FIRST_MOMENT, problem->parameters);
    put_all(problem, model, LT_ARRAY_SECOND_MOMENT, problem->parameters);
    assert_int_equal(lt_model_initialise(model, 77), LT_OK);
    const float *weights = test_model_read(arena, model, LT_ARRAY_PARAMETERS);
    const float *m = test_model_read(arena, model, LT_ARRAY_FIRST_MOMENT);
    const float *v = test_model_read(arena, model, LT_ARRAY_SECOND_MOMENT);
    for (int i = 0; i < registry->count; i++) {
        const lt_parameter *p = &registry->parameters[i];
        float *expected = TEST_NEW(float, p->count);
        lt_parameter_initialise(p, 77, 0, p->count, expected);
        assert_memory_equal(weights + p->offset, expected, sizeof(float) * (size_t)p->count);
    }
    for (int64_t i = 0; i < registry->elements; i++) assert_true(m[i] == 0.0f && v[i] == 0.0f);

    const lt_parameter *p = lt_registry_find(lt_model_registry(model), "model.layers.1.attn.v_proj.weight");
    const float three[3] = {1.5f, 2.5f, 3.5f};
    float around[5];
    assert_int_equal(lt_model_put(model, LT_ARRAY_PARAMETERS, p, 7, 3, three), LT_OK);
    assert_int_equal(lt_model_get(model, LT_ARRAY_PARAMETERS, p, 6, 5, around), LT_OK);
    assert_memory_equal(around + 1, three, sizeof three);
    assert_true(around[0] == weights[p->offset + 6] && around[4] == weights[p->offset + 10]);
    lt_model_destroy(model);
}

static void test_initialise(void **state) {
    (void)state;
    static const test_model_case c = {"", SHAPE(17, 32, 2, 2, 1, 48, false, LAZY, 8, -1.0), 5, 1, 0.2, {0}};
    test_model_problem problem;
    test_model_problem_open(&problem, &c, 502);
    test_every_device(run_initialise, &problem);
    test_model_problem_close(&problem);
}

/* 4 bytes an element: parameters, two moments, each gradient buffer; evaluation needs less. */
static void run_plan(test_arena *arena, const void *context) {
    const test_model_problem *problem = context;
    const size_t one = 4 * (size_t)problem->registry.elements;
    lt_model_options options = {problem->c->shape, problem->c->length, 2, true, 3, 8, 0, 0, NULL,
                                LT_RECOMPUTE_NONE};
    lt_memory_plan training = lt_model_plan(&options, arena->device);
    const size_t copies = TEST_COMPUTE_TYPE == LT_BFLOAT16 ? one / 2 : 0; /* of matrices, rounded */
    assert_true(training.parameters >= one && training.parameters < one + copies + 4096);
    assert_true(training.optimizer >= 2 * one && training.optimizer < 2 * one + 4096);
    assert_true(training.gradients >= 3 * one && training.gradients < 3 * one + 8192);
    options.training = false;
    lt_memory_plan evaluation = lt_model_plan(&options, arena->device);
    assert_true(evaluation.parameters == training.parameters);
    assert_true(evaluation.optimizer == 0 && evaluation.gradients == 0);
    assert_true(evaluation.activations > 0 && evaluation.activations < training.activations);

    options.sequence_length = (int64_t)1 << 30; /* more than any machine has */
    lt_model *model = NULL;
    assert_int_equal(lt_model_create(&options, arena->device, &model), TEST_NO_MEMORY);
    assert_true(strlen(lt_error_message()) > 0);
}

static void test_plan(void **state) {
    (void)state;
    static const test_model_case c = {"", SHAPE(17, 32, 2, 2, 1, 48, false, LAZY, 8, -1.0), 5, 1, 0.2, {0}};
    test_model_problem problem;
    test_model_problem_open(&problem, &c, 503);
    test_every_device(run_plan, &problem);
    test_model_problem_close(&problem);
}

/* Hidden 4, 2 heads on 1 key head of 2, ffn 3, vocabulary 5, 2 layers. N = 2 (4*4 q, 2*4 k, 2*4 v, 4*4 o,
 * 3*4*3 mlp)
 * + 5*4 head = 2 * 84 + 20 = 188; attention: 6 products of T^2 D H, so 6 T 4 a token and layer, T = 10: 480.
 */
static void test_flops(void **state) {
    (void)state;
    lt_model_shape shape = SHAPE(5, 4, 2, 2, 1, 3, false, LAZY, 8, -1.0);
    assert_true(lt_model_flops_per_token(&shape, 10) == 6.0 * 188.0 + 480.0);
    shape.tied = true;
    assert_true(lt_model_flops_per_token(&shape, 10) == 6.0 * 188.0 + 480.0);
}

int main(void) {
    struct CMUnitTest tests[CASE_COUNT + 4] = {
        {"update: decay, rates, freezing", test_update, NULL, test_free_all, NULL},
        {"initial weights, parts of a parameter", test_initialise, NULL, test_free_all, NULL},
        {"memory plan", test_plan, NULL, test_free_all, NULL},
        {"operations for a token", test_flops, NULL, test_free_all, NULL},
    };
    for (int i = 0; i < CASE_COUNT; i++)
        tests[4 + i] = (struct CMUnitTest){CASES[i].name, test_case, NULL, test_free_all, (void *)&CASES[i]};
    return cmocka_run_group_tests_name("model", tests, NULL, NULL);
}
