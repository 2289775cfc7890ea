/* Collectives of more than 2^31 bytes on 2 ranks, for tests: large_messages. Each rank takes about 2.6 GiB.
 * Prints the most memory that this rank held, in KiB, and ends with 1 where something arrives wrong. */
#include "comm/grid.h"
#include "comm/reduce.h"

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

static void add(void *context, float *destination, const float *source, int64_t count) {
    (void)context;
    for (int64_t i = 0; i < count; i++) destination[i] += source[i];
}

static void reduces(float *gradients) {
    const lt_reduce_device device = {.add = add};
    const int64_t count = bytes / (int64_t)sizeof *gradients;
    float *scratch = malloc((size_t)lt_reduce_scratch(&grid, count) * sizeof *scratch);
    if (scratch == NULL) check(lt_fail(LT_IO, "no memory"));
    for (int64_t i = 0; i < count; i++) gradients[i] = (float)(i % 10007 + grid.rank);
    check(lt_reduce_gradients(&grid, &device, gradients, count, scratch));
    int64_t wrong = 0;
    for (int64_t i = 0; i < count; i++) wrong += gradients[i] != (float)(2 * (i % 10007) + 1);
    check_right("reduction", wrong);
    free(scratch);
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
    free(memory);
    struct rusage used;
    getrusage(RUSAGE_SELF, &used);
    printf("rank %d held %ld KiB\n", grid.rank, used.ru_maxrss);
    lt_grid_close(&grid);
    return LT_OK;
}
