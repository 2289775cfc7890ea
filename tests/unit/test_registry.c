/* The parameter registry: names, shapes and places as architecture.md gives them, and initial values. */
#include "model/registry.h"
#include "tests/reference/fixture.h"

#include <math.h>
#include <string.h>

/* 6 heads of 4 on 2 key heads. */
static const lt_model_shape SHAPE = {.vocabulary = 50,
                                     .hidden = 24,
                                     .layers = 2,
                                     .heads = 6,
                                     .key_heads = 2,
                                     .intermediate = 40,
                                     .rope_theta = 10000.0,
                                     .norm_eps = 1e-6,
                                     .init_std = 0.02,
                                     .tied = false,
                                     .attention = LT_ATTENTION_LAZY,
                                     .bias_length = 16,
                                     .bias_init_std = 0.001,
                                     .tau_init = -1.0};

typedef struct expected_parameter {
    const char *name; /* within a layer */
    int dimensions;
    int64_t rows, columns;
    lt_split split;
    lt_init init;
    double init_value;
    bool decays, lazy;
} expected_parameter;

static const expected_parameter EMBEDDING = {
    "model.embeddings.weight", 2, 50, 24, LT_SPLIT_ROWS, LT_INIT_NORMAL, 0.02, false, false};
static const expected_parameter LAYER[] = {
    {"attn_norm.weight", 1, 24, 1, LT_SPLIT_NONE, LT_INIT_ONE, 0.0, false, false},
    {"attn.q_proj.weight", 2, 24, 24, LT_SPLIT_ROWS, LT_INIT_NORMAL, 0.02, true, false},
    {"attn.k_proj.weight", 2, 8, 24, LT_SPLIT_ROWS, LT_INIT_NORMAL, 0.02, true, false},
    {"attn.v_proj.weight", 2, 8, 24, LT_SPLIT_ROWS, LT_INIT_NORMAL, 0.02, true, false},
    {"attn.o_proj.weight", 2, 24, 24, LT_SPLIT_COLUMNS, LT_INIT_NORMAL, 0.02, true, false},
    {"attn.learnable_bias_diagonals", 2, 6, 16, LT_SPLIT_ROWS, LT_INIT_NORMAL, 0.001, false, true},
    {"attn.tau", 1, 6, 1, LT_SPLIT_ROWS, LT_INIT_VALUE, -1.0, false, true},
    {"mlp_norm.weight", 1, 24, 1, LT_SPLIT_NONE, LT_INIT_ONE, 0.0, false, false},
    {"mlp.gate_proj.weight", 2, 40, 24, LT_SPLIT_ROWS, LT_INIT_NORMAL, 0.02, true, false},
    {"mlp.up_proj.weight", 2, 40, 24, LT_SPLIT_ROWS, LT_INIT_NORMAL, 0.02, true, false},
    {"mlp.down_proj.weight", 2, 24, 40, LT_SPLIT_COLUMNS, LT_INIT_NORMAL, 0.02, true, false},
};
static const expected_parameter NORM = {"model.norm.weight", 1,   24,    1,    LT_SPLIT_NONE,
                                        LT_INIT_ONE,         0.0, false, false};
static const expected_parameter HEAD = {"lm_head.weight", 2,    50,   24,   LT_SPLIT_ROWS,
                                        LT_INIT_NORMAL,   0.02, true, false};

/* Where the next parameter of a list must lie. */
typedef struct walk {
    const lt_registry *registry;
    int next;
    int64_t offset;
} walk;

static void check_next(walk *w, const char *prefix, const expected_parameter *expected) {
    assert_true(w->next < w->registry->count);
    const lt_parameter *p = &w->registry->parameters[w->next++];
    assert_true(strncmp(p->name, prefix, strlen(prefix)) == 0);
    assert_string_equal(p->name + strlen(prefix), expected->name);
    assert_int_equal(p->dimensions, expected->dimensions);
    assert_int_equal(p->shape[0], expected->rows);
    assert_int_equal(p->shape[1], expected->columns);
    assert_int_equal(p->count, expected->rows * expected->columns);
    assert_int_equal(p->offset, w->offset);
    assert_int_equal(p->split, expected->split);
    assert_int_equal(p->init, expected->init);
    if (p->init != LT_INIT_ONE) assert_true(p->init_value == expected->init_value);
    assert_int_equal(p->decays, expected->decays);
    assert_int_equal(p->lazy, expected->lazy);
    assert_ptr_equal(lt_registry_find(w->registry, p->name), p);
    w->offset += p->count;
}

static void check_list(bool tied, lt_attention_kind kind) {
    lt_model_shape shape = SHAPE;
    shape.tied = tied;
    shape.attention = kind;
    if (kind == LT_ATTENTION_SOFTMAX) shape.bias_length = 0;
    lt_registry registry;
    assert_int_equal(lt_registry_create(&shape, &registry), LT_OK);
    walk w = {&registry, 0, 0};
    check_next(&w, "", &EMBEDDING);
    const char *const prefixes[] = {"model.layers.0.", "model.layers.1."};
    for (int layer = 0; layer < 2; layer++)
        for (size_t i = 0; i < sizeof LAYER / sizeof LAYER[0]; i++)
            if (kind == LT_ATTENTION_LAZY || !LAYER[i].lazy) check_next(&w, prefixes[layer], &LAYER[i]);
    check_next(&w, "", &NORM);
    if (!tied) check_next(&w, "", &HEAD);
    assert_int_equal(w.next, registry.count);
    assert_int_equal(w.offset, registry.elements);

    assert_null(lt_registry_find(&registry, "model.layers.2.attn_norm.weight"));
    assert_null(lt_registry_find(&registry, "model.layers.0"));
    assert_null(lt_registry_find(&registry, ""));
    lt_registry_destroy(&registry);
    assert_int_equal(registry.count, 0);
}

static void test_names_and_shapes(void **state) {
    (void)state;
    for (int way = 0; way < 4; way++)
        check_list((way & 1) != 0, (way & 2) != 0 ? LT_ATTENTION_SOFTMAX : LT_ATTENTION_LAZY);
}

/* The paper's 340M model: 374M parameters, 341M when tied (lazy-attention.md). */
static void test_paper_sizes(void **state) {
    (void)state;
    lt_model_shape shape = {.vocabulary = 32000,
                            .hidden = 1024,
                            .layers = 24,
                            .heads = 16,
                            .key_heads = 16,
                            .intermediate = 2816,
                            .attention = LT_ATTENTION_LAZY,
                            .bias_length = 512};
    const int64_t layer = 4 * 1024 * 1024 + 3 * 2816 * 1024 + 2 * 1024 + 16 * 512 + 16;
    for (int tied = 0; tied < 2; tied++) {
        shape.tied = tied;
        lt_registry registry;
        assert_int_equal(lt_registry_create(&shape, &registry), LT_OK);
        assert_int_equal(registry.elements, 24 * layer + 1024 + (tied ? 1 : 2) * 32000 * 1024);
        assert_int_equal(registry.elements / 1000000, tied ? 341 : 374);
        lt_registry_destroy(&registry);
    }
}

/* ---- initial values
 * ----------------------------------------------------------------------------------------- */

static float *draw_named(const char *name, int64_t count, double std, uint64_t seed) {
    lt_parameter p = {
        .dimensions = 2, .shape = {count, 1}, .count = count, .init = LT_INIT_NORMAL, .init_value = std};
    assert_true(strlen(name) < sizeof p.name);
    strcpy(p.name, name);
    float *values = TEST_NEW(float, count);
    lt_parameter_initialise(&p, seed, 0, count, values);
    return values;
}

static void test_constants(void **state) {
    (void)state;
    lt_registry registry;
    lt_model_shape shape = SHAPE;
    shape.tau_init = -0.75;
    assert_int_equal(lt_registry_create(&shape, &registry), LT_OK);
    const char *const names[] = {"model.norm.weight", "model.layers.1.mlp_norm.weight",
                                 "model.layers.1.attn.tau"};
    for (int i = 0; i < 3; i++) {
        const lt_parameter *p = lt_registry_find(&registry, names[i]);
        float *values = TEST_NEW(float, p->count);
        lt_parameter_initialise(p, 5, 0, p->count, values);
        for (int64_t e = 0; e < p->count; e++) assert_true(values[e] == (i == 2 ? -0.75f : 1.0f));
    }
    lt_registry_destroy(&registry);
}

/* Counted over 2^18 values: mean, deviation, fourth moment and tails of N(0, std), each within five of its
 * own standard deviations. */
static void check_normal(const float *values, int64_t count, double std) {
    double sum = 0.0, squares = 0.0, fourths = 0.0, beyond = 0.0, n = (double)count;
    for (int64_t i = 0; i < count; i++) {
        double z = (double)values[i] / std;
        sum += z;
        squares += z * z;
        fourths += z * z * z * z;
        beyond += fabs(z) > 2.0;
    }
    assert_true(fabs(sum / n) < 5.0 / sqrt(n));
    assert_true(fabs(squares / n - 1.0) < 5.0 * sqrt(2.0 / n));
    assert_true(fabs(fourths / n - 3.0) < 5.0 * sqrt(96.0 / n));
    assert_true(fabs(beyond / n - 0.0455) < 5.0 * sqrt(0.0455 * 0.9545 / n));
}

static double correlation(const float *a, const float *b, int64_t count, double std) {
    double sum = 0.0;
    for (int64_t i = 0; i < count; i++) sum += (double)a[i] * (double)b[i];
    return sum / ((double)count * std * std);
}

enum { MANY = 1 << 18 };

static void test_distribution(void **state) {
    (void)state;
    const double bound = 5.0 / sqrt((double)MANY);
    const float *a = draw_named("model.layers.0.attn.q_proj.weight", MANY, 0.02, 0);
    check_normal(a, MANY, 0.02);
    check_normal(draw_named("model.layers.0.attn.learnable_bias_diagonals", MANY, 0.001, 0), MANY, 0.001);
    /* Neighbours, next neighbours, rows of a matrix of 1024 columns. */
    const int64_t lags[] = {1, 2, 3, 1024};
    for (int i = 0; i < 4; i++) assert_true(fabs(correlation(a, a + lags[i], MANY - lags[i], 0.02)) < bound);
}

/* Other names and other seeds give values that have nothing to do with each other. */
static void test_independence(void **state) {
    (void)state;
    const double bound = 5.0 / sqrt((double)MANY);
    const float *a = draw_named("model.layers.0.attn.q_proj.weight", MANY, 0.02, 0);
    const float *others[] = {
        draw_named("model.layers.1.attn.q_proj.weight", MANY, 0.02, 0),
        draw_named("model.layers.0.attn.k_proj.weight", MANY, 0.02, 0),
        draw_named("model.layers.0.attn.q_proj.weight", MANY, 0.02, 1),
        draw_named("model.layers.0.attn.q_proj.weight", MANY, 0.02, UINT64_MAX),
    };
    for (int i = 0; i < 4; i++)
        for (int64_t lag = 0; lag < 4; lag++) {
            assert_true(fabs(correlation(a, others[i] + lag, MANY - lag, 0.02)) < bound);
            assert_true(fabs(correlation(a + lag, others[i], MANY - lag, 0.02)) < bound);
        }
}

/* A value depends on seed, name and element: not on the parameter's size, its place, or what was drawn
 * before. */
static void test_layout(void **state) {
    (void)state;
    const char *name = "model.layers.1.mlp.up_proj.weight";
    lt_registry registries[2];
    lt_model_shape other = SHAPE;
    other.tied = true;
    other.layers = 7;
    other.attention = LT_ATTENTION_SOFTMAX;
    other.bias_length = 0;
    assert_int_equal(lt_registry_create(&SHAPE, &registries[0]), LT_OK);
    assert_int_equal(lt_registry_create(&other, &registries[1]), LT_OK);
    const int64_t count = 40 * 24;
    const float *expected = draw_named(name, count, 0.02, 9);
    for (int i = 0; i < 2; i++) {
        float *values = TEST_NEW(float, count);
        lt_parameter_initialise(lt_registry_find(&registries[i], name), 9, 0, count, values);
        assert_memory_equal(values, expected, sizeof(float) * (size_t)count);
        lt_registry_destroy(&registries[i]);
    }
    for (int64_t length = 1; length < 20; length++) /* odd lengths, and nothing written past the end */
        assert_memory_equal(draw_named(name, length, 0.02, 9), expected, sizeof(float) * (size_t)length);
}

/* Any run of elements has the values of the whole, and nothing is written outside it. */
static void test_ranges(void **state) {
    (void)state;
    enum { COUNT = 24 };
    const char *name = "model.layers.1.mlp.up_proj.weight";
    const float *all = draw_named(name, COUNT, 0.02, 9);
    lt_parameter p = {.count = COUNT, .init = LT_INIT_NORMAL, .init_value = 0.02};
    strcpy(p.name, name);
    for (int64_t first = 0; first < COUNT; first++)
        for (int64_t count = 0; first + count <= COUNT; count++) {
            float values[COUNT + 2], expected[COUNT + 2];
            for (int i = 0; i < COUNT + 2; i++) values[i] = expected[i] = 99.0f;
            memcpy(expected + 1, all + first, sizeof(float) * (size_t)count);
            lt_parameter_initialise(&p, 9, first, count, values + 1);
            assert_memory_equal(values, expected, sizeof values);
        }
}

/* ---- what a tensor-parallel rank holds
 * ----------------------------------------------------------------------------------------- */

static void check_cut(const lt_registry *cut, const char *name, int64_t rows, int64_t columns, int parts) {
    const lt_parameter *p = lt_registry_find(cut, name);
    assert_non_null(p);
    assert_int_equal(p->shape[0], rows);
    assert_int_equal(p->shape[1], columns);
    assert_int_equal(p->count, rows * columns);
    assert_int_equal(p->parts, parts);
}

/* 6 heads of 4 on 2 key heads, 40 of the MLP, a vocabulary of 50, hidden 24: among 2 and among 6 ranks (40 is
 * no multiple of 6, so 42 there). */
static void test_cut(void **state) {
    (void)state;
    lt_registry whole, two, six;
    lt_model_shape shape = SHAPE;
    assert_int_equal(lt_registry_create(&shape, &whole), LT_OK);
    assert_int_equal(lt_registry_create_cut(&shape, 2, &two), LT_OK);
    shape.intermediate = 42;
    assert_int_equal(lt_registry_create_cut(&shape, 6, &six), LT_OK);
    check_cut(&two, "model.embeddings.weight", 25, 24, 2);
    check_cut(&two, "model.layers.1.attn_norm.weight", 24, 1, 1);
    check_cut(&two, "model.layers.1.attn.q_proj.weight", 12, 24, 2);
    check_cut(&two, "model.layers.1.attn.k_proj.weight", 4, 24, 2);
    check_cut(&two, "model.layers.1.attn.v_proj.weight", 4, 24, 2);
    check_cut(&two, "model.layers.1.attn.o_proj.weight", 24, 12, 2);
    check_cut(&two, "model.layers.1.attn.learnable_bias_diagonals", 3, 16, 2);
    check_cut(&two, "model.layers.1.attn.tau", 3, 1, 2);
    check_cut(&two, "model.layers.1.mlp_norm.weight", 24, 1, 1);
    check_cut(&two, "model.layers.1.mlp.gate_proj.weight", 20, 24, 2);
    check_cut(&two, "model.layers.1.mlp.up_proj.weight", 20, 24, 2);
    check_cut(&two, "model.layers.1.mlp.down_proj.weight", 24, 20, 2);
    check_cut(&two, "model.norm.weight", 24, 1, 1);
    check_cut(&two, "lm_head.weight", 25, 24, 2);
    check_cut(&six, "model.embeddings.weight", 9, 24, 6);
    check_cut(&six, "model.layers.0.attn.q_proj.weight", 4, 24, 6);
    check_cut(&six, "model.layers.0.attn.k_proj.weight", 4, 24, 2); /* three ranks hold each */
    check_cut(&six, "model.layers.0.attn.o_proj.weight", 24, 4, 6);
    check_cut(&six, "model.layers.0.mlp.down_proj.weight", 24, 7, 6);
    int64_t offset = 0;
    for (int i = 0; i < whole.count; i++) {
        assert_int_equal(whole.parameters[i].parts, 1);
        assert_string_equal(whole.parameters[i].name, two.parameters[i].name);
        assert_int_equal(two.parameters[i].offset, offset);
        offset += two.parameters[i].count;
    }
    assert_int_equal(two.count, whole.count);
    assert_int_equal(two.elements, offset);
    lt_registry_destroy(&whole);
    lt_registry_destroy(&two);
    lt_registry_destroy(&six);
}

/* Standard normal values of the generator written again in Python from its description: FNV-1a and SplitMix64
 * make the key, counters 2p and 2p + 1 of it the two values of a Box-Muller transform. A change of these
 * would silently give every seed another run. */
static void test_known_values(void **state) {
    (void)state;
    static const struct {
        const char *name;
        uint64_t seed;
        int64_t element;
        double value;
    } known[] = {
        {"model.embeddings.weight", 0, 0, -0.362480731},
        {"model.embeddings.weight", 0, 1, 0.059114455},
        {"model.layers.3.attn.q_proj.weight", 1234, 0, 0.040488266},
        {"model.layers.3.attn.q_proj.weight", 1234, 777, -0.128811078},
        {"lm_head.weight", UINT64_MAX, 4, -1.299554348},
    };
    for (size_t i = 0; i < sizeof known / sizeof known[0]; i++) {
        const float *values = draw_named(known[i].name, known[i].element + 1, 1.0, known[i].seed);
        assert_true(fabs((double)values[known[i].element] - known[i].value) < 1e-6);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_teardown(test_names_and_shapes, test_free_all),
        cmocka_unit_test_teardown(test_paper_sizes, test_free_all),
        cmocka_unit_test_teardown(test_constants, test_free_all),
        cmocka_unit_test_teardown(test_distribution, test_free_all),
        cmocka_unit_test_teardown(test_independence, test_free_all),
        cmocka_unit_test_teardown(test_layout, test_free_all),
        cmocka_unit_test_teardown(test_known_values, test_free_all),
        cmocka_unit_test_teardown(test_ranges, test_free_all),
        cmocka_unit_test(test_cut),
    };
    return cmocka_run_group_tests_name("registry", tests, NULL, NULL);
}
