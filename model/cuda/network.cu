/* What carries elements from GPU to GPU: NCCL, on a stream of its own beside the device's (comm/device.h), or
 * MPI where it reads and writes a GPU's memory.
 *
 * Both kinds of ranks share that one stream, since the messages of two communicators must not overtake each
 * other differently on different ranks. Sums along the lane tree are sends, receives and additions here, so
 * that gradients have the bits that host memory would give them.
 *
 * The library is opened with the network, not linked: a run on one GPU needs none.
 */
#include "model/cuda/cuda.h"
#include "model/cuda/nccl.h"
#include "model/cuda/vector.h"

#include <cstdio>
#include <cstring>
#include <new>

#include <unistd.h>

#define LT_NCCL_FUNCTIONS(each) \
    each(GetVersion) each(GetErrorString) each(GetUniqueId) each(CommInitRank) each(CommGetAsyncError) \
        each(CommDestroy) each(CommAbort) each(GroupStart) each(GroupEnd) each(Send) each(Recv) \
            each(AllReduce) each(Reduce)

#define LT_NCCL_POINTER(name) decltype(&nccl##name) name;
struct nccl_functions {
    LT_NCCL_FUNCTIONS(LT_NCCL_POINTER)
};

enum { LEAST_VERSION = 2700, PAUSE_US = 20 };

struct lt_cuda_network {
    nccl_functions nccl;
    cuda_device *device;
    cudaStream_t stream;
    cudaEvent_t began, ended, device_done; /* with times */
    cudaEvent_t passed;                    /* from one stream to the other */
    ncclComm_t ranks[LT_RANK_KINDS];
    bool in_group, timed; /* messages wait for flush(); start() was called since finish() */
    bool failed;          /* a call of NCCL has */
    lt_mem greetings;     /* connect()'s, until NCCL no longer reads them */
};

static lt_status open_library(nccl_functions *nccl) {
    static const char file[] = "libnccl.so.2";
    int version = 0;
    void *library = LT_OPEN_LIBRARY(file);
    if (library == nullptr)
        return lt_fail(LT_BAD_INPUT, "NCCL cannot be loaded: %s; install it (libnccl2), or name its folder in LD_LIBRARY_PATH",
                       dlerror());
#define LT_NCCL_FIND(name) \
    nccl->name = LT_LIBRARY_FUNCTION(library, nccl##name); \
    if (nccl->name == nullptr) return lt_fail(LT_BAD_INPUT, "%s has no nccl" #name "; version 2.7 and later do", file);
    LT_NCCL_FUNCTIONS(LT_NCCL_FIND)
    if (nccl->GetVersion(&version) != ncclSuccess || version < LEAST_VERSION)
        return lt_fail(LT_BAD_INPUT, "%s is version code %d, expected %d or later", file, version, int{LEAST_VERSION});
    return LT_OK;
}

static lt_cuda_network *network_of(void *context) {
    return static_cast<lt_cuda_network *>(context);
}

static lt_status check(lt_cuda_network *network, const char *function, ncclResult_t result) {
    if (result == ncclSuccess) return LT_OK;
    network->failed = true;
    return lt_fail(LT_IO,
                   "GPU %d (%s): NCCL's %s failed: %s (NCCL_DEBUG=WARN says more); the last checkpoint is whole, start "
                   "again from it",
                   network->device->index, network->device->chip, function, network->nccl.GetErrorString(result));
}

static void note(const lt_cuda_network *network, cudaError_t error) {
    lt_cuda_note(network->device, "ordering messages between GPUs", error);
}

/* ---- messages and sums ---- */

static lt_status open_group(lt_cuda_network *network) {
    if (network->in_group) return LT_OK;
    network->in_group = true;
    return check(network, "ncclGroupStart", network->nccl.GroupStart());
}

static lt_status flush(void *context) {
    lt_cuda_network *network = network_of(context);
    if (!network->in_group) return LT_OK;
    network->in_group = false;
    return check(network, "ncclGroupEnd", network->nccl.GroupEnd());
}

static lt_status send(void *context, lt_ranks ranks, int partner, const void *elements, int64_t bytes) {
    lt_cuda_network *network = network_of(context);
    LT_CHECK(open_group(network));
    return check(network, "ncclSend", network->nccl.Send(elements, static_cast<size_t>(bytes), ncclInt8, partner,
                                                         network->ranks[ranks], network->stream));
}

static lt_status receive(void *context, lt_ranks ranks, int partner, void *elements, int64_t bytes) {
    lt_cuda_network *network = network_of(context);
    LT_CHECK(open_group(network));
    return check(network, "ncclRecv", network->nccl.Recv(elements, static_cast<size_t>(bytes), ncclInt8, partner,
                                                         network->ranks[ranks], network->stream));
}

static lt_status sum(void *context, float *values, int64_t count, int root) {
    lt_cuda_network *network = network_of(context);
    const nccl_functions *nccl = &network->nccl;
    ncclComm_t ranks = network->ranks[LT_DATA_RANKS];
    LT_CHECK(flush(context));
    if (root < 0)
        return check(network, "ncclAllReduce", nccl->AllReduce(values, values, static_cast<size_t>(count), ncclFloat32,
                                                               ncclSum, ranks, network->stream));
    return check(network, "ncclReduce", nccl->Reduce(values, values, static_cast<size_t>(count), ncclFloat32, ncclSum,
                                                     root, ranks, network->stream));
}

/* The device's operations, on the network's stream. */
static void add(void *context, float *destination, const float *source, int64_t count) {
    lt_cuda_network *network = network_of(context);
    cuda_device *device = network->device;
    cudaStream_t own = device->stream;
    device->stream = network->stream;
    lt_cuda_add(&device->base, {reinterpret_cast<unsigned char *>(destination), LT_FLOAT32},
                {reinterpret_cast<unsigned char *>(const_cast<float *>(source)), LT_FLOAT32}, count);
    device->stream = own;
}

/* For MPI, which reads memory when it is told to: the network's stream is the device's. */
static void add_now(void *context, float *destination, const float *source, int64_t count) {
    const lt_cuda_network *network = network_of(context);
    add(context, destination, source, count);
    note(network, cudaStreamSynchronize(network->stream));
}

constexpr unsigned THREADS = 256;

/* The sum of all parts in rank order, a thread an element: 2 bytes read of each part, and 2 written. `own` has
 * the first part of another rank, `others` those behind it, `count` elements apart. */
static __global__ void __launch_bounds__(THREADS)
    add_parts(bf16 *own, const bf16 *mine, const bf16 *others, int64_t count, int rank, int ranks) {
    const int64_t i = static_cast<int64_t>(blockIdx.x) * THREADS + threadIdx.x;
    if (i >= count) return;
    const int first = rank == 0 ? 1 : 0;
    float sum = 0.0f;
    for (int part = 0; part < ranks; part++) {
        const int before = part - (part > rank ? 1 : 0);
        const float value = read(part == rank ? mine + i : part == first ? own + i : others + (before - 1) * count + i);
        sum = part == 0 ? value : sum + value;
    }
    write(own + i, sum);
}

static void add_up(void *context, void *own, const void *mine, const void *scratch, int64_t count, int rank,
                   int ranks) {
    const lt_cuda_network *network = network_of(context);
    if (count == 0) return;
    note(network, LT_LAUNCH(add_parts, blocks(divide_up(count, int64_t{THREADS})), THREADS, 0, network->stream,
                            static_cast<bf16 *>(own), static_cast<const bf16 *>(mine),
                            static_cast<const bf16 *>(scratch), count, rank, ranks));
}

/* ---- order ---- */

static void after(const lt_cuda_network *network, cudaStream_t later, cudaStream_t earlier) {
    note(network, cudaEventRecord(network->passed, earlier));
    note(network, cudaStreamWaitEvent(later, network->passed, 0));
}

static void after_device(void *context) {
    const lt_cuda_network *network = network_of(context);
    after(network, network->stream, network->device->stream);
}

static void start(void *context) {
    lt_cuda_network *network = network_of(context);
    after_device(context);
    network->timed = true;
    note(network, cudaEventRecord(network->began, network->stream));
}

static void before_device(void *context) {
    const lt_cuda_network *network = network_of(context);
    after(network, network->device->stream, network->stream);
}

/* Waits for what is on the network's stream, or for the news that it will never be done. */
static lt_status await(lt_cuda_network *network) {
    for (;;) {
        const cudaError_t error = cudaEventQuery(network->ended);
        for (ncclComm_t ranks : network->ranks) {
            ncclResult_t result = ncclSuccess;
            if (ranks == nullptr) continue;
            LT_CHECK(check(network, "ncclCommGetAsyncError", network->nccl.CommGetAsyncError(ranks, &result)));
            if (result != ncclInProgress) LT_CHECK(check(network, "exchange between GPUs", result));
        }
        if (error != cudaErrorNotReady) {
            note(network, error);
            return LT_OK;
        }
        usleep(PAUSE_US);
    }
}

static lt_status finish(void *context, double *busy_ms, double *waited_ms) {
    lt_cuda_network *network = network_of(context);
    lt_device *device = &network->device->base;
    float busy = 0, waited = 0;
    *busy_ms = *waited_ms = 0;
    LT_CHECK(flush(context));
    if (!network->timed) return lt_fail(LT_FAILED, "a network of GPUs was finished before it was started");
    network->timed = false;
    note(network, cudaEventRecord(network->device_done, network->device->stream));
    note(network, cudaEventRecord(network->ended, network->stream));
    note(network, cudaStreamWaitEvent(network->device->stream, network->ended, 0));
    LT_CHECK(await(network));
    LT_CHECK(device->ops->synchronise(device));
    note(network, cudaEventElapsedTime(&busy, network->began, network->ended));
    note(network, cudaEventElapsedTime(&waited, network->device_done, network->ended));
    *busy_ms = busy;
    *waited_ms = waited > 0 ? waited : 0;
    return LT_OK;
}

/* ---- memory ---- */

static lt_status allocate(void *context, size_t bytes, void **memory) {
    lt_device *device = &network_of(context)->device->base;
    lt_mem mem = {};
    LT_CHECK(device->ops->allocate(device, bytes, &mem));
    *memory = mem.address;
    return LT_OK;
}

static void release(void *context, void *memory) {
    lt_cuda_network *network = network_of(context);
    note(network, cudaStreamSynchronize(network->stream));
    lt_device *device = &network->device->base;
    device->ops->release(device, {static_cast<unsigned char *>(memory), LT_BYTES}, 0);
}

/* ---- opening ---- */

static lt_network make_functions() {
    lt_network functions = {};
    functions.send = send;
    functions.receive = receive;
    functions.flush = flush;
    functions.sum = sum;
    functions.start = start;
    functions.after_device = after_device;
    functions.before_device = before_device;
    functions.finish = finish;
    return functions;
}

static const lt_network FUNCTIONS = make_functions();

lt_status lt_cuda_network_id(unsigned char *id) {
    nccl_functions nccl;
    ncclUniqueId unique;
    static_assert(sizeof unique == LT_CUDA_NETWORK_ID, "what ranks hand to each other");
    LT_CHECK(open_library(&nccl));
    if (id == nullptr) return LT_OK;
    const ncclResult_t result = nccl.GetUniqueId(&unique);
    if (result != ncclSuccess) return lt_fail(LT_IO, "NCCL has no place to meet: %s", nccl.GetErrorString(result));
    memcpy(id, &unique, sizeof unique);
    return LT_OK;
}

/* NCCL connects two ranks when they first have a message, and takes memory then. Here they have one, of zeros, before
 * others ask what is free, and before a step can be lost: all of a tensor group, and of the data ranks those that the
 * tree lets meet. */
static lt_status connect(lt_cuda_network *network, const lt_cuda_group *groups) {
    const int64_t bytes = 4096;
    lt_device *device = &network->device->base;
    LT_CHECK(device->ops->allocate(device, 2 * bytes, &network->greetings));
    LT_CHECK(device->ops->synchronise(device));
    unsigned char *out = network->greetings.address, *in = out + bytes;
    for (int kind = 0; kind < LT_RANK_KINDS; kind++) {
        const lt_ranks ranks = static_cast<lt_ranks>(kind);
        for (int other = 0; other < groups[kind].ranks; other++) {
            const int differ = other ^ groups[kind].rank;
            if (differ == 0 || (ranks == LT_DATA_RANKS && (differ & (differ - 1)) != 0)) continue;
            LT_CHECK(send(network, ranks, other, out, bytes));
            LT_CHECK(receive(network, ranks, other, in, bytes));
        }
        LT_CHECK(flush(network));
    }
    note(network, cudaEventRecord(network->ended, network->stream));
    LT_CHECK(await(network));
    return device->ops->synchronise(device);
}

static lt_status open_on(lt_cuda_network *network, const lt_cuda_group *groups) {
    LT_CHECK(open_library(&network->nccl));
    note(network, cudaStreamCreateWithFlags(&network->stream, cudaStreamNonBlocking));
    for (cudaEvent_t *event : {&network->began, &network->ended, &network->device_done, &network->passed})
        note(network, cudaEventCreate(event));
    LT_CHECK(network->device->base.ops->synchronise(&network->device->base));
    for (int kind = 0; kind < LT_RANK_KINDS; kind++) {
        ncclUniqueId id;
        if (groups[kind].ranks == 1) continue;
        memcpy(&id, groups[kind].id, sizeof id);
        LT_CHECK(check(network, "ncclCommInitRank",
                       network->nccl.CommInitRank(&network->ranks[kind], groups[kind].ranks, id, groups[kind].rank)));
    }
    return connect(network, groups);
}

lt_status lt_cuda_network_open(lt_device *device, const lt_cuda_group *groups, lt_comm_device *result) {
    lt_cuda_network *network = new (std::nothrow) lt_cuda_network{};
    if (network == nullptr) return lt_fail(LT_IO, "no memory for a network of GPUs");
    network->device = cuda_of(device);
    result->context = network;
    result->add = groups != nullptr ? add : add_now;
    result->on_main_thread = true;
    result->add_up = add_up;
    result->sum_bytes = sizeof(bf16);
    result->allocate = allocate;
    result->release = release;
    if (groups == nullptr) {
        network->stream = network->device->stream;
        return LT_OK;
    }
    result->network = &FUNCTIONS;
    const lt_status status = open_on(network, groups);
    if (status != LT_OK) lt_cuda_network_close(result);
    return status;
}

void lt_cuda_network_close(lt_comm_device *opened) {
    lt_cuda_network *network = network_of(opened->context);
    *opened = {};
    if (network == nullptr) return;
    const bool whole = !network->failed && network->device->error == cudaSuccess;
    for (ncclComm_t ranks : network->ranks)
        if (ranks != nullptr) (whole ? network->nccl.CommDestroy : network->nccl.CommAbort)(ranks);
    network->device->base.ops->release(&network->device->base, network->greetings, 0);
    for (cudaEvent_t event : {network->began, network->ended, network->device_done, network->passed})
        if (event != nullptr) cudaEventDestroy(event);
    if (network->stream != nullptr && network->stream != network->device->stream) cudaStreamDestroy(network->stream);
    delete network;
}
