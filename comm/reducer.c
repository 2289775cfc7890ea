#include "comm/reducer.h"
#include "comm/check.h"
#include "comm/thread.h"
#include "comm/tree.h"

#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Elements of a bucket, buckets under way, and how long the thread sleeps between looks at them. Measured by
 * tests/bench/bench_reduce, as many times the speed of MPI_Allreduce (Open MPI 4.1, medians, two cores):
 *
 *   elements of a bucket         64 Ki   128 Ki  256 Ki  512 Ki
 *   one host, 2 ranks,  4 MiB    0.9     1.0     1.0     1.0
 *             2 ranks, 64 MiB    1.8     1.8     1.9     1.7
 *             4 ranks, 64 MiB    1.7     1.8     1.7     1.9
 *   1 Gbit/s, 2 ranks,  4 MiB    1.4     1.4     1.3     1.2
 *             2 ranks, 64 MiB    1.0     0.9     0.8     0.8   MPI_Allreduce: 573 ms, the link's limit: 537
 *
 * Small buckets leave little for the end: at 1 Gbit/s computing three times as long hid 64 % of a reduction
 * of 4 MiB by 128 Ki, 43 % by 512 Ki; of the 630 ms of 64 MiB 20 ms were waited for. With four under way the
 * link idled (0.76 instead of 0.95). Sleeping for 20 us took the computing on one host a tenth longer, 1 ms
 * no less long. A device's network is faster by far, and each bucket costs it launches: not measured. */
enum { BUCKET = 128 * 1024, NETWORK_BUCKET = 1024 * 1024, UNDER_WAY = 8, PAUSE_NS = 100000 };

_Static_assert(2 * (int)UNDER_WAY <= (int)LT_TRANSFERS_AT_ONCE, "one look at all");

/* A bucket under way; number b of a reduction uses slot b % UNDER_WAY, which is the tag of its messages too:
 * how far the buckets before it are differs from rank to rank. */
typedef struct under_way {
    bool busy;
    lt_tree tree;    /* LT_REDUCTION_TREE */
    lt_transfer sum; /* LT_REDUCTION_FAST */
} under_way;

struct lt_reducer {
    const lt_grid *grid;
    lt_reducer_options options;
    int64_t *cuts;
    int64_t bucket; /* elements of one, at most */
    MPI_Comm ranks;
    lt_transport transport;
    float *scratch;

    /* the reduction under way: of who works on it */
    under_way slots[UNDER_WAY];
    float *values;
    int64_t final; /* elements from here on, as far as was seen */
    int64_t begun; /* elements from here on are in buckets that have begun */
    int64_t buckets;
    int share; /* that the bucket before begins in */
    int busy_slots;
    double busy_since, busy_s;

    bool threaded;
    pthread_t thread;
    pthread_mutex_t lock;
    pthread_cond_t changed; /* what follows, which both threads use under the lock */
    float *gradients;
    int64_t ready; /* elements from here on are final */
    bool working;  /* the thread, without the lock */
    bool ending, stop;
    lt_status status;
    char message[LT_ERROR_MESSAGE_BYTES];
};

static int64_t bucket_elements(const lt_reducer_options *options) {
    const int64_t usual = options->device.network != NULL ? NETWORK_BUCKET : BUCKET,
                  bucket = options->bucket > 0 ? options->bucket : usual;
    return lt_mpi_piece(bucket < options->count ? bucket : options->count);
}

/* Floats of scratch for a bucket. */
static int64_t slot_scratch(const lt_grid *grid, const lt_reducer_options *options) {
    if (grid->data_ranks == 1 || options->reduction == LT_REDUCTION_FAST) return 0;
    return lt_tree_scratch(bucket_elements(options), grid->data_ranks, options->cuts != NULL);
}

static size_t scratch_bytes(const lt_grid *grid, const lt_reducer_options *options) {
    return UNDER_WAY * (size_t)slot_scratch(grid, options) * sizeof(float);
}

/* ---- buckets ---- */

/* Where the bucket begins that ends at `end`: buckets lie within a share. Also counts *share down to it. */
static int64_t bucket_begin(const lt_reducer *r, int64_t end, int *share) {
    int64_t begin = 0;
    if (r->cuts != NULL) {
        while (r->cuts[*share] >= end) --*share;
        begin = r->cuts[*share];
    }
    return end - begin > r->bucket ? end - r->bucket : begin;
}

static lt_status begin_bucket(lt_reducer *r, under_way *slot, int64_t first, int64_t count) {
    const int ranks = r->grid->data_ranks;
    const ptrdiff_t number = slot - r->slots;
    slot->busy = true;
    if (r->options.reduction == LT_REDUCTION_FAST) {
        const int owner = r->cuts == NULL ? -1 : lt_tree_share(r->share, ranks); /* bits reversed twice */
        return r->transport.sum(&r->transport, r->values + first, count, owner, &slot->sum);
    }
    slot->tree = (lt_tree){.transport = &r->transport,
                           .device = &r->options.device,
                           .rank = r->grid->data_rank,
                           .ranks = ranks,
                           .tag = (int)number,
                           .values = r->values,
                           .first = first,
                           .count = count,
                           .scratch = r->scratch + number * slot_scratch(r->grid, &r->options),
                           .owner = r->cuts == NULL ? LT_TREE_ALL : r->share};
    return lt_tree_sum(&slot->tree);
}

/* Begins the buckets whose elements are all ready, as far as there are slots. */
static lt_status begin_buckets(lt_reducer *r, bool *moved) {
    while (r->begun > 0) {
        under_way *next = &r->slots[r->buckets % UNDER_WAY];
        int share = r->share;
        const int64_t first = bucket_begin(r, r->begun, &share);
        if (next->busy || first < r->final) break;
        if (r->busy_slots == 0) r->busy_since = MPI_Wtime();
        const int64_t count = r->begun - first;
        r->share = share;
        r->begun = first;
        r->buckets++;
        r->busy_slots++;
        LT_CHECK(begin_bucket(r, next, first, count));
        *moved = true;
    }
    return LT_OK;
}

static lt_status look_at_messages(lt_reducer *r) {
    lt_transfer *transfers[2 * UNDER_WAY];
    int count = 0;
    for (under_way *slot = r->slots; slot < r->slots + UNDER_WAY; slot++) {
        if (!slot->busy) continue;
        if (r->options.reduction == LT_REDUCTION_FAST) {
            transfers[count++] = &slot->sum;
        } else {
            transfers[count++] = &slot->tree.under_way[0];
            transfers[count++] = &slot->tree.under_way[1];
        }
    }
    return count == 0 ? LT_OK : r->transport.look(&r->transport, transfers, count);
}

static lt_status advance_buckets(lt_reducer *r, bool *moved) {
    const bool fast = r->options.reduction == LT_REDUCTION_FAST;
    LT_CHECK(look_at_messages(r));
    for (under_way *slot = r->slots; slot < r->slots + UNDER_WAY; slot++) {
        if (!slot->busy) continue;
        if (!fast) LT_CHECK(lt_tree_advance(&slot->tree, moved));
        if (!(fast ? lt_transfer_done(&slot->sum) : slot->tree.done)) continue;
        slot->busy = false;
        *moved = true;
        if (--r->busy_slots == 0) r->busy_s += MPI_Wtime() - r->busy_since;
    }
    return LT_OK;
}

/* Does what can be done now. */
static lt_status work(lt_reducer *r, bool *moved) {
    *moved = false;
    LT_CHECK(advance_buckets(r, moved));
    return begin_buckets(r, moved);
}

/* Takes over what lt_reducer_begin() was told; whether there is something to do. */
static bool look(lt_reducer *r) {
    int share = r->share;
    r->values = r->gradients;
    r->final = r->ready;
    return r->busy_slots > 0 || (r->begun > 0 && bucket_begin(r, r->begun, &share) >= r->final);
}

/* ---- the thread ---- */

/* Leaves the cores to those that compute, until there may be more to do. */
static void rest(lt_reducer *r) {
    struct timespec until;
    clock_gettime(CLOCK_REALTIME, &until);
    until.tv_nsec += PAUSE_NS;
    until.tv_sec += until.tv_nsec / 1000000000;
    until.tv_nsec %= 1000000000;
    pthread_cond_timedwait(&r->changed, &r->lock, &until);
}

static void *run(void *argument) {
    lt_reducer *r = argument;
    pthread_mutex_lock(&r->lock);
    while (!r->stop) {
        if (r->ending || r->status != LT_OK || !look(r)) {
            pthread_cond_wait(&r->changed, &r->lock);
            continue;
        }
        bool moved;
        r->working = true;
        pthread_mutex_unlock(&r->lock);
        const lt_status status = work(r, &moved);
        pthread_mutex_lock(&r->lock);
        r->working = false;
        r->status = status;
        if (status != LT_OK) snprintf(r->message, sizeof r->message, "%s", lt_error_message());
        if (r->ending)
            pthread_cond_broadcast(&r->changed);
        else if (!moved)
            rest(r);
    }
    pthread_mutex_unlock(&r->lock);
    return NULL;
}

static lt_status start_thread(lt_reducer *r) {
    int level;
    LT_MPI(MPI_Query_thread, &level);
    if (level < MPI_THREAD_MULTIPLE || r->options.device.on_main_thread) return LT_OK;
    const int error = lt_thread_start(&r->thread, run, r);
    if (error != 0)
        return lt_fail(LT_IO, "the thread that reduces gradients cannot be started on rank %d: %s",
                       r->grid->rank, strerror(error));
    r->threaded = true;
    return LT_OK;
}

/* ---- what others call ---- */

size_t lt_reducer_bytes(const lt_grid *grid, const lt_reducer_options *options) {
    return sizeof(lt_reducer) + scratch_bytes(grid, options);
}

static void rewind_to_start(lt_reducer *r) {
    r->begun = r->ready = r->options.count;
    r->share = r->grid->data_ranks - 1;
    r->buckets = 0;
    r->busy_s = 0;
    r->ending = false;
}

static lt_status copy_cuts(lt_reducer *r) {
    const size_t bytes = ((size_t)r->grid->data_ranks + 1) * sizeof *r->cuts;
    if (r->options.cuts == NULL) return LT_OK;
    r->cuts = malloc(bytes);
    if (r->cuts == NULL) return lt_fail(LT_IO, "no memory for the shares of %d ranks", r->grid->data_ranks);
    memcpy(r->cuts, r->options.cuts, bytes);
    return LT_OK;
}

static lt_status allocate_scratch(lt_reducer *r) {
    const lt_comm_device *device = &r->options.device;
    const size_t bytes = scratch_bytes(r->grid, &r->options) + 1;
    void *memory = NULL;
    if (device->allocate != NULL)
        LT_CHECK(device->allocate(device->context, bytes, &memory));
    else
        memory = malloc(bytes);
    r->scratch = memory;
    return memory != NULL ? LT_OK
                          : lt_fail(LT_IO, "no memory to reduce %lld gradients", (long long)r->options.count);
}

static lt_status open_reducer(lt_reducer *r) {
    pthread_mutex_init(&r->lock, NULL);
    pthread_cond_init(&r->changed, NULL);
    rewind_to_start(r);
    if (r->grid->data_ranks == 1) return LT_OK;
    LT_CHECK(allocate_scratch(r));
    LT_CHECK(copy_cuts(r));
    r->transport = lt_transport_of(&r->options.device, LT_DATA_RANKS, r->ranks);
    return start_thread(r);
}

lt_status lt_reducer_open(const lt_grid *grid, const lt_reducer_options *options, lt_reducer **reducer) {
    *reducer = NULL;
    LT_CHECK(lt_tree_check(grid));
    LT_CALLS(grid, "opening a reduction of %lld gradients", (long long)options->count);
    MPI_Comm ranks = MPI_COMM_NULL;
    if (grid->data_ranks > 1) LT_MPI(MPI_Comm_dup, grid->mpi->data, &ranks);
    lt_reducer *r = *reducer = calloc(1, sizeof *r);
    if (r == NULL) return lt_fail(LT_IO, "no memory to reduce gradients");
    r->grid = grid;
    r->options = *options;
    if (r->options.device.add == NULL) r->options.device.add = lt_add_on_host;
    r->bucket = bucket_elements(options);
    r->ranks = ranks;
    return open_reducer(r);
}

/* Puts on the device's network what can be put now: without waiting, so that all of it can. */
static lt_status put_buckets(lt_reducer *r) {
    const lt_comm_device *device = &r->options.device;
    (r->begun == r->options.count ? device->network->start : device->network->after_device)(device->context);
    while (look(r)) {
        bool moved;
        LT_CHECK(work(r, &moved));
    }
    return LT_OK;
}

lt_status lt_reducer_begin(lt_reducer *r, float *gradients, int64_t first, int64_t count) {
    LT_CALLS(r->grid, "reducing gradients %lld to %lld", (long long)first, (long long)(first + count));
    pthread_mutex_lock(&r->lock);
    const int64_t expected = r->ready;
    if (first + count == expected && first >= 0) {
        r->gradients = gradients;
        r->ready = first;
        pthread_cond_broadcast(&r->changed);
    }
    pthread_mutex_unlock(&r->lock);
    if (first + count == expected && first >= 0)
        return r->options.device.network != NULL && r->grid->data_ranks > 1 ? put_buckets(r) : LT_OK;
    return lt_fail(LT_FAILED,
                   "found gradients %lld to %lld ready for their reduction on rank %d, expected up to %lld",
                   (long long)first, (long long)(first + count), r->grid->rank, (long long)expected);
}

/* The main thread goes on with what the other one did, which rests. */
static lt_status take_over(lt_reducer *r) {
    pthread_mutex_lock(&r->lock);
    r->ending = true;
    while (r->working) pthread_cond_wait(&r->changed, &r->lock);
    const lt_status status = r->status;
    pthread_mutex_unlock(&r->lock);
    return status == LT_OK ? LT_OK : lt_fail(status, "%s", r->message);
}

static lt_status finish(lt_reducer *r, lt_reducer_times *times) {
    const lt_comm_device *device = &r->options.device;
    if (device->network != NULL)
        return device->network->finish(device->context, &times->busy_ms, &times->waited_ms);
    const double begin = MPI_Wtime();
    LT_CHECK(take_over(r));
    while (look(r)) {
        bool moved;
        LT_CHECK(work(r, &moved));
        if (!moved) sched_yield();
    }
    *times = (lt_reducer_times){.waited_ms = 1e3 * (MPI_Wtime() - begin), .busy_ms = 1e3 * r->busy_s};
    return LT_OK;
}

lt_status lt_reducer_end(lt_reducer *r, lt_reducer_times *times) {
    LT_CALLS(r->grid, "end of the reduction of gradients");
    if (r->ready != 0)
        return lt_fail(LT_FAILED,
                       "the reduction of gradients was ended on rank %d before %lld of %lld were ready",
                       r->grid->rank, (long long)r->ready, (long long)r->options.count);
    lt_reducer_times spent = {0};
    if (r->grid->data_ranks > 1) LT_CHECK(finish(r, &spent));
    if (times != NULL) *times = spent;
    pthread_mutex_lock(&r->lock);
    rewind_to_start(r);
    pthread_mutex_unlock(&r->lock);
    return LT_OK;
}

void lt_reducer_close(lt_reducer *r) {
    if (r == NULL) return;
    if (r->threaded) {
        pthread_mutex_lock(&r->lock);
        r->stop = true;
        pthread_cond_broadcast(&r->changed);
        pthread_mutex_unlock(&r->lock);
        pthread_join(r->thread, NULL);
    }
    if (r->ranks != MPI_COMM_NULL && r->busy_slots == 0) MPI_Comm_free(&r->ranks);
    pthread_cond_destroy(&r->changed);
    pthread_mutex_destroy(&r->lock);
    const lt_comm_device *device = &r->options.device;
    if (device->allocate != NULL && r->scratch != NULL)
        device->release(device->context, r->scratch);
    else
        free(r->scratch);
    free(r->cuts);
    free(r);
}
