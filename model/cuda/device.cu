/* The CUDA device: memory, the stream, errors, and the table of operations. */
#include "model/cuda/device.h"

#include <cstdio>
#include <cstdlib>
#include <cstring>

/* Chips that this build has code for: sm_80 on, by PTX those that are newer than the build. */
enum { LEAST_CAPABILITY = 80 };

static const size_t STAGE_BYTES = static_cast<size_t>(4) << 20; /* 350,000 tokens */

void lt_cuda_note(cuda_device *device, const char *operation, cudaError_t error) {
    if (error == cudaSuccess || device->error != cudaSuccess) return;
    device->error = error;
    device->failed = operation;
}

/* The device's error as ours: LT_IO, since another start on another GPU may go well, unless it is too small. */
static lt_status check(cuda_device *device) {
    if (device->error == cudaSuccess) return LT_OK;
    if (device->error == cudaErrorMemoryAllocation)
        return lt_fail(LT_FAILED,
                       "GPU %d (%s): no memory was left for %s; the last checkpoint is whole, start again from it with a "
                       "smaller micro_batch or seq_len",
                       device->index, device->chip, device->failed);
    return lt_fail(LT_IO, "GPU %d (%s): %s failed: %s (%s); the last checkpoint is whole, start again from it%s",
                   device->index, device->chip, device->failed,
                   device->reason != nullptr ? device->reason : cudaGetErrorString(device->error),
                   cudaGetErrorName(device->error),
                   device->error == cudaErrorECCUncorrectable ? ", on another GPU: this one's memory is damaged" : "");
}

/* ---- memory ---- */

static lt_status allocate(lt_device *base, size_t bytes, lt_mem *mem) {
    cuda_device *device = cuda_of(base);
    *mem = LT_NOWHERE;
    if (bytes == 0) return LT_OK;
    const cudaError_t error = cudaMalloc(&mem->address, bytes);
    if (error != cudaSuccess) {
        size_t available = 0, total = 0;
        cudaGetLastError();
        cudaMemGetInfo(&available, &total);
        mem->address = nullptr;
        return lt_fail(error == cudaErrorMemoryAllocation ? LT_BAD_INPUT : LT_IO,
                       "GPU %d (%s) has no %.1f MiB: %s; %.1f of its %.1f MiB are free; a smaller micro_batch or "
                       "seq_len needs less",
                       device->index, device->chip, static_cast<double>(bytes) / 1048576.0,
                       cudaGetErrorString(error), static_cast<double>(available) / 1048576.0,
                       static_cast<double>(total) / 1048576.0);
    }
    lt_cuda_note(device, "clearing memory", cudaMemsetAsync(mem->address, 0, bytes, device->stream));
    return LT_OK;
}

static void release(lt_device *base, lt_mem mem, size_t bytes) {
    (void)bytes;
    cuda_device *device = cuda_of(base);
    if (mem.address == nullptr) return;
    lt_cuda_note(device, "waiting for the stream", cudaStreamSynchronize(device->stream));
    lt_cuda_note(device, "freeing memory", cudaFree(mem.address));
}

void *lt_cuda_host_allocate(size_t bytes) {
    void *memory = nullptr;
    if (cudaMallocHost(&memory, bytes) == cudaSuccess) return memory;
    cudaGetLastError();
    return nullptr;
}

void lt_cuda_host_release(void *memory) {
    if (memory != nullptr) cudaFreeHost(memory);
}

/* The caller's memory is its own again when this returns, which CUDA does not promise of a copy that is queued. What
 * comes in every micro-batch goes by way of pinned memory, so that the host may be two copies ahead of the GPU. */
static void upload(lt_device *base, lt_mem to, const void *from, int64_t count) {
    cuda_device *device = cuda_of(base);
    const char *const what = "a copy to the GPU";
    const size_t bytes = static_cast<size_t>(count) * lt_type_bytes(to.type);
    if (bytes > STAGE_BYTES) {
        lt_cuda_note(device, what, cudaMemcpyAsync(to.address, from, bytes, cudaMemcpyHostToDevice, device->stream));
        lt_cuda_note(device, what, cudaStreamSynchronize(device->stream));
        return;
    }
    auto &stage = device->stages[device->stage];
    device->stage ^= 1;
    lt_cuda_note(device, what, cudaEventSynchronize(stage.sent));
    memcpy(stage.memory, from, bytes);
    lt_cuda_note(device, what,
                 cudaMemcpyAsync(to.address, stage.memory, bytes, cudaMemcpyHostToDevice, device->stream));
    lt_cuda_note(device, what, cudaEventRecord(stage.sent, device->stream));
}

static lt_status make_stages(cuda_device *device) {
    for (auto &stage : device->stages) {
        stage.memory = static_cast<unsigned char *>(lt_cuda_host_allocate(STAGE_BYTES));
        if (stage.memory == nullptr)
            return lt_fail(LT_IO, "GPU %d (%s): no %zu bytes of pinned host memory", device->index, device->chip,
                           STAGE_BYTES);
        lt_cuda_note(device, "making an event",
                     cudaEventCreateWithFlags(&stage.sent, cudaEventDisableTiming | cudaEventBlockingSync));
    }
    return check(device);
}

static void free_stages(cuda_device *device) {
    for (auto &stage : device->stages) {
        if (stage.sent != nullptr) cudaEventDestroy(stage.sent);
        lt_cuda_host_release(stage.memory);
    }
}

static lt_status synchronise(lt_device *base) {
    cuda_device *device = cuda_of(base);
    lt_cuda_note(device, "an operation", cudaStreamSynchronize(device->stream));
    return check(device);
}

static lt_status download(lt_device *base, void *to, lt_mem from, int64_t count) {
    cuda_device *device = cuda_of(base);
    lt_cuda_note(device, "a copy from the GPU",
                 cudaMemcpyAsync(to, from.address, static_cast<size_t>(count) * lt_type_bytes(from.type),
                                 cudaMemcpyDeviceToHost, device->stream));
    return synchronise(base);
}

static void copy(lt_device *base, lt_mem to, lt_mem from, int64_t count) {
    cuda_device *device = cuda_of(base);
    lt_cuda_note(device, "a copy on the GPU",
                 cudaMemcpyAsync(to.address, from.address, static_cast<size_t>(count) * lt_type_bytes(to.type),
                                 cudaMemcpyDeviceToDevice, device->stream));
}

static void zero(lt_device *base, lt_mem mem, int64_t count) {
    cuda_device *device = cuda_of(base);
    lt_cuda_note(device, "clearing memory",
                 cudaMemsetAsync(mem.address, 0, static_cast<size_t>(count) * lt_type_bytes(mem.type),
                                 device->stream));
}

static size_t larger(size_t a, size_t b) {
    return a > b ? a : b;
}

static size_t scratch_bytes(lt_device *base, const lt_attention *shape, int64_t rows, int64_t hidden,
                            int64_t largest) {
    (void)largest; /* operations over flat arrays need none here */
    return larger(larger(lt_cuda_gemm_workspace(cuda_of(base)), lt_cuda_attention_scratch_bytes(base, shape)),
                  larger(lt_cuda_embedding_scratch_bytes(rows, hidden), lt_cuda_rmsnorm_scratch_bytes(rows, hidden)));
}

static lt_status reserve(lt_device *base, size_t bytes) {
    cuda_device *device = cuda_of(base);
    if (bytes <= device->scratch_bytes) return LT_OK;
    lt_mem mem;
    LT_CHECK(allocate(base, bytes, &mem));
    release(base, {device->scratch, LT_BYTES}, device->scratch_bytes);
    device->scratch = mem.address;
    device->scratch_bytes = bytes;
    return LT_OK;
}

static void destroy(lt_device *base) {
    cuda_device *device = cuda_of(base);
    release(base, {device->scratch, LT_BYTES}, device->scratch_bytes);
    lt_cuda_gemm_destroy(device);
    free_stages(device);
    if (device->stream != nullptr) cudaStreamDestroy(device->stream);
    free(device);
}

static lt_ops make_ops() {
    lt_ops ops = {};
    ops.allocate = allocate;
    ops.release = release;
    ops.upload = upload;
    ops.download = download;
    ops.copy = copy;
    ops.round_to = lt_cuda_round_to;
    ops.zero = zero;
    ops.synchronise = synchronise;
    ops.scratch_bytes = scratch_bytes;
    ops.reserve = reserve;
    ops.gemm = lt_cuda_gemm;
    ops.embedding_forward = lt_cuda_embedding_forward;
    ops.embedding_backward = lt_cuda_embedding_backward;
    ops.rmsnorm_forward = lt_cuda_rmsnorm_forward;
    ops.rmsnorm_backward = lt_cuda_rmsnorm_backward;
    ops.rope = lt_cuda_rope;
    ops.attention_saved_bytes = lt_cuda_attention_saved_bytes;
    ops.attention_forward = lt_cuda_attention_forward;
    ops.attention_backward = lt_cuda_attention_backward;
    ops.attention_statistics = lt_cuda_attention_statistics;
    ops.swiglu_forward = lt_cuda_swiglu_forward;
    ops.swiglu_backward = lt_cuda_swiglu_backward;
    ops.cross_entropy = lt_cuda_cross_entropy;
    ops.cross_entropy_part = lt_cuda_cross_entropy_part;
    ops.cross_entropy_join = lt_cuda_cross_entropy_join;
    ops.sum_segments = lt_cuda_sum_segments;
    ops.add = lt_cuda_add;
    ops.sum_squares = lt_cuda_sum_squares;
    ops.adamw = lt_cuda_adamw;
    ops.destroy = destroy;
    return ops;
}

static const lt_ops OPS = make_ops();

/* ---- finding and opening a device ---- */

int lt_cuda_device_count(const char **why) {
    int devices = 0;
    const cudaError_t error = cudaGetDeviceCount(&devices);
    cudaGetLastError();
    if (error == cudaSuccess && devices > 0) return devices;
    *why = error == cudaErrorInsufficientDriver ? "no NVIDIA driver is loaded, or one older than this build needs"
           : error == cudaSuccess || error == cudaErrorNoDevice ? "this process sees no GPU"
                                                                 : cudaGetErrorString(error);
    return 0;
}

static lt_status open_on(cuda_device *device) {
    cudaDeviceProp properties;
    lt_cuda_note(device, "choosing the device", cudaSetDevice(device->index));
    lt_cuda_note(device, "asking for its properties", cudaGetDeviceProperties(&properties, device->index));
    LT_CHECK(check(device));
    snprintf(device->chip, sizeof device->chip, "%.127s", properties.name);
    memcpy(device->id, &properties.uuid, sizeof device->id);
    device->capability = properties.major * 10 + properties.minor;
    device->multiprocessors = properties.multiProcessorCount;
    device->block_shared_bytes = properties.sharedMemPerBlockOptin;
    if (device->capability < LEAST_CAPABILITY)
        return lt_fail(LT_BAD_INPUT,
                       "GPU %d (%s) has compute capability %d.%d, and this build has code for %d.%d and later; "
                       "train.device: cpu runs without it",
                       device->index, device->chip, properties.major, properties.minor, LEAST_CAPABILITY / 10,
                       LEAST_CAPABILITY % 10);
    lt_cuda_note(device, "making a stream", cudaStreamCreateWithFlags(&device->stream, cudaStreamNonBlocking));
    LT_CHECK(check(device));
    LT_CHECK(make_stages(device));
    return lt_cuda_gemm_create(device);
}

lt_status lt_cuda_device_create(int index, lt_device **result) {
    const char *why = "";
    const int devices = lt_cuda_device_count(&why);
    if (devices == 0) return lt_fail(LT_BAD_INPUT, "%s; train.device: cpu runs without", why);
    if (index < 0 || index >= devices)
        return lt_fail(LT_BAD_INPUT, "there is no GPU %d: this process sees %d, numbered from 0", index, devices);
    cuda_device *device = static_cast<cuda_device *>(calloc(1, sizeof *device));
    if (device == nullptr) return lt_fail(LT_IO, "no memory for a CUDA device");
    device->index = index;
    device->base.ops = &OPS;
    device->base.compute_type = LT_BFLOAT16;
    device->base.threads = 1;
    device->base.kind = "cuda";
    device->base.instruction_set = device->chip;
    device->base.blas_kernel = "cublasLt";
    const lt_status status = open_on(device);
    if (status != LT_OK) {
        destroy(&device->base);
        return status;
    }
    *result = &device->base;
    return LT_OK;
}

/* Dense bfloat16 rates that NVIDIA's data sheets state. */
static double stated_peak(const char *name) {
    static const struct {
        const char *chip;
        double tflops;
    } known[] = {{"H100 PCIe", 756}, {"H100 NVL", 835}, {"H100", 989}, {"H200 NVL", 835}, {"H200", 989}, {"GH200", 989},
                 {"A100", 312},      {"A30", 165},      {"L40S", 362}, {"GB200", 2500}, {"B200", 2250}};
    for (const auto &one : known)
        if (strstr(name, one.chip) != nullptr) return one.tflops;
    return 0;
}

lt_status lt_cuda_device_describe(lt_device *base, lt_cuda_description *description) {
    cuda_device *device = cuda_of(base);
    *description = {};
    lt_cuda_note(device, "asking for its memory", cudaMemGetInfo(&description->available, &description->memory));
    lt_cuda_note(device, "asking for the driver", cudaDriverGetVersion(&description->driver));
    lt_cuda_note(device, "asking where it is",
                 cudaDeviceGetPCIBusId(description->bus, sizeof description->bus, device->index));
    LT_CHECK(check(device));
    snprintf(description->name, sizeof description->name, "%.127s", device->chip);
    memcpy(description->id, device->id, sizeof description->id);
    description->capability = device->capability;
    description->peak_tflops = stated_peak(device->chip);
    return LT_OK;
}

void *lt_cuda_stream(lt_device *device) {
    return cuda_of(device)->stream;
}
