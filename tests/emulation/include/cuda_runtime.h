/* The part of CUDA's runtime that our sources use, on the host (tests/emulation/README.md). Device memory is
 * memory of its exact size, so that AddressSanitizer sees an access beyond it; cudaMalloc's begins as NaN.
 * Copies and kernels are done when the call returns, whatever the stream. */
#ifndef LT_TESTS_EMULATION_CUDA_RUNTIME_H
#define LT_TESTS_EMULATION_CUDA_RUNTIME_H

#include "tests/emulation/fibres.h"

#include <cmath>
#include <cstring>
#include <tuple>

#define __global__
#define __device__
#define __host__
#define __forceinline__ inline
#define __launch_bounds__(...)
#define __grid_constant__
#define __restrict__ __restrict

struct alignas(8) float2 {
    float x, y;
};
struct alignas(16) float4 {
    float x, y, z, w;
};
struct alignas(8) int2 {
    int x, y;
};
struct alignas(16) int4 {
    int x, y, z, w;
};
struct alignas(8) uint2 {
    unsigned x, y;
};
struct alignas(16) uint4 {
    unsigned x, y, z, w;
};
inline float4 make_float4(float x, float y, float z, float w) {
    return {x, y, z, w};
}
inline uint2 make_uint2(unsigned x, unsigned y) {
    return {x, y};
}
inline uint4 make_uint4(unsigned x, unsigned y, unsigned z, unsigned w) {
    return {x, y, z, w};
}

/* ---- in kernels ---- */

inline void __syncthreads() {
    emulation::barrier(0, 0);
}

inline void __syncwarp(unsigned mask = 0xffffffffu) {
    const char nothing = 0;
    emulation::exchange(mask, "__syncwarp", &nothing, 1);
}

namespace emulation {

template <typename value>
value shuffled(unsigned mask, const char *what, value own, int source, bool inside) {
    exchange(mask, what, &own, sizeof own);
    value result;
    memcpy(&result, inside ? from(source) : static_cast<const void *>(&own), sizeof result);
    return result;
}

} // namespace emulation

template <typename value> value __shfl_sync(unsigned mask, value own, int source, int width = 32) {
    const int first = emulation::lane() / width * width;
    return emulation::shuffled(mask, "__shfl_sync", own, first + (source & (width - 1)), true);
}
template <typename value> value __shfl_xor_sync(unsigned mask, value own, int lanes, int width = 32) {
    const int source = emulation::lane() ^ lanes;
    return emulation::shuffled(mask, "__shfl_xor_sync", own, source,
                               source / width <= emulation::lane() / width);
}

inline unsigned __ballot_sync(unsigned mask, int predicate) {
    const int own = predicate != 0;
    emulation::exchange(mask, "__ballot_sync", &own, sizeof own);
    unsigned result = 0;
    for (int i = 0; i < 32; i++) {
        int other;
        memcpy(&other, emulation::from(i), sizeof other);
        if (other == 1 && (mask >> i & 1) != 0) result |= 1u << i;
    }
    return result;
}
inline int __any_sync(unsigned mask, int predicate) {
    return __ballot_sync(mask, predicate) != 0;
}

inline float __uint_as_float(unsigned bits) {
    float value;
    memcpy(&value, &bits, sizeof value);
    return value;
}
inline int __popc(unsigned bits) {
    return __builtin_popcount(bits);
}
inline int __clz(int bits) {
    return bits == 0 ? 32 : __builtin_clz(static_cast<unsigned>(bits));
}
inline unsigned atomicAdd(unsigned *at, unsigned value) {
    const unsigned before = *at;
    *at += value;
    return before;
}
template <typename value> value __ldcg(const value *at) {
    return *at;
}
template <typename value> void __stcg(value *at, value stored) {
    *at = stored;
}
inline float __expf(float x) {
    return expf(x);
}
inline float __fdividef(float x, float y) {
    return x / y;
}
inline float __fmul_rn(float x, float y) {
    return x * y;
}
inline int min(int a, int b) {
    return a < b ? a : b;
}
inline int max(int a, int b) {
    return a > b ? a : b;
}
inline unsigned min(unsigned a, unsigned b) {
    return a < b ? a : b;
}
inline unsigned max(unsigned a, unsigned b) {
    return a > b ? a : b;
}
inline long min(long a, long b) {
    return a < b ? a : b;
}
inline long max(long a, long b) {
    return a > b ? a : b;
}
inline float min(float a, float b) {
    return fminf(a, b);
}
inline float max(float a, float b) {
    return fmaxf(a, b);
}

/* ---- the runtime ---- */

typedef enum cudaError {
    cudaSuccess = 0,
    cudaErrorInvalidValue = 1,
    cudaErrorMemoryAllocation = 2,
    cudaErrorInsufficientDriver = 35,
    cudaErrorNoDevice = 100,
    cudaErrorInvalidDevice = 101,
    cudaErrorNoKernelImageForDevice = 209,
    cudaErrorECCUncorrectable = 214,
    cudaErrorNotReady = 600,
    cudaErrorLaunchFailure = 719,
} cudaError_t;

typedef struct emulated_stream *cudaStream_t;
typedef struct emulated_event *cudaEvent_t;

enum cudaMemcpyKind {
    cudaMemcpyHostToHost,
    cudaMemcpyHostToDevice,
    cudaMemcpyDeviceToHost,
    cudaMemcpyDeviceToDevice,
    cudaMemcpyDefault
};
enum cudaFuncAttribute { cudaFuncAttributeMaxDynamicSharedMemorySize = 8 };
enum { cudaStreamNonBlocking = 1, cudaEventBlockingSync = 1, cudaEventDisableTiming = 2 };
enum { cudaEnableDefault = 0 };
enum cudaDriverEntryPointQueryResult { cudaDriverEntryPointSuccess, cudaDriverEntryPointSymbolNotFound };

struct cudaUUID_t {
    unsigned char bytes[16];
};

struct cudaDeviceProp {
    char name[256];
    cudaUUID_t uuid;
    int major, minor;
    int multiProcessorCount;
    size_t sharedMemPerBlockOptin;
};

/* The emulated machine: how many devices it has, the memory of each, and its compute capability.
 * Environment variables, read once, set them for a program: EMULATED_DEVICES (1), EMULATED_MEMORY_MIB (1024),
 * EMULATED_CAPABILITY (90), EMULATED_MULTIPROCESSORS (132); EMULATED_FAULT_AT=N (with EMULATED_FAULT=ECC)
 * makes launch N fail, and what comes after it. */
void emulated_machine(int devices, size_t memory_bytes, int capability);
/* The number that such a variable holds; `otherwise` where it is not set. */
int emulated_number(const char *variable, int otherwise);

const char *cudaGetErrorString(cudaError_t error);
const char *cudaGetErrorName(cudaError_t error);
cudaError_t cudaGetLastError();
cudaError_t cudaGetDeviceCount(int *count);
cudaError_t cudaSetDevice(int device);
cudaError_t cudaGetDeviceProperties(cudaDeviceProp *properties, int device);
cudaError_t cudaGetDriverEntryPointByVersion(const char *name, void **function, unsigned version,
                                             unsigned long long flags,
                                             cudaDriverEntryPointQueryResult *found);
cudaError_t cudaDeviceGetPCIBusId(char *bus, int length, int device);
cudaError_t cudaDriverGetVersion(int *version);
cudaError_t cudaMemGetInfo(size_t *available, size_t *total);
cudaError_t cudaDeviceSynchronize();
cudaError_t emulated_malloc(void **memory, size_t bytes);
template <typename type> cudaError_t cudaMalloc(type **memory, size_t bytes) {
    void *address = nullptr;
    const cudaError_t error = emulated_malloc(&address, bytes);
    *memory = static_cast<type *>(address);
    return error;
}
cudaError_t cudaFree(void *memory);
cudaError_t cudaMemcpyAsync(void *to, const void *from, size_t bytes, cudaMemcpyKind kind,
                            cudaStream_t stream = nullptr);
cudaError_t cudaMemcpy(void *to, const void *from, size_t bytes, cudaMemcpyKind kind);
cudaError_t cudaMemsetAsync(void *to, int value, size_t bytes, cudaStream_t stream = nullptr);
cudaError_t cudaStreamCreateWithFlags(cudaStream_t *stream, unsigned flags);
cudaError_t cudaStreamDestroy(cudaStream_t stream);
cudaError_t cudaStreamSynchronize(cudaStream_t stream);
cudaError_t cudaStreamWaitEvent(cudaStream_t stream, cudaEvent_t event, unsigned flags);
cudaError_t cudaEventCreate(cudaEvent_t *event);
cudaError_t cudaEventCreateWithFlags(cudaEvent_t *event, unsigned flags);
cudaError_t cudaEventSynchronize(cudaEvent_t event);
cudaError_t cudaEventDestroy(cudaEvent_t event);
cudaError_t cudaEventRecord(cudaEvent_t event, cudaStream_t stream);
cudaError_t cudaEventQuery(cudaEvent_t event);
cudaError_t cudaEventElapsedTime(float *milliseconds, cudaEvent_t begin, cudaEvent_t end);
cudaError_t emulated_malloc_host(void **memory, size_t bytes);
template <typename type> cudaError_t cudaMallocHost(type **memory, size_t bytes) {
    void *address = nullptr;
    const cudaError_t error = emulated_malloc_host(&address, bytes);
    *memory = static_cast<type *>(address);
    return error;
}
cudaError_t cudaFreeHost(void *memory);
/* Puts work on a stream. The only stream does it at once, unless EMULATED_LATE is 1; one of several as late
 * as can be: when somebody waits for it, and then no more than what that takes; those that EMULATED_EARLY
 * names (bit n: the n-th that was made) at once. So what one stream needs of another without waiting for it
 * is not there. */
void emulated_put(cudaStream_t stream, std::function<void()> work);
cudaError_t emulated_function_attribute(const void *function, cudaFuncAttribute attribute, int value);
template <typename function>
cudaError_t cudaFuncSetAttribute(function *kernel, cudaFuncAttribute attribute, int value) {
    return emulated_function_attribute(reinterpret_cast<const void *>(kernel), attribute, value);
}

/* Of model/cuda/launch.h's twin: dynamic shared memory beyond 48 KiB must have been asked for. */
cudaError_t emulated_launch(cudaStream_t stream, const char *name, const void *function, dim3 grid,
                            dim3 block, size_t dynamic_bytes, std::function<void()> thread);

/* Arguments have the values that they have now, whenever the kernel runs. */
template <typename... types, typename... values>
cudaError_t emulated_queue(cudaStream_t stream, const char *name, void (*kernel)(types...), dim3 grid,
                           dim3 block, size_t dynamic_bytes, const values &...arguments) {
    std::tuple<std::decay_t<types>...> held(arguments...);
    return emulated_launch(stream, name, reinterpret_cast<const void *>(kernel), grid, block, dynamic_bytes,
                           [kernel, held] { std::apply(kernel, held); });
}

#endif
