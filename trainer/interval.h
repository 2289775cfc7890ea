/* Where the time of the steps since the last logged one went, on each rank, and which rank holds the others
 * up. */
#ifndef LT_TRAINER_INTERVAL_H
#define LT_TRAINER_INTERVAL_H

#include "comm/grid.h"
#include "trainer/metrics.h"

/* What ranks tell each other of an interval: means a step. */
typedef struct lt_rank_times {
    double step_ms, data_wait_ms, comm_wait_ms, comm_ms, peak_gflops;
} lt_rank_times;

typedef struct lt_straggler {
    int rank;
    double excess_ms; /* a step over the median rank */
    double median_ms;
} lt_straggler;

typedef struct lt_interval {
    int64_t steps;                              /* done in it */
    double began;                               /* lt_now_s() */
    double data_wait_ms, comm_wait_ms, comm_ms; /* of this rank, summed; the caller adds */
    lt_rank_times *all;                         /* one a rank */
    double *busy_ms,
        *total_busy_ms; /* one a rank: a step of this interval; summed over all steps of the run */
    double *sorted;     /* scratch */
    char (*hosts)[64];  /* one a rank */
    int64_t total_steps;
    int suspect, reported; /* the rank that was slow in the interval before; the last one named; -1: none */
    double suspect_since;
} lt_interval;

/* The busiest rank of `ranks` and by how much it passes the median one (the lower one of two). `sorted` is
 * scratch of `ranks` values. Local. */
lt_straggler lt_straggler_of(const double *busy_ms, int ranks, double *sorted);

/* Collective: ranks tell each other their hosts. LT_IO: no memory. */
lt_status lt_interval_open(lt_interval *interval, const lt_grid *grid);
void lt_interval_close(lt_interval *interval);

/* Begins the next one. Local. */
void lt_interval_begin(lt_interval *interval);

/* Fills the times of `metrics`: maxima over ranks; the slowest rank is the one that waits least for others.
 * `peak_gflops` of this rank, `tokens` and `flops` of a step. A rank that is over a tenth and 5 ms a step
 * slower than the median one in two intervals in a row is named in the log. Collective. */
lt_status lt_interval_gather(lt_interval *interval, const lt_grid *grid, double peak_gflops, double tokens,
                             double flops, lt_metrics_step *metrics);

/* Says which rank was the slowest over all steps gathered, where there is more than one rank. Local. */
void lt_interval_conclude(lt_interval *interval, const lt_grid *grid);

#endif
