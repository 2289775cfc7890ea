#include "trainer/device.h"

#include "comm/log.h"
#include "comm/plugin.h"
#include "model/cuda/cuda.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* What a rank found, for all to see. */
typedef struct gpu {
    bool there;
    unsigned char id[16];
    char bus[32]; /* of the GPU, on its host */
    char host[256];
    char why[512]; /* there is none */
} gpu;

/* GPU number `wanted` of those that this process sees, counted round: a launcher may show each rank only its
 * own. */
static lt_status open_gpu(int wanted, const lt_cuda_functions **cuda, lt_device **device) {
    const void *table = NULL;
    const char *why;
    LT_CHECK(lt_plugin_open("cuda", "a GPU", &table));
    *cuda = table;
    const int devices = (*cuda)->device_count(&why);
    return (*cuda)->device_create(devices > 0 ? wanted % devices : 0, device);
}

/* The first rank that cannot have a GPU of its own; -1: all can. */
static int first_without(const gpu *all, int ranks, int *shared_with) {
    *shared_with = -1;
    for (int rank = 0; rank < ranks; rank++) {
        if (!all[rank].there) return rank;
        for (int other = 0; other < rank; other++)
            if (memcmp(all[rank].id, all[other].id, sizeof all[rank].id) == 0) {
                *shared_with = other;
                return rank;
            }
    }
    return -1;
}

static lt_status refuse(const gpu *all, int rank, int shared_with) {
    if (shared_with < 0) return lt_fail(LT_BAD_INPUT, "train.device: cuda: %s", all[rank].why);
    return lt_fail(
        LT_BAD_INPUT,
        "train.device: cuda: ranks %d and %d on %s would share the GPU at %s; start no more ranks on a "
        "host than it has GPUs (mpirun: slots in the host file; SLURM: --ntasks-per-node)",
        shared_with, rank, all[rank].host, all[rank].bus);
}

static void describe(lt_run *run, const lt_cuda_description *chip) {
    run->peak_gflops = 1e3 * chip->peak_tflops;
    const int used =
        snprintf(run->device_text, sizeof run->device_text,
                 "cuda, %s (compute capability %d.%d, %.1f of %.1f GiB free), %s, bfloat16", chip->name,
                 chip->capability / 10, chip->capability % 10, (double)chip->available / 0x1p30,
                 (double)chip->memory / 0x1p30, run->device->blas_kernel);
    if (chip->peak_tflops > 0)
        snprintf(run->device_text + used, sizeof run->device_text - (size_t)used, ", %.0f Tflop/s stated",
                 chip->peak_tflops);
}

static lt_status open_cpu(lt_run *run, const char *why) {
    const int64_t wanted = run->config.train.threads;
    LT_CHECK(lt_cpu_device_create(wanted > 0 ? (int)wanted : run->grid.cores, &run->device));
    const lt_device *device = run->device;
    run->peak_gflops = lt_cpu_device_measure_gflops(run->device);
    snprintf(run->device_text, sizeof run->device_text,
             "cpu, %d thread%s a rank, instruction set %s, BLAS kernel %s, sgemm %.0f Gflop/s a rank%s%s%s",
             device->threads, device->threads == 1 ? "" : "s", device->instruction_set, device->blas_kernel,
             run->peak_gflops, why[0] == '\0' ? "" : " (no GPUs: ", why, why[0] == '\0' ? "" : ")");
    return LT_OK;
}

/* Tries for this rank alone. */
static void try_gpu(lt_run *run, gpu *own, lt_cuda_description *description) {
    lt_status status = open_gpu(run->grid.local_rank, &run->cuda, &run->device);
    if (status == LT_OK) status = run->cuda->device_describe(run->device, description);
    own->there = status == LT_OK;
    snprintf(own->host, sizeof own->host, "%.*s", (int)sizeof own->host - 1, run->grid.host);
    if (!own->there) {
        snprintf(own->why, sizeof own->why, "%.*s", (int)sizeof own->why - 1, lt_error_message());
        return;
    }
    snprintf(own->bus, sizeof own->bus, "%s", description->bus);
    memcpy(own->id, description->id, sizeof own->id);
}

/* Where a rank sees more GPUs than there are ranks on its host. */
static void warn_of_idle(const lt_run *run) {
    const char *why;
    const int devices = run->cuda->device_count(&why), idle = devices - run->grid.local_ranks;
    if (idle > 0)
        lt_log_warning("%s has %d GPUs and %d rank%s: %d GPU%s will be idle; start as many ranks a host "
                       "(mpirun: slots in the host file; SLURM: --ntasks-per-node), or name this run's in "
                       "CUDA_VISIBLE_DEVICES",
                       run->grid.host, devices, run->grid.local_ranks, run->grid.local_ranks == 1 ? "" : "s",
                       idle, idle == 1 ? "" : "s");
}

/* Says in few words why `auto` takes CPUs. */
static void explain(const lt_run *run, const gpu *all, int rank, int shared_with, char *why, size_t size) {
    const char *text = shared_with >= 0 ? "fewer than ranks" : all[rank].why;
    if (run->grid.hosts > 1)
        snprintf(why, size, "on %s: %.*s", all[rank].host, (int)strcspn(text, ";"), text);
    else
        snprintf(why, size, "%.*s", (int)strcspn(text, ";"), text);
}

/* All ranks know what all found: GPUs for all, or the CPU, or a refusal. */
static lt_status choose(lt_run *run, const gpu *all, const lt_cuda_description *description) {
    char why[512];
    int shared_with;
    const int without = first_without(all, run->grid.ranks, &shared_with);
    if (without < 0) {
        describe(run, description);
        warn_of_idle(run);
        return LT_OK;
    }
    if (strcmp(run->config.train.device, "cuda") == 0)
        return lt_run_share(run, refuse(all, without, shared_with));
    if (run->device != NULL) run->device->ops->destroy(run->device);
    run->device = NULL;
    explain(run, all, without, shared_with, why, sizeof why);
    return lt_run_share(run, open_cpu(run, why));
}

lt_status lt_run_open_device(lt_run *run) {
    if (strcmp(run->config.train.device, "cpu") == 0) return lt_run_share(run, open_cpu(run, ""));
    gpu own = {0}, *all = malloc(sizeof *all * (size_t)run->grid.ranks);
    lt_cuda_description description = {0};
    lt_status status = lt_run_share(
        run, all != NULL ? LT_OK : lt_fail(LT_IO, "no memory for the GPUs of %d ranks", run->grid.ranks));
    if (status == LT_OK && all != NULL) {
        try_gpu(run, &own, &description);
        status = lt_grid_all_gather(&run->grid, &own, all, sizeof own);
        if (status == LT_OK) status = choose(run, all, &description);
    }
    free(all);
    return status;
}

lt_status lt_open_device(const char *wanted, int threads, lt_device **device) {
    const lt_cuda_functions *cuda;
    if (strcmp(wanted, "cuda") == 0) return open_gpu(0, &cuda, device);
    if (strcmp(wanted, "auto") == 0) {
        if (open_gpu(0, &cuda, device) == LT_OK) return LT_OK;
        const char *why = lt_error_message();
        lt_log_info("device     cpu, %d thread%s (no GPUs: %.*s)", threads, threads == 1 ? "" : "s",
                    (int)strcspn(why, ";"), why);
    }
    return lt_cpu_device_create(threads, device);
}
