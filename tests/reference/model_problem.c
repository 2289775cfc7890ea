#include "tests/reference/model_problem.h"

#include <math.h>

/* Weights that make every part of the model matter: matrices that keep the size of what they multiply, biases
 * and norms well away from their initial values. */
static void draw_parameters(test_model_problem *problem, test_random *random) {
    const lt_registry *registry = &problem->registry;
    problem->parameters = TEST_NEW(float, registry->elements);
    for (int i = 0; i < registry->count; i++) {
        const lt_parameter *p = &registry->parameters[i];
        double mean = 0.0, std = 1.0 / sqrt((double)p->shape[1]);
        if (p->dimensions == 1) {
            mean = p->lazy ? problem->c->shape.tau_init : 1.0;
            std = p->lazy ? problem->c->tau_std : 0.2;
        } else if (p->lazy) {
            std = 0.5;
        }
        for (int64_t e = 0; e < p->count; e++)
            problem->parameters[p->offset + e] = (float)(mean + std * test_normal(random));
    }
    test_round(problem->parameters, registry->elements);
}

static void draw_batch(test_model_problem *problem, int batch, int64_t rows, test_random *random) {
    const test_model_case *c = problem->c;
    int32_t *starts = NULL;
    if (c->boundaries[0] != 0) {
        starts = TEST_NEW(int32_t, rows * c->length);
        for (int64_t b = 0; b < rows; b += 2)
            test_document_starts(c->boundaries, 0, c->length, starts + b * c->length);
    }
    problem->batches[batch] =
        (ref_batch){rows, c->length, test_tokens(random, rows * c->length, c->shape.vocabulary),
                    test_tokens(random, rows * c->length, c->shape.vocabulary), starts};
}

/* Fills what is expected; gives how near the threshold any entry comes. */
static double expect(test_model_problem *problem) {
    const lt_model_shape *shape = &problem->c->shape;
    const double *parameters = test_widen(problem->parameters, problem->registry.elements);
    double kink = INFINITY;
    problem->scale = 1.0 / (double)(4 * problem->c->length);
    problem->statistics = TEST_NEW(double, shape->layers * shape->heads * LT_STATISTICS);
    problem->logits = TEST_NEW(double, problem->batches[0].rows * problem->c->length * shape->vocabulary);
    for (int i = 0; i < 2; i++) {
        problem->gradients[i] = TEST_NEW(double, problem->registry.elements);
        problem->loss_sums[i] = TEST_NEW(double, problem->batches[i].rows);
        ref_result result = {.loss_sums = problem->loss_sums[i],
                             .gradients = problem->gradients[i],
                             .logits = i == 0 ? problem->logits : NULL,
                             .statistics = i == 0 ? problem->statistics : NULL};
        ref_model(shape, &problem->registry, parameters, &problem->batches[i], problem->scale, &result);
        kink = fmin(kink, result.kink);
    }
    return kink;
}

void test_model_problem_open(test_model_problem *problem, const test_model_case *c, uint64_t seed) {
    *problem = (test_model_problem){.c = c};
    assert_int_equal(lt_registry_create(&c->shape, &problem->registry), LT_OK);
    test_random random = {seed};
    do {
        draw_parameters(problem, &random);
        draw_batch(problem, 0, c->rows, &random);
        draw_batch(problem, 1, 1, &random);
    } while (expect(problem) < 1e-5);
}

void test_model_problem_close(test_model_problem *problem) {
    lt_registry_destroy(&problem->registry);
}

lt_model *test_model_create(const test_model_problem *problem, lt_device *device, bool training) {
    return test_model_create_with(problem, device, training, LT_RECOMPUTE_NONE);
}

lt_model *test_model_create_with(const test_model_problem *problem, lt_device *device, bool training,
                                 lt_recompute recompute) {
    const lt_model_options options = {.shape = problem->c->shape,
                                      .sequence_length = problem->c->length,
                                      .micro_batch = problem->c->rows,
                                      .recompute = recompute,
                                      .training = training,
                                      .gradient_buffers = training ? 2 : 0,
                                      .loss_slots = training ? 2 * problem->c->rows + 1 : 0};
    lt_model *model = NULL;
    assert_int_equal(lt_model_create(&options, device, &model), LT_OK);
    for (int i = 0; i < problem->registry.count; i++) {
        const lt_parameter *p = &problem->registry.parameters[i];
        assert_int_equal(
            lt_model_put(model, LT_ARRAY_PARAMETERS, p, 0, p->count, problem->parameters + p->offset), LT_OK);
    }
    return model;
}

lt_tokens test_model_tokens(const test_model_problem *problem, int batch) {
    const ref_batch *from = &problem->batches[batch];
    return (lt_tokens){from->rows, from->inputs, from->targets, from->document_starts};
}

float *test_model_read(test_arena *arena, lt_model *model, lt_array array) {
    const lt_registry *registry = lt_model_registry(model);
    float *values = TEST_NEW(float, registry->elements);
    for (int i = 0; i < registry->count; i++) {
        const lt_parameter *p = &registry->parameters[i];
        assert_int_equal(lt_model_get(model, array, p, 0, p->count, values + p->offset), LT_OK);
    }
    test_note(arena, values, sizeof(float) * (size_t)registry->elements);
    return values;
}
