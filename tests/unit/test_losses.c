/* 50 steps of a small lazy model, and 1,000, against the losses that a CPU recorded in tests/gpu/losses.json:
 * the same on a CPU, on the emulated GPU and on a GPU. RECORD_LOSSES=FILE writes them anew.
 *
 * Tolerance: a loss is a mean over 128 tokens. In float32 each instruction set rounds otherwise, by some 1e-6
 * of it, which 50 updates of AdamW, whose first ones follow the gradients' signs, can make ten times that. In
 * bfloat16 a logit is off by 2^-9 of its size and more, both ways: 2^-9 is what a mean of 128 may keep of it.
 * Long runs part, as small differences grow, but learn the same: after 1,000 steps the mean of 100 losses
 * is within 0.5 % of float32's.
 */
#include "model/step.h"
#include "tests/reference/fixture.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>

enum { T = 16, ROWS = 2, STEPS = 50, MANY_STEPS = 1000, MEAN_OF = 100, VOCABULARY = 40 };
static const char RECORDED[] = "tests/gpu/losses.json";

static double allowed(void) {
    return TEST_COMPUTE_TYPE == LT_BFLOAT16 ? 0x1p-9 : 2e-5;
}

/* A text with much to learn: each token follows from the one before it, but for one in eight. */
typedef struct text {
    test_random random;
    int32_t inputs[ROWS * T], targets[ROWS * T];
} text;

static lt_status next_batch(void *context, bool last, lt_tokens *tokens) {
    text *of = context;
    (void)last;
    for (int row = 0; row < ROWS; row++) {
        int32_t now = (int32_t)test_below(&of->random, VOCABULARY);
        for (int t = 0; t < T; t++) {
            int32_t next = (3 * now + 1) % VOCABULARY;
            if (test_below(&of->random, 8) == 0) next = (int32_t)test_below(&of->random, VOCABULARY);
            of->inputs[row * T + t] = now;
            of->targets[row * T + t] = next;
            now = next;
        }
    }
    *tokens = (lt_tokens){.rows = ROWS, .inputs = of->inputs, .targets = of->targets};
    return LT_OK;
}

static lt_model *new_model(lt_device *device) {
    const lt_model_options options = {.shape = {.vocabulary = VOCABULARY,
                                                .hidden = 16,
                                                .layers = 2,
                                                .heads = 2,
                                                .key_heads = 1,
                                                .intermediate = 24,
                                                .rope_theta = 10000.0,
                                                .norm_eps = 1e-6,
                                                .init_std = 0.1,
                                                .attention = LT_ATTENTION_LAZY,
                                                .bias_length = 16,
                                                .bias_init_std = 0.001,
                                                .tau_init = -1.0},
                                      .sequence_length = T,
                                      .micro_batch = ROWS,
                                      .training = true,
                                      .gradient_buffers = 1,
                                      .loss_slots = ROWS};
    lt_model *model = NULL;
    assert_int_equal(lt_model_create(&options, device, &model), LT_OK);
    assert_int_equal(lt_model_initialise(model, 1), LT_OK);
    return model;
}

static void train(lt_device *device, int steps, double *losses) {
    lt_model *model = new_model(device);
    text of = {.random = {7}};
    const lt_exchange exchange = {.context = &of, .next_batch = next_batch};
    lt_step_options options = {.lanes = 1,
                               .batches_per_lane = 1,
                               .micro_batch = ROWS,
                               .targets = ROWS * T,
                               .gradient_clip = 1.0,
                               .workspace = TEST_NEW(double, lt_step_workspace(model, ROWS)),
                               .update = {.beta1 = 0.9, .beta2 = 0.95, .epsilon = 1e-8, .weight_decay = 0.1}};
    for (int i = 0; i < steps; i++) {
        lt_step_result result;
        options.update.step = i + 1;
        options.update.learning_rate = options.update.lazy_learning_rate = 3e-3 * fmin(1.0, (i + 1) / 10.0);
        assert_int_equal(lt_step_run(model, &options, &exchange, &result), LT_OK);
        assert_int_equal(result.outcome, LT_STEP_UPDATED);
        losses[i] = result.loss;
    }
    lt_model_destroy(model);
}

static double last_mean(const double *losses) {
    double sum = 0;
    for (int i = MANY_STEPS - MEAN_OF; i < MANY_STEPS; i++) sum += losses[i];
    return sum / MEAN_OF;
}

/* `losses` [MANY_STEPS]. */
static void record(const char *path, const double *losses) {
    FILE *file = fopen(path, "w");
    if (file == NULL) fail_msg("cannot write %s", path);
    fprintf(file, "{\"losses\": [");
    for (int i = 0; i < STEPS; i++)
        fprintf(file, "%s%.9g", i == 0 ? "" : i % 10 == 0 ? ",\n  " : ", ", losses[i]);
    fprintf(file, "],\n \"after_1000\": %.9g}\n", last_mean(losses));
    fclose(file);
}

/* The mean goes behind the STEPS losses. */
static void read_recorded(double *losses) {
    FILE *file = fopen(RECORDED, "r");
    if (file == NULL) fail_msg("no %s here: run this test in the repository's root", RECORDED);
    assert_int_equal(fscanf(file, "{\"losses\": [%lf", &losses[0]), 1);
    for (int i = 1; i < STEPS; i++) assert_int_equal(fscanf(file, " , %lf", &losses[i]), 1);
    assert_int_equal(fscanf(file, " ], \"after_1000\": %lf", &losses[STEPS]), 1);
    fclose(file);
}

static void run(test_arena *arena, const void *context) {
    const double *expected = context;
    double losses[STEPS];
    train(arena->device, STEPS, losses);
    test_note(arena, losses, sizeof losses);
    test_close_doubles("losses", losses, expected, STEPS, allowed(), 0.0);
}

static void test_many_steps_learn_as_much(void **state) {
    (void)state;
    const char *path = getenv("RECORD_LOSSES");
    double *losses = TEST_NEW(double, MANY_STEPS);
    int devices = 0;
    for (const char *const *name = TEST_DEVICES; *name != NULL; name++) {
        lt_device *device = test_open_device(*name, 1);
        if (device == NULL) continue;
        train(device, MANY_STEPS, losses);
        device->ops->destroy(device);
        if (path != NULL && devices == 0) record(path, losses);
        double expected[STEPS + 1];
        read_recorded(expected);
        assert_true(expected[STEPS] < 0.9 * expected[STEPS - 1]);
        const double mean = last_mean(losses);
        print_message("# %s: after %d steps %.5f, in float32 %.5f\n", *name, MANY_STEPS, mean,
                      expected[STEPS]);
        assert_true(fabs(mean - expected[STEPS]) <= 0.005 * expected[STEPS]);
        devices++;
    }
    assert_true(devices > 0);
}

static void test_training_gives_the_recorded_losses(void **state) {
    (void)state;
    double *expected = TEST_NEW(double, STEPS + 1);
    read_recorded(expected);
    assert_true(expected[STEPS - 1] < 0.8 * expected[0]); /* else this test would not show that it learns */
    test_every_device(run, expected);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_teardown(test_many_steps_learn_as_much, test_free_all),
        cmocka_unit_test_teardown(test_training_gives_the_recorded_losses, test_free_all)};
    return cmocka_run_group_tests_name("losses of a training run", tests, NULL, NULL);
}
