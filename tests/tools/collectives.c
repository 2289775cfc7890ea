/* Ranks that differ on purpose, for tests of LAZYTRAIN_CHECK_COLLECTIVES: collectives CASE [RANK]
 *
 * `same` makes every call on every rank and ends with 0. Each other case makes one rank, the last one unless
 * RANK says which, do something else than the others. */
#include "comm/grid.h"
#include "comm/log.h"
#include "comm/reduce.h"
#include "comm/reducer.h"
#include "comm/tensor.h"

#include <signal.h>
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

/* `count` gradients in two runs, the second one of elements up to `middle`. */
static lt_status reduce(int64_t count, int64_t middle) {
    static float gradients[100];
    const lt_reducer_options options = {.count = count, .bucket = 30};
    lt_reducer *reducer;
    LT_CHECK(lt_reducer_open(&grid, &options, &reducer));
    LT_CHECK(lt_reducer_begin(reducer, gradients, middle, count - middle));
    LT_CHECK(lt_reducer_begin(reducer, gradients, 0, middle));
    LT_CHECK(lt_reducer_end(reducer, NULL));
    lt_reducer_close(reducer);
    return LT_OK;
}

/* The last rank dies while the others wait for what it should add. */
static lt_status die_in_a_reduction(void) {
    enum { COUNT = 1 << 24 };
    float *gradients = calloc(COUNT, sizeof *gradients);
    const lt_reducer_options options = {.count = COUNT};
    lt_reducer *reducer;
    if (gradients == NULL) return lt_fail(LT_IO, "no memory");
    LT_CHECK(lt_reducer_open(&grid, &options, &reducer));
    LT_CHECK(lt_reducer_begin(reducer, gradients, COUNT / 2, COUNT / 2));
    if (odd) raise(SIGKILL);
    LT_CHECK(lt_reducer_begin(reducer, gradients, 0, COUNT / 2));
    return lt_reducer_end(reducer, NULL);
}

/* Parts of two tensor ranks. */
static lt_status exchange(int64_t count) {
    static float values[100];
    const int64_t cuts[] = {0, 50, count};
    return lt_tensor_all_gather(&grid, NULL, values, sizeof *values, cuts);
}

static lt_status scatter(int64_t count) {
    const lt_comm_device device = {.add = add};
    static float partial[100], own[100];
    const int64_t cuts[] = {0, 50, count};
    return lt_tensor_reduce_scatter(&grid, &device, partial, cuts, NULL, own);
}

static lt_status gather(void) {
    static float values[100];
    int64_t cuts[64] = {0};
    for (int i = 1; i <= grid.data_ranks; i++) cuts[i] = 100;
    return lt_all_gather(&grid, NULL, values, cuts);
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
    LT_CHECK(reduce(100, 50));
    LT_CHECK(lt_grid_agree_end(&grid, &verdict));
    LT_CHECK(gather());
    if (grid.ranks % 2 == 0) {
        LT_CHECK(lt_grid_split(&grid, 2));
        LT_CHECK(exchange(100));
        LT_CHECK(scatter(100));
        LT_CHECK(lt_tensor_agree(&grid, 0, &verdict));
    }
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
    if (strcmp(what, "reduction") == 0) return reduce(odd ? 99 : 100, 50);
    if (strcmp(what, "run") == 0) return reduce(100, odd ? 49 : 50);
    if (strcmp(what, "values") == 0) return odd ? reduce(100, 50) : gather();
    if (strcmp(what, "exchange") == 0) return exchange(odd ? 99 : 100);
    if (strcmp(what, "partial") == 0) return scatter(odd ? 99 : 100);
    if (strcmp(what, "consent") == 0) return odd ? lt_tensor_agree(&grid, 0, &verdict) : exchange(100);
    if (strcmp(what, "dies") == 0) return die_in_a_reduction();
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
