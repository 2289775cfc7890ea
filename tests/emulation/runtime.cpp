/* CUDA's runtime on the host: devices, memory, streams, copies, errors. */
#include <cuda.h>
#include <cuda_runtime.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <deque>
#include <map>
#include <memory>
#include <mutex>
#include <vector>

#include <unistd.h>

struct emulated_stream {
    bool early;
    std::deque<std::function<void()>> work;
};

namespace {

/* A place in a stream; `done` once the stream's work has come so far. */
struct mark {
    emulated_stream *stream;
    bool done;
    std::chrono::steady_clock::time_point when;
};

}

struct emulated_event {
    std::shared_ptr<mark> last; /* where it was recorded last, if it was */
};

int emulated_number(const char *variable, int otherwise) {
    const char *value = getenv(variable);
    if (value == nullptr) return otherwise;
    char *end;
    const long number = strtol(value, &end, 10);
    if (end == value || *end != '\0' || number < 0 || number > 1 << 20) emulation::fail("%s=%s", variable, value);
    return static_cast<int>(number);
}

namespace {

constexpr size_t DEFAULT_SHARED = 48 << 10;

struct machine {
    int devices = emulated_number("EMULATED_DEVICES", 1);
    size_t memory = static_cast<size_t>(emulated_number("EMULATED_MEMORY_MIB", 1024)) << 20;
    int capability = emulated_number("EMULATED_CAPABILITY", 90);
    int multiprocessors = emulated_number("EMULATED_MULTIPROCESSORS", 132);
    size_t used = 0;
    int streams = 0;
    bool late = emulated_number("EMULATED_LATE", 0) != 0;
    std::map<void *, size_t> sizes, pinned;
    std::map<const void *, int> dynamic_limits;
};

std::mutex lock;
machine there;
thread_local int own_device;
thread_local cudaError_t last_error = cudaSuccess;
cudaError_t fault = cudaSuccess;

/* EMULATED_FAULT_AT=N: launch number N and all after it meet the error that EMULATED_FAULT names: ECC, MEMORY. */
void count_launch() {
    static int left = emulated_number("EMULATED_FAULT_AT", -1);
    const char *set = getenv("EMULATED_FAULT"), *name = set != nullptr ? set : "";
    if (left > 0 && --left == 0)
        fault = strcmp(name, "ECC") == 0      ? cudaErrorECCUncorrectable
                : strcmp(name, "MEMORY") == 0 ? cudaErrorMemoryAllocation
                                              : cudaErrorLaunchFailure;
}

/* Of a block's shared memory. */
size_t most_shared() {
    const int capability = there.capability;
    return (capability >= 90 ? 227 : capability == 80 || capability == 87 ? 163 : 99) << 10;
}

/* Does the oldest work of a stream. */
void step(emulated_stream *stream) {
    const std::function<void()> work = std::move(stream->work.front());
    stream->work.pop_front();
    work();
}

void drain(emulated_stream *stream) {
    while (stream != nullptr && !stream->work.empty()) step(stream);
}

cudaError_t answer(cudaError_t error) {
    if (error == cudaSuccess) error = fault;
    if (error != cudaSuccess) last_error = error;
    return error;
}

}

void emulated_machine(int devices, size_t memory_bytes, int capability) {
    std::lock_guard<std::mutex> guard(lock);
    there.devices = devices;
    there.memory = memory_bytes;
    there.capability = capability;
}

const char *cudaGetErrorName(cudaError_t error) {
    switch (error) {
        case cudaSuccess: return "cudaSuccess";
        case cudaErrorInvalidValue: return "cudaErrorInvalidValue";
        case cudaErrorMemoryAllocation: return "cudaErrorMemoryAllocation";
        case cudaErrorInsufficientDriver: return "cudaErrorInsufficientDriver";
        case cudaErrorNoDevice: return "cudaErrorNoDevice";
        case cudaErrorInvalidDevice: return "cudaErrorInvalidDevice";
        case cudaErrorNoKernelImageForDevice: return "cudaErrorNoKernelImageForDevice";
        case cudaErrorECCUncorrectable: return "cudaErrorECCUncorrectable";
        case cudaErrorNotReady: return "cudaErrorNotReady";
        case cudaErrorLaunchFailure: return "cudaErrorLaunchFailure";
    }
    return "unknown";
}

const char *cudaGetErrorString(cudaError_t error) {
    return cudaGetErrorName(error);
}

cudaError_t cudaGetLastError() {
    const cudaError_t error = fault != cudaSuccess ? fault : last_error;
    last_error = cudaSuccess;
    return error;
}

cudaError_t cudaGetDeviceCount(int *count) {
    *count = there.devices;
    return there.devices > 0 ? cudaSuccess : cudaErrorInsufficientDriver;
}

cudaError_t cudaSetDevice(int device) {
    if (device < 0 || device >= there.devices) return answer(cudaErrorInvalidDevice);
    own_device = device;
    return answer(cudaSuccess);
}

cudaError_t cudaGetDeviceProperties(cudaDeviceProp *properties, int device) {
    if (device < 0 || device >= there.devices) return answer(cudaErrorInvalidDevice);
    *properties = {};
    snprintf(properties->name, sizeof properties->name, "emulated");
    gethostname(reinterpret_cast<char *>(properties->uuid.bytes), 14);
    properties->uuid.bytes[15] = static_cast<unsigned char>(device);
    properties->major = there.capability / 10;
    properties->minor = there.capability % 10;
    properties->multiProcessorCount = there.multiprocessors;
    properties->sharedMemPerBlockOptin = most_shared();
    return answer(cudaSuccess);
}

cudaError_t cudaGetDriverEntryPointByVersion(const char *name, void **function, unsigned version, unsigned long long,
                                             cudaDriverEntryPointQueryResult *found) {
    const bool there = strcmp(name, "cuTensorMapEncodeTiled") == 0 && version >= 12000;
    *found = there ? cudaDriverEntryPointSuccess : cudaDriverEntryPointSymbolNotFound;
    *function = there ? reinterpret_cast<void *>(cuTensorMapEncodeTiled) : nullptr;
    return answer(cudaSuccess);
}

cudaError_t cudaDeviceGetPCIBusId(char *bus, int length, int device) {
    snprintf(bus, static_cast<size_t>(length), "0000:%02x:00.0", static_cast<unsigned>(device));
    return answer(cudaSuccess);
}

cudaError_t cudaDriverGetVersion(int *version) {
    *version = 13000;
    return answer(cudaSuccess);
}

/* EMULATED_PROMISED_MIB: what others take of it before it is asked for. */
cudaError_t cudaMemGetInfo(size_t *available, size_t *total) {
    std::lock_guard<std::mutex> guard(lock);
    *available =
        there.memory - there.used + (static_cast<size_t>(emulated_number("EMULATED_PROMISED_MIB", 0)) << 20);
    *total = there.memory;
    return answer(cudaSuccess);
}

cudaError_t cudaDeviceSynchronize() {
    return answer(cudaSuccess);
}

cudaError_t emulated_malloc(void **memory, size_t bytes) {
    std::lock_guard<std::mutex> guard(lock);
    *memory = nullptr;
    if (fault != cudaSuccess) return answer(fault);
    if (bytes > there.memory - there.used || posix_memalign(memory, 256, std::max<size_t>(bytes, 1)) != 0)
        return answer(cudaErrorMemoryAllocation);
    memset(*memory, 0xff, bytes);
    there.used += bytes;
    there.sizes[*memory] = bytes;
    return cudaSuccess;
}

cudaError_t emulated_malloc_host(void **memory, size_t bytes) {
    std::lock_guard<std::mutex> guard(lock);
    *memory = malloc(std::max<size_t>(bytes, 1));
    if (*memory == nullptr) return answer(cudaErrorMemoryAllocation);
    there.pinned[*memory] = bytes;
    return answer(cudaSuccess);
}

cudaError_t cudaFreeHost(void *memory) {
    std::lock_guard<std::mutex> guard(lock);
    if (there.pinned.erase(memory) == 0) return answer(cudaErrorInvalidValue);
    free(memory);
    return answer(cudaSuccess);
}

static bool is_pinned(const void *address) {
    std::lock_guard<std::mutex> guard(lock);
    auto after = there.pinned.upper_bound(const_cast<void *>(address));
    if (after == there.pinned.begin()) return false;
    --after;
    return static_cast<const char *>(address) < static_cast<const char *>(after->first) + after->second;
}

cudaError_t cudaFree(void *memory) {
    std::lock_guard<std::mutex> guard(lock);
    if (memory == nullptr) return answer(cudaSuccess);
    const auto at = there.sizes.find(memory);
    if (at == there.sizes.end()) return answer(cudaErrorInvalidValue);
    there.used -= at->second;
    there.sizes.erase(at);
    free(memory);
    return answer(cudaSuccess);
}

void emulated_put(cudaStream_t stream, std::function<void()> work) {
    if (stream == nullptr) return work();
    stream->work.push_back(std::move(work));
    if (stream->early || (there.streams == 1 && !there.late)) drain(stream);
}

/* EMULATED_FAULT_FILE=PATH: once that file is there nothing can be copied. */
static void look_for_file() {
    static const char *const path = getenv("EMULATED_FAULT_FILE");
    if (path != nullptr && access(path, F_OK) == 0) fault = cudaErrorLaunchFailure;
}

/* A copy to ordinary host memory has arrived when the call returns. One to pinned memory, or from the host, has not. */
cudaError_t cudaMemcpyAsync(void *to, const void *from, size_t bytes, cudaMemcpyKind kind, cudaStream_t stream) {
    look_for_file();
    if (fault != cudaSuccess) return answer(fault);
    if (bytes == 0) return cudaSuccess;
    (kind == cudaMemcpyHostToDevice   ? emulation::count.uploads
     : kind == cudaMemcpyDeviceToHost ? emulation::count.downloads
                                      : emulation::count.copies)++;
    emulated_put(stream, [=] { memmove(to, from, bytes); });
    if (kind == cudaMemcpyDeviceToHost && !is_pinned(to)) drain(stream);
    return answer(cudaSuccess);
}

cudaError_t cudaMemcpy(void *to, const void *from, size_t bytes, cudaMemcpyKind kind) {
    (void)kind;
    if (fault != cudaSuccess) return answer(fault);
    if (bytes > 0) memmove(to, from, bytes);
    return cudaSuccess;
}

cudaError_t cudaMemsetAsync(void *to, int value, size_t bytes, cudaStream_t stream) {
    if (bytes > 0) emulated_put(stream, [=] { memset(to, value, bytes); });
    return answer(cudaSuccess);
}

cudaError_t cudaStreamCreateWithFlags(cudaStream_t *stream, unsigned flags) {
    (void)flags;
    static const int early = emulated_number("EMULATED_EARLY", 0);
    static int made = 0;
    there.streams++;
    *stream = new emulated_stream{made < 31 && (early >> made & 1) != 0, {}};
    made++;
    return answer(cudaSuccess);
}

cudaError_t cudaStreamDestroy(cudaStream_t stream) {
    drain(stream);
    there.streams--;
    delete stream;
    return answer(cudaSuccess);
}

cudaError_t cudaStreamSynchronize(cudaStream_t stream) {
    drain(stream);
    return answer(cudaSuccess);
}

static void reach(mark *place) {
    while (!place->done) step(place->stream);
}

cudaError_t cudaStreamWaitEvent(cudaStream_t stream, cudaEvent_t event, unsigned flags) {
    (void)flags;
    if (event->last) emulated_put(stream, [place = event->last] { reach(place.get()); });
    return answer(cudaSuccess);
}

cudaError_t cudaEventCreate(cudaEvent_t *event) {
    *event = new emulated_event{};
    return answer(cudaSuccess);
}

cudaError_t cudaEventCreateWithFlags(cudaEvent_t *event, unsigned) {
    return cudaEventCreate(event);
}

cudaError_t cudaEventSynchronize(cudaEvent_t event) {
    if (event->last) reach(event->last.get());
    return answer(cudaSuccess);
}

cudaError_t cudaEventDestroy(cudaEvent_t event) {
    delete event;
    return answer(cudaSuccess);
}

cudaError_t cudaEventRecord(cudaEvent_t event, cudaStream_t stream) {
    event->last = std::make_shared<mark>(mark{stream, false, {}});
    emulated_put(stream, [place = event->last] {
        place->done = true;
        place->when = std::chrono::steady_clock::now();
    });
    return answer(cudaSuccess);
}

/* Who asks sees some progress. */
cudaError_t cudaEventQuery(cudaEvent_t event) {
    if (!event->last || event->last->done) return answer(cudaSuccess);
    step(event->last->stream);
    return cudaErrorNotReady;
}

cudaError_t cudaEventElapsedTime(float *milliseconds, cudaEvent_t begin, cudaEvent_t end) {
    if (!begin->last || !end->last) return answer(cudaErrorInvalidValue);
    if (!begin->last->done || !end->last->done) return answer(cudaErrorNotReady);
    *milliseconds = std::chrono::duration<float, std::milli>(end->last->when - begin->last->when).count();
    return answer(cudaSuccess);
}

cudaError_t emulated_function_attribute(const void *function, cudaFuncAttribute attribute, int value) {
    std::lock_guard<std::mutex> guard(lock);
    (void)attribute;
    if (value < 0 || static_cast<size_t>(value) > most_shared()) return answer(cudaErrorInvalidValue);
    there.dynamic_limits[function] = value;
    return answer(cudaSuccess);
}

cudaError_t emulated_launch(cudaStream_t stream, const char *name, const void *function, dim3 grid, dim3 block,
                            size_t dynamic_bytes, std::function<void()> thread) {
    size_t limit = DEFAULT_SHARED, together = DEFAULT_SHARED;
    {
        std::lock_guard<std::mutex> guard(lock);
        const auto at = there.dynamic_limits.find(function);
        if (at != there.dynamic_limits.end()) {
            limit = std::max(limit, static_cast<size_t>(at->second));
            together = most_shared();
        }
    }
    const size_t threads = static_cast<size_t>(block.x) * block.y * block.z;
    const bool possible = dynamic_bytes <= limit && threads > 0 && threads <= 1024 && grid.x > 0 && grid.y > 0 &&
                          grid.z > 0 && grid.x <= 0x7fffffff && grid.y <= 65535 && grid.z <= 65535;
    if (!possible) return answer(cudaErrorInvalidValue);
    count_launch();
    if (fault != cudaSuccess) return answer(fault);
    emulated_put(stream, [=] { emulation::launch(name, grid, block, dynamic_bytes, together, thread); });
    return cudaGetLastError();
}
