/* ranks: 1 2 4 */
/* Times over ranks: each rank says that it waited for others as long as this file makes it, so the busiest is
 * known. */
#include "trainer/interval.h"
#include "trainer/run.h"

#include <stdio.h>

static lt_grid grid;
static int failures;

#define CHECK(condition) \
    do { \
        if (!(condition)) { \
            failures++; \
            fprintf(stderr, "test_interval: rank %d, line %d: %s (message: %s)\n", grid.rank, __LINE__, \
                    #condition, lt_error_message()); \
        } \
    } while (0)

/* Ten steps that took 20 seconds: `slow` was busy throughout, the others waited for `waited_ms` of it. */
static lt_metrics_step gather(lt_interval *interval, int slow, double waited_ms) {
    lt_metrics_step metrics = {0};
    lt_interval_begin(interval);
    interval->began -= 20;
    interval->steps = 10;
    interval->data_wait_ms = 10 * grid.rank;
    interval->comm_wait_ms = grid.rank == slow ? 0 : waited_ms;
    interval->comm_ms = waited_ms + grid.rank;
    CHECK(lt_interval_gather(interval, &grid, 100, 1000, 1e9, &metrics) == LT_OK);
    return metrics;
}

static void times_are_maxima_over_ranks(lt_interval *interval) {
    const lt_metrics_step metrics = gather(interval, 0, 0);
    CHECK(metrics.step_ms >= 2000);
    CHECK(metrics.data_wait_ms == grid.ranks - 1);
    CHECK(metrics.comm_ms == (grid.ranks - 1) / 10.0);
    CHECK(metrics.tokens_per_s == 1e3 * 1000 / metrics.step_ms);
    CHECK(metrics.tokens_per_s_per_rank == metrics.tokens_per_s / grid.ranks);
    CHECK(metrics.flops_utilisation == 1e-6 * 1e9 / metrics.step_ms / (100 * grid.ranks));
}

/* A rank that was slow for 30 s; another one in its turn. */
static void a_straggler_is_named_in_time(lt_interval *interval) {
    const int last = grid.ranks - 1;
    lt_metrics_step metrics = gather(interval, last, 3000);
    CHECK(metrics.slowest_rank == last);
    CHECK(metrics.comm_wait_ms == (grid.ranks > 1 ? 300 : 0));
    CHECK(grid.ranks == 1 || metrics.slowest_excess_ms > 200);
    CHECK(interval->reported == -1); /* for 20 s */
    interval->suspect_since -= 20;
    gather(interval, last, 3000);
    CHECK(interval->reported == (grid.ranks > 1 ? last : -1));
    gather(interval, 0, 3000);
    CHECK(interval->reported == (grid.ranks > 1 ? last : -1));
    interval->suspect_since -= 20;
    gather(interval, 0, 3000);
    CHECK(interval->reported == (grid.ranks > 1 ? 0 : -1));
    gather(interval, last, 40); /* a fiftieth */
    interval->suspect_since -= 100;
    gather(interval, last, 40);
    CHECK(interval->reported == (grid.ranks > 1 ? 0 : -1));
}

static void the_excess_is_over_the_median(void) {
    double sorted[5];
    const double five[] = {3, 9, 5, 4, 1}, two[] = {10, 12}, one[] = {7};
    lt_straggler slow = lt_straggler_of(five, 5, sorted);
    CHECK(slow.rank == 1 && slow.median_ms == 4 && slow.excess_ms == 5);
    slow = lt_straggler_of(two, 2, sorted);
    CHECK(slow.rank == 1 && slow.median_ms == 10 && slow.excess_ms == 2);
    slow = lt_straggler_of(one, 1, sorted);
    CHECK(slow.rank == 0 && slow.excess_ms == 0);
}

int main(int argc, char **argv) {
    lt_interval interval;
    if (lt_grid_open(&argc, &argv, &grid) != LT_OK || lt_interval_open(&interval, &grid) != LT_OK) {
        fprintf(stderr, "test_interval: %s\n", lt_error_message());
        return 1;
    }
    the_excess_is_over_the_median();
    times_are_maxima_over_ranks(&interval);
    a_straggler_is_named_in_time(&interval);
    lt_interval_close(&interval);

    lt_verdict verdict;
    if (lt_grid_agree(&grid, failures > 0, &verdict) != LT_OK) verdict.code = 1;
    lt_grid_close(&grid);
    return verdict.code;
}
