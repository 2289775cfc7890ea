/* The CPU device: memory, threads, instruction set, and the table of operations. */
#include "model/cpu/device.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>

#if defined(__x86_64__)
extern const lt_kernels lt_kernels_avx512, lt_kernels_avx2, lt_kernels_sse2;

static const lt_kernels *best_kernels(void) {
    __builtin_cpu_init();
    const bool avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
    if (avx2 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512dq") &&
        __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vl"))
        return &lt_kernels_avx512;
    return avx2 ? &lt_kernels_avx2 : &lt_kernels_sse2;
}

/* Instruction sets from the widest on; a CPU that has one has those after it. */
static const lt_kernels *const ALL_KERNELS[] = {&lt_kernels_avx512, &lt_kernels_avx2, &lt_kernels_sse2};
#else
extern const lt_kernels lt_kernels_generic;

static const lt_kernels *best_kernels(void) {
    return &lt_kernels_generic;
}

static const lt_kernels *const ALL_KERNELS[] = {&lt_kernels_generic};
#endif

static lt_status choose_kernels(const lt_kernels **kernels) {
    const char *wanted = getenv("LAZYTRAIN_ISA");
    *kernels = best_kernels();
    if (wanted == NULL || *wanted == '\0') return LT_OK;
    bool usable = false;
    for (size_t i = 0; i < sizeof ALL_KERNELS / sizeof ALL_KERNELS[0]; i++) {
        usable = usable || ALL_KERNELS[i] == best_kernels();
        if (usable && strcmp(ALL_KERNELS[i]->name, wanted) == 0) {
            *kernels = ALL_KERNELS[i];
            return LT_OK;
        }
    }
    return lt_fail(
        LT_BAD_INPUT,
        "environment variable LAZYTRAIN_ISA: '%s' is no instruction set that this CPU and this build have; "
        "unset it to get %s",
        wanted, best_kernels()->name);
}

/* Anonymous pages are zero; large arrays take huge pages where the system has them to give. */
static lt_status cpu_allocate(lt_device *device, size_t bytes, lt_mem *mem) {
    (void)device;
    *mem = LT_NOWHERE;
    if (bytes == 0) return LT_OK;
    void *address = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (address == MAP_FAILED)
        return lt_fail(LT_IO, "cannot allocate %.1f MiB: %s; a smaller micro_batch or seq_len needs less",
                       (double)bytes / 1048576.0, strerror(errno));
    madvise(address, bytes, MADV_HUGEPAGE);
    mem->address = address;
    return LT_OK;
}

static void cpu_release(lt_device *device, lt_mem mem, size_t bytes) {
    (void)device;
    if (mem.address != NULL) munmap(mem.address, bytes);
}

static void cpu_upload(lt_device *device, lt_mem to, const void *from, int64_t count) {
    (void)device;
    memcpy(to.address, from, (size_t)count * lt_type_bytes(to.type));
}

static lt_status cpu_download(lt_device *device, void *to, lt_mem from, int64_t count) {
    (void)device;
    memcpy(to, from.address, (size_t)count * lt_type_bytes(from.type));
    return LT_OK;
}

static lt_status cpu_synchronise(lt_device *device) {
    (void)device;
    return LT_OK;
}

static size_t larger(size_t a, size_t b) {
    return a > b ? a : b;
}

static size_t cpu_scratch_bytes(lt_device *device, const lt_attention *shape, int64_t rows, int64_t hidden,
                                int64_t largest) {
    (void)largest; /* operations over flat arrays need none here */
    return larger(lt_cpu_attention_scratch_bytes(device, shape), lt_cpu_rows_scratch_bytes(rows, hidden));
}

static lt_status cpu_reserve(lt_device *device, size_t bytes) {
    cpu_device *cpu = cpu_of(device);
    if (bytes <= cpu->scratch_bytes) return LT_OK;
    lt_mem mem;
    LT_CHECK(cpu_allocate(device, bytes, &mem));
    cpu_release(device, (lt_mem){cpu->scratch, LT_BYTES}, cpu->scratch_bytes);
    cpu->scratch = mem.address;
    cpu->scratch_bytes = bytes;
    return LT_OK;
}

static void cpu_destroy(lt_device *device) {
    cpu_device *cpu = cpu_of(device);
    cpu_release(device, (lt_mem){cpu->scratch, LT_BYTES}, cpu->scratch_bytes);
    lt_pool_destroy(cpu->pool);
    free(cpu);
}

static const lt_ops CPU_OPS = {
    .allocate = cpu_allocate,
    .release = cpu_release,
    .upload = cpu_upload,
    .download = cpu_download,
    .copy = lt_cpu_copy,
    .round_to = lt_cpu_copy, /* float32 as it is */
    .zero = lt_cpu_zero,
    .synchronise = cpu_synchronise,
    .scratch_bytes = cpu_scratch_bytes,
    .reserve = cpu_reserve,
    .gemm = lt_cpu_gemm,
    .embedding_forward = lt_cpu_embedding_forward,
    .embedding_backward = lt_cpu_embedding_backward,
    .rmsnorm_forward = lt_cpu_rmsnorm_forward,
    .rmsnorm_backward = lt_cpu_rmsnorm_backward,
    .rope = lt_cpu_rope,
    .attention_saved_bytes = lt_cpu_attention_saved_bytes,
    .attention_forward = lt_cpu_attention_forward,
    .attention_backward = lt_cpu_attention_backward,
    .attention_statistics = lt_cpu_attention_statistics,
    .swiglu_forward = lt_cpu_swiglu_forward,
    .swiglu_backward = lt_cpu_swiglu_backward,
    .cross_entropy = lt_cpu_cross_entropy,
    .cross_entropy_part = lt_cpu_cross_entropy_part,
    .cross_entropy_join = lt_cpu_cross_entropy_join,
    .sum_segments = lt_cpu_sum_segments,
    .add = lt_cpu_add,
    .sum_squares = lt_cpu_sum_squares,
    .adamw = lt_cpu_adamw,
    .destroy = cpu_destroy,
};

lt_status lt_cpu_device_create(int threads, lt_device **device) {
    const lt_kernels *kernels;
    LT_CHECK(choose_kernels(&kernels));
    cpu_device *cpu = calloc(1, sizeof *cpu);
    if (cpu == NULL) return lt_fail(LT_IO, "no memory for the CPU device");
    lt_status status = lt_pool_create(threads, &cpu->pool);
    if (status != LT_OK) {
        free(cpu);
        return status;
    }
    cpu->kernels = kernels;
    lt_cpu_blas_use_one_thread();
    snprintf(cpu->blas_kernel, sizeof cpu->blas_kernel, "%s", lt_cpu_blas_kernel());
    cpu->base = (lt_device){.ops = &CPU_OPS,
                            .compute_type = LT_FLOAT32,
                            .in_host_memory = true,
                            .threads = threads,
                            .kind = "cpu",
                            .instruction_set = kernels->name,
                            .blas_kernel = cpu->blas_kernel};
    *device = &cpu->base;
    return LT_OK;
}

static double now_s(void) {
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return (double)time.tv_sec + 1e-9 * (double)time.tv_nsec;
}

/* Each thread multiplies its own matrices, as two cores of a machine would at best. */
typedef struct rate_job {
    cpu_device *device;
    float *memory;
} rate_job;

enum { RATE_SIZE = 512 };

static void multiply_once(void *context, int64_t index, int worker) {
    (void)worker;
    const rate_job *job = context;
    float *own = job->memory + index * 3 * RATE_SIZE * RATE_SIZE;
    lt_mem a = {(unsigned char *)own, LT_FLOAT32};
    lt_cpu_blas_multiply(&(lt_gemm){.m = RATE_SIZE,
                                    .n = RATE_SIZE,
                                    .k = RATE_SIZE,
                                    .a = a,
                                    .b = lt_at(a, RATE_SIZE * RATE_SIZE),
                                    .c = lt_at(a, 2 * RATE_SIZE * RATE_SIZE),
                                    .lda = RATE_SIZE,
                                    .ldb = RATE_SIZE,
                                    .ldc = RATE_SIZE});
}

double lt_cpu_device_measure_gflops(lt_device *device) {
    enum { ROUNDS = 4 };
    rate_job job = {.device = cpu_of(device)};
    const int64_t threads = device->threads;
    job.memory = calloc((size_t)threads * 3 * RATE_SIZE * RATE_SIZE, sizeof(float));
    if (job.memory == NULL) return 0;
    double best = 0;
    for (int round = 0; round <= ROUNDS; round++) { /* the first one touches the pages */
        const double begin = now_s();
        lt_pool_run(job.device->pool, threads, multiply_once, &job);
        const double rate = 2e-9 * RATE_SIZE * RATE_SIZE * RATE_SIZE * (double)threads / (now_s() - begin);
        if (round > 0 && rate > best) best = rate;
    }
    free(job.memory);
    return best;
}
