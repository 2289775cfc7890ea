/* Attention of a device on the three tokens that test_reference.c works out on paper. */
#include "tests/reference/fixture.h"

#include <math.h>

/* The numbers of test_reference.c's three tokens, which no program computed. */
static void run_three_tokens(test_arena *arena, const void *context) {
    (void)context;
    const float ln2 = logf(2.0f), ln3 = logf(3.0f);
    const float qkv[36] = {2, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 2, 0, 0, 0, ln3, 0,
                           0, 0, 0, 1, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1,   0};
    const float bias[2] = {0, ln2}, tau[1] = {-0.75f}, d_output[12] = {1, 0, 0, 0, 5, 10, 0, 0, 8, 16, 24, 0};
    const float zeros[2] = {0};
    const lt_ops *ops = arena->device->ops;
    lt_mem x = test_compute_buffer(arena, qkv, 36), d_x = test_compute_buffer(arena, NULL, 36);
    lt_attention at = {.batch = 1,
                       .query_length = 3,
                       .key_length = 3,
                       .heads = 1,
                       .key_heads = 1,
                       .head_size = 4,
                       .bias_length = 2,
                       .q = x,
                       .k = lt_at(x, 4),
                       .v = lt_at(x, 8),
                       .query_stride = 12,
                       .key_stride = 12,
                       .bias = test_float_buffer(arena, bias, 2),
                       .tau = test_float_buffer(arena, tau, 1),
                       .document_starts = LT_NOWHERE,
                       .output = test_compute_buffer(arena, NULL, 12)};
    at.saved = test_byte_buffer(arena, ops->attention_saved_bytes(arena->device, &at));
    test_reserve(arena, &at, 3, 4, 1);
    lt_attention_gradients to = {test_compute_buffer(arena, d_output, 12),
                                 d_x,
                                 lt_at(d_x, 4),
                                 lt_at(d_x, 8),
                                 test_float_buffer(arena, zeros, 2),
                                 test_float_buffer(arena, zeros, 1)};
    ops->attention_forward(arena->device, &at);
    ops->attention_backward(arena->device, &at, &to);

    const double expected_output[12] = {1.0 / 4, 0, 0, 0, 1.0 / 40, 9.0 / 40, 0, 0, 0, 1.0 / 2, 0, 0};
    const double d_q1 = 0.6 * log(3.0), d_q2 = 1.5 * log(3.0);
    const double expected_d[36] = {0,    0, 0, 0, -2.7, 0, 0, 0, 3.0 / 8,  1.0 / 4,  0,  0,
                                   d_q1, 0, 0, 0, 4.2,  0, 0, 0, 41.0 / 8, 41.0 / 4, 12, 0,
                                   d_q2, 0, 0, 0, -1.5, 0, 0, 0, 0,        0,        0,  0};
    const double expected_bias[2] = {-0.3, 1.8}, expected_tau[1] = {83.0 / 6};
    test_close("output", test_read_floats(arena, at.output, 12), expected_output, 12, test_tolerance(1e-6),
               0.0);
    test_close("d_q, d_k, d_v", test_read_floats(arena, d_x, 36), expected_d, 36, test_tolerance(1e-6), 0.0);
    test_close("d_bias", test_read_floats(arena, to.d_bias, 2), expected_bias, 2, test_tolerance(2e-6), 0.0);
    test_close("d_tau", test_read_floats(arena, to.d_tau, 1), expected_tau, 1, test_tolerance(1e-6), 0.0);
}

static void test_three_tokens(void **state) {
    (void)state;
    test_every_device(run_three_tokens, NULL);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        {"three tokens worked out by hand", test_three_tokens, NULL, test_free_all, NULL},
    };
    return cmocka_run_group_tests_name("attention by hand", tests, NULL, NULL);
}
