/* A model that has the moments of a share alone: where the shares lie, and that they together have the bits
 * of the model that has all. */
#include "model/model.h"
#include "tests/reference/fixture.h"

#include <string.h>

/* Two matrices of more than one piece, of which none is a multiple of a piece or a vector; the others are
 * small. */
static const lt_model_shape SHAPE = {.vocabulary = 413,
                                     .hidden = 170,
                                     .layers = 1,
                                     .heads = 5,
                                     .key_heads = 1,
                                     .intermediate = 399,
                                     .rope_theta = 10000,
                                     .norm_eps = 1e-6,
                                     .init_std = 0.02,
                                     .bias_length = 7,
                                     .tau_init = -1};

/* ---- where the shares lie ---- */

static bool may_be_cut(const lt_registry *registry, int64_t element) {
    for (int i = 0; i < registry->count; i++) {
        const lt_parameter *p = &registry->parameters[i];
        if (element >= p->offset && element < p->offset + p->count)
            return (element - p->offset) % LT_FLAT_PIECE == 0;
    }
    return element == registry->elements;
}

/* From 0 to the end, at allowed places, none further from the even share than half a piece. */
static void shares_cover_everything_once(void **state) {
    (void)state;
    lt_registry registry;
    assert_int_equal(lt_registry_create(&SHAPE, &registry), LT_OK);
    for (int shares = 1; shares <= 64; shares++) {
        assert_int_equal(lt_registry_cut(&registry, 0, shares), 0);
        assert_int_equal(lt_registry_cut(&registry, shares, shares), registry.elements);
        for (int share = 0; share < shares; share++) {
            const int64_t first = lt_registry_cut(&registry, share, shares);
            const double even = (double)registry.elements * share / shares;
            assert_true(first <= lt_registry_cut(&registry, share + 1, shares));
            assert_true(may_be_cut(&registry, first));
            assert_true((double)first - even <= LT_FLAT_PIECE / 2 + 1 &&
                        even - (double)first <= LT_FLAT_PIECE / 2 + 1);
        }
    }
    lt_registry_destroy(&registry);
}

/* ---- the update ---- */

static lt_model *create(lt_device *device, int share, int shares) {
    const lt_model_options options = {.shape = SHAPE,
                                      .sequence_length = 2,
                                      .micro_batch = 1,
                                      .training = true,
                                      .gradient_buffers = 1,
                                      .loss_slots = 1,
                                      .share = share,
                                      .shares = shares};
    lt_model *model;
    assert_int_equal(lt_model_create(&options, device, &model), LT_OK);
    assert_int_equal(lt_model_initialise(model, 3), LT_OK);
    return model;
}

/* Gradients and moments of every parameter, the same for every model; of moments a share takes its own. */
static void fill(lt_model *model) {
    const lt_registry *registry = lt_model_registry(model);
    for (int i = 0; i < registry->count; i++) {
        const lt_parameter *p = &registry->parameters[i];
        test_random random = {(uint64_t)i + 1};
        float *values = test_floats(&random, p->count, 0.0, 1e-2);
        assert_int_equal(lt_model_put(model, LT_ARRAY_GRADIENTS, p, 0, p->count, values), LT_OK);
        assert_int_equal(lt_model_put(model, LT_ARRAY_FIRST_MOMENT, p, 0, p->count, values), LT_OK);
        for (int64_t e = 0; e < p->count; e++) values[e] *= values[e];
        assert_int_equal(lt_model_put(model, LT_ARRAY_SECOND_MOMENT, p, 0, p->count, values), LT_OK);
    }
}

/* Every array as lt_model_get() gives it, one parameter after the other; 99 where it gives nothing. */
static float *read_all(lt_model *model, lt_array array) {
    const lt_registry *registry = lt_model_registry(model);
    float *values = TEST_NEW(float, registry->elements);
    for (int64_t i = 0; i < registry->elements; i++) values[i] = 99;
    for (int i = 0; i < registry->count; i++) {
        const lt_parameter *p = &registry->parameters[i];
        /* in two halves, so that a piece begins inside a parameter too */
        const int64_t half = p->count / 2;
        assert_int_equal(lt_model_get(model, array, p, 0, half, values + p->offset), LT_OK);
        assert_int_equal(lt_model_get(model, array, p, half, p->count - half, values + p->offset + half),
                         LT_OK);
    }
    return values;
}

static const lt_array UPDATED[] = {LT_ARRAY_PARAMETERS, LT_ARRAY_FIRST_MOMENT, LT_ARRAY_SECOND_MOMENT};

static const lt_update UPDATE = {.step = 5,
                                 .learning_rate = 1e-2,
                                 .lazy_learning_rate = 3e-2,
                                 .beta1 = 0.9,
                                 .beta2 = 0.95,
                                 .epsilon = 1e-8,
                                 .weight_decay = 0.1,
                                 .gradient_scale = 0.7};

/* In its share a model has the bits of the whole; outside it weights stay, and there are no moments. */
static void check_share(const float *before, float *const *whole, lt_model *model, int share, int shares) {
    const lt_registry *registry = lt_model_registry(model);
    const int64_t first = lt_registry_cut(registry, share, shares),
                  end = lt_registry_cut(registry, share + 1, shares);
    for (int array = 0; array < 3; array++) {
        const float *values = read_all(model, UPDATED[array]);
        for (int64_t i = 0; i < registry->elements; i++) {
            const bool own = i >= first && i < end;
            const float missing = array == 0 ? before[i] : 99;
            assert_memory_equal(&values[i], own ? &whole[array][i] : &missing, sizeof(float));
        }
    }
}

static void run_shares(test_arena *arena, const void *context) {
    const int shares = *(const int *)context;
    lt_model *model = create(arena->device, 0, 0);
    const int64_t sums = lt_model_square_sums(model), elements = lt_model_registry(model)->elements;
    const float *before = read_all(model, LT_ARRAY_PARAMETERS);
    float *whole[3];
    double *squares = TEST_NEW(double, sums), *together = TEST_NEW(double, sums),
           *own = TEST_NEW(double, sums);
    fill(model);
    assert_int_equal(lt_model_results(model, 0, NULL, squares), LT_OK);
    lt_model_update(model, &UPDATE);
    for (int array = 0; array < 3; array++) whole[array] = read_all(model, UPDATED[array]);
    assert_true(memcmp(before, whole[0], sizeof(float) * (size_t)elements) != 0);
    lt_model_destroy(model);

    for (int share = 0; share < shares; share++) {
        model = create(arena->device, share, shares);
        fill(model);
        assert_int_equal(lt_model_results(model, 0, NULL, own), LT_OK);
        for (int64_t i = 0; i < sums; i++) {
            assert_true(own[i] == 0 || together[i] == 0);
            together[i] += own[i];
        }
        lt_model_update(model, &UPDATE);
        check_share(before, whole, model, share, shares);
        lt_model_destroy(model);
    }
    assert_memory_equal(together, squares, sizeof(double) * (size_t)sums);
    test_note(arena, squares, sizeof(double) * (size_t)sums);
}

static void shares_have_the_bits_of_the_whole(void **state) {
    (void)state;
    static const int SHARES[] = {2, 5, 16}; /* of 16 some are empty */
    for (int i = 0; i < 3; i++) test_every_device(run_shares, &SHARES[i]);
}

/* Two moments of a share take its part of the memory. */
static void run_plan(test_arena *arena, const void *context) {
    (void)context;
    lt_model_options options = {.shape = SHAPE,
                                .sequence_length = 2,
                                .micro_batch = 1,
                                .training = true,
                                .gradient_buffers = 1,
                                .loss_slots = 1};
    const lt_memory_plan all = lt_model_plan(&options, arena->device);
    lt_registry registry;
    assert_int_equal(lt_registry_create(&SHAPE, &registry), LT_OK);
    options.shares = 4;
    for (options.share = 0; options.share < 4; options.share++) {
        const lt_memory_plan plan = lt_model_plan(&options, arena->device);
        const size_t share = 8 * (size_t)(lt_registry_cut(&registry, options.share + 1, 4) -
                                          lt_registry_cut(&registry, options.share, 4));
        assert_true(plan.optimizer >= share && plan.optimizer < share + 1024);
        assert_true(plan.parameters == all.parameters && plan.gradients == all.gradients);
    }
    lt_registry_destroy(&registry);
}

static void memory_of_a_share(void **state) {
    (void)state;
    test_every_device(run_plan, NULL);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(shares_cover_everything_once),
        cmocka_unit_test_teardown(shares_have_the_bits_of_the_whole, test_free_all),
        cmocka_unit_test_teardown(memory_of_a_share, test_free_all),
    };
    return cmocka_run_group_tests_name("shares of a model", tests, NULL, NULL);
}
