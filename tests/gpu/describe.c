/* The first GPU as JSON, on one line; or one line of why there is none, and exit status 2. */
#include "model/cuda/cuda.h"

#include <stdio.h>

int main(void) {
    const char *why = "";
    lt_cuda_description found;
    lt_device *device = NULL;
    if (lt_cuda_device_count(&why) == 0) {
        fprintf(stderr, "make gpu-test needs a GPU: %s\n", why);
        return 2;
    }
    if (lt_cuda_device_create(0, &device) != LT_OK || lt_cuda_device_describe(device, &found) != LT_OK) {
        fprintf(stderr, "make gpu-test: %s\n", lt_error_message());
        return 2;
    }
    printf("\"chip\": \"%s\", \"bus\": \"%s\", \"capability\": \"%d.%d\", \"memory_bytes\": %zu, "
           "\"stated_peak_tflops\": %g, \"driver_cuda\": %d\n",
           found.name, found.bus, found.capability / 10, found.capability % 10, found.memory,
           found.peak_tflops, found.driver);
    device->ops->destroy(device);
    return 0;
}
