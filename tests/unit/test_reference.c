/* The float64 reference against central finite differences and against a case worked out by hand. */
#include "tests/reference/fixture.h"
#include "tests/reference/reference.h"

#include <math.h>
#include <string.h>

/* A function of arrays that `context` points to. */
typedef double (*objective)(const void *context);

/* With steps of 1e-5 the rounding error of a central difference is about 1e-11 and its truncation error 1e-10
 * times the third derivative, which reaches some hundreds in the model: up to 4e-8 of a gradient's largest
 * entry was seen. A wrong term is off by far more than the 1e-6 allowed. */
static void check_gradient(const char *what, objective f, const void *context, double *x,
                           const double *gradient, int64_t count) {
    const double step = 1e-5;
    double *differences = TEST_NEW(double, count);
    for (int64_t i = 0; i < count; i++) {
        double kept = x[i];
        x[i] = kept + step;
        double above = f(context);
        x[i] = kept - step;
        double below = f(context);
        x[i] = kept;
        differences[i] = (above - below) / (2.0 * step);
    }
    test_close_doubles(what, gradient, differences, count, 1e-6, 1e-2);
}

static double *normals(test_random *random, int64_t count, double mean, double std) {
    double *values = TEST_NEW(double, count);
    for (int64_t i = 0; i < count; i++) values[i] = mean + std * test_normal(random);
    return values;
}

/* ---- attention
 * ---------------------------------------------------------------------------------------------- */

typedef struct attention_case {
    const char *name;
    int64_t batch, query_length, key_length, heads, key_heads, head_size, bias_length;
    double tau_mean, tau_std;
    int boundaries[4];
} attention_case;

static const attention_case ATTENTION_CASES[] = {
    {"attention: lazy, tau around -1", 2, 7, 7, 2, 2, 4, 3, -1.0, 0.2, {0}},
    {"attention: lazy, tau around -1, grouped heads, W beyond T", 2, 6, 6, 4, 2, 2, 9, -1.0, 0.2, {0}},
    {"attention: lazy, tau of both signs, W = 1", 1, 8, 8, 4, 1, 4, 1, 0.0, 0.7, {0}},
    {"attention: lazy, tau above 0", 1, 6, 6, 2, 2, 4, 4, 0.8, 0.1, {0}},
    {"attention: lazy, documents", 2, 9, 9, 2, 1, 4, 4, -0.9, 0.2, {1, 2, 6}},
    {"attention: lazy, fewer queries than keys, documents", 2, 4, 9, 2, 1, 4, 5, -0.9, 0.2, {3, 7}},
    {"attention: softmax, grouped heads, documents", 2, 7, 7, 4, 2, 4, 0, 0.0, 0.0, {4}},
};
enum { ATTENTION_CASE_COUNT = sizeof ATTENTION_CASES / sizeof ATTENTION_CASES[0] };

typedef struct attention_problem {
    ref_attention at;
    double *output;
    const double *d_output;
} attention_problem;

static double attention_objective(const void *context) {
    const attention_problem *problem = context;
    const ref_attention *at = &problem->at;
    ref_attention_forward(at, problem->output, NULL, NULL);
    double sum = 0.0;
    for (int64_t i = 0; i < at->batch * at->query_length * at->heads * at->head_size; i++)
        sum += problem->output[i] * problem->d_output[i];
    return sum;
}

static double nearest_kink(const ref_attention *at, double *output) {
    int64_t rows = at->batch * at->query_length * at->heads;
    double *kink = TEST_NEW(double, rows), nearest = INFINITY;
    ref_attention_forward(at, output, NULL, kink);
    for (int64_t i = 0; i < rows; i++) nearest = fmin(nearest, kink[i]);
    return nearest;
}

static void test_attention(void **state) {
    const attention_case *c = *state;
    int64_t queries = c->batch * c->query_length, keys = c->batch * c->key_length;
    int64_t query_stride = c->heads * c->head_size + 3, key_stride = c->key_heads * c->head_size + 1;
    int64_t width = c->heads * c->head_size, biases = c->heads * c->bias_length;
    int32_t *starts = TEST_NEW(int32_t, queries);
    for (int64_t b = 0; b < c->batch; b++)
        test_document_starts(c->boundaries, c->key_length - c->query_length, c->query_length,
                             starts + b * c->query_length);
    /* The first seed with no entry near the threshold, where a finite difference sees half a jump. */
    for (test_random random = {1}; true;) {
        double *q = normals(&random, queries * query_stride, 0.0, 1.0);
        double *k = normals(&random, keys * key_stride, 0.0, 1.0);
        double *v = normals(&random, keys * key_stride, 0.0, 1.0);
        double *bias = normals(&random, biases, 0.0, 0.5),
               *tau = normals(&random, c->heads, c->tau_mean, c->tau_std);
        double *d_output = normals(&random, queries * width, 0.0, 1.0);
        attention_problem problem = {.at = {c->batch, c->query_length, c->key_length, c->heads, c->key_heads,
                                            c->head_size, c->bias_length, q, k, v, query_stride, key_stride,
                                            bias, tau, starts},
                                     .output = TEST_NEW(double, queries *width),
                                     .d_output = d_output};
        if (nearest_kink(&problem.at, problem.output) < 1e-3) continue;

        double *d_q = TEST_NEW(double, queries *query_stride), *d_k = TEST_NEW(double, keys *key_stride);
        double *d_v = TEST_NEW(double, keys *key_stride), *d_bias = TEST_NEW(double, biases);
        double *d_tau = TEST_NEW(double, c->heads);
        ref_attention_backward(&problem.at, d_output, d_q, d_k, d_v, d_bias, d_tau);
        check_gradient("d_q", attention_objective, &problem, q, d_q, queries * query_stride);
        check_gradient("d_k", attention_objective, &problem, k, d_k, keys * key_stride);
        check_gradient("d_v", attention_objective, &problem, v, d_v, keys * key_stride);
        check_gradient("d_bias", attention_objective, &problem, bias, d_bias, biases);
        if (c->bias_length > 0) check_gradient("d_tau", attention_objective, &problem, tau, d_tau, c->heads);
        return;
    }
}

/* Three tokens, one head of size 4 (so 1 / sqrt(D) = 1/2), W = 2, tau = -3/4. All q_i = (2, 0, 0, 0), so that
 * s_ij = k_j[0] + b[i - j]; k_1[0] = ln 3, other keys 0; b = (0, ln 2); v_j the unit vectors.
 *
 *   row 0: s = (0)              p = (1)              tau/n = -3/4  a = (1/4)
 *   row 1: s = (ln 2, ln 3)     p = (2/5, 3/5)       tau/n = -3/8  a = (1/40, 9/40)
 *   row 2: s = (0, ln 6, 0)     p = (1/8, 6/8, 1/8)  tau/n = -1/4  a = (0, 1/2, 0)     (distance 2 is beyond
 * W)
 *
 * With do_0 = (1, 0, 0, 0), do_1 = (5, 10, 0, 0), do_2 = (8, 16, 24, 0):
 *
 *   row 0: g = (1)         delta = 1                    ds = (0)               sum g / n = 1
 *   row 1: g = (5, 10)     delta = 2 + 6 = 8            ds = (-6/5, 6/5)       sum g / n = 15/2
 *   row 2: g = (0, 16, 0)  delta = 12                   ds = (-3/2, 3, -3/2)   sum g / n = 16/3
 *
 *   dv_0 = 1/4 do_0 + 1/40 do_1 = (3/8, 1/4, 0, 0)      dv_1 = 9/40 do_1 + 1/2 do_2 = (41/8, 41/4, 12, 0)
 *   dq_i = sum_j ds_ij k_j / 2: 0, 3/5 ln 3, 3/2 ln 3   dk_j = sum_i ds_ij q_i / 2: -27/10, 21/5, -3/2
 *   db = (6/5 - 3/2, -6/5 + 3) = (-3/10, 9/5)           dtau = 1 + 15/2 + 16/3 = 83/6 */
static void test_three_tokens(void **state) {
    (void)state;
    const double ln2 = log(2.0), ln3 = log(3.0);
    const double q[12] = {2, 0, 0, 0, 2, 0, 0, 0, 2, 0, 0, 0}, k[12] = {[4] = ln3};
    const double v[12] = {1, 0, 0, 0, 0, 1, 0, 0, 0, 0, 1, 0}, bias[2] = {0, ln2}, tau[1] = {-0.75};
    const double d_output[12] = {1, 0, 0, 0, 5, 10, 0, 0, 8, 16, 24, 0};
    ref_attention at = {1, 3, 3, 1, 1, 4, 2, q, k, v, 4, 4, bias, tau, NULL};

    double output[12], statistics[LT_STATISTICS] = {0};
    ref_attention_forward(&at, output, statistics, NULL);
    const double expected_output[12] = {1.0 / 4, 0, 0, 0, 1.0 / 40, 9.0 / 40, 0, 0, 0, 1.0 / 2, 0, 0};
    test_close_doubles("output", output, expected_output, 12, 1e-14, 0.0);
    const double expected_statistics[LT_STATISTICS] = {
        [LT_STAT_VISIBLE] = 6, [LT_STAT_ZEROS] = 2,       [LT_STAT_MASS] = 1,
        [LT_STAT_ROWS] = 3,    [LT_STAT_SINK] = 1.0 / 40, [LT_STAT_SINK_ROWS] = 2};
    test_close_doubles("statistics", statistics, expected_statistics, LT_STATISTICS, 1e-14, 0.0);

    double d_q[12], d_k[12], d_v[12], d_bias[2] = {0}, d_tau[1] = {0};
    ref_attention_backward(&at, d_output, d_q, d_k, d_v, d_bias, d_tau);
    const double expected_d_q[12] = {[4] = 3.0 / 5 * ln3, [8] = 3.0 / 2 * ln3};
    const double expected_d_k[12] = {[0] = -27.0 / 10, [4] = 21.0 / 5, [8] = -3.0 / 2};
    const double expected_d_v[12] = {3.0 / 8, 1.0 / 4, 0, 0, 41.0 / 8, 41.0 / 4, 12, 0, 0, 0, 0, 0};
    const double expected_d_bias[2] = {-3.0 / 10, 9.0 / 5}, expected_d_tau[1] = {83.0 / 6};
    test_close_doubles("d_q", d_q, expected_d_q, 12, 1e-14, 0.0);
    test_close_doubles("d_k", d_k, expected_d_k, 12, 1e-14, 0.0);
    test_close_doubles("d_v", d_v, expected_d_v, 12, 1e-14, 0.0);
    test_close_doubles("d_bias", d_bias, expected_d_bias, 2, 1e-14, 0.0);
    test_close_doubles("d_tau", d_tau, expected_d_tau, 1, 1e-14, 0.0);
}

/* ---- rows
 * --------------------------------------------------------------------------------------------------- */

enum { ROWS = 3, WIDTH = 6 };

/* sum of weights * f(x): what the objectives below have in common. */
typedef struct row_problem {
    double *x, *weight, *table, *out, *scratch;
    const double *d_out;
    const int32_t *tokens;
} row_problem;

static double weighted(const row_problem *problem, int64_t count) {
    double sum = 0.0;
    for (int64_t i = 0; i < count; i++) sum += problem->out[i] * problem->d_out[i];
    return sum;
}

static row_problem new_problem(test_random *random) {
    return (row_problem){.x = normals(random, ROWS * 2 * WIDTH, 0.0, 1.0),
                         .weight = normals(random, WIDTH, 1.0, 0.3),
                         .table = TEST_NEW(double, 64),
                         .out = TEST_NEW(double, ROWS * 2 * WIDTH),
                         .scratch = TEST_NEW(double, ROWS * 2 * WIDTH),
                         .d_out = normals(random, ROWS * 2 * WIDTH, 0.0, 1.0),
                         .tokens = test_tokens(random, ROWS, WIDTH)};
}

static double rmsnorm_objective(const void *context) {
    const row_problem *p = context;
    ref_rmsnorm_forward(p->x, p->weight, 1e-2, ROWS, WIDTH, p->out, p->scratch);
    return weighted(p, ROWS * WIDTH);
}

static void test_rmsnorm(void **state) {
    (void)state;
    test_random random = {2};
    row_problem p = new_problem(&random);
    double inverse_rms[ROWS], d_x[ROWS * WIDTH] = {0}, d_weight[WIDTH] = {0};
    ref_rmsnorm_forward(p.x, p.weight, 1e-2, ROWS, WIDTH, p.out, inverse_rms);
    ref_rmsnorm_backward(p.x, p.weight, inverse_rms, p.d_out, ROWS, WIDTH, d_x, d_weight);
    check_gradient("d_x", rmsnorm_objective, &p, p.x, d_x, ROWS * WIDTH);
    check_gradient("d_weight", rmsnorm_objective, &p, p.weight, d_weight, WIDTH);
}

/* Two heads of 4 with 2 elements between tokens; rows of 2 tokens, positions from 5 on. */
static double rope_objective(const void *context) {
    const row_problem *p = context;
    memcpy(p->out, p->x, sizeof(double) * ROWS * 10);
    ref_rope(p->out, 10, p->table, ROWS, 2, 5, 2, 4, false);
    return weighted(p, ROWS * 10);
}

static void test_rope(void **state) {
    (void)state;
    test_random random = {3};
    row_problem p = new_problem(&random);
    ref_rope_table(100.0, 7, 4, p.table);
    double d_x[ROWS * 10];
    memcpy(d_x, p.d_out, sizeof d_x);
    ref_rope(d_x, 10, p.table, ROWS, 2, 5, 2, 4, true);
    check_gradient("d_x", rope_objective, &p, p.x, d_x, ROWS * 10);

    /* Position 1, theta 100, head size 4: angles 1 and 1 / 10; (x0, x2) and (x1, x3) turn. */
    double x[4] = {1.0, 0.0, 0.0, 2.0};
    ref_rope(x, 4, p.table, 1, 1, 1, 1, 4, false);
    const double expected[4] = {cos(1.0), -2.0 * sin(0.1), sin(1.0), 2.0 * cos(0.1)};
    test_close_doubles("rotated", x, expected, 4, 1e-15, 0.0);
}

static double swiglu_objective(const void *context) {
    const row_problem *p = context;
    ref_swiglu_forward(p->x, ROWS, WIDTH, p->out);
    return weighted(p, ROWS * WIDTH);
}

static void test_swiglu(void **state) {
    (void)state;
    test_random random = {4};
    row_problem p = new_problem(&random);
    double d_gate_up[ROWS * 2 * WIDTH];
    ref_swiglu_backward(p.x, p.d_out, ROWS, WIDTH, d_gate_up);
    check_gradient("d_gate_up", swiglu_objective, &p, p.x, d_gate_up, ROWS * 2 * WIDTH);
}

static double cross_entropy_objective(const void *context) {
    const row_problem *p = context;
    memcpy(p->scratch, p->x, sizeof(double) * ROWS * WIDTH);
    ref_cross_entropy(p->scratch, p->tokens, ROWS, WIDTH, 1.0, false, p->out);
    return 0.25 * (p->out[0] + p->out[1] + p->out[2]);
}

static void test_cross_entropy(void **state) {
    (void)state;
    test_random random = {5};
    row_problem p = new_problem(&random);
    double gradient[ROWS * WIDTH], losses[ROWS];
    memcpy(gradient, p.x, sizeof gradient);
    ref_cross_entropy(gradient, p.tokens, ROWS, WIDTH, 0.25, true, losses);
    check_gradient("d_logits", cross_entropy_objective, &p, p.x, gradient, ROWS * WIDTH);

    /* Logits ln 1, ln 2, ln 5: the target's probability is 2 / 8. */
    double logits[3] = {0.0, log(2.0), log(5.0)};
    const int32_t target = 1;
    const double expected[3] = {1.0 / 8, 2.0 / 8 - 1.0, 5.0 / 8};
    ref_cross_entropy(logits, &target, 1, 3, 1.0, true, losses);
    test_close_doubles("gradient", logits, expected, 3, 1e-15, 0.0);
    assert_true(fabs(losses[0] - log(4.0)) < 1e-15);
}

static double embedding_objective(const void *context) {
    const row_problem *p = context;
    ref_embedding_forward(p->tokens, p->x, ROWS, 2, p->out);
    return weighted(p, ROWS * 2);
}

static void test_embedding(void **state) {
    (void)state;
    test_random random = {6};
    row_problem p = new_problem(&random);
    const int32_t repeated[ROWS] = {4, 1, 4};
    p.tokens = repeated;
    double d_weight[WIDTH * 2] = {0};
    ref_embedding_backward(p.tokens, p.d_out, ROWS, 2, d_weight);
    check_gradient("d_weight", embedding_objective, &p, p.x, d_weight, WIDTH * 2);
}

/* [[1, 2, 3], [4, 5, 6]] [[1, 0], [0, 1], [2, -1]] = [[7, -1], [16, -1]], stored in all four ways. */
static void test_gemm(void **state) {
    (void)state;
    const double a[2][6] = {{1, 2, 3, 4, 5, 6}, {1, 4, 2, 5, 3, 6}};
    const double b[2][6] = {{1, 0, 0, 1, 2, -1}, {1, 0, 2, 0, 1, -1}};
    const double expected[6] = {17, 9, 50, 26, 9, 50}; /* 10 added; column 2 lies beyond n */
    for (int way = 0; way < 4; way++) {
        bool ta = (way & 1) != 0, tb = (way & 2) != 0;
        double c[6] = {10, 10, 50, 10, 10, 50};
        ref_gemm_shape shape = {2, 2, 3, ta ? 2 : 3, tb ? 3 : 2, 3, ta, tb, true};
        ref_gemm(&shape, a[ta], b[tb], c);
        test_close_doubles("c", c, expected, 6, 0.0, 0.0);
    }
}

/* One step from m = v = 0 moves a weight by lr * (sign(g) + decay * w) when epsilon is 0; the second, with
 * the same gradient, does so again, because both moments' corrections are exact. */
static void test_adamw(void **state) {
    (void)state;
    double w = 2.0, m = 0.0, v = 0.0;
    const double g = -8.0;
    lt_adamw first = {0.5, 0.9, 0.95, 0.0, 0.25, 1.0 - 0.9, 1.0 - 0.95, 0.5, false};
    ref_adamw(&w, &g, &m, &v, 1, &first);
    assert_true(fabs(m - 0.1 * -4.0) < 1e-15 && fabs(v - 0.05 * 16.0) < 1e-15);
    assert_true(fabs(w - (2.0 - 0.5 * (-1.0 + 0.25 * 2.0))) < 1e-14);
    lt_adamw second = {0.5, 0.9, 0.95, 0.0, 0.25, 1.0 - 0.81, 1.0 - 0.9025, 0.5, false};
    ref_adamw(&w, &g, &m, &v, 1, &second);
    assert_true(fabs(w - (2.25 - 0.5 * (-1.0 + 0.25 * 2.25))) < 1e-14);
}

/* ---- the whole model
 * ---------------------------------------------------------------------------------------- */

typedef struct model_case {
    const char *name;
    lt_model_shape shape;
    double tau_std;
    int boundaries[4];
} model_case;

#define SHAPE(heads_, key_heads_, tied_, kind, bias_length_, tau) \
    { \
        .vocabulary = 11, .hidden = 8, .layers = 2, .heads = heads_, .key_heads = key_heads_, \
        .intermediate = 10, .rope_theta = 50.0, .norm_eps = 1e-3, .tied = tied_, .attention = kind, \
        .bias_length = bias_length_, .tau_init = tau \
    }

static const model_case MODEL_CASES[] = {
    {"model: lazy", SHAPE(2, 2, false, LT_ATTENTION_LAZY, 3, -1.0), 0.2, {0}},
    {"model: lazy, tied, grouped heads, documents",
     SHAPE(4, 2, true, LT_ATTENTION_LAZY, 9, -0.9),
     0.2,
     {1, 4}},
    {"model: lazy, tau above 0", SHAPE(2, 1, false, LT_ATTENTION_LAZY, 2, 0.7), 0.1, {0}},
    {"model: softmax, tied", SHAPE(2, 2, true, LT_ATTENTION_SOFTMAX, 0, 0.0), 0.0, {3}},
};
enum { MODEL_CASE_COUNT = sizeof MODEL_CASES / sizeof MODEL_CASES[0] };

typedef struct model_problem {
    const lt_model_shape *shape;
    const lt_registry *registry;
    const double *parameters;
    const ref_batch *batch;
} model_problem;

static double model_objective(const void *context) {
    const model_problem *p = context;
    double sums[2];
    ref_result result = {.loss_sums = sums};
    ref_model(p->shape, p->registry, p->parameters, p->batch, 1.0, &result);
    return 0.5 * (sums[0] + sums[1]);
}

static void test_model(void **state) {
    enum { LENGTH = 7, TOKENS = 2 * LENGTH };
    const model_case *c = *state;
    lt_registry registry;
    assert_int_equal(lt_registry_create(&c->shape, &registry), LT_OK);
    int32_t *starts = TEST_NEW(int32_t, TOKENS);
    for (int b = 0; b < 2; b++) test_document_starts(c->boundaries, 0, LENGTH, starts + b * LENGTH);

    for (test_random random = {7}; true;) {
        ref_batch batch = {2, LENGTH, test_tokens(&random, TOKENS, c->shape.vocabulary),
                           test_tokens(&random, TOKENS, c->shape.vocabulary), starts};
        double *parameters = normals(&random, registry.elements, 0.0, 0.5);
        for (int i = 0; i < registry.count; i++) {
            const lt_parameter *p = &registry.parameters[i];
            for (int64_t e = 0; e < p->count && p->dimensions == 1; e++)
                parameters[p->offset + e] = p->lazy ? c->shape.tau_init + c->tau_std * test_normal(&random)
                                                    : 1.0 + 0.2 * test_normal(&random);
        }
        double sums[2], *gradients = TEST_NEW(double, registry.elements);
        ref_result result = {.loss_sums = sums, .gradients = gradients};
        ref_model(&c->shape, &registry, parameters, &batch, 0.5, &result);
        if (result.kink < 1e-3) continue;

        model_problem problem = {&c->shape, &registry, parameters, &batch};
        for (int i = 0; i < registry.count; i++) {
            const lt_parameter *p = &registry.parameters[i];
            check_gradient(p->name, model_objective, &problem, parameters + p->offset, gradients + p->offset,
                           p->count);
        }
        break;
    }
    lt_registry_destroy(&registry);
}

/* -------------------------------------------------------------------------------------------------------------
 */

int main(void) {
    struct CMUnitTest tests[ATTENTION_CASE_COUNT + MODEL_CASE_COUNT + 8] = {
        {"attention: three tokens worked out by hand", test_three_tokens, NULL, test_free_all, NULL},
        {"rmsnorm", test_rmsnorm, NULL, test_free_all, NULL},
        {"rope", test_rope, NULL, test_free_all, NULL},
        {"swiglu", test_swiglu, NULL, test_free_all, NULL},
        {"cross entropy", test_cross_entropy, NULL, test_free_all, NULL},
        {"embedding with a repeated token", test_embedding, NULL, test_free_all, NULL},
        {"gemm in its four layouts", test_gemm, NULL, test_free_all, NULL},
        {"adamw", test_adamw, NULL, test_free_all, NULL},
    };
    int count = 8;
    for (int i = 0; i < ATTENTION_CASE_COUNT; i++)
        tests[count++] = (struct CMUnitTest){ATTENTION_CASES[i].name, test_attention, NULL, test_free_all,
                                             (void *)&ATTENTION_CASES[i]};
    for (int i = 0; i < MODEL_CASE_COUNT; i++)
        tests[count++] = (struct CMUnitTest){MODEL_CASES[i].name, test_model, NULL, test_free_all,
                                             (void *)&MODEL_CASES[i]};
    return cmocka_run_group_tests_name("reference", tests, NULL, NULL);
}
