/* A whole step by lanes: the order of its sums, what it drops, how it clips. */
#include "model/step.h"
#include "tests/reference/fixture.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { T = 12, ROWS = 2, LANES = 4, BATCHES = 2, VOCABULARY = 29, SEQUENCES = LANES * BATCHES * ROWS };

static lt_device *device;
static lt_model *model;
static int32_t tokens[SEQUENCES][T + 1];
static double workspace[256];

/* Hands out the micro-batches of one rank, can ask to drop the step at a boundary, keeps what goes out. */
typedef struct fake_ranks {
    int64_t next, boundary, drop_at;
    bool agreed;       /* the final answer is known */
    int64_t sent_from; /* gradients from here on went out */
    bool ended;
    float *sent; /* them, as they were then; NULL: none are looked at */
    int32_t inputs[ROWS * T], targets[ROWS * T];
} fake_ranks;

static lt_tokens micro_batch(fake_ranks *ranks, int64_t index) {
    for (int64_t row = 0; row < ROWS; row++)
        for (int64_t t = 0; t < T; t++) {
            ranks->inputs[row * T + t] = tokens[index * ROWS + row][t];
            ranks->targets[row * T + t] = tokens[index * ROWS + row][t + 1];
        }
    return (lt_tokens){.rows = ROWS, .inputs = ranks->inputs, .targets = ranks->targets};
}

static lt_status next_batch(void *context, bool last, lt_tokens *batch) {
    fake_ranks *ranks = context;
    assert_int_equal(last, ranks->next == LANES * BATCHES - 1);
    *batch = micro_batch(ranks, ranks->next++);
    return LT_OK;
}

static lt_status should_drop(void *context, bool last, bool *drop) {
    fake_ranks *ranks = context;
    *drop = ranks->boundary++ == ranks->drop_at;
    assert_int_equal(last, ranks->boundary == LANES * BATCHES + 1);
    ranks->agreed = last && !*drop;
    return LT_OK;
}

static lt_status reduce_begin(void *context, lt_mem gradients, int64_t first, int64_t count) {
    fake_ranks *ranks = context;
    assert_true(ranks->agreed && !ranks->ended && count > 0);
    assert_int_equal(first + count, ranks->sent_from);
    assert_ptr_equal(gradients.address, lt_model_gradients(model).address);
    ranks->sent_from = first;
    return device->ops->download(device, ranks->sent + first, lt_at(gradients, first), count);
}

static lt_status reduce_end(void *context) {
    fake_ranks *ranks = context;
    assert_int_equal(ranks->sent_from, 0);
    ranks->ended = true;
    return LT_OK;
}

static lt_step_options standard(void) {
    return (lt_step_options){.lanes = LANES,
                             .batches_per_lane = BATCHES,
                             .micro_batch = ROWS,
                             .targets = SEQUENCES * T,
                             .gradient_clip = 0.5,
                             .workspace = workspace,
                             .update = {.step = 1,
                                        .learning_rate = 1e-2,
                                        .lazy_learning_rate = 2e-2,
                                        .beta1 = 0.9,
                                        .beta2 = 0.95,
                                        .epsilon = 1e-8,
                                        .weight_decay = 0.1}};
}

static lt_step_result run(const lt_step_options *options, int64_t drop_at) {
    fake_ranks ranks = {.drop_at = drop_at};
    const lt_exchange exchange = {.context = &ranks, .next_batch = next_batch, .should_drop = should_drop};
    lt_step_result result;
    assert_int_equal(lt_step_run(model, options, &exchange, &result), LT_OK);
    return result;
}

/* The whole array, in registry order. */
static float *read_array(lt_array array) {
    const lt_registry *registry = lt_model_registry(model);
    float *values = malloc(sizeof(float) * (size_t)registry->elements);
    assert_non_null(values);
    for (int i = 0; i < registry->count; i++)
        assert_int_equal(lt_model_get(model, array, &registry->parameters[i], 0,
                                      registry->parameters[i].count, values + registry->parameters[i].offset),
                         LT_OK);
    return values;
}

static int setup(void **state) {
    (void)state;
    const lt_model_options options = {.shape = {.vocabulary = VOCABULARY,
                                                .hidden = 16,
                                                .layers = 2,
                                                .heads = 2,
                                                .key_heads = 1,
                                                .intermediate = 24,
                                                .rope_theta = 10000,
                                                .norm_eps = 1e-6,
                                                .init_std = 0.3,
                                                .bias_length = 5,
                                                .bias_init_std = 0.1,
                                                .tau_init = -0.5},
                                      .sequence_length = T,
                                      .micro_batch = ROWS,
                                      .training = true,
                                      .gradient_buffers = 3,
                                      .loss_slots = SEQUENCES};
    for (const char *const *name = TEST_DEVICES; device == NULL && *name != NULL; name++)
        device = test_open_device(*name, 2);
    if (device == NULL || lt_model_create(&options, device, &model) != LT_OK) return -1;
    for (int64_t i = 0; i < SEQUENCES; i++)
        for (int64_t t = 0; t <= T; t++) tokens[i][t] = (int32_t)((i * 7 + t * t * 3 + t) % VOCABULARY);
    return lt_model_initialise(model, 5) == LT_OK ? 0 : -1;
}

static int teardown(void **state) {
    (void)state;
    lt_model_destroy(model);
    device->ops->destroy(device);
    return 0;
}

/* Each lane by itself, then ((0 + 1) + (2 + 3)): the same bits as the step's own sums. */
static void lanes_are_summed_along_the_tree(void **state) {
    (void)state;
    const int64_t elements = lt_model_registry(model)->elements;
    float *lane[LANES];
    double loss[LANES] = {0}, sums[SEQUENCES];
    for (int64_t i = 0; i < LANES; i++) {
        for (int64_t batch = 0; batch < BATCHES; batch++) {
            fake_ranks ranks = {0};
            const lt_tokens batch_tokens = micro_batch(&ranks, i * BATCHES + batch);
            assert_int_equal(lt_model_forward_backward(model, &batch_tokens, 1.0 / (SEQUENCES * T), 0,
                                                       batch == 0, batch * ROWS, NULL),
                             LT_OK);
        }
        lane[i] = read_array(LT_ARRAY_GRADIENTS);
        assert_int_equal(lt_model_results(model, BATCHES * ROWS, sums, NULL), LT_OK);
        for (int64_t row = 0; row < BATCHES * ROWS; row++) loss[i] += sums[row];
    }
    lt_step_options options = standard();
    const lt_step_result result = run(&options, -1);
    assert_int_equal(result.outcome, LT_STEP_UPDATED);
    float *gradients = read_array(LT_ARRAY_GRADIENTS);
    double squares = 0, in_order_differs = 0;
    for (int64_t i = 0; i < elements; i++) {
        const float tree = (lane[0][i] + lane[1][i]) + (lane[2][i] + lane[3][i]);
        const float in_order = ((lane[0][i] + lane[1][i]) + lane[2][i]) + lane[3][i];
        assert_memory_equal(&gradients[i], &tree, sizeof tree);
        in_order_differs += tree != in_order;
        squares += (double)tree * (double)tree;
    }
    assert_true(in_order_differs > 0); /* else this test could not tell one order from the other */
    const double total = (loss[0] + loss[1]) + (loss[2] + loss[3]);
    assert_memory_equal(&result.own_loss_sum, &total, sizeof total);
    assert_true(result.loss == total / (SEQUENCES * T));
    assert_true(fabs(result.gradient_norm - sqrt(squares)) < 1e-9 * sqrt(squares));
    for (int64_t i = 0; i < LANES; i++) free(lane[i]);
    free(gradients);
}

/* Every run that goes out is adjacent to the one before, and has its final values by then: in the last
 * micro-batch, once the ranks agreed. */
static void gradients_go_out_when_they_are_final(void **state) {
    (void)state;
    const int64_t elements = lt_model_registry(model)->elements;
    fake_ranks ranks = {.drop_at = -1, .sent_from = elements};
    ranks.sent = malloc(sizeof(float) * (size_t)elements);
    assert_non_null(ranks.sent);
    const lt_exchange exchange = {.context = &ranks,
                                  .next_batch = next_batch,
                                  .should_drop = should_drop,
                                  .reduce_begin = reduce_begin,
                                  .reduce_end = reduce_end};
    const lt_step_options options = standard();
    lt_step_result result;
    assert_int_equal(lt_step_run(model, &options, &exchange, &result), LT_OK);
    assert_true(ranks.ended);
    float *gradients = read_array(LT_ARRAY_GRADIENTS);
    assert_memory_equal(ranks.sent, gradients, sizeof(float) * (size_t)elements);
    free(gradients);

    ranks = (fake_ranks){.drop_at = LANES * BATCHES, .sent_from = elements, .sent = ranks.sent};
    assert_int_equal(lt_step_run(model, &options, &exchange, &result), LT_OK);
    assert_int_equal(result.outcome, LT_STEP_DROPPED);
    assert_true(ranks.sent_from == elements && !ranks.ended);
    free(ranks.sent);
}

/* Dropped at any boundary, weights and moments keep every bit. */
static void dropped_step_touches_no_weight(void **state) {
    (void)state;
    float *weights = read_array(LT_ARRAY_PARAMETERS), *moment = read_array(LT_ARRAY_FIRST_MOMENT);
    const size_t bytes = sizeof(float) * (size_t)lt_model_registry(model)->elements;
    lt_step_options options = standard();
    for (int64_t boundary = 0; boundary <= LANES * BATCHES; boundary++) {
        assert_int_equal(run(&options, boundary).outcome, LT_STEP_DROPPED);
        float *now = read_array(LT_ARRAY_PARAMETERS), *moment_now = read_array(LT_ARRAY_FIRST_MOMENT);
        assert_memory_equal(weights, now, bytes);
        assert_memory_equal(moment, moment_now, bytes);
        free(now);
        free(moment_now);
    }
    free(weights);
    free(moment);
}

/* m after the first update is (1 - beta1) scale g: so the clip's scale can be read from it. */
static void gradients_are_clipped_by_the_norm(void **state) {
    (void)state;
    lt_step_options options = standard();
    for (int clipped = 0; clipped < 2; clipped++) {
        assert_int_equal(lt_model_initialise(model, 5), LT_OK);
        options.gradient_clip = clipped ? 0.01 : 0;
        const lt_step_result result = run(&options, -1);
        const double scale = clipped ? 0.01 / (result.gradient_norm + 1e-6) : 1;
        assert_true(result.gradient_norm > 0.02);
        float *gradients = read_array(LT_ARRAY_GRADIENTS), *moment = read_array(LT_ARRAY_FIRST_MOMENT);
        for (int64_t i = 0; i < lt_model_registry(model)->elements; i++) {
            const double expected = 0.1 * scale * (double)gradients[i];
            assert_true(fabs((double)moment[i] - expected) <= 1e-6 * fabs(expected) + 1e-12);
        }
        free(gradients);
        free(moment);
    }
}

/* Frozen tau and bias neither move nor count in the norm. */
static void frozen_parameters_stay_and_do_not_count(void **state) {
    (void)state;
    const lt_registry *registry = lt_model_registry(model);
    assert_int_equal(lt_model_initialise(model, 5), LT_OK);
    float *before = read_array(LT_ARRAY_PARAMETERS);
    lt_step_options options = standard();
    options.update.freeze_lazy = true;
    const lt_step_result result = run(&options, -1);
    float *after = read_array(LT_ARRAY_PARAMETERS), *gradients = read_array(LT_ARRAY_GRADIENTS);
    double squares = 0, lazy_squares = 0;
    for (int i = 0; i < registry->count; i++) {
        const lt_parameter *p = &registry->parameters[i];
        const bool same =
            memcmp(before + p->offset, after + p->offset, sizeof(float) * (size_t)p->count) == 0;
        assert_int_equal(same, p->lazy);
        for (int64_t j = p->offset; j < p->offset + p->count; j++)
            *(p->lazy ? &lazy_squares : &squares) += (double)gradients[j] * (double)gradients[j];
    }
    assert_true(lazy_squares > 0);
    assert_true(fabs(result.gradient_norm - sqrt(squares)) < 1e-9 * sqrt(squares));
    free(before);
    free(after);
    free(gradients);
}

/* A weight that is not a number makes the loss so; nothing is updated, and the first bad gradient is named.
 */
static void nonfinite_step_is_refused(void **state) {
    (void)state;
    const lt_parameter *norm = lt_registry_find(lt_model_registry(model), "model.layers.1.mlp_norm.weight");
    const float broken = NAN, whole = 1;
    assert_int_equal(lt_model_initialise(model, 5), LT_OK);
    assert_int_equal(lt_model_put(model, LT_ARRAY_PARAMETERS, norm, 3, 1, &broken), LT_OK);
    float *before = read_array(LT_ARRAY_PARAMETERS);
    lt_step_options options = standard();
    const lt_step_result result = run(&options, -1);
    assert_int_equal(result.outcome, LT_STEP_NONFINITE);
    assert_int_equal(isfinite(result.loss) != 0, 0);
    assert_non_null(result.first_nonfinite);
    assert_string_equal(result.first_nonfinite->name, "model.embeddings.weight");
    float *after = read_array(LT_ARRAY_PARAMETERS);
    assert_memory_equal(before, after, sizeof(float) * (size_t)lt_model_registry(model)->elements);
    assert_int_equal(lt_model_put(model, LT_ARRAY_PARAMETERS, norm, 3, 1, &whole), LT_OK);
    assert_int_equal(run(&options, -1).outcome, LT_STEP_UPDATED);
    free(before);
    free(after);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(lanes_are_summed_along_the_tree),
        cmocka_unit_test(gradients_go_out_when_they_are_final),
        cmocka_unit_test(dropped_step_touches_no_weight),
        cmocka_unit_test(gradients_are_clipped_by_the_norm),
        cmocka_unit_test(frozen_parameters_stay_and_do_not_count),
        cmocka_unit_test(nonfinite_step_is_refused),
    };
    return cmocka_run_group_tests_name("a training step", tests, setup, teardown);
}
