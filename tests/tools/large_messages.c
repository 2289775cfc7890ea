/* Collectives of more than 2^31 bytes on 2 ranks, for tests: large_messages. Each rank takes about 2.6 GiB.
 * Prints the most memory that this rank held, in KiB, and ends with 1 where something arrives wrong. */
#include "comm/grid.h"
#include "comm/reduce.h"
#include "comm/reducer.h"
#include "comm/tensor.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>

static const int64_t bytes = (INT64_C(1) << 31) + (1 << 20) + 3;

static lt_grid grid;

static void check(lt_status status) {
    if (status == LT_OK) return;
    fprintf(stderr, "large_messages: rank %d: %s\n", grid.rank, lt_error_message());
    lt_grid_abort(&grid, status);
}

static void check_right(const char *what, int64_t wrong) {
    if (wrong == 0) return;
    check(lt_fail(LT_FAILED, "%s: %lld elements are wrong", what, (long long)wrong));
}

static unsigned char pattern(int64_t i) {
    return (unsigned char)(i * 167 + (i >> 8) * 59 + (i >> 16) * 13 + (i >> 24));
}

static void broadcasts(unsigned char *data, int root, int64_t limit) {
    for (int64_t i = 0; i < bytes; i++) data[i] = grid.rank == root ? pattern(i) : 0;
    lt_grid_set_message_limit(limit);
    check(lt_grid_broadcast(&grid, data, (size_t)bytes, root));
    int64_t wrong = 0;
    for (int64_t i = 0; i < bytes; i++) wrong += data[i] != pattern(i);
    check_right("broadcast", wrong);
}

/* Two halves, each at its place. */
static void gathers(unsigned char *data) {
    const int64_t half = bytes / 2;
    for (int64_t i = 0; i < 2 * half; i++) data[i] = i / half == grid.rank ? pattern(i) : 0;
    check(lt_grid_all_gather(&grid, data + grid.rank * half, data, (size_t)half));
    int64_t wrong = 0;
    for (int64_t i = 0; i < 2 * half; i++) wrong += data[i] != pattern(i);
    check_right("gathering", wrong);
}

static void sums(double *values) {
    const int64_t count = bytes / (int64_t)sizeof *values;
    for (int64_t i = 0; i < count; i++) values[i] = i % 2 == grid.rank ? (double)i + 0.25 : 0;
    check(lt_grid_sum_disjoint(&grid, values, count));
    int64_t wrong = 0;
    for (int64_t i = 0; i < count; i++) wrong += values[i] != (double)i + 0.25;
    check_right("sum", wrong);
}

static void reduces(float *gradients) {
    const int64_t count = bytes / (int64_t)sizeof *gradients;
    const lt_reducer_options options = {.count = count};
    lt_reducer *reducer;
    for (int64_t i = 0; i < count; i++) gradients[i] = (float)(i % 10007 + grid.rank);
    check(lt_reducer_open(&grid, &options, &reducer));
    check(lt_reducer_begin(reducer, gradients, 0, count));
    check(lt_reducer_end(reducer, NULL));
    lt_reducer_close(reducer);
    int64_t wrong = 0;
    for (int64_t i = 0; i < count; i++) wrong += gradients[i] != (float)(2 * (i % 10007) + 1);
    check_right("reduction", wrong);
}

/* Of two data ranks, who then have half each, and of two tensor ranks. */
static void gathers_shares(float *values) {
    const int64_t count = bytes / (int64_t)sizeof *values, cuts[] = {0, count / 2, count};
    for (int tensor_ranks = 1; tensor_ranks <= 2; tensor_ranks++) {
        for (int64_t i = 0; i < count; i++)
            values[i] = i >= cuts[grid.rank] && i < cuts[grid.rank + 1] ? (float)(i % 10007) : -1;
        check(lt_grid_split(&grid, tensor_ranks));
        check(tensor_ranks == 1 ? lt_all_gather(&grid, NULL, values, cuts)
                                : lt_tensor_all_gather(&grid, NULL, values, sizeof *values, cuts));
        int64_t wrong = 0;
        for (int64_t i = 0; i < count; i++) wrong += values[i] != (float)(i % 10007);
        check_right("gathering of shares", wrong);
    }
}

int main(int argc, char **argv) {
    check(lt_grid_open(&argc, &argv, &grid));
    if (grid.ranks != 2) check(lt_fail(LT_BAD_INPUT, "found %d ranks, expected 2", grid.ranks));
    void *memory = malloc((size_t)bytes);
    if (memory == NULL) check(lt_fail(LT_IO, "no memory for %lld bytes", (long long)bytes));
    broadcasts(memory, 1, INT64_MAX); /* messages of 2^31 - 1 bytes */
    broadcasts(memory, 0, 1 << 26);
    gathers(memory);
    sums(memory);
    reduces(memory);
    gathers_shares(memory);
    free(memory);
    struct rusage used;
    getrusage(RUSAGE_SELF, &used);
    printf("rank %d held %ld KiB\n", grid.rank, used.ru_maxrss);
    lt_grid_close(&grid);
    return LT_OK;
}
