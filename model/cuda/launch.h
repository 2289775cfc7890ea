/* How kernels are launched and get shared memory. Sources include this header and no other of CUDA, and use
 * these words where CUDA C has syntax that a host compiler does not read, so that tests/emulation can compile
 * the very same sources with a twin of this header.
 *
 *   LT_LAUNCH(kernel, grid, block, shared_bytes, stream, arguments...)
 *       gives a cudaError_t: of the launch, or of anything before it that had not been asked for. A
 *       template's instance in parentheses where it has a comma: LT_LAUNCH((norm<64, true>), ...).
 *
 *   LT_SHARED(type, name, count)
 *       an array in shared memory; count is a constant.
 *
 *   LT_DYNAMIC_SHARED(type, name)
 *       a pointer to the launch's shared_bytes, aligned to 1024.
 *
 *   LT_OPEN_LIBRARY(file)
 *       a library that is not linked, for the next word; nullptr where it cannot be loaded: dlerror() says
 * why.
 *
 *   LT_LIBRARY_FUNCTION(library, function)
 *       the address of a declared function in it; nullptr where it has none.
 */
#ifndef LT_MODEL_CUDA_LAUNCH_H
#define LT_MODEL_CUDA_LAUNCH_H

#include <cuda_bf16.h>
#include <cuda_runtime.h>
#include <dlfcn.h>

/* clang-format off */
#define LT_LAUNCH(kernel, grid, block, shared_bytes, stream, ...) \
    ((kernel)<<<grid, block, shared_bytes, stream>>>(__VA_ARGS__), cudaGetLastError())
/* clang-format on */

#define LT_SHARED(type, name, count) __shared__ type name[count]

#define LT_DYNAMIC_SHARED(type, name) \
    extern __shared__ __align__(1024) unsigned char lt_dynamic_shared[]; \
    type *name = reinterpret_cast<type *>(lt_dynamic_shared)

#define LT_OPEN_LIBRARY(file) dlopen(file, RTLD_NOW | RTLD_LOCAL)

#define LT_LIBRARY_FUNCTION(library, function) \
    reinterpret_cast<decltype(&(function))>(dlsym(library, #function))

#endif
