/* The twin of model/cuda/launch.h: the same words, for kernels that run on the host. */
#ifndef LT_MODEL_CUDA_LAUNCH_H
#define LT_MODEL_CUDA_LAUNCH_H

#include <cuda_bf16.h>
#include <cuda_runtime.h>
#include <dlfcn.h>

#define LT_LAUNCH(kernel, grid, block, shared_bytes, stream, ...) \
    emulated_queue(stream, #kernel, kernel, grid, block, shared_bytes, __VA_ARGS__)

#define LT_SHARED(type, name, count) \
    static const char name##_key = 0; \
    type(&name)[count] = \
        *static_cast<type(*)[count]>(emulation::shared(&name##_key, sizeof(type[count]), alignof(type)))

/* Its functions are twins, in this program. */
#define LT_OPEN_LIBRARY(file) dlopen(nullptr, RTLD_NOW)

#define LT_LIBRARY_FUNCTION(library, function) (&(function))

#define LT_DYNAMIC_SHARED(type, name) type *name = static_cast<type *>(emulation::dynamic_shared(nullptr))

#endif
