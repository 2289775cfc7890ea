/* The CPU device and the BLAS that it calls from its own threads. */
#include "tests/reference/fixture.h"

#include <string.h>

/* Tiles of one product run at the same instant on several threads, each in a call of the BLAS. A BLAS that
 * hands its packing buffers out without a lock gives one buffer to two of them now and then. A row times a
 * matrix in two tiles is done in a microsecond, so that many tries cost nothing. */
static void run_at_once(test_arena *arena, const void *context) {
    (void)context;
    enum { COLUMNS = 300, DEPTH = 7, ROUNDS = 5000 };
    test_random random = {7};
    lt_gemm gemm = {
        .m = 1, .n = COLUMNS, .k = DEPTH, .lda = DEPTH, .ldb = DEPTH, .ldc = COLUMNS, .b_transposed = true};
    gemm.a = test_float_buffer(arena, test_floats(&random, DEPTH, 0.0, 1.0), DEPTH);
    gemm.b = test_float_buffer(arena, test_floats(&random, DEPTH * COLUMNS, 0.0, 1.0), DEPTH * COLUMNS);
    gemm.c = test_float_buffer(arena, NULL, COLUMNS);
    test_reserve(arena, NULL, 1, 1, 1);
    arena->device->ops->gemm(arena->device, &gemm);
    const float *first = test_read_floats(arena, gemm.c, COLUMNS);
    int wrong = 0;
    for (int round = 0; round < ROUNDS && arena->device->threads == 2; round++) {
        float again[COLUMNS];
        arena->device->ops->gemm(arena->device, &gemm);
        assert_int_equal(arena->device->ops->download(arena->device, again, gemm.c, COLUMNS), LT_OK);
        wrong += memcmp(first, again, sizeof again) != 0;
    }
    if (wrong > 0) fail_msg("%d of %d products have other bits than the first", wrong, ROUNDS);
}

static void test_at_once(void **state) {
    (void)state;
    test_every_device(run_at_once, NULL);
}

/* Stands for OpenBLAS's own, which does nothing in the build of one thread. */
static int asked_threads;
void openblas_set_num_threads(int threads);
void openblas_set_num_threads(int threads) {
    asked_threads = threads;
}

/* Another BLAS, or OPENBLAS_NUM_THREADS, must not bring threads of its own. */
static void test_one_thread(void **state) {
    (void)state;
    lt_device *device;
    asked_threads = 0;
    assert_int_equal(lt_cpu_device_create(2, &device), LT_OK);
    assert_int_equal(asked_threads, 1);
    device->ops->destroy(device);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_teardown(test_at_once, test_free_all),
        cmocka_unit_test(test_one_thread),
    };
    return cmocka_run_group_tests_name("a BLAS on several threads", tests, NULL, NULL);
}
