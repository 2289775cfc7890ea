#include "trainer/interval.h"

#include "comm/log.h"
#include "trainer/run.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* A straggler's excess over the median rank, and how long it must last: a busy moment is no news. */
static const double NOTABLE_SHARE = 0.1, NOTABLE_MS = 5, NOTABLE_S = 30;

static int by_value(const void *a, const void *b) {
    const double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

lt_straggler lt_straggler_of(const double *busy_ms, int ranks, double *sorted) {
    lt_straggler found = {0};
    for (int rank = 1; rank < ranks; rank++)
        if (busy_ms[rank] > busy_ms[found.rank]) found.rank = rank;
    memcpy(sorted, busy_ms, sizeof *sorted * (size_t)ranks);
    qsort(sorted, (size_t)ranks, sizeof *sorted, by_value);
    found.median_ms = sorted[(ranks - 1) / 2];
    found.excess_ms = busy_ms[found.rank] - found.median_ms;
    return found;
}

lt_status lt_interval_open(lt_interval *interval, const lt_grid *grid) {
    const size_t ranks = (size_t)grid->ranks;
    *interval = (lt_interval){.suspect = -1, .reported = -1};
    interval->all = calloc(ranks, sizeof *interval->all);
    interval->busy_ms = calloc(3 * ranks, sizeof *interval->busy_ms);
    interval->hosts = calloc(ranks, sizeof *interval->hosts);
    const bool enough = interval->all != NULL && interval->busy_ms != NULL && interval->hosts != NULL;
    LT_CHECK(lt_grid_share_status(
        grid, enough ? LT_OK : lt_fail(LT_IO, "no memory for the times of %d ranks", grid->ranks), NULL));
    interval->total_busy_ms = interval->busy_ms + ranks;
    interval->sorted = interval->total_busy_ms + ranks;
    char host[sizeof *interval->hosts] = {0};
    snprintf(host, sizeof host, "%.*s", (int)sizeof host - 1, grid->host);
    return lt_grid_all_gather(grid, host, interval->hosts, sizeof host);
}

void lt_interval_close(lt_interval *interval) {
    free(interval->all);
    free(interval->busy_ms);
    free(interval->hosts);
}

void lt_interval_begin(lt_interval *interval) {
    interval->steps = 0;
    interval->data_wait_ms = interval->comm_wait_ms = interval->comm_ms = 0;
    interval->began = lt_now_s();
}

static void name_straggler(lt_interval *interval, const lt_straggler *slow) {
    const bool notable = slow->excess_ms > NOTABLE_MS && slow->excess_ms > NOTABLE_SHARE * slow->median_ms;
    if (!notable || interval->suspect != slow->rank) interval->suspect_since = interval->began;
    interval->suspect = notable ? slow->rank : -1;
    if (!notable || interval->reported == slow->rank || lt_now_s() - interval->suspect_since < NOTABLE_S)
        return;
    interval->reported = slow->rank;
    lt_log_warning("rank %d on %s holds the others up: %.1f ms a step (%.0f%%) more than the median rank",
                   slow->rank, interval->hosts[slow->rank], slow->excess_ms,
                   100 * slow->excess_ms / slow->median_ms);
}

lt_status lt_interval_gather(lt_interval *interval, const lt_grid *grid, double peak_gflops, double tokens,
                             double flops, lt_metrics_step *metrics) {
    const double steps = (double)interval->steps;
    const lt_rank_times own = {.step_ms = 1e3 * (lt_now_s() - interval->began) / steps,
                               .data_wait_ms = interval->data_wait_ms / steps,
                               .comm_wait_ms = interval->comm_wait_ms / steps,
                               .comm_ms = interval->comm_ms / steps,
                               .peak_gflops = peak_gflops};
    LT_CHECK(lt_grid_all_gather(grid, &own, interval->all, sizeof own));
    double peak = 0;
    for (int rank = 0; rank < grid->ranks; rank++) {
        const lt_rank_times *times = &interval->all[rank];
        interval->busy_ms[rank] = times->step_ms - times->comm_wait_ms;
        interval->total_busy_ms[rank] += steps * interval->busy_ms[rank];
        metrics->step_ms = fmax(metrics->step_ms, times->step_ms);
        metrics->data_wait_ms = fmax(metrics->data_wait_ms, times->data_wait_ms);
        metrics->comm_wait_ms = fmax(metrics->comm_wait_ms, times->comm_wait_ms);
        metrics->comm_ms = fmax(metrics->comm_ms, times->comm_ms);
        peak += times->peak_gflops;
    }
    interval->total_steps += interval->steps;
    const lt_straggler slow = lt_straggler_of(interval->busy_ms, grid->ranks, interval->sorted);
    name_straggler(interval, &slow);
    metrics->slowest_rank = slow.rank;
    metrics->slowest_excess_ms = slow.excess_ms;
    metrics->tokens_per_s = 1e3 * tokens / metrics->step_ms;
    metrics->tokens_per_s_per_rank = metrics->tokens_per_s / grid->ranks;
    metrics->flops_utilisation = peak > 0 ? 1e-6 * flops / metrics->step_ms / peak : 0;
    return LT_OK;
}

void lt_interval_conclude(lt_interval *interval, const lt_grid *grid) {
    if (grid->ranks == 1 || interval->total_steps == 0) return;
    const lt_straggler slow = lt_straggler_of(interval->total_busy_ms, grid->ranks, interval->sorted);
    const double steps = (double)interval->total_steps;
    lt_log_info("slowest    rank %d on %s: %.1f ms a step, %.1f ms (%.1f%%) over the median rank", slow.rank,
                interval->hosts[slow.rank], interval->total_busy_ms[slow.rank] / steps,
                slow.excess_ms / steps, slow.median_ms > 0 ? 100 * slow.excess_ms / slow.median_ms : 0);
}
