/* The devices of a test program that runs CUDA's kernels on the host: one emulated GPU. Its settings are
 * orders of threads, and alignments: 256 bytes, that of the element, and half of what a vector of 16 bytes
 * asks. */
#include "model/cuda/cuda.h"
#include <cuda_runtime.h>

/* After fibres.h: its library has a macro of the name of a function there. */
extern "C" {
#include "tests/reference/fixture.h"
}

const char *const TEST_DEVICES[] = {"emulated", nullptr};
const lt_type TEST_COMPUTE_TYPE = LT_BFLOAT16;
const lt_status TEST_NO_MEMORY = LT_BAD_INPUT;
#ifndef HOPPER                    /* devices_sm90.cpp */
static const int CAPABILITY = 80; /* whose matrix products ask for little scratch */
const int TEST_OFFSETS[TEST_SETTINGS] = {0, 3, 4};
#else
static const int CAPABILITY = 90;
const int TEST_OFFSETS[TEST_SETTINGS] = {0, 8, 16};
#endif
const int TEST_GUARDS = 0; /* device memory has its exact size, and AddressSanitizer watches its end */

lt_device *test_open_device(const char *name, int setting) {
    static const uint64_t ORDERS[TEST_SETTINGS] = {0, 1, 20251};
    lt_device *device = nullptr;
    emulation::set_order(ORDERS[setting - 1]);
    emulated_machine(1, static_cast<size_t>(1) << 30, CAPABILITY);
    if (lt_cuda_device_create(0, &device) != LT_OK) fail_msg("%s device: %s", name, lt_error_message());
    if (CAPABILITY == 90) lt_cuda_choose_backward(device, LT_CUDA_BACKWARD_ONE_KERNEL);
    return device;
}

bool test_alignment_chooses(lt_device *) {
    return false; /* all offsets of either capability choose the same */
}

lt_mem test_device_memory(lt_device *device, size_t bytes) {
    lt_mem mem;
    if (device->ops->allocate(device, bytes, &mem) != LT_OK) fail_msg("%s", lt_error_message());
    mem.type = LT_BYTES;
    return mem;
}

void test_free_device_memory(lt_device *device, lt_mem mem, size_t bytes) {
    device->ops->release(device, mem, bytes);
}
