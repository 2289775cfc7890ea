/* The devices of a test program that runs on the CPU: every instruction set, with 1, 2 and 3 threads. */
#include "tests/reference/fixture.h"

#include <stdlib.h>

const char *const TEST_DEVICES[] = {"avx512", "avx2", "sse2", "generic", NULL};
const lt_type TEST_COMPUTE_TYPE = LT_FLOAT32;
const lt_status TEST_NO_MEMORY = LT_IO;

lt_device *test_open_device(const char *name, int setting) {
    lt_device *device = NULL;
    setenv("LAZYTRAIN_ISA", name, 1);
    lt_status status = lt_cpu_device_create(setting, &device);
    unsetenv("LAZYTRAIN_ISA");
    if (status == LT_BAD_INPUT) return NULL;
    if (status != LT_OK) fail_msg("device of %s with %d threads: %s", name, setting, lt_error_message());
    assert_string_equal(device->instruction_set, name);
    assert_int_equal(device->threads, setting);
    return device;
}

bool test_alignment_chooses(lt_device *device) {
    (void)device;
    return false;
}

#ifdef __SANITIZE_ADDRESS__
const int TEST_OFFSETS[TEST_SETTINGS] = {0, 0, 0};
const int TEST_GUARDS = 0;

/* A CPU's memory is the host's, so malloc() can stand in for allocate(), which hands out whole pages. */
lt_mem test_device_memory(lt_device *device, size_t bytes) {
    assert_string_equal(device->kind, "cpu");
    return (lt_mem){malloc(bytes), LT_BYTES};
}

void test_free_device_memory(lt_device *device, lt_mem mem, size_t bytes) {
    (void)device;
    (void)bytes;
    free(mem.address);
}
#else
const int TEST_OFFSETS[TEST_SETTINGS] = {3, 3, 3};
const int TEST_GUARDS = 3;

lt_mem test_device_memory(lt_device *device, size_t bytes) {
    lt_mem mem;
    assert_int_equal(device->ops->allocate(device, bytes, &mem), LT_OK);
    mem.type = LT_BYTES;
    return mem;
}

void test_free_device_memory(lt_device *device, lt_mem mem, size_t bytes) {
    device->ops->release(device, mem, bytes);
}
#endif
