/* The CUDA device as a plugin of the program. */
#include "model/cuda/cuda.h"

extern "C" __attribute__((visibility("default"))) const lt_cuda_functions lt_cuda_plugin = {
    lt_cuda_device_count, lt_cuda_device_create, lt_cuda_device_describe, lt_cuda_network_id,
    lt_cuda_network_open, lt_cuda_network_close, lt_cuda_host_allocate, lt_cuda_host_release};
