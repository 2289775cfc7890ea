/* Training steps of a model that is cut among tensor-parallel ranks (threads here): the run of one rank
 * within rounding, the same bits again and on all ranks, padding that stays zero, sharded optimisers, memory,
 * and exchanges that fail. */
#include "model/split.h"
#include "model/step.h"
#include "tests/reference/fixture.h"
#include "tests/reference/thread_group.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { T = 13, LANES = 2, BATCHES = 2, SEQUENCES = LANES * BATCHES, STEPS = 20, SEED = 5 };

/* An odd vocabulary, odd rows in a micro-batch, fewer key heads than ranks at width 4. */
static const lt_model_shape SHAPE = {.vocabulary = 53,
                                     .hidden = 32,
                                     .layers = 2,
                                     .heads = 4,
                                     .key_heads = 2,
                                     .intermediate = 48,
                                     .rope_theta = 10000,
                                     .norm_eps = 1e-6,
                                     .init_std = 0.1,
                                     .bias_length = 5,
                                     .bias_init_std = 0.1,
                                     .tau_init = -0.5};

/* What the ranks of one width give; arrays of rank r are element r. */
typedef struct group_run {
    int ranks;
    int64_t steps;
    bool tied;
    lt_registry held;
    lt_device *devices[TEST_MOST_RANKS];
    lt_step_result results[TEST_MOST_RANKS][STEPS];
    float *initial[TEST_MOST_RANKS], *weights[TEST_MOST_RANKS];
} group_run;

/* ---- in the threads ---- */

typedef struct batches {
    int64_t next;
    int32_t inputs[T], targets[T];
} batches;

static lt_status next_batch(void *context, bool last, lt_tokens *tokens) {
    batches *b = context;
    (void)last;
    for (int64_t t = 0; t < T; t++) {
        const int64_t at = b->next * 31 + t;
        b->inputs[t] = (int32_t)((at * at + at / 3) % SHAPE.vocabulary);
        b->targets[t] = (int32_t)(((at + 1) * (at + 1) + (at + 1) / 3) % SHAPE.vocabulary);
    }
    b->next++;
    *tokens = (lt_tokens){.rows = 1, .inputs = b->inputs, .targets = b->targets};
    return LT_OK;
}

static lt_status read_array(lt_model *model, lt_array array, float *values) {
    const lt_registry *registry = lt_model_registry(model);
    for (int i = 0; i < registry->count; i++) {
        const lt_parameter *p = &registry->parameters[i];
        LT_CHECK(lt_model_get(model, array, p, 0, p->count, values + p->offset));
    }
    return LT_OK;
}

static lt_status train(group_run *run, lt_model *model, int rank, double *workspace) {
    batches data = {0};
    const lt_exchange exchange = {.context = &data, .next_batch = next_batch};
    lt_step_options options = {.lanes = LANES,
                               .batches_per_lane = BATCHES,
                               .micro_batch = 1,
                               .targets = SEQUENCES * T,
                               .gradient_clip = 1.0,
                               .workspace = workspace,
                               .update = {.learning_rate = 3e-3,
                                          .lazy_learning_rate = 3e-3,
                                          .beta1 = 0.9,
                                          .beta2 = 0.95,
                                          .epsilon = 1e-8,
                                          .weight_decay = 0.1}};
    LT_CHECK(lt_model_initialise(model, SEED));
    LT_CHECK(read_array(model, LT_ARRAY_PARAMETERS, run->initial[rank]));
    memcpy(run->weights[rank], run->initial[rank], sizeof(float) * (size_t)run->held.elements);
    for (int64_t step = 0; step < run->steps; step++) {
        options.update.step = step + 1;
        const lt_status status = lt_step_run(model, &options, &exchange, &run->results[rank][step]);
        LT_CHECK(read_array(model, LT_ARRAY_PARAMETERS, run->weights[rank]));
        LT_CHECK(status);
    }
    return LT_OK;
}

static lt_status run_rank(const lt_tensor_group *group, void *context) {
    group_run *run = context;
    lt_model_options options = {.shape = SHAPE,
                                .sequence_length = T,
                                .micro_batch = 1,
                                .training = true,
                                .gradient_buffers = 2,
                                .loss_slots = SEQUENCES,
                                .group = group};
    options.shape.tied = run->tied;
    lt_model *model;
    LT_CHECK(lt_model_create(&options, run->devices[group->rank], &model));
    double *workspace = malloc(sizeof(double) * (size_t)lt_step_workspace(model, SEQUENCES));
    const lt_status status = train(run, model, group->rank, workspace);
    free(workspace);
    lt_model_destroy(model);
    return status;
}

/* ---- around them ---- */

static void open_run(group_run *run, int ranks, bool tied) {
    lt_model_shape shape = SHAPE;
    shape.tied = tied;
    *run = (group_run){.ranks = ranks, .tied = tied, .steps = STEPS};
    assert_int_equal(lt_registry_create_cut(&shape, ranks, &run->held), LT_OK);
    for (int rank = 0; rank < ranks; rank++) {
        assert_int_equal(lt_cpu_device_create(1, &run->devices[rank]), LT_OK);
        run->initial[rank] = TEST_NEW(float, run->held.elements);
        run->weights[rank] = TEST_NEW(float, run->held.elements);
    }
}

static void close_run(group_run *run) {
    for (int rank = 0; rank < run->ranks; rank++) run->devices[rank]->ops->destroy(run->devices[rank]);
    lt_registry_destroy(&run->held);
}

static void check_result(const lt_step_result *got, const lt_step_result *rank_0,
                         const lt_step_result *expected, int step) {
    const double tolerance = step == 0 ? 1e-6 : 1e-4;
    assert_int_equal(got->outcome, LT_STEP_UPDATED);
    assert_memory_equal(&got->loss, &rank_0->loss, sizeof got->loss);
    assert_memory_equal(&got->gradient_norm, &rank_0->gradient_norm, sizeof got->gradient_norm);
    assert_true(fabs(got->loss - expected->loss) <= tolerance * expected->loss);
    assert_true(fabs(got->gradient_norm - expected->gradient_norm) <=
                10 * tolerance * expected->gradient_norm);
}

/* Whole initial weights are those of one rank, copies have the same bits after all steps, padding is 0. */
static void check_weights(const group_run *run, const group_run *one_rank) {
    for (int i = 0; i < run->held.count; i++) {
        const lt_parameter *whole = &one_rank->held.parameters[i], *held = &run->held.parameters[i];
        float *initial = TEST_NEW(float, whole->count);
        for (int rank = 0; rank < run->ranks; rank++) {
            const int part = lt_split_part(held, rank, run->ranks);
            const float *weights = run->weights[rank] + held->offset;
            const float *first = run->weights[lt_split_holder(held, part, run->ranks)] + held->offset;
            const lt_split_piece piece = {whole, held, part, 0, whole->count};
            lt_split_lay(&piece, run->initial[rank] + held->offset, initial);
            assert_memory_equal(weights, first, sizeof(float) * (size_t)held->count);
            for (int64_t e = lt_split_run(&piece).end; e < held->count; e++)
                assert_true(weights[e] == 0.0f && run->initial[rank][held->offset + e] == 0.0f);
        }
        assert_memory_equal(initial, one_rank->initial[0] + whole->offset,
                            sizeof(float) * (size_t)whole->count);
    }
}

static void train_at_widths(bool tied) {
    group_run one_rank;
    open_run(&one_rank, 1, tied);
    test_run_ranks(1, run_rank, &one_rank);
    assert_true(one_rank.results[0][STEPS - 1].loss < 0.9 * one_rank.results[0][0].loss);
    for (int ranks = 2; ranks <= 4; ranks += 2) {
        group_run run, again;
        open_run(&run, ranks, tied);
        open_run(&again, ranks, tied);
        test_run_ranks(ranks, run_rank, &run);
        test_run_ranks(ranks, run_rank, &again);
        for (int rank = 0; rank < ranks; rank++) {
            for (int step = 0; step < STEPS; step++)
                check_result(&run.results[rank][step], &run.results[0][step], &one_rank.results[0][step],
                             step);
            assert_memory_equal(run.weights[rank], again.weights[rank],
                                sizeof(float) * (size_t)run.held.elements);
        }
        check_weights(&run, &one_rank);
        close_run(&run);
        close_run(&again);
    }
    close_run(&one_rank);
}

static void widths_train_alike(void **state) {
    (void)state;
    train_at_widths(false);
    train_at_widths(true);
}

/* Whichever exchange of a step fails, the step does, on all ranks, and no weight has moved. */
static void failed_exchange_fails_the_step(void **state) {
    (void)state;
    group_run run;
    int failures = 0;
    open_run(&run, 2, false);
    run.steps = 1;
    while (test_run_failing_ranks(2, run_rank, &run, failures) != LT_OK) {
        for (int rank = 0; rank < 2; rank++)
            assert_memory_equal(run.weights[rank], run.initial[rank],
                                sizeof(float) * (size_t)run.held.elements);
        failures++;
    }
    /* A micro-batch: forward 1 + 4 a layer, head 2 + 1, backward 6 a layer + 1; then copies and squares. */
    assert_int_equal(failures, SEQUENCES * (1 + 2 * 4 + 3 + 2 * 6 + 1) + 2);
    close_run(&run);
}

/* ---- sharded optimisers ---- */

/* Large enough for shares, with one key head that all ranks hold. */
static const lt_model_shape SHARED = {.vocabulary = 413,
                                      .hidden = 168,
                                      .layers = 1,
                                      .heads = 4,
                                      .key_heads = 1,
                                      .intermediate = 400,
                                      .rope_theta = 10000,
                                      .norm_eps = 1e-6,
                                      .bias_length = 7};

enum { ARRAYS = 4, SHARES = 3 };

typedef struct share_run {
    int share, shares;
    lt_device *devices[2];
    float *arrays[2][ARRAYS];     /* weights, moments, gradients after the update */
    double *sums[2], *squares[2]; /* lt_model_results(), lt_model_whole_squares() */
} share_run;

/* Gradients and moments, other ones on each rank. */
static lt_status fill(lt_model *model, int rank) {
    const lt_registry *registry = lt_model_registry(model);
    float *values = malloc(sizeof(float) * (size_t)registry->elements);
    test_random random = {(uint64_t)rank + 1};
    lt_status status = LT_OK;
    for (int64_t i = 0; i < registry->elements; i++) values[i] = (float)fabs(1e-2 * test_normal(&random));
    for (int array = 1; array < ARRAYS; array++)
        for (int i = 0; i < registry->count && status == LT_OK; i++) {
            const lt_parameter *p = &registry->parameters[i];
            status = lt_model_put(model, (lt_array)array, p, 0, p->count, values + p->offset);
        }
    free(values);
    return status;
}

static lt_status update_share(share_run *run, lt_model *model, int rank) {
    LT_CHECK(lt_model_initialise(model, SEED));
    LT_CHECK(fill(model, rank));
    LT_CHECK(lt_model_sum_copies(model));
    LT_CHECK(lt_model_results(model, 0, NULL, run->sums[rank]));
    LT_CHECK(lt_model_whole_squares(model, run->sums[rank], run->squares[rank]));
    lt_model_update(model, &(lt_update){.step = 5,
                                        .learning_rate = 1e-2,
                                        .lazy_learning_rate = 3e-2,
                                        .beta1 = 0.9,
                                        .beta2 = 0.95,
                                        .epsilon = 1e-8,
                                        .weight_decay = 0.1,
                                        .gradient_scale = 0.7});
    for (int array = 0; array < ARRAYS; array++)
        LT_CHECK(read_array(model, (lt_array)array, run->arrays[rank][array]));
    return LT_OK;
}

static lt_status run_share(const lt_tensor_group *group, void *context) {
    share_run *run = context;
    const lt_model_options options = {.shape = SHARED,
                                      .sequence_length = 2,
                                      .micro_batch = 1,
                                      .training = true,
                                      .gradient_buffers = 1,
                                      .loss_slots = 1,
                                      .share = run->share,
                                      .shares = run->shares,
                                      .group = group};
    lt_model *model;
    LT_CHECK(lt_model_create(&options, run->devices[group->rank], &model));
    const lt_status status = update_share(run, model, group->rank);
    lt_model_destroy(model);
    return status;
}

static void compute_share(share_run *run, const lt_registry *held, int share, int shares) {
    *run = (share_run){.share = share, .shares = shares};
    int64_t pieces = 0;
    for (int i = 0; i < held->count; i++) pieces += lt_flat_pieces(held->parameters[i].count);
    for (int rank = 0; rank < 2; rank++) {
        assert_int_equal(lt_cpu_device_create(1, &run->devices[rank]), LT_OK);
        for (int array = 0; array < ARRAYS; array++)
            run->arrays[rank][array] = TEST_NEW(float, held->elements);
        run->sums[rank] = TEST_NEW(double, pieces);
        run->squares[rank] = TEST_NEW(double, 2 * held->count);
    }
    test_run_ranks(2, run_share, run);
    for (int rank = 0; rank < 2; rank++) run->devices[rank]->ops->destroy(run->devices[rank]);
}

/* Of a share: its elements and squares have the bits of the whole. */
static void check_share(const share_run *run, const share_run *whole, const lt_registry *held) {
    const int64_t first = lt_registry_cut(held, run->share, SHARES);
    const int64_t count = lt_registry_cut(held, run->share + 1, SHARES) - first;
    assert_true(count > 0);
    for (int rank = 0; rank < 2; rank++)
        for (int array = 0; array < ARRAYS; array++)
            assert_memory_equal(run->arrays[rank][array] + first, whole->arrays[rank][array] + first,
                                sizeof(float) * (size_t)count);
}

/* Each part of a parameter counts once: what both ranks hold as on one of them. */
static void check_squares(const share_run *whole, const lt_registry *held) {
    const float *gradients[2] = {whole->arrays[0][LT_ARRAY_GRADIENTS], whole->arrays[1][LT_ARRAY_GRADIENTS]};
    for (int i = 0; i < held->count; i++) {
        const lt_parameter *p = &held->parameters[i];
        double expected = 0;
        for (int rank = 0; rank < p->parts; rank++)
            for (int64_t e = p->offset; e < p->offset + p->count; e++)
                expected += (double)gradients[rank][e] * (double)gradients[rank][e];
        assert_true(fabs(whole->squares[0][i] - expected) <= 1e-6 * expected);
    }
    assert_memory_equal(whole->squares[0], whole->squares[1], sizeof(double) * (size_t)held->count);
}

static void shares_have_the_bits_of_the_whole(void **state) {
    (void)state;
    lt_registry held;
    share_run whole, runs[SHARES];
    assert_int_equal(lt_registry_create_cut(&SHARED, 2, &held), LT_OK);
    compute_share(&whole, &held, 0, 0);
    check_squares(&whole, &held);
    for (int share = 0; share < SHARES; share++) {
        compute_share(&runs[share], &held, share, SHARES);
        check_share(&runs[share], &whole, &held);
    }
    for (int rank = 0, piece = 0; rank < 2; rank++, piece = 0)
        for (int i = 0; i < held.count; i++)
            for (int64_t left = lt_flat_pieces(held.parameters[i].count); left > 0; left--, piece++) {
                double sum = 0;
                for (int share = 0; share < SHARES; share++) sum += runs[share].sums[rank][piece];
                assert_true(sum == whole.sums[rank][piece]);
            }
    lt_registry_destroy(&held);
}

/* ---- memory, and what a part of a model cannot ---- */

/* A rank of N has an N-th of everything but norms and, of activations, a few matrices of all rows. */
static void memory_is_shared_out(void **state) {
    (void)state;
    lt_device *device;
    assert_int_equal(lt_cpu_device_create(1, &device), LT_OK);
    lt_model_options options = {.shape = {.vocabulary = 16001,
                                          .hidden = 512,
                                          .layers = 12,
                                          .heads = 8,
                                          .key_heads = 8,
                                          .intermediate = 1376,
                                          .bias_length = 512},
                                .sequence_length = 1024,
                                .micro_batch = 4,
                                .training = true,
                                .gradient_buffers = 2,
                                .loss_slots = 4};
    const lt_memory_plan whole = lt_model_plan(&options, device);
    for (int ranks = 2; ranks <= 8; ranks *= 2) {
        const lt_tensor_group group = {.rank = ranks - 1, .ranks = ranks};
        options.group = &group;
        const lt_memory_plan plan = lt_model_plan(&options, device);
        const double n = ranks;
        assert_true(n * (double)plan.parameters < 1.01 * (double)whole.parameters);
        assert_true(n * (double)plan.optimizer < 1.01 * (double)whole.optimizer);
        assert_true(n * (double)plan.gradients < 1.01 * (double)whole.gradients);
        assert_true(n * (double)plan.activations < (1 + 0.03 * n) * (double)whole.activations);
    }
    device->ops->destroy(device);
}

/* Not shared out: the matrix of all rows between a norm and a product, and one for the other ranks' parts of
 * a sum. So two ranks together have 2 (1 + 1/2) - 1 such matrices more than one. */
static void sums_have_room(void **state) {
    (void)state;
    enum { ROWS = 128, HIDDEN = 512 };
    lt_device *device;
    assert_int_equal(lt_cpu_device_create(1, &device), LT_OK);
    const lt_tensor_group group = {.rank = 1, .ranks = 2};
    lt_model_options options = {
        .shape =
            {.vocabulary = 64, .hidden = HIDDEN, .layers = 1, .heads = 8, .key_heads = 8, .intermediate = 64},
        .sequence_length = ROWS,
        .micro_batch = 1};
    const double whole = (double)lt_model_plan(&options, device).activations;
    options.group = &group;
    const double more = 2 * (double)lt_model_plan(&options, device).activations - whole;
    const double expected = 2.0 * sizeof(float) * ROWS * HIDDEN;
    assert_true(more >= expected && more < 1.1 * expected);
    device->ops->destroy(device);
}

static lt_status refuse_to_decode(const lt_tensor_group *group, void *context) {
    group_run *run = context;
    const lt_model_options options = {.shape = SHAPE, .sequence_length = 1, .micro_batch = 1, .group = group};
    lt_model *model;
    lt_decoder *decoder;
    LT_CHECK(lt_model_create(&options, run->devices[group->rank], &model));
    const lt_status status = lt_decoder_create(model, 8, &decoder);
    lt_model_destroy(model);
    return status == LT_BAD_INPUT ? LT_OK : LT_FAILED;
}

static void part_of_a_model_does_not_decode(void **state) {
    (void)state;
    group_run run;
    open_run(&run, 2, false);
    test_run_ranks(2, refuse_to_decode, &run);
    close_run(&run);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_teardown(widths_train_alike, test_free_all),
        cmocka_unit_test_teardown(failed_exchange_fails_the_step, test_free_all),
        cmocka_unit_test_teardown(shares_have_the_bits_of_the_whole, test_free_all),
        cmocka_unit_test_teardown(memory_is_shared_out, test_free_all),
        cmocka_unit_test_teardown(sums_have_room, test_free_all),
        cmocka_unit_test_teardown(part_of_a_model_does_not_decode, test_free_all),
    };
    return cmocka_run_group_tests_name("steps among tensor-parallel ranks", tests, NULL, NULL);
}
