/* The devices of a test program on a machine with a GPU: the first one that it sees, with either form of
 * attention's backward. Its settings are alignments of buffers: two that suit vectors of 16 bytes, for which
 * all kernels are the same ones, so that they show what is not the same from run to run, and that of the
 * element. */
#include "model/cuda/cuda.h"
#include "tests/reference/fixture.h"

#include <string.h>

const char *const TEST_DEVICES[] = {"cuda", "cuda, one kernel", NULL};
const lt_type TEST_COMPUTE_TYPE = LT_BFLOAT16;
const lt_status TEST_NO_MEMORY = LT_BAD_INPUT;
const int TEST_OFFSETS[TEST_SETTINGS] = {0, 8, 3};
const int TEST_GUARDS = 3;

lt_device *test_open_device(const char *name, int setting) {
    lt_device *device = NULL;
    if (lt_cuda_device_create(0, &device) != LT_OK)
        fail_msg("%s device, setting %d: %s", name, setting, lt_error_message());
    lt_cuda_choose_backward(device, strcmp(name, "cuda") == 0 ? LT_CUDA_BACKWARD_TWO_KERNELS
                                                              : LT_CUDA_BACKWARD_ONE_KERNEL);
    return device;
}

bool test_alignment_chooses(lt_device *device) {
    lt_cuda_description chip;
    if (lt_cuda_device_describe(device, &chip) != LT_OK) fail_msg("%s", lt_error_message());
    return chip.capability == 90;
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
