/* The operations of a device over flat arrays (moving, adding, norms, AdamW) against the float64 reference.
 */
#include "tests/reference/fixture.h"
#include "tests/reference/reference.h"

#include <math.h>
#include <string.h>

/* Around the sizes of vectors and of the pieces that a device may cut arrays into. */
static const int64_t COUNTS[] = {1, 2, 3, 15, 16, 17, 100, 1023, 4097, 32767, 32768, 32769, 100001};
enum { COUNT_COUNT = sizeof COUNTS / sizeof COUNTS[0] };

static void for_counts(test_body body) {
    for (int i = 0; i < COUNT_COUNT; i++) test_every_device(body, &COUNTS[i]);
}

static void run_moves(test_arena *arena, const void *context) {
    const lt_ops *ops = arena->device->ops;
    int64_t count = *(const int64_t *)context;
    test_random random = {(uint64_t)count};
    const float *values = test_floats(&random, count, 0.0, 1.0);
    const double *wide = test_widen(values, count);
    const int32_t *ids = test_tokens(&random, count, 1000);

    lt_mem to = test_float_buffer(arena, NULL, count);
    ops->copy(arena->device, to, test_float_buffer(arena, values, count), count);
    assert_memory_equal(test_read_floats(arena, to, count), values, (size_t)count * sizeof *values);
    lt_mem to_wide = test_double_buffer(arena, NULL, count);
    ops->copy(arena->device, to_wide, test_double_buffer(arena, wide, count), count);
    assert_memory_equal(test_read_doubles(arena, to_wide, count), wide, (size_t)count * sizeof *wide);
    lt_mem to_ids = test_integer_buffer(arena, NULL, count);
    ops->copy(arena->device, to_ids, test_integer_buffer(arena, ids, count), count);
    int32_t *got_ids = TEST_NEW(int32_t, count);
    assert_int_equal(ops->download(arena->device, got_ids, to_ids, count), LT_OK);
    assert_memory_equal(got_ids, ids, (size_t)count * sizeof *ids);

    ops->zero(arena->device, to, count);
    ops->zero(arena->device, to_wide, count);
    const float *zeros = test_read_floats(arena, to, count);
    const double *wide_zeros = test_read_doubles(arena, to_wide, count);
    for (int64_t i = 0; i < count; i++) assert_true(zeros[i] == 0.0f && wide_zeros[i] == 0.0);

    lt_mem bytes = test_byte_buffer(arena, (size_t)count);
    unsigned char *content = TEST_NEW(unsigned char, count);
    for (int64_t i = 0; i < count; i++) content[i] = 7;
    ops->upload(arena->device, bytes, content, count);
    ops->zero(arena->device, bytes, count - 1);
    assert_int_equal(ops->download(arena->device, content, bytes, count), LT_OK);
    for (int64_t i = 0; i < count; i++) assert_int_equal(content[i], i < count - 1 ? 0 : 7);
}

static void test_copy_and_zero(void **state) {
    (void)state;
    for_counts(run_moves);
}

/* New memory is zero, and of the size asked for. */
static void run_allocate(test_arena *arena, const void *context) {
    (void)context;
    lt_mem mem;
    const size_t bytes = 100003;
    unsigned char *content = TEST_NEW(unsigned char, (int64_t)bytes);
    memset(content, 1, bytes);
    assert_int_equal(arena->device->ops->allocate(arena->device, bytes, &mem), LT_OK);
    mem.type = LT_BYTES;
    assert_int_equal(arena->device->ops->download(arena->device, content, mem, (int64_t)bytes), LT_OK);
    for (size_t i = 0; i < bytes; i++) assert_int_equal(content[i], 0);
    arena->device->ops->release(arena->device, mem, bytes);

    assert_int_equal(arena->device->ops->allocate(arena->device, (size_t)1 << 62, &mem), TEST_NO_MEMORY);
    assert_true(strlen(lt_error_message()) > 0);
}

static void test_allocate(void **state) {
    (void)state;
    test_every_device(run_allocate, NULL);
}

static void run_add(test_arena *arena, const void *context) {
    int64_t count = *(const int64_t *)context;
    test_random random = {(uint64_t)count};
    const float *a = test_floats(&random, count, 0.0, 1.0), *b = test_floats(&random, count, 0.0, 1.0);
    lt_mem to = test_float_buffer(arena, a, count);
    arena->device->ops->add(arena->device, to, test_float_buffer(arena, b, count), count);
    const float *got = test_read_floats(arena, to, count);
    for (int64_t i = 0; i < count; i++) assert_true(got[i] == a[i] + b[i]);
}

static void run_add_computed(test_arena *arena, const void *context) {
    int64_t count = *(const int64_t *)context;
    test_random random = {(uint64_t)count};
    const float *a = test_values(&random, count, 0.0, 1.0), *b = test_values(&random, count, 0.0, 1.0);
    lt_mem to = test_compute_buffer(arena, a, count);
    arena->device->ops->add(arena->device, to, test_compute_buffer(arena, b, count), count);
    const float *got = test_read_floats(arena, to, count);
    for (int64_t i = 0; i < count; i++) {
        float sum = a[i] + b[i];
        test_round(&sum, 1);
        assert_true(got[i] == sum);
    }
}

static void test_add(void **state) {
    (void)state;
    for_counts(run_add);
    for_counts(run_add_computed);
}

/* To nearest, ties to even: 1 + 2^-8 is halfway between two neighbours in bfloat16. NaN stays NaN, and what
 * is beyond the largest number becomes infinite. */
static void run_round_to(test_arena *arena, const void *context) {
    int64_t count = *(const int64_t *)context;
    test_random random = {(uint64_t)count};
    const float special[] = {0x1.01p0f, 0x1.03p0f,       -0x1.01p0f, 0x1.010002p0f, 0x1p-140f,
                             -0.0f,     0x1.fffffep127f, INFINITY,   -INFINITY,     NAN};
    float *values = test_floats(&random, count, 0.0, 1.0);
    for (int64_t i = 0; i < count && i < 10; i++) values[i] = special[(i + count) % 10];
    lt_mem to = test_compute_buffer(arena, NULL, count);
    arena->device->ops->round_to(arena->device, to, test_float_buffer(arena, values, count), count);
    const float *got = test_read_floats(arena, to, count);
    test_round(values, count);
    for (int64_t i = 0; i < count; i++)
        assert_true(isnan(values[i]) ? isnan(got[i]) : memcmp(&got[i], &values[i], sizeof got[i]) == 0);
}

static void test_round_to(void **state) {
    (void)state;
    for_counts(run_round_to);
}

/* `count` elements as pieces of several parameters: one of three elements, so that others are not aligned,
 * then whole ones and what is left. Groups take turns. Gives their number. */
static int64_t cut_pieces(int64_t count, lt_flat_piece *pieces) {
    int64_t number = 0;
    for (int64_t first = 0; first < count; number++) {
        const int64_t left = count - first, most = number == 0 ? 3 : number == 1 ? 1024 : LT_FLAT_PIECE;
        pieces[number] = (lt_flat_piece){.first = first,
                                         .count = (int32_t)(left < most ? left : most),
                                         .group = (int32_t)(number % LT_ADAMW_GROUPS)};
        first += pieces[number].count;
    }
    return number;
}

static lt_mem put_pieces(test_arena *arena, const lt_flat_piece *pieces, int64_t count) {
    lt_mem mem;
    const size_t bytes = sizeof *pieces * (size_t)count;
    if (arena->device->ops->allocate(arena->device, bytes, &mem) != LT_OK) fail_msg("%s", lt_error_message());
    mem.type = LT_BYTES;
    arena->device->ops->upload(arena->device, mem, pieces, (int64_t)bytes);
    return mem;
}

static void run_sum_squares(test_arena *arena, const void *context) {
    const lt_ops *ops = arena->device->ops;
    int64_t count = *(const int64_t *)context;
    test_random random = {(uint64_t)count};
    /* Entries of 1e25 square to more than float32 holds. */
    const double scales[] = {1.0, 1e25};
    test_reserve(arena, NULL, 1, 1, count);
    lt_flat_piece *cut = TEST_NEW(lt_flat_piece, lt_flat_pieces(count) + 2);
    const int64_t pieces = cut_pieces(count, cut);
    const lt_mem table = put_pieces(arena, cut, pieces);
    lt_mem sums = test_double_buffer(arena, NULL, pieces);
    for (int i = 0; i < 2; i++) {
        float *values = test_floats(&random, count, 0.0, scales[i]);
        double *expected = TEST_NEW(double, pieces);
        for (int64_t p = 0; p < pieces; p++)
            expected[p] = ref_sum_squares(test_widen(values + cut[p].first, cut[p].count), cut[p].count);
        ops->sum_squares(arena->device, test_float_buffer(arena, values, count), table, pieces, sums);
        test_close_doubles("sum of squares", test_read_doubles(arena, sums, pieces), expected, pieces, 1e-6,
                           0.0);
        values[count - 1] = NAN;
        ops->sum_squares(arena->device, test_float_buffer(arena, values, count), table, pieces, sums);
        double broken;
        assert_int_equal(ops->download(arena->device, &broken, lt_at(sums, pieces - 1), 1), LT_OK);
        assert_true(!isfinite(broken));
    }
    ops->release(arena->device, table, sizeof *cut * (size_t)pieces);
}

static void test_sum_squares(void **state) {
    (void)state;
    for_counts(run_sum_squares);
}

/* The order is part of the contract, so the bits are those of the plain loop. */
static void run_sum_segments(test_arena *arena, const void *context) {
    int64_t length = *(const int64_t *)context;
    test_random random = {(uint64_t)length};
    const double *values = test_widen(test_floats(&random, 3 * length, 1.0, 1.0), 3 * length);
    double expected[3];
    ref_sum_segments(values, 3, length, expected);
    test_reserve(arena, NULL, 3, length, 3 * length);
    lt_mem sums = test_double_buffer(arena, NULL, 3);
    arena->device->ops->sum_segments(arena->device, test_double_buffer(arena, values, 3 * length), 3, length,
                                     sums);
    assert_memory_equal(test_read_doubles(arena, sums, 3), expected, sizeof expected);
}

static void test_sum_segments(void **state) {
    (void)state;
    for_counts(run_sum_segments);
}

static void run_adamw(test_arena *arena, const void *context) {
    int64_t count = *(const int64_t *)context;
    test_random random = {(uint64_t)count};
    float *weights = test_floats(&random, count, 0.0, 0.02),
          *gradients = test_floats(&random, count, 0.0, 1.0);
    float *m = test_floats(&random, count, 0.0, 1.0), *v = test_floats(&random, count, 0.0, 1.0);
    for (int64_t i = 0; i < count; i++) {
        float size = (float)pow(10.0, 8.0 * test_uniform(&random) - 6.0); /* of the gradient: 1e-6 to 1e2 */
        gradients[i] *= size;
        m[i] *= size;
        v[i] *= v[i] * size * size;
        if (i % 7 == 3) gradients[i] = m[i] = v[i] = 0.0f; /* an embedding that no token has met */
        if (i % 5 == 1) weights[i] = 0.0f;
    }
    /* The last group's weights and moments stay as they are. */
    lt_adamw groups[LT_ADAMW_GROUPS];
    for (int i = 0; i < LT_ADAMW_GROUPS; i++)
        groups[i] = (lt_adamw){.learning_rate = i == 1 ? 1e-3 : 3e-2,
                               .beta1 = 0.9,
                               .beta2 = 0.95,
                               .epsilon = 1e-8,
                               .weight_decay = i == 2 ? 0 : 0.1,
                               .bias_correction1 = 1.0 - pow(0.9, 3.0),
                               .bias_correction2 = 1.0 - pow(0.95, 3.0),
                               .gradient_scale = 0.25,
                               .frozen = i == LT_ADAMW_GROUPS - 1};
    lt_flat_piece *pieces = TEST_NEW(lt_flat_piece, lt_flat_pieces(count) + 2);
    const int64_t piece_count = cut_pieces(count, pieces);
    double *expected = test_widen(weights, count), *exact_m = test_widen(m, count),
           *exact_v = test_widen(v, count);
    const double *wide = test_widen(gradients, count);
    for (int64_t p = 0; p < piece_count; p++) {
        const int64_t at = pieces[p].first;
        const lt_adamw *group = &groups[pieces[p].group];
        if (!group->frozen)
            ref_adamw(expected + at, wide + at, exact_m + at, exact_v + at, pieces[p].count, group);
    }

    lt_mem w = test_float_buffer(arena, weights, count), g = test_float_buffer(arena, gradients, count);
    lt_mem first = test_float_buffer(arena, m, count), second = test_float_buffer(arena, v, count);
    const lt_mem table = put_pieces(arena, pieces, piece_count);
    arena->device->ops->adamw(arena->device, w, g, first, second, table, piece_count, groups);
    arena->device->ops->release(arena->device, table, sizeof *pieces * (size_t)piece_count);
    test_close("weights", test_read_floats(arena, w, count), expected, count, 2e-6, 0.0);
    test_close("m", test_read_floats(arena, first, count), exact_m, count, 1e-6, 0.0);
    const float *got_v = test_read_floats(arena, second, count);
    for (int64_t i = 0; i < count; i++) assert_true(fabs((double)got_v[i] - exact_v[i]) <= 1e-6 * exact_v[i]);
    assert_memory_equal(test_read_floats(arena, g, count), gradients, (size_t)count * sizeof *gradients);
}

static void test_adamw(void **state) {
    (void)state;
    for_counts(run_adamw);
}

/* Nothing to do is no error. */
static void run_nothing(test_arena *arena, const void *context) {
    (void)context;
    const lt_ops *ops = arena->device->ops;
    const lt_adamw groups[LT_ADAMW_GROUPS] = {{0}};
    lt_mem floats = test_float_buffer(arena, NULL, 0), sums = test_double_buffer(arena, NULL, 0);
    lt_mem computed = test_compute_buffer(arena, NULL, 0);
    ops->copy(arena->device, floats, floats, 0);
    ops->zero(arena->device, floats, 0);
    ops->round_to(arena->device, computed, floats, 0);
    ops->add(arena->device, floats, floats, 0);
    ops->sum_squares(arena->device, floats, LT_NOWHERE, 0, sums);
    ops->sum_segments(arena->device, sums, 0, 5, sums);
    ops->adamw(arena->device, floats, floats, floats, floats, LT_NOWHERE, 0, groups);
    if (ops->synchronise(arena->device) != LT_OK) fail_msg("%s", lt_error_message());
}

static void test_nothing(void **state) {
    (void)state;
    test_every_device(run_nothing, NULL);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_teardown(test_allocate, test_free_all),
        cmocka_unit_test_teardown(test_copy_and_zero, test_free_all),
        cmocka_unit_test_teardown(test_add, test_free_all),
        cmocka_unit_test_teardown(test_round_to, test_free_all),
        cmocka_unit_test_teardown(test_sum_squares, test_free_all),
        cmocka_unit_test_teardown(test_sum_segments, test_free_all),
        cmocka_unit_test_teardown(test_adamw, test_free_all),
        cmocka_unit_test_teardown(test_nothing, test_free_all),
    };
    return cmocka_run_group_tests_name("flat arrays on a device", tests, NULL, NULL);
}
