/* Attention of a device, forward, backward and statistics, against the float64 reference.
 *
 * Tolerance: a score is a sum of D products, rounded to about 1e-6 for scores of a few units, and exp() turns
 * the absolute error of a score into a relative error of its weight. Sums over T keys and over rows add such
 * errors at random. 2e-5 of a tensor's largest entry is some ten times what comes of that, and a thousandth
 * of what a wrong term makes. With scores of greater size the allowance grows in proportion.
 *
 * In bfloat16 an output is off by its own rounding and by that of the weights that it is a sum of, of which
 * the largest entry's half a unit is a bound. Gradients are not: delta_i and sum_j g_ij come of an output and
 * a sum of values that were rounded, an error that all keys of a row share. It is the root of D roundings'
 * worth, and where a row's p lie on few keys nothing averages it out: four half units of the largest entry,
 * and eight where softmax is saturated.
 *
 * Gradients jump where p + tau/n passes 0, so a row that has an entry nearer to that than the tolerance gets
 * a d_output of 0: then neither side of the threshold adds anything to any gradient. */
#include "tests/reference/fixture.h"
#include "tests/reference/reference.h"

#include <math.h>
#include <string.h>

/* Of cases with smaller heads, and which cases are left out: for the files that include this one. */
#ifndef HEAD_SIZE
#define HEAD_SIZE 0
#define LEFT_OUT(c) false
#endif

static const double TOLERANCE = 1e-5;

typedef struct attention_case {
    const char *name;
    int64_t batch, query_length, key_length, heads, key_heads, head_size, bias_length;
    double tau_mean, tau_std;
    int boundaries[8]; /* where documents start, in rows 0, 2, ... of the batch */
    double score_std;  /* 0: 1 */
    double bias_slope; /* of the bias over the distance from bias_valley, beside noise of 0.5 */
    double bias_valley;
    int64_t padding; /* elements between tokens that belong to nobody */
    bool identical_keys;
} attention_case;

static const attention_case CASES[] = {
    {.name = "T = 1", 1, 1, 1, 2, 2, 16, 8, -1.0, 0.2},
    {.name = "T = 1, tau = -1", 1, 1, 1, 2, 2, 16, 8, -1.0, 0.0},
    {.name = "T = 2", 1, 2, 2, 2, 2, 16, 8, -1.0, 0.2},
    {.name = "T = 3", 1, 3, 3, 2, 2, 16, 8, -1.0, 0.2, .padding = 5},
    {.name = "T = 47", 1, 47, 47, 2, 2, 16, 8, -1.0, 0.2},
    {.name = "T = 48", 1, 48, 48, 2, 2, 16, 8, -1.0, 0.2},
    {.name = "T = 49", 1, 49, 49, 2, 2, 16, 8, -1.0, 0.2, .padding = 1},
    {.name = "T = 63", 1, 63, 63, 2, 2, 16, 8, -1.0, 0.2},
    {.name = "T = 64", 1, 64, 64, 2, 2, 16, 8, -1.0, 0.2},
    {.name = "T = 65", 1, 65, 65, 2, 2, 16, 8, -1.0, 0.2, .padding = 3},
    {.name = "T = 100", 1, 100, 100, 2, 2, 16, 8, -1.0, 0.2},
    {.name = "T = 130, tau = -1", 1, 130, 130, 2, 2, 16, 8, -1.0, 0.0},
    {.name = "T = 257", 1, 257, 257, 2, 2, 16, 8, -1.0, 0.2},
    {.name = "batch of 3", 3, 67, 67, 2, 1, 16, 20, -1.0, 0.2},

    {.name = "head size 2", 1, 70, 70, 3, 3, 2, 20, -1.0, 0.2},
    {.name = "head size 6", 2, 70, 70, 2, 2, 6, 20, -1.0, 0.2, .padding = 1},
    {.name = "head size 64", 1, 70, 70, 2, 2, 64, 20, -1.0, 0.2},
    {.name = "head size 96", 1, 70, 70, 2, 1, 96, 20, -1.0, 0.2},
    {.name = "head size 128", 1, 100, 100, 2, 2, 128, 20, -1.0, 0.2},

    {.name = "W = 1", 1, 100, 100, 2, 2, 16, 1, -1.0, 0.2},
    {.name = "W = 2", 1, 65, 65, 2, 2, 16, 2, -1.0, 0.2},
    {.name = "W = T", 1, 100, 100, 2, 2, 16, 100, -1.0, 0.2},
    {.name = "W beyond T", 1, 100, 100, 2, 2, 16, 333, -1.0, 0.2},
    {.name = "W past a tile", 1, 200, 200, 1, 1, 16, 77, -1.0, 0.2},

    {.name = "6 heads on 1 key head", 2, 66, 66, 6, 1, 16, 20, -1.0, 0.2, .padding = 2},
    {.name = "6 heads on 2 key heads", 2, 66, 66, 6, 2, 16, 20, -1.0, 0.2},
    {.name = "6 heads on 3 key heads", 2, 66, 66, 6, 3, 16, 20, -1.0, 0.2},
    {.name = "6 heads on 6 key heads", 2, 66, 66, 6, 6, 16, 20, -1.0, 0.2},

    {.name = "documents of all lengths", 3, 130, 130, 2, 2, 16, 20, -1.0, 0.2, {1, 2, 5, 47, 49, 100, 129}},
    {.name = "documents at the tiles' edges", 1, 200, 200, 2, 1, 16, 300, -1.0, 0.2, {48, 64, 96, 128, 192}},
    {.name = "documents of one token", 1, 8, 8, 2, 2, 16, 8, -0.8, 0.1, {1, 2, 3, 4, 5, 6, 7}},
    {.name = "documents, tau above 0", 2, 130, 130, 2, 2, 16, 20, 0.8, 0.1, {3, 50, 64, 65}},
    {.name = "documents, softmax", 2, 130, 130, 2, 2, 16, 0, 0.0, 0.0, {3, 50, 64, 65}},

    {.name = "tau above 0", 1, 130, 130, 2, 2, 16, 20, 0.8, 0.1},
    {.name = "tau = 0", 1, 130, 130, 2, 2, 16, 20, 0.0, 0.0},
    {.name = "tau of both signs", 1, 130, 130, 6, 3, 16, 20, 0.0, 0.8},
    {.name = "tau far below -1", 1, 130, 130, 2, 2, 16, 20, -8.0, 1.0},

    {.name = "softmax, T = 1", 1, 1, 1, 2, 2, 16, 0, 0.0, 0.0},
    {.name = "softmax, T = 49", 2, 49, 49, 6, 3, 6, 0, 0.0, 0.0, .padding = 1},
    {.name = "softmax, T = 257", 1, 257, 257, 2, 2, 64, 0, 0.0, 0.0},

    {.name = "one query, 100 keys", 2, 1, 100, 4, 2, 16, 20, -1.0, 0.2, .padding = 2},
    {.name = "one query, 65 keys, softmax", 1, 1, 65, 2, 2, 16, 0, 0.0, 0.0},
    {.name = "5 queries, 130 keys, documents", 2, 5, 130, 4, 1, 16, 20, -1.0, 0.2, {30, 127, 129}},
    {.name = "50 queries, 114 keys", 1, 50, 114, 2, 2, 16, 77, -1.0, 0.2},
    {.name = "100 queries, 101 keys", 1, 100, 101, 2, 2, 16, 20, 0.0, 0.8},

    {.name = "far tiles are dead", 1, 257, 257, 2, 2, 16, 257, -1.0, 0.2, .bias_slope = -0.1},
    {.name = "near tiles are dead", 1, 257, 257, 2, 2, 16, 257, -1.0, 0.2, .bias_slope = 0.1},
    {.name = "tiles are dead between live ones",
     1,
     300,
     300,
     2,
     1,
     16,
     300,
     -1.0,
     0.1,
     .bias_slope = 0.1,
     .bias_valley = 150.0},
    {.name = "scores up to 80", 1, 130, 130, 2, 2, 16, 20, -1.0, 0.2, .score_std = 20.0},
    {.name = "scores up to 80, softmax", 1, 130, 130, 2, 2, 16, 0, 0.0, 0.0, .score_std = 20.0},
    {.name = "scores up to 80, tau above 0", 1, 70, 70, 2, 2, 16, 20, 0.5, 0.1, .score_std = 20.0},

    {.name = "head size 64, all at once", 2, 150, 212, 4, 2, 64, 90, -1.0, 0.3, {40, 47, 127}, .padding = 8},
    {.name = "head size 96, all at once", 1, 150, 212, 4, 2, 96, 90, -1.0, 0.3, {40, 65}, .padding = 8},
    {.name = "head size 128, all at once",
     1,
     150,
     183,
     4,
     2,
     128,
     90,
     -1.0,
     0.3,
     {40, 47, 130},
     .padding = 8},
    {.name = "head size 128, few near pairs", 1, 159, 160, 2, 1, 128, 3, -1.0, 0.2, {40, 127}},
    {.name = "head size 64, long", 1, 700, 700, 1, 1, 64, 500, -1.0, 0.3, .bias_slope = -0.02},
    {.name = "head size 96, tau above 0", 1, 200, 200, 2, 1, 96, 90, 0.8, 0.1},
    {.name = "head size 128, tau above 0", 1, 200, 200, 2, 1, 128, 90, 0.8, 0.1},
    {.name = "head size 96, softmax", 1, 200, 200, 2, 1, 96, 0, 0.0, 0.0, {100, 170}},
    {.name = "head size 128, softmax", 1, 200, 200, 2, 1, 128, 0, 0.0, 0.0, {100, 170}},

    {.name = "identical keys, tau = -1", 1, 257, 257, 2, 2, 16, 8, -1.0, 0.0, .identical_keys = true},
    {.name = "identical keys, tau = -1, documents",
     2,
     130,
     130,
     6,
     2,
     64,
     8,
     -1.0,
     0.0,
     {1, 5, 64, 100},
     .identical_keys = true},
    {.name = "identical keys, tau = -1, fewer queries",
     1,
     7,
     301,
     2,
     1,
     6,
     8,
     -1.0,
     0.0,
     .identical_keys = true},

    {.name = "5 queries, 2200 keys",
     1,
     5,
     2200,
     2,
     1,
     64,
     300,
     -1.0,
     0.2,
     .bias_slope = 0.03,
     .bias_valley = 300.0},
};
enum { CASE_COUNT = sizeof CASES / sizeof CASES[0] };

/* Heads of consecutive tokens within a wider buffer. */
typedef struct strided {
    int64_t tokens, offset, width, stride;
} strided;

static const float *dense_floats(const float *from, strided s) {
    float *to = TEST_NEW(float, s.tokens *s.width);
    for (int64_t t = 0; t < s.tokens; t++)
        memcpy(to + t * s.width, from + t * s.stride + s.offset, sizeof(float) * (size_t)s.width);
    return to;
}

static const double *dense_doubles(const double *from, strided s) {
    double *to = TEST_NEW(double, s.tokens *s.width);
    for (int64_t t = 0; t < s.tokens; t++)
        memcpy(to + t * s.width, from + t * s.stride + s.offset, sizeof(double) * (size_t)s.width);
    return to;
}

/* Inputs, and what must come of them. Queries and keys of equal length lie in one buffer, as the model has
 * them. */
typedef struct problem {
    attention_case c;
    bool shared;
    strided q, k, v;
    int64_t query_elements, key_elements, width, biases, kink_rows;
    float *queries, *keys, *bias, *tau, *d_output;
    int32_t *starts;
    float *bias_start, *tau_start; /* what lies in d_bias and d_tau before */
    double tolerance, floor;
    double *output, *d_queries, *d_keys, *d_bias, *d_tau, statistics[16 * LT_STATISTICS];
} problem;

static void lay_out(problem *p) {
    const attention_case *c = &p->c;
    int64_t q_width = c->heads * c->head_size, k_width = c->key_heads * c->head_size;
    int64_t queries = c->batch * c->query_length, keys = c->batch * c->key_length;
    p->shared = c->query_length == c->key_length;
    int64_t k_offset = p->shared ? q_width : 0, key_stride = k_offset + 2 * k_width + c->padding;
    p->q = (strided){queries, 0, q_width, p->shared ? key_stride : q_width + c->padding};
    p->k = (strided){keys, k_offset, k_width, key_stride};
    p->v = (strided){keys, k_offset + k_width, k_width, key_stride};
    p->width = q_width;
    p->query_elements = queries * p->q.stride;
    p->key_elements = keys * key_stride;
    p->biases = c->heads * c->bias_length;
}

static void draw_inputs(problem *p, test_random *random) {
    const attention_case *c = &p->c;
    p->keys = test_values(random, p->key_elements, 0.0, 1.0);
    p->queries = p->shared ? p->keys : test_values(random, p->query_elements, 0.0, 1.0);
    double score_std = c->score_std > 0.0 ? c->score_std : 1.0;
    for (int64_t t = 0; t < p->q.tokens; t++)
        for (int64_t i = 0; i < p->q.width; i++) p->queries[t * p->q.stride + i] *= (float)score_std;
    test_round(p->queries, p->query_elements);
    for (int64_t t = 1; c->identical_keys && t < p->k.tokens; t++)
        memcpy(p->keys + t * p->k.stride + p->k.offset, p->keys + p->k.offset,
               sizeof(float) * (size_t)p->k.width);
    p->bias = test_floats(random, p->biases, 0.0, c->identical_keys ? 0.0 : 0.5);
    for (int64_t i = 0; i < p->biases; i++)
        p->bias[i] += (float)(c->bias_slope * fabs((double)(i % c->bias_length) - c->bias_valley));
    p->tau = test_floats(random, c->heads, c->tau_mean, c->tau_std);
    p->d_output = test_values(random, p->q.tokens * p->width, 0.0, 1.0);
    p->bias_start = test_floats(random, p->biases, 0.0, 1.0);
    p->tau_start = test_floats(random, c->heads, 0.0, 1.0);
    p->starts = TEST_NEW(int32_t, p->q.tokens);
    for (int64_t b = 0; b < c->batch; b += 2)
        test_document_starts(c->boundaries, c->key_length - c->query_length, c->query_length,
                             p->starts + b * c->query_length);
    p->tolerance = TOLERANCE * score_std;
    /* Saturated softmax makes gradients that are differences of nearly equal numbers of the order of 1. */
    p->floor = score_std > 1.0 ? 1.0 : 0.0;
}

static void expect(problem *p) {
    const attention_case *c = &p->c;
    const double *queries = test_widen(p->queries, p->query_elements),
                 *keys = test_widen(p->keys, p->key_elements);
    ref_attention at = {c->batch,
                        c->query_length,
                        c->key_length,
                        c->heads,
                        c->key_heads,
                        c->head_size,
                        c->bias_length,
                        queries,
                        keys + p->k.offset,
                        keys + p->v.offset,
                        p->q.stride,
                        p->k.stride,
                        test_widen(p->bias, p->biases),
                        test_widen(p->tau, c->heads),
                        p->starts};
    int64_t rows = p->q.tokens * c->heads;
    double *kink = TEST_NEW(double, rows);
    p->output = TEST_NEW(double, p->q.tokens * p->width);
    memset(p->statistics, 0, sizeof p->statistics);
    ref_attention_forward(&at, p->output, p->statistics, kink);
    for (int64_t row = 0; row < rows; row++)
        if (kink[row] < p->tolerance) {
            p->kink_rows++;
            memset(p->d_output + row * c->head_size, 0, sizeof(float) * (size_t)c->head_size);
        }
    p->d_queries = TEST_NEW(double, p->query_elements);
    p->d_keys = TEST_NEW(double, p->key_elements);
    p->d_bias = test_widen(p->bias_start, p->biases);
    p->d_tau = test_widen(p->tau_start, c->heads);
    double *d_q = p->shared ? p->d_keys : p->d_queries;
    ref_attention_backward(&at, test_widen(p->d_output, p->q.tokens * p->width), d_q, p->d_keys + p->k.offset,
                           p->d_keys + p->v.offset, p->d_bias, p->d_tau);
    p->d_queries = d_q;
}

static problem make_problem(const attention_case *c) {
    problem p = {.c = *c};
    test_random random = {(uint64_t)(c - CASES) + 100};
    if (p.c.head_size < HEAD_SIZE) p.c.head_size = HEAD_SIZE;
    lay_out(&p);
    draw_inputs(&p, &random);
    return p;
}

/* What lies between tokens belongs to others: it must still be the NaN that was there. */
static void check_untouched(const float *values, int64_t tokens, int64_t stride, int64_t padding) {
    for (int64_t t = 0; t < tokens; t++)
        for (int64_t i = stride - padding; i < stride; i++) assert_true(isnan(values[t * stride + i]));
}

static int64_t visible_keys(const problem *p, int64_t token) {
    int64_t i = token % p->c.query_length;
    return p->c.key_length - p->c.query_length + i - p->starts[token] + 1;
}

/* With one visible key p is exactly 1, so ds is exactly 0, and at tau = -1 the weight is exactly 0. */
static void check_single_keys(const problem *p, const float *output, const float *d_q) {
    for (int64_t t = 0; t < p->q.tokens; t++) {
        if (visible_keys(p, t) != 1) continue;
        for (int64_t i = 0; i < p->q.width; i++) {
            assert_true(d_q[t * p->q.width + i] == 0.0f);
            bool uniform = p->c.bias_length > 0 && p->tau[i / p->c.head_size] == -1.0f;
            if (uniform) assert_true(output[t * p->width + i] == 0.0f);
        }
    }
}

static void check_statistics(const problem *p, const double *got) {
    for (int64_t h = 0; h < p->c.heads; h++) {
        const double *expected = p->statistics + h * LT_STATISTICS;
        double s[LT_STATISTICS], rows = expected[LT_STAT_ROWS];
        for (int i = 0; i < LT_STATISTICS; i++) s[i] = got[h * LT_STATISTICS + i] - 1.0;
        assert_true(s[LT_STAT_VISIBLE] == expected[LT_STAT_VISIBLE]);
        assert_true(s[LT_STAT_ROWS] == rows);
        assert_true(s[LT_STAT_SINK_ROWS] == expected[LT_STAT_SINK_ROWS]);
        /* An entry near the threshold may fall on its other side; two in one row are rare beyond need.
         * Softmax of large scores underflows to 0 in float32. */
        bool underflows = p->c.bias_length == 0 && p->c.score_std > 1.0;
        double slack = underflows ? expected[LT_STAT_VISIBLE] : 2.0 * (double)p->kink_rows;
        assert_true(fabs(s[LT_STAT_ZEROS] - expected[LT_STAT_ZEROS]) <= slack);
        test_close_doubles("mass", &s[LT_STAT_MASS], &expected[LT_STAT_MASS], 1, p->tolerance, rows);
        test_close_doubles("sink", &s[LT_STAT_SINK], &expected[LT_STAT_SINK], 1, p->tolerance, rows);
        double live = s[LT_STAT_VISIBLE] - s[LT_STAT_ZEROS];
        assert_true(s[LT_STAT_TILES] >= 1.0 && s[LT_STAT_TILES] <= s[LT_STAT_VISIBLE]);
        assert_true(s[LT_STAT_LIVE_TILES] >= 0.0 && s[LT_STAT_LIVE_TILES] <= s[LT_STAT_TILES]);
        assert_true((s[LT_STAT_LIVE_TILES] > 0.0) == (live > 0.0));
        if (s[LT_STAT_ZEROS] == 0.0) assert_true(s[LT_STAT_LIVE_TILES] == s[LT_STAT_TILES]);
    }
}

/* The operation over buffers of `arena`, with a NaN-filled output. */
static lt_attention prepare(test_arena *arena, const problem *p) {
    const attention_case *c = &p->c;
    bool lazy = c->bias_length > 0, documents = c->boundaries[0] != 0;
    lt_mem keys = test_compute_buffer(arena, p->keys, p->key_elements);
    lt_attention at = {
        .batch = c->batch,
        .query_length = c->query_length,
        .key_length = c->key_length,
        .heads = c->heads,
        .key_heads = c->key_heads,
        .head_size = c->head_size,
        .bias_length = c->bias_length,
        .q = p->shared ? keys : test_compute_buffer(arena, p->queries, p->query_elements),
        .k = lt_at(keys, p->k.offset),
        .v = lt_at(keys, p->v.offset),
        .query_stride = p->q.stride,
        .key_stride = p->k.stride,
        .bias = lazy ? test_float_buffer(arena, p->bias, p->biases) : LT_NOWHERE,
        .tau = lazy ? test_float_buffer(arena, p->tau, c->heads) : LT_NOWHERE,
        .document_starts = documents ? test_integer_buffer(arena, p->starts, p->q.tokens) : LT_NOWHERE,
        .output = test_compute_buffer(arena, NULL, p->q.tokens * p->width),
    };
    at.saved = test_byte_buffer(arena, arena->device->ops->attention_saved_bytes(arena->device, &at));
    test_reserve(arena, &at, p->q.tokens, p->width, 1);
    return at;
}

/* Runs forward with every weight above 0 first, so that the device's own memory holds no zeros that could
 * stand in for those of the case. */
static void leave_traces(test_arena *arena, const problem *p, lt_attention at) {
    const lt_ops *ops = arena->device->ops;
    float tau[16];
    for (int h = 0; h < 16; h++) tau[h] = 3.0f;
    at.output = test_compute_buffer(arena, NULL, p->q.tokens * p->width);
    ops->upload(arena->device, at.tau, tau, p->c.heads);
    ops->attention_forward(arena->device, &at);
    ops->upload(arena->device, at.tau, p->tau, p->c.heads);
}

static void run_case(test_arena *arena, const void *context) {
    const problem *p = context;
    const lt_ops *ops = arena->device->ops;
    bool lazy = p->c.bias_length > 0;
    const double tolerance = p->tolerance + (p->floor > 0.0 ? 8 : 4) * test_tolerance(0.0);
    if (test_alignment_chooses(arena->device)) arena->kernels = arena->offset % 8 != 0;
    lt_attention at = prepare(arena, p);
    if (p->c.identical_keys) leave_traces(arena, p, at);
    ops->attention_forward(arena->device, &at);
    const float *output = test_read_floats(arena, at.output, p->q.tokens * p->width);
    test_close_rounded("output", output, p->output, p->q.tokens * p->width, test_tolerance(p->tolerance),
                       0.0);

    lt_mem d_keys = test_compute_buffer(arena, NULL, p->key_elements);
    lt_mem d_queries = p->shared ? d_keys : test_compute_buffer(arena, NULL, p->query_elements);
    lt_attention_gradients gradients = {
        .d_output = test_compute_buffer(arena, p->d_output, p->q.tokens * p->width),
        .d_q = d_queries,
        .d_k = lt_at(d_keys, p->k.offset),
        .d_v = lt_at(d_keys, p->v.offset),
        .d_bias = lazy ? test_float_buffer(arena, p->bias_start, p->biases) : LT_NOWHERE,
        .d_tau = lazy ? test_float_buffer(arena, p->tau_start, p->c.heads) : LT_NOWHERE,
    };
    ops->attention_backward(arena->device, &at, &gradients);
    const float *got_keys = test_read_floats(arena, d_keys, p->key_elements);
    const float *got_queries = test_read_floats(arena, d_queries, p->query_elements);
    const float *d_q = dense_floats(got_queries, p->q);
    test_close_rounded("d_q", d_q, dense_doubles(p->d_queries, p->q), p->q.tokens * p->q.width, tolerance,
                       p->floor);
    test_close_rounded("d_k", dense_floats(got_keys, p->k), dense_doubles(p->d_keys, p->k),
                       p->k.tokens * p->k.width, tolerance, p->floor);
    test_close_rounded("d_v", dense_floats(got_keys, p->v), dense_doubles(p->d_keys, p->v),
                       p->v.tokens * p->v.width, tolerance, p->floor);
    if (lazy) {
        test_close("d_bias", test_read_floats(arena, gradients.d_bias, p->biases), p->d_bias, p->biases,
                   tolerance, p->floor);
        test_close("d_tau", test_read_floats(arena, gradients.d_tau, p->c.heads), p->d_tau, p->c.heads,
                   tolerance, p->floor);
    }
    check_single_keys(p, output, d_q);
    check_untouched(got_keys, p->k.tokens, p->k.stride, p->c.padding);
    check_untouched(got_queries, p->q.tokens, p->q.stride, p->c.padding);

    double ones[16 * LT_STATISTICS];
    for (int i = 0; i < 16 * LT_STATISTICS; i++) ones[i] = 1.0;
    lt_mem statistics = test_double_buffer(arena, ones, p->c.heads * LT_STATISTICS);
    ops->attention_statistics(arena->device, &at, statistics);
    check_statistics(p, test_read_doubles(arena, statistics, p->c.heads * LT_STATISTICS));
}

static void test_case(void **state) {
    const attention_case *c = *state;
    problem p = make_problem(c);
    expect(&p);
    if (p.c.identical_keys)
        for (int64_t i = 0; i < p.q.tokens * p.width; i++) assert_true(p.output[i] == 0.0);
    test_every_device(run_case, &p);
}

/* Decoding: the last queries alone, over all keys, see what they saw among all queries. */
static void test_last_rows(void **state) {
    (void)state;
    static const attention_case full = {.name = "", 1, 130, 130, 4, 2, 16, 20, -1.0, 0.2, {0}};
    for (int64_t queries = 1; queries <= 65; queries += 16) {
        problem all = {.c = full};
        test_random random = {200};
        lay_out(&all);
        draw_inputs(&all, &random);
        expect(&all);
        int64_t before = 130 - queries;
        problem last = all;
        last.c.query_length = queries;
        lay_out(&last);
        last.queries = TEST_NEW(float, last.query_elements);
        last.keys = TEST_NEW(float, last.key_elements);
        for (int64_t t = 0; t < queries; t++)
            memcpy(last.queries + t * last.q.stride, all.queries + (before + t) * all.q.stride,
                   sizeof(float) * (size_t)all.q.width);
        for (int64_t t = 0; t < 130; t++)
            memcpy(last.keys + t * last.k.stride, all.keys + t * all.k.stride + all.k.offset,
                   sizeof(float) * (size_t)(2 * all.k.width));
        last.d_output = all.d_output + before * all.width;
        last.kink_rows = 0;
        memset(last.statistics, 0, sizeof last.statistics);
        expect(&last);
        last.output = all.output + before * all.width;
        test_every_device(run_case, &last);
    }
}

/* Lazy attention at tau = 0 without bias is softmax attention, gradients included. */
static void test_lazy_is_softmax(void **state) {
    (void)state;
    static const attention_case softmax = {.name = "", 2, 100, 100, 4, 2, 16, 0, 0.0, 0.0, {0}};
    problem p = {.c = softmax};
    test_random random = {300};
    lay_out(&p);
    draw_inputs(&p, &random);
    expect(&p);
    problem lazy = p;
    lazy.c.bias_length = 7;
    lazy.biases = 4 * 7;
    lazy.bias = TEST_NEW(float, lazy.biases);
    lazy.tau = TEST_NEW(float, 4);
    lazy.bias_start = TEST_NEW(float, lazy.biases);
    expect(&lazy); /* for the gradients of bias and tau */
    lazy.output = p.output;
    lazy.d_queries = p.d_queries;
    lazy.d_keys = p.d_keys;
    test_every_device(run_case, &lazy);
}

int main(void) {
    struct CMUnitTest tests[CASE_COUNT + 2] = {
        {"the last queries alone, over all keys", test_last_rows, NULL, test_free_all, NULL},
        {"lazy at tau = 0 without bias is softmax", test_lazy_is_softmax, NULL, test_free_all, NULL},
    };
    size_t count = 2;
    for (int i = 0; i < CASE_COUNT; i++)
        if (!(LEFT_OUT(&CASES[i])))
            tests[count++] =
                (struct CMUnitTest){CASES[i].name, test_case, NULL, test_free_all, (void *)&CASES[i]};
    return _cmocka_run_group_tests("attention on a device", tests, count, NULL, NULL);
}
