/* ranks: 1 2 4 8 */
/* The grid and its small collectives: each result is computed here from the ranks' numbers alone. */
#include "comm/grid.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static lt_grid grid;
static int checks, failures;

#define CHECK(condition) \
    do { \
        checks++; \
        if (!(condition)) { \
            failures++; \
            fprintf(stderr, "test_grid: rank %d, line %d: %s (message: %s)\n", grid.rank, __LINE__, \
                    #condition, lt_error_message()); \
        } \
    } while (0)

static void describes_the_ranks(void) {
    CHECK(grid.rank >= 0 && grid.rank < grid.ranks);
    CHECK(grid.local_rank >= 0 && grid.local_rank < grid.local_ranks && grid.local_ranks <= grid.ranks);
    CHECK(grid.hosts >= 1 && grid.hosts <= grid.ranks);
    CHECK(grid.data_ranks * grid.tensor_ranks == grid.ranks);
    CHECK(grid.tensor_ranks == 1 && grid.tensor_rank == 0 && grid.data_rank == grid.rank);
    CHECK(grid.cores >= 1);
    CHECK(grid.host_first >= 0 && grid.host_first <= grid.rank);
    CHECK((grid.host_first == grid.rank) == (grid.local_rank == 0));
    CHECK(grid.host[0] != '\0' && grid.library[0] != '\0' && !strpbrk(grid.library, "\n\t,"));

    /* each host has one rank of local number 0 */
    double hosts = 0, *first = calloc((size_t)grid.ranks, sizeof *first);
    if (!first) lt_grid_abort(&grid, LT_IO);
    first[grid.rank] = grid.local_rank == 0;
    CHECK(lt_grid_sum_disjoint(&grid, first, grid.ranks) == LT_OK);
    for (int rank = 0; rank < grid.ranks; rank++) hosts += first[rank];
    CHECK((int)hosts == grid.hosts);
    free(first);
}

static void copies_from_rank_to_rank(void) {
    enum { COUNT = 1003 };
    static float values[COUNT + 1];
    const int from = grid.ranks - 1, to = 0;
    lt_grid_set_message_limit(100);
    for (int i = 0; i <= COUNT; i++) values[i] = (float)(1000 * grid.rank + i);
    CHECK(lt_grid_copy(&grid, from, to, values, COUNT) == LT_OK);
    const int expected = grid.rank == to ? from : grid.rank;
    for (int i = 0; i < COUNT; i++) CHECK(values[i] == (float)(1000 * expected + i));
    CHECK(values[COUNT] == (float)(1000 * grid.rank + COUNT));
    lt_grid_set_message_limit(INT64_MAX);
}

static unsigned char pattern(int rank, size_t i) {
    return (unsigned char)((size_t)rank * 37 + i * 11 + i / 251);
}

static void broadcasts(size_t bytes) {
    unsigned char *data = malloc(bytes + 1);
    if (!data) lt_grid_abort(&grid, LT_IO);
    for (int root = 0; root < grid.ranks; root++) {
        for (size_t i = 0; i < bytes; i++) data[i] = grid.rank == root ? pattern(root, i) : 0;
        data[bytes] = 0xA5;
        CHECK(lt_grid_broadcast(&grid, data, bytes, root) == LT_OK);
        size_t wrong = 0;
        for (size_t i = 0; i < bytes; i++) wrong += data[i] != pattern(root, i);
        CHECK(wrong == 0);
        CHECK(data[bytes] == 0xA5);
    }
    free(data);
}

static void gathers(size_t bytes) {
    size_t ranks = (size_t)grid.ranks;
    unsigned char *mine = malloc(bytes + 1), *all = malloc(ranks * bytes + 1);
    if (!mine || !all) lt_grid_abort(&grid, LT_IO);
    for (size_t i = 0; i < bytes; i++) mine[i] = pattern(grid.rank, i);
    all[ranks * bytes] = 0xA5;
    CHECK(lt_grid_all_gather(&grid, mine, all, bytes) == LT_OK);
    size_t wrong = 0;
    for (int rank = 0; rank < grid.ranks; rank++)
        for (size_t i = 0; i < bytes; i++) wrong += all[(size_t)rank * bytes + i] != pattern(rank, i);
    CHECK(wrong == 0);
    CHECK(all[ranks * bytes] == 0xA5);
    free(mine);
    free(all);
}

static void sums_disjoint(int64_t count) {
    double *values = calloc((size_t)count + 1, sizeof *values);
    if (!values) lt_grid_abort(&grid, LT_IO);
    for (int64_t i = grid.rank; i < count; i += grid.ranks) values[i] = 0.1 * (double)i + 1e-9;
    CHECK(lt_grid_sum_disjoint(&grid, values, count) == LT_OK);
    int64_t wrong = 0;
    for (int64_t i = 0; i < count; i++) wrong += values[i] != 0.1 * (double)i + 1e-9;
    CHECK(wrong == 0);
    free(values);
}

static void moves_bytes(size_t most) {
    broadcasts(0), broadcasts(1), broadcasts(most);
    gathers(0), gathers(1), gathers(most);
    sums_disjoint(0), sums_disjoint(1), sums_disjoint((int64_t)most);
}

static void agrees(void) {
    lt_verdict verdict;
    int last = grid.ranks - 1, middle = grid.ranks / 2;

    CHECK(lt_grid_agree(&grid, 0, &verdict) == LT_OK);
    CHECK(verdict.code == 0 && verdict.rank == 0);
    /* one rank alone */
    CHECK(lt_grid_agree(&grid, grid.rank == last ? 3 : 0, &verdict) == LT_OK);
    CHECK(verdict.code == 3 && verdict.rank == last);
    /* the highest code wins over a lower rank, and the lowest of its ranks is named */
    CHECK(lt_grid_agree(&grid, grid.rank >= middle ? 7 : 6, &verdict) == LT_OK);
    CHECK(verdict.code == 7 && verdict.rank == middle);
    /* codes of any int */
    CHECK(lt_grid_agree(&grid, grid.rank == 0 ? INT32_MIN : -5, &verdict) == LT_OK);
    CHECK(verdict.code == (grid.ranks == 1 ? INT32_MIN : -5) && verdict.rank == (grid.ranks == 1 ? 0 : 1));
    CHECK(lt_grid_agree(&grid, INT32_MAX, &verdict) == LT_OK);
    CHECK(verdict.code == INT32_MAX && verdict.rank == 0);
}

static void agrees_in_two_halves(void) {
    lt_verdict verdict;
    CHECK(lt_grid_agree_end(&grid, &verdict) == LT_FAILED);
    for (int step = 0; step < 20; step++) {
        int bearer = step % grid.ranks, code = step % 3;
        CHECK(lt_grid_agree_begin(&grid, grid.rank == bearer ? code : 0) == LT_OK);
        CHECK(lt_grid_agree_begin(&grid, 9) == LT_FAILED);
        /* other collectives cross it */
        lt_verdict other;
        CHECK(lt_grid_agree(&grid, step, &other) == LT_OK);
        CHECK(other.code == step && other.rank == 0);
        CHECK(lt_grid_barrier(&grid) == LT_OK);
        CHECK(lt_grid_agree_end(&grid, &verdict) == LT_OK);
        CHECK(verdict.code == code && verdict.rank == (code ? bearer : 0));
    }
}

/* Rank r brings statuses[r % count]; all must return `expected`, spoken by rank `speaker` (-1: nobody). */
static void share(const lt_status *statuses, int count, lt_status expected, int speaker) {
    lt_status mine = statuses[grid.rank % count];
    lt_fail(LT_FAILED, "stale");
    if (mine != LT_OK) lt_fail(mine, "status %d of rank %d", mine, grid.rank);
    bool speaks = !(grid.rank == speaker);
    CHECK(lt_grid_share_status(&grid, mine, &speaks) == expected);
    CHECK(speaks == (grid.rank == speaker));
    CHECK(lt_grid_share_status(&grid, mine, NULL) == expected);
    char text[64] = "stale";
    if (speaker >= 0) snprintf(text, sizeof text, "status %d of rank %d", expected, speaker);
    CHECK(strcmp(lt_error_message(), text) == 0);
}

static void shares_the_gravest_status(void) {
    static const lt_status none[] = {LT_OK};
    share(none, 1, LT_OK, -1);
    /* each neighbour in the order of gravity, either way round; rank 0 alone has the first */
    static const lt_status order[] = {LT_OK, LT_STOPPED, LT_IO, LT_FAILED, LT_BAD_INPUT};
    for (int i = 0; i + 1 < 5; i++) {
        lt_status rising[] = {order[i], order[i + 1]}, falling[] = {order[i + 1], order[i]};
        int alone = grid.ranks == 1;
        share(rising, 2, alone ? order[i] : order[i + 1], alone ? (i == 0 ? -1 : 0) : 1);
        share(falling, 2, order[i + 1], 0);
    }
}

static void names_the_failed_call(void) {
    int data = 0;
    CHECK(lt_grid_broadcast(&grid, &data, sizeof data, grid.ranks + 5) == LT_IO);
    CHECK(strstr(lt_error_message(), "MPI_Bcast failed on rank ") != NULL);
    CHECK(lt_grid_barrier(&grid) == LT_OK); /* an argument error harms nobody */
}

int main(int argc, char **argv) {
    if (lt_grid_open(&argc, &argv, &grid) != LT_OK) {
        fprintf(stderr, "test_grid: %s\n", lt_error_message());
        return 1;
    }
    describes_the_ranks();
    moves_bytes(100003);
    lt_grid_set_message_limit(97); /* the same through cut messages */
    moves_bytes(1003);
    lt_grid_set_message_limit(INT64_MAX);
    copies_from_rank_to_rank();
    agrees();
    agrees_in_two_halves();
    shares_the_gravest_status();
    names_the_failed_call();

    lt_verdict verdict;
    if (lt_grid_agree(&grid, failures > 0, &verdict) != LT_OK) verdict.code = 1;
    if (grid.rank == 0 && verdict.code == 0) printf("test_grid: %d checks passed\n", checks);
    lt_grid_close(&grid);
    return verdict.code;
}
