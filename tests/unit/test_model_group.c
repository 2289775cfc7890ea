/* The whole model cut among the ranks of a tensor-parallel group, which are threads here: losses, gradients
 * and statistics against the float64 reference and against one rank.
 *
 * Tolerance: a gradient's error is 1e-5 of its norm, one parameter at a time; losses 1e-6. */
#include "tests/reference/model_problem.h"
#include "tests/reference/thread_group.h"

#include "model/split.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#define LAZY LT_ATTENTION_LAZY
#define SOFTMAX LT_ATTENTION_SOFTMAX
#define SHAPE TEST_SHAPE

static const test_model_case CASES[] = {
    {"odd vocabulary and rows", SHAPE(53, 48, 2, 12, 12, 36, false, LAZY, 8, -1.0), 21, 3, 0.2, {0}},
    {"tau = -1 exactly", SHAPE(53, 32, 2, 4, 4, 48, false, LAZY, 8, -1.0), 21, 1, 0.0, {0}},
    {"key heads fewer than ranks, tied", SHAPE(57, 32, 3, 8, 2, 40, true, LAZY, 100, -1.0), 17, 1, 0.2, {0}},
    {"documents, one key head",
     SHAPE(257, 24, 2, 4, 1, 68, false, LAZY, 5, -0.9),
     67,
     3,
     0.2,
     {1, 2, 30, 48, 64}},
    {"a rank without a token", SHAPE(5, 32, 1, 4, 4, 16, false, LAZY, 4, -0.7), 9, 1, 0.1, {0}},
    {"fewer rows than ranks", SHAPE(17, 16, 2, 4, 2, 16, true, LAZY, 4, -0.7), 1, 3, 0.1, {0}},
    {"softmax", SHAPE(257, 32, 2, 4, 2, 48, false, SOFTMAX, 0, 0.0), 49, 3, 0.0, {0}},
    {"softmax, tied, documents", SHAPE(17, 32, 2, 4, 4, 48, true, SOFTMAX, 0, 0.0), 40, 1, 0.0, {7, 8, 33}},
    {"logits in several pieces", SHAPE(33001, 4, 1, 2, 1, 4, false, LAZY, 16, -1.0), 130, 3, 0.2, {0}},
};
enum { CASE_COUNT = sizeof CASES / sizeof CASES[0] };

static bool fits(const lt_model_shape *shape, int ranks) {
    return shape->heads % ranks == 0 && shape->intermediate % ranks == 0 &&
           (shape->key_heads % ranks == 0 || ranks % shape->key_heads == 0);
}

/* What the ranks of one width compute; arrays of rank r are element r. */
typedef struct group_run {
    const test_model_problem *problem;
    int ranks;
    lt_registry held;
    lt_device *devices[TEST_MOST_RANKS];
    float *gradients[TEST_MOST_RANKS]; /* of both micro-batches */
    double *losses[TEST_MOST_RANKS];   /* of the first, then the second */
    double *evaluated[TEST_MOST_RANKS], *statistics[TEST_MOST_RANKS];
    bool watched[TEST_MOST_RANKS]; /* the runs that the watch was told of were as they should be */
} group_run;

/* ---- in the threads ---- */

/* Copies gradients when they are said to be final. */
typedef struct witness {
    lt_model *model;
    int64_t from;
    float *seen;
    bool right;
} witness;

static lt_status note_ready(void *context, int64_t first, int64_t count) {
    witness *w = context;
    w->right = w->right && count > 0 && first >= 0 && first + count == w->from;
    w->from = first;
    const float *gradients = (const float *)(const void *)lt_model_gradients(w->model).address;
    if (w->right) memcpy(w->seen + first, gradients + first, sizeof(float) * (size_t)count);
    return LT_OK;
}

static lt_status put_weights(const group_run *run, lt_model *model, const lt_tensor_group *group) {
    const test_model_problem *problem = run->problem;
    float *values = calloc((size_t)run->held.elements, sizeof *values);
    lt_status status = LT_OK;
    for (int i = 0; i < run->held.count && status == LT_OK; i++) {
        const lt_parameter *whole = &problem->registry.parameters[i], *held = &run->held.parameters[i];
        const lt_split_piece piece = {whole, held, lt_split_part(held, group->rank, group->ranks), 0,
                                      whole->count};
        memset(values, 0, sizeof(float) * (size_t)held->count);
        lt_split_take(&piece, problem->parameters + whole->offset, values);
        status = lt_model_put(model, LT_ARRAY_PARAMETERS, held, 0, held->count, values);
    }
    free(values);
    return status;
}

static lt_status read_gradients(const group_run *run, lt_model *model, float *gradients) {
    for (int i = 0; i < run->held.count; i++) {
        const lt_parameter *p = &run->held.parameters[i];
        LT_CHECK(lt_model_get(model, LT_ARRAY_GRADIENTS, p, 0, p->count, gradients + p->offset));
    }
    return LT_OK;
}

/* The first micro-batch, the second on top, under a watch; then evaluation and statistics of the first. */
static lt_status compute(group_run *run, lt_model *model, const lt_tensor_group *group) {
    const test_model_problem *problem = run->problem;
    const lt_tokens first = test_model_tokens(problem, 0), second = test_model_tokens(problem, 1);
    const int rank = group->rank;
    float *gradients = run->gradients[rank];
    witness w = {.model = model, .from = run->held.elements, .seen = gradients, .right = true};
    const lt_gradient_watch watch = {.context = &w, .ready = note_ready};
    float *final = malloc(sizeof(float) * (size_t)run->held.elements);
    LT_CHECK(put_weights(run, model, group));
    LT_CHECK(lt_model_forward_backward(model, &first, problem->scale, 0, true, 0, NULL));
    LT_CHECK(lt_model_forward_backward(model, &second, problem->scale, 0, false, first.rows, &watch));
    LT_CHECK(read_gradients(run, model, final));
    run->watched[rank] =
        w.right && w.from == 0 && memcmp(final, w.seen, sizeof(float) * (size_t)run->held.elements) == 0;
    free(final);
    LT_CHECK(lt_model_sum_copies(model));
    LT_CHECK(read_gradients(run, model, gradients));
    LT_CHECK(lt_model_results(model, first.rows + 1, run->losses[rank], NULL));
    LT_CHECK(lt_model_evaluate(model, &first, run->evaluated[rank]));
    return lt_model_statistics(model, &first, run->statistics[rank]);
}

static lt_status run_rank(const lt_tensor_group *group, void *context) {
    group_run *run = context;
    const test_model_case *c = run->problem->c;
    const lt_model_options options = {.shape = c->shape,
                                      .sequence_length = c->length,
                                      .micro_batch = c->rows,
                                      .training = true,
                                      .gradient_buffers = 1,
                                      .loss_slots = c->rows + 1,
                                      .group = group};
    lt_model *model;
    LT_CHECK(lt_model_create(&options, run->devices[group->rank], &model));
    const lt_status status = compute(run, model, group);
    lt_model_destroy(model);
    return status;
}

/* ---- what they must have given ---- */

static void check_norm(const char *what, const float *got, const double *expected, int64_t count,
                       double floor) {
    double error = 0, norm = floor * floor;
    for (int64_t i = 0; i < count; i++) {
        error += ((double)got[i] - expected[i]) * ((double)got[i] - expected[i]);
        norm += expected[i] * expected[i];
    }
    if (getenv("TEST_SHOW_ERRORS") != NULL) print_message("  %-48s %.2e\n", what, sqrt(error / norm));
    if (!(error <= 1e-10 * norm)) fail_msg("%s: off by %.3g of its norm", what, sqrt(error / norm));
}

/* The gradients of whole parameters. Ranks that hold the same part have the same bits; padding has none. */
static float *whole_gradients(const group_run *run) {
    const lt_registry *whole = &run->problem->registry;
    float *gradients = TEST_NEW(float, whole->elements);
    for (int i = 0; i < whole->count; i++) {
        const lt_parameter *w = &whole->parameters[i], *held = &run->held.parameters[i];
        for (int rank = 0; rank < run->ranks; rank++) {
            const int part = lt_split_part(held, rank, run->ranks);
            const float *own = run->gradients[rank] + held->offset;
            const float *first = run->gradients[lt_split_holder(held, part, run->ranks)] + held->offset;
            const lt_split_piece piece = {w, held, part, 0, w->count};
            assert_memory_equal(own, first, sizeof(float) * (size_t)held->count);
            lt_split_lay(&piece, own, gradients + w->offset);
            for (int64_t e = lt_split_run(&piece).end; e < held->count; e++) assert_true(own[e] == 0.0f);
        }
    }
    return gradients;
}

/* As in test_model.c, the gradient of tau may cancel to any value. */
static void check_gradients(const group_run *run, const float *one_rank) {
    const test_model_problem *problem = run->problem;
    const float *gradients = whole_gradients(run);
    for (int i = 0; i < problem->registry.count; i++) {
        const lt_parameter *p = &problem->registry.parameters[i];
        const double floor = p->lazy && p->dimensions == 1 ? 1e-2 : 0.0;
        double *expected = TEST_NEW(double, p->count);
        for (int64_t e = 0; e < p->count; e++)
            expected[e] = problem->gradients[0][p->offset + e] + problem->gradients[1][p->offset + e];
        check_norm(p->name, gradients + p->offset, expected, p->count, floor);
        if (one_rank != NULL)
            check_norm(p->name, gradients + p->offset, test_widen(one_rank + p->offset, p->count), p->count,
                       floor);
    }
}

static void check_losses(const group_run *run, const double *one_rank) {
    const int64_t rows = run->problem->c->rows;
    double *expected = TEST_NEW(double, rows + 1);
    memcpy(expected, run->problem->loss_sums[0], sizeof(double) * (size_t)rows);
    expected[rows] = run->problem->loss_sums[1][0];
    for (int rank = 0; rank < run->ranks; rank++) {
        assert_memory_equal(run->losses[rank], run->losses[0], sizeof(double) * (size_t)(rows + 1));
        assert_memory_equal(run->evaluated[rank], run->losses[0], sizeof(double) * (size_t)rows);
    }
    for (int64_t i = 0; i <= rows; i++) {
        assert_true(fabs(run->losses[0][i] - expected[i]) <= 1e-6 * expected[i]);
        if (one_rank != NULL) assert_true(fabs(run->losses[0][i] - one_rank[i]) <= 1e-6 * expected[i]);
    }
}

/* Added to what was there (2 each), for all heads, on every rank. */
static void check_statistics(const group_run *run) {
    const lt_model_shape *shape = &run->problem->c->shape;
    const int64_t count = shape->layers * shape->heads * LT_STATISTICS;
    const double *got = run->statistics[0], *expected = run->problem->statistics;
    for (int rank = 1; rank < run->ranks; rank++)
        assert_memory_equal(run->statistics[rank], got, sizeof(double) * (size_t)count);
    for (int64_t h = 0; h < count; h += LT_STATISTICS, got += LT_STATISTICS, expected += LT_STATISTICS) {
        const int exact[] = {LT_STAT_VISIBLE, LT_STAT_ZEROS, LT_STAT_ROWS, LT_STAT_SINK_ROWS};
        for (int i = 0; i < 4; i++) assert_true(got[exact[i]] - 2 == expected[exact[i]]);
        assert_true(fabs(got[LT_STAT_MASS] - 2 - expected[LT_STAT_MASS]) <= 3e-5 * expected[LT_STAT_ROWS]);
    }
}

static void open_run(group_run *run, const test_model_problem *problem, int ranks) {
    const test_model_case *c = problem->c;
    const int64_t statistics = c->shape.layers * c->shape.heads * LT_STATISTICS;
    *run = (group_run){.problem = problem, .ranks = ranks};
    assert_int_equal(lt_registry_create_cut(&c->shape, ranks, &run->held), LT_OK);
    for (int rank = 0; rank < ranks; rank++) {
        run->gradients[rank] = TEST_NEW(float, run->held.elements);
        run->losses[rank] = TEST_NEW(double, c->rows + 1);
        run->evaluated[rank] = TEST_NEW(double, c->rows);
        run->statistics[rank] = TEST_NEW(double, statistics);
    }
}

/* One width, on devices in one setting; false where this machine lacks the device. */
static bool run_width(group_run *run, const char *name, int setting) {
    const lt_model_shape *shape = &run->problem->c->shape;
    for (int rank = 0; rank < run->ranks; rank++) {
        run->devices[rank] = test_open_device(name, setting);
        if (run->devices[rank] == NULL) return false;
        for (int64_t i = 0; i < shape->layers * shape->heads * LT_STATISTICS; i++)
            run->statistics[rank][i] = 2;
    }
    test_run_ranks(run->ranks, run_rank, run);
    for (int rank = 0; rank < run->ranks; rank++) {
        assert_true(run->watched[rank]);
        run->devices[rank]->ops->destroy(run->devices[rank]);
    }
    return true;
}

static void check_width(const test_model_problem *problem, const char *name, int ranks,
                        const group_run *one_rank) {
    group_run run, again;
    open_run(&run, problem, ranks);
    open_run(&again, problem, ranks);
    run_width(&run, name, 1);
    run_width(&again, name, 2);
    check_losses(&run, one_rank->losses[0]);
    check_gradients(&run, one_rank->gradients[0]);
    check_statistics(&run);
    for (int rank = 0; rank < ranks; rank++) {
        assert_memory_equal(again.gradients[rank], run.gradients[rank],
                            sizeof(float) * (size_t)run.held.elements);
        assert_memory_equal(again.losses[rank], run.losses[rank], sizeof(double) * (size_t)problem->c->rows);
    }
    lt_registry_destroy(&run.held);
    lt_registry_destroy(&again.held);
}

static void test_case(void **state) {
    static const int WIDTHS[] = {2, 3, 4, 8};
    test_model_problem problem;
    int widths = 0;
    test_model_problem_open(&problem, *state, 700);
    for (const char *const *name = TEST_DEVICES; *name != NULL; name++) {
        group_run one_rank;
        open_run(&one_rank, &problem, 1);
        if (run_width(&one_rank, *name, 1)) {
            check_losses(&one_rank, NULL);
            check_gradients(&one_rank, NULL);
            check_statistics(&one_rank);
            for (int i = 0; i < 4; i++) {
                if (!fits(&problem.c->shape, WIDTHS[i])) continue;
                check_width(&problem, *name, WIDTHS[i], &one_rank);
                widths++;
            }
        }
        lt_registry_destroy(&one_rank.held);
    }
    assert_true(widths > 0);
    test_model_problem_close(&problem);
}

int main(void) {
    struct CMUnitTest tests[CASE_COUNT];
    for (int i = 0; i < CASE_COUNT; i++)
        tests[i] = (struct CMUnitTest){CASES[i].name, test_case, NULL, test_free_all, (void *)&CASES[i]};
    return cmocka_run_group_tests_name("a model among tensor-parallel ranks", tests, NULL, NULL);
}
