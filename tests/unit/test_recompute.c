/* What the backward pass computes again has the bits of what it would have kept, in less memory. */
#include "tests/reference/fixture.h"
#include "tests/reference/model_problem.h"

#include <string.h>

static const test_model_case CASES[] = {
    {.shape = TEST_SHAPE(50, 24, 3, 4, 2, 40, false, LT_ATTENTION_LAZY, 8, -1.0),
     .length = 33,
     .rows = 2,
     .tau_std = 0.1,
     .boundaries = {5, 20}},
    {.shape = TEST_SHAPE(31, 16, 2, 2, 2, 24, true, LT_ATTENTION_SOFTMAX, 0, 0.0), .length = 20, .rows = 2},
    {.shape = TEST_SHAPE(31, 16, 1, 2, 1, 24, true, LT_ATTENTION_LAZY, 4, -1.0), .length = 9, .rows = 1},
};

/* Two micro-batches and an evaluation between them, which leaves other activations in the shared places. */
static float *gradients_of(test_arena *arena, const test_model_problem *problem, lt_recompute recompute,
                           double *losses) {
    lt_model *model = test_model_create_with(problem, arena->device, true, recompute);
    double sums[4];
    for (int batch = 0; batch < 2; batch++) {
        const lt_tokens tokens = test_model_tokens(problem, batch),
                        other = test_model_tokens(problem, 1 - batch);
        assert_int_equal(
            lt_model_forward_backward(model, &tokens, problem->scale, 0, batch == 0, batch, NULL), LT_OK);
        assert_int_equal(lt_model_evaluate(model, &other, sums), LT_OK);
    }
    assert_int_equal(lt_model_results(model, 2, losses, NULL), LT_OK);
    float *gradients = test_model_read(arena, model, LT_ARRAY_GRADIENTS);
    lt_model_destroy(model);
    return gradients;
}

static void run_bits(test_arena *arena, const void *context) {
    const test_model_problem *problem = context;
    const size_t bytes = sizeof(float) * (size_t)problem->registry.elements;
    double losses[3][2];
    const float *kept = gradients_of(arena, problem, LT_RECOMPUTE_NONE, losses[0]);
    for (lt_recompute recompute = LT_RECOMPUTE_ATTENTION; recompute <= LT_RECOMPUTE_FULL; recompute++) {
        const float *again = gradients_of(arena, problem, recompute, losses[recompute]);
        assert_memory_equal(again, kept, bytes);
        assert_memory_equal(losses[recompute], losses[0], sizeof losses[0]);
    }
}

static void test_bits(void **state) {
    (void)state;
    for (size_t i = 0; i < sizeof CASES / sizeof *CASES; i++) {
        test_model_problem problem;
        test_model_problem_open(&problem, &CASES[i], 700 + i);
        test_every_device(run_bits, &problem);
        test_model_problem_close(&problem);
    }
}

/* What each further layer adds: all that it keeps, or what is listed below, within the arena's alignment. */
static void run_memory(test_arena *arena, const void *context) {
    (void)context;
    const int64_t rows = 512, hidden = 64, ffn = 160, element = (int64_t)lt_type_bytes(TEST_COMPUTE_TYPE);
    int64_t added[3];
    for (lt_recompute recompute = LT_RECOMPUTE_NONE; recompute <= LT_RECOMPUTE_FULL; recompute++) {
        lt_model_options options = {.shape =
                                        TEST_SHAPE(64, 64, 2, 2, 1, 160, true, LT_ATTENTION_LAZY, 16, -1.0),
                                    .sequence_length = 256,
                                    .micro_batch = 2,
                                    .training = true,
                                    .recompute = recompute,
                                    .gradient_buffers = 1,
                                    .loss_slots = 2};
        const int64_t two = (int64_t)lt_model_plan(&options, arena->device).activations;
        options.shape.layers = 3;
        added[recompute] = (int64_t)lt_model_plan(&options, arena->device).activations - two;
    }
    const int64_t input = rows * hidden * element, gates = 2 * rows * ffn * element + input + 4 * rows;
    const int64_t statistics = 2 * LT_STATISTICS * 8, slack = 2048;
    assert_true(added[LT_RECOMPUTE_FULL] >= input && added[LT_RECOMPUTE_FULL] <= input + statistics + slack);
    assert_true(added[LT_RECOMPUTE_ATTENTION] >= input + gates &&
                added[LT_RECOMPUTE_ATTENTION] <= input + gates + statistics + slack);
    assert_true(added[LT_RECOMPUTE_NONE] >= added[LT_RECOMPUTE_ATTENTION] + 3 * rows * hidden * element);
}

static void test_memory(void **state) {
    (void)state;
    test_every_device(run_memory, NULL);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_teardown(test_bits, test_free_all),
        cmocka_unit_test_teardown(test_memory, test_free_all),
    };
    return cmocka_run_group_tests_name("recomputation", tests, NULL, NULL);
}
