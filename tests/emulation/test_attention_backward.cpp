/* Backward of attention in one kernel against the two kernels, which tests/unit/test_ops_attention.c holds to
 * the float64 reference: dk, dv and d_tau have the same bits, since each sums in one order in both; dq and
 * d_bias are sums in other orders. And each has the same bits in every order of threads and blocks, of which
 * several are under way at a time, and in every alignment. */
#include "model/cuda/device.h"
#include "tests/emulation/fibres.h"

#include <cmath>
#include <cstdlib>
#include <cstring>
#include <vector>

extern "C" {
#include "tests/reference/fixture.h"
}

namespace {

struct backward_case {
    const char *name;
    int64_t batch, query_length, key_length, heads, key_heads, head_size, bias_length;
    float tau, bias_slope;
    int boundaries[4];
};

const backward_case CASES[] = {
    {"head size 64, documents", 2, 100, 143, 2, 1, 64, 90, -1.0f, 0.0f, {40, 47, 129}},
    {"head size 64, dead tiles near the diagonal", 1, 300, 300, 1, 1, 64, 500, -1.0f, 0.1f, {}},
    {"head size 64, no query sees the first keys", 1, 40, 400, 1, 1, 64, 333, -1.0f, 0.0f, {365, 370}},
    {"head size 64, softmax", 1, 260, 260, 1, 1, 64, 0, 0.0f, 0.0f, {150}},
    {"head size 96", 1, 100, 290, 2, 1, 96, 250, -0.9f, -0.05f, {}},
    {"head size 96, softmax", 1, 140, 140, 1, 1, 96, 0, 0.0f, 0.0f, {}},
    {"head size 128", 1, 100, 290, 2, 1, 128, 100, -1.1f, -0.05f, {5, 230}},
    {"head size 128, softmax", 1, 140, 140, 1, 1, 128, 0, 0.0f, 0.0f, {}},
};
enum { CASE_COUNT = sizeof CASES / sizeof CASES[0] };

struct gradients {
    const float *d_q, *d_k, *d_v, *d_bias, *d_tau;
};

gradients run_form(test_arena *arena, const backward_case &c, const lt_attention &at, const float *d_output,
                   lt_cuda_backward form) {
    const int64_t width = c.heads * c.head_size, key_width = c.key_heads * c.head_size,
                  queries = c.batch * c.query_length, keys = c.batch * c.key_length,
                  biases = c.heads * c.bias_length;
    cuda_device *device = cuda_of(arena->device);
    const std::vector<float> zeros(static_cast<size_t>(biases + c.heads));
    lt_attention_gradients to = {};
    to.d_output = test_compute_buffer(arena, d_output, queries * width);
    to.d_q = test_compute_buffer(arena, nullptr, queries * width);
    to.d_k = test_compute_buffer(arena, nullptr, keys * key_width);
    to.d_v = test_compute_buffer(arena, nullptr, keys * key_width);
    to.d_bias = test_float_buffer(arena, zeros.data(), biases);
    to.d_tau = test_float_buffer(arena, zeros.data(), c.heads);
    lt_cuda_choose_backward(arena->device, form);
    test_reserve(arena, &at, queries, width, 1);
    memset(device->scratch, 0xff, device->scratch_bytes); /* what earlier operations left */
    arena->device->ops->attention_backward(arena->device, &at, &to);
    return {test_read_floats(arena, to.d_q, queries * width),
            test_read_floats(arena, to.d_k, keys * key_width),
            test_read_floats(arena, to.d_v, keys * key_width), test_read_floats(arena, to.d_bias, biases),
            test_read_floats(arena, to.d_tau, c.heads)};
}

void compare(test_arena *arena, const void *context) {
    const backward_case &c = *static_cast<const backward_case *>(context);
    const int64_t width = c.heads * c.head_size, key_width = c.key_heads * c.head_size,
                  queries = c.batch * c.query_length, keys = c.batch * c.key_length,
                  biases = c.heads * c.bias_length;
    test_random random = {static_cast<uint64_t>(&c - CASES) + 1};
    float *bias = test_floats(&random, biases, 0.0, 0.5);
    for (int64_t i = 0; i < biases; i++) bias[i] += c.bias_slope * static_cast<float>(i % c.bias_length);
    const std::vector<float> tau(static_cast<size_t>(c.heads), c.tau);
    int32_t *starts = TEST_NEW(int32_t, queries);
    for (int64_t b = 0; b < c.batch; b += 2)
        test_document_starts(c.boundaries, c.key_length - c.query_length, c.query_length,
                             starts + b * c.query_length);
    lt_attention at = {};
    at.batch = c.batch, at.query_length = c.query_length, at.key_length = c.key_length;
    at.heads = c.heads, at.key_heads = c.key_heads, at.head_size = c.head_size;
    at.bias_length = c.bias_length;
    at.query_stride = width, at.key_stride = key_width;
    at.q = test_compute_buffer(arena, test_floats(&random, queries * width, 0.0, 1.0), queries * width);
    at.k = test_compute_buffer(arena, test_floats(&random, keys * key_width, 0.0, 1.0), keys * key_width);
    at.v = test_compute_buffer(arena, test_floats(&random, keys * key_width, 0.0, 1.0), keys * key_width);
    at.output = test_compute_buffer(arena, nullptr, queries * width);
    at.bias = test_float_buffer(arena, bias, biases);
    at.tau = test_float_buffer(arena, tau.data(), c.heads);
    if (c.boundaries[0] != 0) at.document_starts = test_integer_buffer(arena, starts, queries);
    at.saved = test_byte_buffer(arena, arena->device->ops->attention_saved_bytes(arena->device, &at));
    test_reserve(arena, &at, queries, width, 1);
    const float *d_output = test_floats(&random, queries * width, 0.0, 1.0);
    arena->device->ops->attention_forward(arena->device, &at);
    const gradients two = run_form(arena, c, at, d_output, LT_CUDA_BACKWARD_TWO_KERNELS),
                    one = run_form(arena, c, at, d_output, LT_CUDA_BACKWARD_ONE_KERNEL);
    assert_memory_equal(one.d_k, two.d_k, sizeof(float) * static_cast<size_t>(keys * key_width));
    assert_memory_equal(one.d_v, two.d_v, sizeof(float) * static_cast<size_t>(keys * key_width));
    assert_memory_equal(one.d_tau, two.d_tau, sizeof(float) * static_cast<size_t>(c.heads));
    /* Sums that are nearly equal may be rounded to neighbours. */
    test_close_rounded("d_q", one.d_q, test_widen(two.d_q, queries * width), queries * width,
                       test_tolerance(1e-5), 0.0);
    test_close("d_bias", one.d_bias, test_widen(two.d_bias, biases), biases, 1e-5, 0.0);
}

void test_case(void **state) {
    test_every_device(compare, *state);
}

/* By shape one kernel serves where there are blocks of 128 keys for 6 of each multiprocessor, and no other
 * head size and no chip with less shared memory: the scratch that a shape asks for tells which. */
void test_rule(void **state) {
    (void)state;
    lt_device *device = test_open_device("emulated", 1);
    const auto bytes_of = [&device](lt_cuda_backward form, int64_t head_size, int64_t batch) {
        lt_attention at = {};
        at.batch = batch, at.query_length = at.key_length = 1024;
        at.heads = 4, at.key_heads = 2, at.head_size = head_size, at.bias_length = 8;
        lt_cuda_choose_backward(device, form);
        return device->ops->scratch_bytes(device, &at, 1, 1, 1);
    };
    const int64_t enough = (6 * cuda_of(device)->multiprocessors + 15) / 16;
    for (int64_t size = 64; size <= 128; size += 32) {
        const size_t more = bytes_of(LT_CUDA_BACKWARD_ONE_KERNEL, size, enough);
        assert_true(more > bytes_of(LT_CUDA_BACKWARD_TWO_KERNELS, size, enough));
        assert_int_equal(bytes_of(LT_CUDA_BACKWARD_BY_SHAPE, size, enough), more);
        assert_int_equal(bytes_of(LT_CUDA_BACKWARD_BY_SHAPE, size, enough - 1),
                         bytes_of(LT_CUDA_BACKWARD_TWO_KERNELS, size, enough - 1));
    }
    assert_int_equal(bytes_of(LT_CUDA_BACKWARD_ONE_KERNEL, 80, enough),
                     bytes_of(LT_CUDA_BACKWARD_TWO_KERNELS, 80, enough));
    device->ops->destroy(device);
    emulated_machine(1, static_cast<size_t>(1) << 30, 89); /* whose blocks have too little shared memory */
    assert_int_equal(lt_cuda_device_create(0, &device), LT_OK);
    assert_int_equal(bytes_of(LT_CUDA_BACKWARD_ONE_KERNEL, 64, enough),
                     bytes_of(LT_CUDA_BACKWARD_TWO_KERNELS, 64, enough));
    device->ops->destroy(device);
    emulated_machine(1, static_cast<size_t>(1) << 30, 90); /* where half as many blocks are enough */
    assert_int_equal(lt_cuda_device_create(0, &device), LT_OK);
    const int64_t half = (3 * cuda_of(device)->multiprocessors + 15) / 16;
    assert_int_equal(bytes_of(LT_CUDA_BACKWARD_BY_SHAPE, 64, half),
                     bytes_of(LT_CUDA_BACKWARD_ONE_KERNEL, 64, half));
    assert_int_equal(bytes_of(LT_CUDA_BACKWARD_BY_SHAPE, 64, half - 1),
                     bytes_of(LT_CUDA_BACKWARD_TWO_KERNELS, 64, half - 1));
    device->ops->destroy(device);
}

} // namespace

int main() {
    CMUnitTest tests[CASE_COUNT + 1] = {{"when by shape", test_rule, nullptr, test_free_all, nullptr}};
    for (int i = 0; i < CASE_COUNT; i++)
        tests[i + 1] = {CASES[i].name, test_case, nullptr, test_free_all,
                        const_cast<backward_case *>(&CASES[i])};
    return cmocka_run_group_tests_name("attention backward in one kernel", tests, nullptr, nullptr);
}
