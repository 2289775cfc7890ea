/* Ranks that differ on purpose, for tests of LAZYTRAIN_CHECK_COLLECTIVES: collectives CASE [RANK]
 *
 * `same` makes every call on every rank and ends with 0. Each other case makes one rank, the last one unless
 * RANK says which, do something else than the others. */
#include "comm/grid.h"
#include "comm/log.h"
#include "comm/reduce.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static lt_grid grid;
static bool odd; /* this rank differs */

static void add(void *context, float *destination, const float *source, int64_t count) {
    (void)context;
    for (int64_t i = 0; i < count; i++) destination[i] += source[i];
}

static lt_status reduce(int64_t count) {
    const lt_reduce_device device = {.add = add};
    static float gradients[100], scratch[1000];
    return lt_reduce_gradients(&grid, &device, gradients, count, scratch);
}

/* The whole is the first share. */
static lt_status scatter(int64_t count) {
    const lt_reduce_device device = {.add = add};
    static float gradients[100], scratch[1000];
    int64_t cuts[64] = {0};
    for (int i = 1; i <= grid.data_ranks; i++) cuts[i] = count;
    return lt_reduce_scatter(&grid, &device, gradients, cuts, scratch);
}

static lt_status gather(void) {
    static float values[100];
    int64_t cuts[64] = {0};
    for (int i = 1; i <= grid.data_ranks; i++) cuts[i] = 100;
    return lt_all_gather(&grid, values, cuts);
}

static lt_status same(void) {
    double values[8] = {0};
    char all[8 * 8] = {0};
    lt_verdict verdict;
    LT_CHECK(lt_grid_broadcast(&grid, values, sizeof values, 0));
    LT_CHECK(lt_grid_all_gather(&grid, values, all, sizeof *values));
    LT_CHECK(lt_grid_sum_disjoint(&grid, values, 8));
    LT_CHECK(lt_grid_barrier(&grid));
    LT_CHECK(lt_grid_agree(&grid, 0, &verdict));
    LT_CHECK(lt_grid_agree_begin(&grid, 0));
    LT_CHECK(reduce(100));
    LT_CHECK(lt_grid_agree_end(&grid, &verdict));
    LT_CHECK(scatter(100));
    LT_CHECK(gather());
    LT_CHECK(lt_reduce_doubles(&grid, values, 8));
    return lt_grid_share_status(&grid, LT_OK, NULL);
}

static lt_status differ(const char *what) {
    char data[64 * 8] = {0};
    double values[8] = {0};
    lt_verdict verdict;
    if (strcmp(what, "operation") == 0)
        return odd ? lt_grid_barrier(&grid) : lt_grid_broadcast(&grid, data, 8, 0);
    if (strcmp(what, "broadcast") == 0) return lt_grid_broadcast(&grid, data, odd ? 7 : 8, 0);
    if (strcmp(what, "root") == 0) return lt_grid_broadcast(&grid, data, 8, odd ? 1 : 0);
    if (strcmp(what, "gather") == 0) return lt_grid_all_gather(&grid, values, data, odd ? 0 : 8);
    if (strcmp(what, "sum") == 0) return lt_grid_sum_disjoint(&grid, values, odd ? 8 : 7);
    if (strcmp(what, "reduction") == 0) return reduce(odd ? 99 : 100);
    if (strcmp(what, "scatter") == 0) return scatter(odd ? 99 : 100);
    if (strcmp(what, "values") == 0) return odd ? scatter(100) : gather();
    if (strcmp(what, "doubles") == 0) return lt_reduce_doubles(&grid, values, odd ? 2 : 1);
    if (strcmp(what, "agreement") == 0)
        return odd ? lt_grid_agree(&grid, 0, &verdict) : lt_grid_agree_begin(&grid, 0);
    if (strcmp(what, "status") == 0)
        return odd ? lt_grid_share_status(&grid, LT_OK, NULL) : lt_grid_agree(&grid, 0, &verdict);
    if (strcmp(what, "skipped") == 0) {
        if (!odd) LT_CHECK(lt_grid_barrier(&grid));
        return lt_grid_agree(&grid, 0, &verdict);
    }
    if (strcmp(what, "leaves") == 0) return odd ? LT_OK : lt_grid_barrier(&grid);
    if (strcmp(what, "hangs") == 0) {
        while (odd) pause();
        return lt_grid_barrier(&grid);
    }
    return lt_fail(LT_BAD_INPUT, "no such case: %s", what);
}

int main(int argc, char **argv) {
    if (argc < 2) return LT_BAD_INPUT;
    lt_status status = lt_grid_open(&argc, &argv, &grid);
    odd = grid.rank == (argc > 2 ? (int)strtol(argv[2], NULL, 10) : grid.ranks - 1);
    if (status == LT_OK) status = same();
    if (status == LT_OK && strcmp(argv[1], "same") != 0) status = differ(argv[1]);
    if (status != LT_OK) {
        lt_log_error(lt_error_message());
        lt_grid_abort(&grid, status);
    }
    lt_grid_close(&grid);
    return LT_OK;
}
