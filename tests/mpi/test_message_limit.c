/* ranks: 1 2 4 */
/* No message is longer than the limit, in any collective, and what arrives is right. MPI's profiling
 * interface shows the calls that move data: the functions below stand for the library's.
 * (tests/cli/collectives.sh knows that comm/ calls no others.) */
#include "comm/grid.h"
#include "comm/reduce.h"
#include "comm/reducer.h"
#include "comm/tensor.h"

#include <mpi.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static lt_grid grid;
static int checks, failures;
static atomic_int messages;
static atomic_llong longest; /* elements of a message */

#define CHECK(condition) \
    do { \
        checks++; \
        if (!(condition)) { \
            failures++; \
            fprintf(stderr, "test_message_limit: rank %d, line %d: %s (message: %s)\n", grid.rank, __LINE__, \
                    #condition, lt_error_message()); \
        } \
    } while (0)

/* ---- the library's calls ---- */

static void note(int64_t elements) {
    messages++;
    if (elements > longest) longest = elements;
}

int MPI_Bcast(void *data, int count, MPI_Datatype type, int root, MPI_Comm ranks) {
    note(count);
    return PMPI_Bcast(data, count, type, root, ranks);
}

int MPI_Allgather(const void *mine, int count, MPI_Datatype type, void *all, int all_count,
                  MPI_Datatype all_type, MPI_Comm ranks) {
    note((int64_t)all_count * grid.ranks);
    return PMPI_Allgather(mine, count, type, all, all_count, all_type, ranks);
}

int MPI_Allreduce(const void *mine, void *sums, int count, MPI_Datatype type, MPI_Op operation,
                  MPI_Comm ranks) {
    note(count);
    return PMPI_Allreduce(mine, sums, count, type, operation, ranks);
}

int MPI_Iallreduce(const void *mine, void *sums, int count, MPI_Datatype type, MPI_Op operation,
                   MPI_Comm ranks, MPI_Request *request) {
    note(count);
    return PMPI_Iallreduce(mine, sums, count, type, operation, ranks, request);
}

int MPI_Ireduce(const void *mine, void *sums, int count, MPI_Datatype type, MPI_Op operation, int root,
                MPI_Comm ranks, MPI_Request *request) {
    note(count);
    return PMPI_Ireduce(mine, sums, count, type, operation, root, ranks, request);
}

int MPI_Isend(const void *data, int count, MPI_Datatype type, int to, int tag, MPI_Comm ranks,
              MPI_Request *request) {
    note(count);
    return PMPI_Isend(data, count, type, to, tag, ranks, request);
}

int MPI_Irecv(void *data, int count, MPI_Datatype type, int from, int tag, MPI_Comm ranks,
              MPI_Request *request) {
    note(count);
    return PMPI_Irecv(data, count, type, from, tag, ranks, request);
}

int MPI_Send(const void *data, int count, MPI_Datatype type, int to, int tag, MPI_Comm ranks) {
    note(count);
    return PMPI_Send(data, count, type, to, tag, ranks);
}

int MPI_Recv(void *data, int count, MPI_Datatype type, int from, int tag, MPI_Comm ranks,
             MPI_Status *status) {
    note(count);
    return PMPI_Recv(data, count, type, from, tag, ranks, status);
}

/* ---- each collective ---- */

enum { BYTES = 100 };

static void begin(int64_t limit) {
    lt_grid_set_message_limit(limit);
    longest = messages = 0;
}

static unsigned char pattern(int rank, int i) {
    return (unsigned char)(rank * 37 + i * 11 + i / 251);
}

static void broadcast_is_cut(int64_t limit) {
    unsigned char data[BYTES];
    const int root = grid.ranks - 1;
    for (int i = 0; i < BYTES; i++) data[i] = grid.rank == root ? pattern(root, i) : 0;
    begin(limit);
    CHECK(lt_grid_broadcast(&grid, data, BYTES, root) == LT_OK);
    CHECK(longest <= limit && messages == (BYTES + limit - 1) / limit);
    int wrong = 0;
    for (int i = 0; i < BYTES; i++) wrong += data[i] != pattern(root, i);
    CHECK(wrong == 0);
}

/* From a place apart, and from this rank's place in the result. */
static void gathering_is_cut(int64_t limit, bool in_place) {
    unsigned char mine[BYTES], *all = calloc((size_t)grid.ranks, BYTES);
    if (all == NULL) lt_grid_abort(&grid, LT_IO);
    unsigned char *own = all + grid.rank * BYTES, *from = in_place ? own : mine;
    for (int i = 0; i < BYTES; i++) from[i] = pattern(grid.rank, i);
    begin(limit);
    CHECK(lt_grid_all_gather(&grid, from, all, BYTES) == LT_OK);
    CHECK(longest <= limit);
    int wrong = 0;
    for (int i = 0; i < grid.ranks * BYTES; i++) wrong += all[i] != pattern(i / BYTES, i % BYTES);
    CHECK(wrong == 0);
    free(all);
}

static void sum_is_cut(int64_t limit) {
    double values[BYTES] = {0};
    for (int i = grid.rank; i < BYTES; i += grid.ranks) values[i] = i + 0.5;
    begin(limit);
    CHECK(lt_grid_sum_disjoint(&grid, values, BYTES) == LT_OK);
    CHECK(longest <= limit && messages == (BYTES + limit - 1) / limit);
    int wrong = 0;
    for (int i = 0; i < BYTES; i++) wrong += values[i] != i + 0.5;
    CHECK(wrong == 0);
}

static void add(void *context, float *destination, const float *source, int64_t count) {
    (void)context;
    for (int64_t i = 0; i < count; i++) destination[i] += source[i];
}

/* Shares of every length from 0, and what all ranks bring: i + rank for element i. */
static void prepare(int64_t *cuts, float *values) {
    for (int i = 1; i <= grid.ranks; i++) cuts[i] = i == grid.ranks ? BYTES : (i - 1) * (BYTES / 3);
    for (int i = 0; i < BYTES; i++) values[i] = (float)(i + grid.rank);
}

static int wrong_sums(const float *values, int64_t first, int64_t end) {
    int wrong = 0;
    for (int64_t i = first; i < end; i++)
        wrong += values[i] != (float)(i * grid.ranks + grid.ranks * (grid.ranks - 1) / 2);
    return wrong;
}

/* To all, or to the shares, which then are gathered. */
static void reduction_is_cut(int64_t limit, lt_reduction reduction, bool to_shares) {
    float values[BYTES];
    int64_t cuts[5] = {0};
    prepare(cuts, values);
    begin(limit);
    lt_reducer *reducer;
    const lt_reducer_options options = {
        .reduction = reduction, .count = BYTES, .cuts = to_shares ? cuts : NULL};
    CHECK(lt_reducer_open(&grid, &options, &reducer) == LT_OK);
    CHECK(lt_reducer_begin(reducer, values, 0, BYTES) == LT_OK);
    CHECK(lt_reducer_end(reducer, NULL) == LT_OK);
    lt_reducer_close(reducer);
    if (to_shares) CHECK(lt_all_gather(&grid, NULL, values, cuts) == LT_OK);
    CHECK(longest <= limit && (messages > 0) == (grid.ranks > 1));
    CHECK(wrong_sums(values, 0, BYTES) == 0);
}

/* All ranks as one tensor group. */
static void tensor_exchange_is_cut(int64_t limit) {
    const lt_comm_device device = {.add = add};
    float values[BYTES], scratch[2 * BYTES];
    int64_t cuts[5] = {0};
    prepare(cuts, values);
    CHECK(lt_grid_split(&grid, grid.ranks) == LT_OK);
    begin(limit);
    const int64_t first = cuts[grid.rank], end = cuts[grid.rank + 1];
    float sums[BYTES];
    CHECK(lt_tensor_reduce_scatter(&grid, &device, values, cuts, scratch, sums + first) == LT_OK);
    CHECK(wrong_sums(sums, first, end) == 0);
    CHECK(lt_tensor_all_gather(&grid, NULL, sums, sizeof *sums, cuts) == LT_OK);
    CHECK(wrong_sums(sums, 0, BYTES) == 0);
    CHECK(longest <= limit && messages > 0);
    CHECK(lt_grid_split(&grid, 1) == LT_OK);
}

static void copy_is_cut(int64_t limit) {
    const int from = grid.ranks - 1;
    float values[BYTES];
    for (int i = 0; i < BYTES; i++) values[i] = (float)(grid.rank == from ? i : -1);
    begin(limit);
    CHECK(lt_grid_copy(&grid, from, 0, values, BYTES) == LT_OK);
    const bool takes_part = from != 0 && (grid.rank == 0 || grid.rank == from);
    CHECK(longest <= limit && messages == (takes_part ? (BYTES + limit - 1) / limit : 0));
    int wrong = 0;
    for (int i = 0; i < BYTES; i++)
        wrong += values[i] != (float)(grid.rank == from || grid.rank == 0 ? i : -1);
    CHECK(wrong == 0);
}

static void message_of_an_error_is_cut(int64_t limit) {
    char expected[256];
    snprintf(expected, sizeof expected, "rank %d: %0200d", grid.ranks - 1, 7);
    lt_fail(LT_IO, "rank %d: %0200d", grid.rank, 7);
    begin(limit);
    const lt_status mine = grid.rank == grid.ranks - 1 ? LT_IO : LT_OK;
    CHECK(lt_grid_share_status(&grid, mine, NULL) == LT_IO);
    CHECK(longest <= limit && strcmp(lt_error_message(), expected) == 0);
}

int main(int argc, char **argv) {
    if (lt_grid_open(&argc, &argv, &grid) != LT_OK) {
        fprintf(stderr, "test_message_limit: %s\n", lt_error_message());
        return 1;
    }
    static const int64_t limits[] = {1, 7, 99, 100, 101, 399, 400, 10000, 1 << 30};
    for (size_t i = 0; i < sizeof limits / sizeof *limits; i++) {
        broadcast_is_cut(limits[i]);
        gathering_is_cut(limits[i], false);
        gathering_is_cut(limits[i], true);
        sum_is_cut(limits[i]);
        for (lt_reduction reduction = LT_REDUCTION_TREE; reduction <= LT_REDUCTION_FAST; reduction++) {
            reduction_is_cut(limits[i], reduction, false);
            reduction_is_cut(limits[i], reduction, true);
        }
        if (grid.ranks > 1) tensor_exchange_is_cut(limits[i]);
        copy_is_cut(limits[i]);
        if (limits[i] >= 99) message_of_an_error_is_cut(limits[i]); /* of 4096 bytes */
    }
    lt_verdict verdict;
    if (lt_grid_agree(&grid, failures > 0, &verdict) != LT_OK) verdict.code = 1;
    if (grid.rank == 0 && verdict.code == 0) printf("test_message_limit: %d checks passed\n", checks);
    lt_grid_close(&grid);
    return verdict.code;
}
