/* ranks: 1 2 4 8 3 */
/* Reduction of gradients in buckets against the lane tree itself. Eight lanes hold values whose sum depends
 * on the order; each data rank sums its own lanes along the tree, and what the reducer makes of them must
 * have the bits of the tree over all eight lanes computed here: whatever the buckets, runs, shares and
 * lengths of messages, with a thread and without, with tensor ranks beside. The library's own sum gets
 * integers, which have one sum in any order. Functions that stand for MPI's tell who calls it and let it
 * fail. */
#include "comm/reduce.h"
#include "comm/reducer.h"

#include <mpi.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { LANES = 8 };

static lt_grid grid;
static int checks, failures;

#define CHECK(condition) \
    do { \
        checks++; \
        if (!(condition)) { \
            failures++; \
            fprintf(stderr, "test_reducer: rank %d, line %d: %s (message: %s)\n", grid.rank, __LINE__, \
                    #condition, lt_error_message()); \
        } \
    } while (0)

/* ---- the library's calls ---- */

static pthread_t main_thread;
static atomic_int posted_here, posted_elsewhere; /* messages, by thread */
static atomic_llong longest;                     /* bytes of one */
static int level = MPI_THREAD_MULTIPLE;          /* what the library is said to offer */
static atomic_bool broken;

static void note(int64_t bytes) {
    atomic_fetch_add(pthread_equal(pthread_self(), main_thread) ? &posted_here : &posted_elsewhere, 1);
    if (bytes > longest) longest = bytes;
}

int MPI_Query_thread(int *provided) {
    *provided = level;
    return MPI_SUCCESS;
}

int MPI_Isend(const void *data, int count, MPI_Datatype type, int to, int tag, MPI_Comm ranks,
              MPI_Request *request) {
    note(count);
    return PMPI_Isend(data, count, type, to, tag, ranks, request);
}

int MPI_Irecv(void *data, int count, MPI_Datatype type, int from, int tag, MPI_Comm ranks,
              MPI_Request *request) {
    if (broken) return MPI_ERR_OTHER;
    return PMPI_Irecv(data, count, type, from, tag, ranks, request);
}

int MPI_Iallreduce(const void *mine, void *sums, int count, MPI_Datatype type, MPI_Op operation,
                   MPI_Comm ranks, MPI_Request *request) {
    note(4 * (int64_t)count);
    return PMPI_Iallreduce(mine, sums, count, type, operation, ranks, request);
}

int MPI_Ireduce(const void *mine, void *sums, int count, MPI_Datatype type, MPI_Op operation, int root,
                MPI_Comm ranks, MPI_Request *request) {
    note(4 * (int64_t)count);
    return PMPI_Ireduce(mine, sums, count, type, operation, root, ranks, request);
}

/* ---- the lanes ---- */

/* Element `i` of a lane: a hash spread over 40 binary orders of magnitude and both signs, so that rounding
 * differs from one order of summation to another. Each tensor rank has elements of its own. */
static float lane_value(int lane, int64_t i) {
    uint64_t x = (uint64_t)i * 8 + (uint64_t)lane + 0x9E3779B97F4A7C15u * (uint64_t)(grid.tensor_rank + 1);
    x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9u;
    x = (x ^ (x >> 27)) * 0x94D049BB133111EBu;
    x ^= x >> 31;
    const double scale = (double)(INT64_C(1) << 2 * ((x >> 53) % 20));
    return (float)(((double)(x & 0xFFFFFFFF) / 4294967296.0 - 0.5) * scale);
}

static float tree(int first, int lanes, int64_t i) {
    if (lanes == 1) return lane_value(first, i);
    return tree(first, lanes / 2, i) + tree(first + lanes / 2, lanes / 2, i);
}

/* The values above do tell orders apart: a sum in plain order has other bits in many elements. */
static void values_depend_on_the_order(void) {
    int differ = 0;
    for (int64_t i = 0; i < 1000; i++) {
        float serial = 0;
        for (int lane = 0; lane < LANES; lane++) serial += lane_value(lane, i);
        differ += serial != tree(0, LANES, i);
    }
    CHECK(differ > 200);
}

/* Element `i` of a data rank, and of the sum over data ranks. */
static float mine(lt_reduction reduction, int64_t i) {
    const int lanes = LANES / grid.data_ranks;
    if (reduction == LT_REDUCTION_TREE) return tree(grid.data_rank * lanes, lanes, i);
    return (float)((i + 3 * grid.data_rank + grid.tensor_rank) % 1000);
}

static float sum(lt_reduction reduction, int64_t i) {
    if (reduction == LT_REDUCTION_TREE) return tree(0, LANES, i);
    float total = 0;
    for (int rank = 0; rank < grid.data_ranks; rank++)
        total += (float)((i + 3 * rank + grid.tensor_rank) % 1000);
    return total;
}

/* ---- reductions ---- */

static const float guard = 12345.5f;

/* Some reductions by one reducer; runs of about `run` elements. */
static void reduces(lt_reducer_options options, int64_t run, int64_t limit) {
    lt_grid_set_message_limit(limit);
    const int64_t count = options.count;
    const int steps = count < 1000000 ? 2 : 1;
    lt_reducer *reducer = NULL;
    float *gradients = malloc((size_t)(count + 1) * sizeof *gradients);
    if (gradients == NULL) lt_grid_abort(&grid, LT_IO);
    CHECK(lt_reducer_open(&grid, &options, &reducer) == LT_OK);
    longest = 0;
    for (int step = 0; step < steps; step++) {
        for (int64_t i = 0; i < count; i++) gradients[i] = mine(options.reduction, i + step);
        gradients[count] = guard;
        int64_t end = count;
        for (int64_t k = 0; end > 0 || k == 0; k++) { /* of uneven lengths, some of none */
            const int64_t length = k % 3 == 2 ? 0 : run + k % 5;
            const int64_t first = end > length ? end - length : 0;
            CHECK(lt_reducer_begin(reducer, gradients, first, end - first) == LT_OK);
            end = first;
        }
        lt_reducer_times times = {-1, -1};
        CHECK(lt_reducer_end(reducer, &times) == LT_OK);
        CHECK(times.waited_ms >= 0 && (times.busy_ms > 0) == (grid.data_ranks > 1 && count > 0));

        const int own = lt_reduce_share(&grid);
        const int64_t first = options.cuts == NULL ? 0 : options.cuts[own];
        const int64_t last = options.cuts == NULL ? count : options.cuts[own + 1];
        int64_t wrong = 0;
        for (int64_t i = first; i < last; i++) {
            const float right = sum(options.reduction, i + step);
            wrong += memcmp(&gradients[i], &right, sizeof right) != 0;
        }
        CHECK(wrong == 0);
        CHECK(gradients[count] == guard);
    }
    CHECK(longest <= 4 * (limit < INT32_MAX ? limit : INT32_MAX));
    lt_reducer_close(reducer);
    free(gradients);
    lt_grid_set_message_limit(INT64_MAX);
}

static void reduces_whole(lt_reduction reduction) {
    lt_reducer_options options = {.reduction = reduction};
    for (options.count = 0; options.count <= 20; options.count++) {
        options.bucket = 1 + options.count % 7;
        reduces(options, 1 + options.count % 4, INT64_MAX);
    }
    options.count = 403;
    static const int64_t buckets[] = {0, 63, 64, 402, 403, 5000};
    for (size_t i = 0; i < sizeof buckets / sizeof *buckets; i++) {
        options.bucket = buckets[i];
        reduces(options, 1 + (int64_t)i * 77, INT64_MAX);
        reduces(options, 5000, 97); /* messages, and so buckets, of other lengths */
    }
    options.count = 1500001;
    options.bucket = 0;
    reduces(options, 700000, INT64_MAX);
}

/* Even shares, odd ones, some empty, and all in the hands of one rank. */
static void reduces_to_shares(lt_reduction reduction) {
    int64_t cuts[LANES + 1] = {0};
    const int ranks = grid.data_ranks;
    lt_reducer_options options = {.reduction = reduction, .cuts = cuts, .bucket = 40};
    for (int64_t count = 0; count <= 40; count += 10) {
        for (int i = 0; i <= ranks; i++) cuts[i] = count * i / ranks;
        options.count = count;
        reduces(options, 7, INT64_MAX);
        reduces(options, 40, 3);
    }
    for (uint64_t seed = 1; seed <= 8; seed++) {
        for (int i = 0; i < ranks; i++)
            cuts[i + 1] = cuts[i] + (int64_t)(seed * 2654435761u * (uint64_t)(i + 3) >> 7) % 150 / 50 * 37;
        options.count = cuts[ranks];
        reduces(options, 30, seed % 2 == 0 ? 10 : INT64_MAX);
    }
    options.count = 101;
    for (int owner = 0; owner < ranks; owner++) {
        for (int i = 0; i <= ranks; i++) cuts[i] = i > owner ? 101 : 0;
        reduces(options, 11, INT64_MAX);
    }
    for (int i = 0; i <= ranks; i++) cuts[i] = i * INT64_C(33337) + (i > 0 ? 1300001 : 0);
    options.count = cuts[ranks];
    options.bucket = 0;
    reduces(options, 400000, INT64_MAX);
}

static void reduces_all(void) {
    for (lt_reduction reduction = LT_REDUCTION_TREE; reduction <= LT_REDUCTION_FAST; reduction++) {
        reduces_whole(reduction);
        reduces_to_shares(reduction);
    }
}

/* ---- who does it, and when ---- */

static void add_and_count(void *context, float *destination, const float *source, int64_t count) {
    atomic_fetch_add((atomic_int *)context, 1);
    for (int64_t i = 0; i < count; i++) destination[i] += source[i];
}

static bool comes_within(atomic_int *number, int wanted, int seconds) {
    const struct timespec pause = {.tv_nsec = 1000000};
    for (int i = 0; i < 1000 * seconds && atomic_load(number) < wanted; i++) nanosleep(&pause, NULL);
    return atomic_load(number) >= wanted;
}

/* The thread sums while the main thread does something else; without a thread all is done by the main one. */
static void sums_behind_the_main_thread(void) {
    enum { COUNT = 4000, BUCKET = 1000, RUNS = 8 };
    static float gradients[COUNT];
    atomic_int adds = 0;
    int levels = 0;
    for (int ranks = grid.data_ranks; ranks > 1; ranks /= 2) levels++;
    lt_reducer *reducer;
    const lt_reducer_options options = {
        .count = COUNT, .bucket = BUCKET, .device = {.context = &adds, .add = add_and_count}};
    CHECK(lt_reducer_open(&grid, &options, &reducer) == LT_OK);
    posted_here = posted_elsewhere = 0;
    for (int run = RUNS - 1; run >= 0; run--) {
        CHECK(lt_reducer_begin(reducer, gradients, run * (COUNT / RUNS), COUNT / RUNS) == LT_OK);
        const int buckets = (RUNS - run) / 2;
        if (level == MPI_THREAD_MULTIPLE) CHECK(comes_within(&adds, buckets * levels, 60));
        CHECK(atomic_load(&adds) <= buckets * levels);
    }
    CHECK(posted_here == 0 && (level == MPI_THREAD_MULTIPLE || posted_elsewhere == 0));
    CHECK(lt_reducer_end(reducer, NULL) == LT_OK);
    CHECK(atomic_load(&adds) == COUNT / BUCKET * levels);
    CHECK(level == MPI_THREAD_MULTIPLE || posted_elsewhere == 0);
    CHECK((posted_here + posted_elsewhere > 0) == (grid.data_ranks > 1));
    lt_reducer_close(reducer);
}

/* ---- what goes wrong ---- */

static void refuses_runs_that_do_not_meet(void) {
    float gradients[100];
    for (int i = 0; i < 100; i++) gradients[i] = mine(LT_REDUCTION_TREE, i);
    lt_reducer *reducer;
    const lt_reducer_options options = {.count = 100, .bucket = 30};
    CHECK(lt_reducer_open(&grid, &options, &reducer) == LT_OK);
    CHECK(lt_reducer_end(reducer, NULL) == LT_FAILED);
    CHECK(lt_reducer_begin(reducer, gradients, 0, 99) == LT_FAILED);
    CHECK(lt_reducer_begin(reducer, gradients, 40, 60) == LT_OK);
    CHECK(lt_reducer_begin(reducer, gradients, 40, 60) == LT_FAILED);
    CHECK(lt_reducer_begin(reducer, gradients, -1, 41) == LT_FAILED);
    CHECK(lt_reducer_end(reducer, NULL) == LT_FAILED);
    CHECK(lt_reducer_begin(reducer, gradients, 0, 40) == LT_OK);
    CHECK(lt_reducer_end(reducer, NULL) == LT_OK);
    const float right = sum(LT_REDUCTION_TREE, 7);
    CHECK(memcmp(&gradients[7], &right, sizeof right) == 0);
    lt_reducer_close(reducer);
}

/* The first call fails on all ranks, so that nothing stays on its way. */
static void tells_what_failed(void) {
    float gradients[100] = {0};
    lt_reducer *reducer;
    if (grid.data_ranks == 1) return;
    for (int begun = 0; begun < 2; begun++) { /* known before the end begins, or not */
        const lt_reducer_options options = {.count = 100, .bucket = 60};
        CHECK(lt_reducer_open(&grid, &options, &reducer) == LT_OK);
        broken = true;
        CHECK(lt_reducer_begin(reducer, gradients, 40 * (1 - begun), 100 - 40 * (1 - begun)) == LT_OK);
        if (begun == 0) CHECK(lt_reducer_begin(reducer, gradients, 0, 40) == LT_OK);
        CHECK(lt_reducer_end(reducer, NULL) == LT_IO);
        CHECK(strstr(lt_error_message(), "MPI_Irecv failed on rank ") != NULL);
        broken = false;
        lt_reducer_close(reducer);
    }
}

static void refuses_other_numbers_of_ranks(void) {
    lt_reducer *reducer = NULL;
    const lt_reducer_options options = {.count = 4};
    CHECK(lt_reducer_open(&grid, &options, &reducer) == LT_BAD_INPUT);
    CHECK(strstr(lt_error_message(), "3 data ranks") != NULL);
    lt_reducer_close(reducer);
}

static void runs_all(void) {
    reduces_all();
    sums_behind_the_main_thread();
    refuses_runs_that_do_not_meet();
    tells_what_failed();
}

int main(int argc, char **argv) {
    main_thread = pthread_self();
    if (lt_grid_open(&argc, &argv, &grid) != LT_OK) {
        fprintf(stderr, "test_reducer: %s\n", lt_error_message());
        return 1;
    }
    if (grid.ranks == 3) {
        refuses_other_numbers_of_ranks();
    } else {
        values_depend_on_the_order();
        runs_all();
        level = MPI_THREAD_SERIALIZED;
        runs_all();
        level = MPI_THREAD_MULTIPLE;
        if (grid.ranks > 1) {
            CHECK(lt_grid_split(&grid, 2) == LT_OK);
            reduces_all();
        }
    }
    lt_verdict verdict;
    if (lt_grid_agree(&grid, failures > 0, &verdict) != LT_OK) verdict.code = 1;
    if (grid.rank == 0 && verdict.code == 0) printf("test_reducer: %d checks passed\n", checks);
    lt_grid_close(&grid);
    return verdict.code;
}
