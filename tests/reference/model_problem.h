/* A small model with random weights and micro-batches, and what the reference makes of them: shared by the
 * tests of the model and of its decoder. */
#ifndef LT_TESTS_MODEL_PROBLEM_H
#define LT_TESTS_MODEL_PROBLEM_H

#include "model/model.h"
#include "tests/reference/fixture.h"
#include "tests/reference/reference.h"

typedef struct test_model_case {
    const char *name;
    lt_model_shape shape;
    int64_t length, rows; /* T, and rows of the first micro-batch */
    double tau_std;       /* around shape.tau_init */
    int boundaries[8];    /* where documents start, in rows 0, 2, ... */
} test_model_case;

/* Fields of a shape that the cases vary. */
#define TEST_SHAPE(vocabulary_, hidden_, layers_, heads_, key_heads_, ffn_, tied_, kind_, bias_length_, \
                   tau_) \
    { \
        .vocabulary = vocabulary_, .hidden = hidden_, .layers = layers_, .heads = heads_, \
        .key_heads = key_heads_, .intermediate = ffn_, .rope_theta = 10000.0, .norm_eps = 1e-6, \
        .init_std = 0.02, .tied = tied_, .attention = kind_, .bias_length = bias_length_, \
        .bias_init_std = 0.001, .tau_init = tau_ \
    }

/* Two micro-batches: the first of `rows` rows, the second of one row. */
typedef struct test_model_problem {
    const test_model_case *c;
    lt_registry registry;
    float *parameters; /* in registry layout */
    ref_batch batches[2];
    double scale; /* of the loss sums' gradients */
    double *gradients[2], *loss_sums[2], *statistics;
    double *logits; /* of the first micro-batch */
} test_model_problem;

/* Draws the first problem, from seed `seed` on, without an entry of an attention matrix near the threshold,
 * where a float32 computation may take the other side and get another gradient. */
void test_model_problem_open(test_model_problem *problem, const test_model_case *c, uint64_t seed);
void test_model_problem_close(test_model_problem *problem);

/* A model of the problem's shape and weights on a device. */
lt_model *test_model_create(const test_model_problem *problem, lt_device *device, bool training);
lt_model *test_model_create_with(const test_model_problem *problem, lt_device *device, bool training,
                                 lt_recompute recompute);

lt_tokens test_model_tokens(const test_model_problem *problem, int batch);

/* All of an array in registry layout; noted for the comparison between thread counts. */
float *test_model_read(test_arena *arena, lt_model *model, lt_array array);

#endif
