#include "trainer/network.h"

#include "model/cuda/cuda.h"
#include "trainer/setup.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* What a rank offers to the others of its groups. */
typedef struct offer {
    int place[LT_RANK_KINDS];                            /* its rank as data rank, and as tensor rank */
    bool there, mpi;                                     /* NCCL; MPI reaches GPUs */
    char why[256];                                       /* it has no NCCL */
    unsigned char id[LT_RANK_KINDS][LT_CUDA_NETWORK_ID]; /* of the groups in which it is rank 0 */
} offer;

static void add_on_device(void *context, float *to, const float *from, int64_t count) {
    lt_device *device = context;
    union {
        const float *in;
        unsigned char *out;
    } source = {.in = from}; /* lt_mem has no const twin; add() only reads it */
    device->ops->add(device, (lt_mem){(unsigned char *)to, LT_FLOAT32}, (lt_mem){source.out, LT_FLOAT32},
                     count);
}

/* Without an id NCCL is only looked for. */
static lt_status make_ids(const lt_run *run, offer *own) {
    const int sizes[LT_RANK_KINDS] = {run->grid.data_ranks, run->grid.tensor_ranks};
    LT_CHECK(run->cuda->network_id(NULL));
    for (int kind = 0; kind < LT_RANK_KINDS; kind++)
        if (own->place[kind] == 0 && sizes[kind] > 1) LT_CHECK(run->cuda->network_id(own->id[kind]));
    return LT_OK;
}

static void make_offer(const lt_run *run, offer *own) {
    *own = (offer){.place = {run->grid.data_rank, run->grid.tensor_rank}, .mpi = lt_mpi_reaches_gpus()};
    own->there = strcmp(run->config.parallel.backend, "mpi") != 0 && make_ids(run, own) == LT_OK;
    if (!own->there)
        snprintf(own->why, sizeof own->why, "%.*s", (int)sizeof own->why - 1, lt_error_message());
}

static const offer *first_without(const offer *all, int ranks) {
    for (int rank = 0; rank < ranks; rank++)
        if (!all[rank].there) return &all[rank];
    return NULL;
}

/* The ranks of a group have the same place in the other kind. */
static lt_status open_nccl(lt_run *run, const offer *all, const offer *own) {
    const int sizes[LT_RANK_KINDS] = {run->grid.data_ranks, run->grid.tensor_ranks};
    lt_cuda_group groups[LT_RANK_KINDS];
    for (int kind = 0; kind < LT_RANK_KINDS; kind++) {
        const int other = 1 - kind;
        groups[kind].ranks = sizes[kind];
        groups[kind].rank = own->place[kind];
        for (const offer *one = all; one < all + run->grid.ranks; one++)
            if (one->place[kind] == 0 && one->place[other] == own->place[other])
                memcpy(groups[kind].id, one->id[kind], sizeof groups[kind].id);
    }
    return run->cuda->network_open(run->device, groups, &run->network);
}

/* MPI, between GPUs where all ranks' library can, else by way of the host; `why` not NCCL. */
static lt_status open_mpi(lt_run *run, const offer *all, const char *why) {
    bool reaches = true;
    for (int rank = 0; rank < run->grid.ranks; rank++) reaches = reaches && all[rank].mpi;
    const int length = (int)strcspn(why, ";");
    run->staged = !reaches;
    if (reaches) LT_CHECK(lt_run_share(run, run->cuda->network_open(run->device, NULL, &run->network)));
    const bool fast = strcmp(run->config.parallel.reduction, "fast") == 0,
               otherwise = fast && lt_run_reduction(run) != LT_REDUCTION_FAST;
    snprintf(run->network_text, sizeof run->network_text, "mpi %s%s%s%.*s%s",
             reaches ? "between GPUs" : "through host memory", otherwise ? ", sums by the tree" : "",
             length > 0 ? " (" : "", length, why, length > 0 ? ")" : "");
    return LT_OK;
}

static lt_status choose(lt_run *run, const offer *all, const offer *own) {
    const char *wanted = run->config.parallel.backend;
    const offer *without = first_without(all, run->grid.ranks);
    if (strcmp(wanted, "mpi") == 0) return open_mpi(run, all, "");
    if (without != NULL && strcmp(wanted, "nccl") == 0)
        return lt_run_share(
            run, lt_fail(LT_BAD_INPUT, "parallel.backend: nccl: %s; mpi goes without", without->why));
    if (without != NULL) return open_mpi(run, all, without->why);
    snprintf(run->network_text, sizeof run->network_text, "nccl");
    return lt_run_share(run, open_nccl(run, all, own));
}

static lt_status open_for_gpus(lt_run *run) {
    offer own, *all = malloc(sizeof *all * (size_t)run->grid.ranks);
    lt_status status = lt_run_share(
        run, all != NULL ? LT_OK : lt_fail(LT_IO, "no memory for the offers of %d ranks", run->grid.ranks));
    if (status == LT_OK && all != NULL) {
        make_offer(run, &own);
        status = lt_grid_all_gather(&run->grid, &own, all, sizeof own);
        if (status == LT_OK) status = choose(run, all, &own);
    }
    free(all);
    return status;
}

lt_status lt_run_open_network(lt_run *run) {
    const bool host = run->device->in_host_memory;
    snprintf(run->network_text, sizeof run->network_text, "mpi");
    run->network.context = run->device;
    run->network.add = add_on_device;
    if (host && strcmp(run->config.parallel.backend, "nccl") == 0)
        return lt_run_share(run,
                            lt_fail(LT_BAD_INPUT, "parallel.backend: nccl carries what lies on GPUs, and "
                                                  "these ranks compute on CPUs; use mpi or auto"));
    return host || run->grid.ranks == 1 ? LT_OK : open_for_gpus(run);
}

void lt_run_close_network(lt_run *run) {
    if (run->network.on_main_thread) run->cuda->network_close(&run->network);
}
