#include "data/prepare/crew.h"
#include "comm/interrupt.h"
#include "comm/log.h"
#include "comm/thread.h"
#include "comm/watchdog.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { SHORTEST_MS = 1, LONGEST_MS = 100, SHOWN_MS = 1000, LOGGED_MS = 10000 };

/* What a rank tells the others. */
typedef struct news {
    int64_t done, bytes, tokens;
    int32_t running, stop;
} news;

typedef struct hand {
    lt_crew *crew;
    int number;
    lt_status (*body)(void *context, int thread);
    void *context;
    pthread_t thread;
} hand;

void lt_crew_open(lt_crew *crew, const lt_grid *grid, int threads, bool on_terminal) {
    memset(crew, 0, sizeof *crew);
    crew->grid = grid;
    crew->threads = threads;
    crew->on_terminal = on_terminal;
    pthread_mutex_init(&crew->mutex, NULL);
    pthread_cond_init(&crew->ended, NULL);
}

void lt_crew_close(lt_crew *crew) {
    pthread_cond_destroy(&crew->ended);
    pthread_mutex_destroy(&crew->mutex);
}

lt_status lt_crew_check(lt_crew *crew) {
    if (atomic_load_explicit(&crew->stop, memory_order_relaxed))
        return lt_fail(LT_STOPPED, "%s: another thread or rank stopped", crew->phase);
    return lt_interrupt_check(crew->phase);
}

static void note_failure(lt_crew *crew, lt_status status) {
    pthread_mutex_lock(&crew->mutex);
    /* Who only stops because another failed has nothing to say. */
    if (crew->status == LT_OK || (crew->status == LT_STOPPED && status != LT_STOPPED)) {
        crew->status = status;
        snprintf(crew->message, sizeof crew->message, "%s", lt_error_message());
    }
    pthread_mutex_unlock(&crew->mutex);
    atomic_store(&crew->stop, true);
}

static void *work(void *argument) {
    hand *self = argument;
    const lt_status status = self->body(self->context, self->number);
    if (status != LT_OK) note_failure(self->crew, status);
    pthread_mutex_lock(&self->crew->mutex);
    if (atomic_fetch_sub(&self->crew->running, 1) == 1) pthread_cond_signal(&self->crew->ended);
    pthread_mutex_unlock(&self->crew->mutex);
    return NULL;
}

static double now_ms(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return 1e3 * (double)now.tv_sec + 1e-6 * (double)now.tv_nsec;
}

/* What the progress line needs beside the sums. */
typedef struct pace {
    double begin_ms, shown_ms;
    int64_t begin_done;
} pace;

static void show(const lt_crew *crew, const news *sum, pace *since) {
    const double now = now_ms(), seconds = 1e-3 * (now - since->begin_ms);
    if (now - since->shown_ms < (crew->on_terminal ? SHOWN_MS : LOGGED_MS)) return;
    since->shown_ms = now;
    const double share = crew->total > 0 ? (double)sum->done / (double)crew->total : 1;
    char left[32] = "?", line[256];
    if (share > 0) lt_log_duration(seconds * (1 - share) / share, left, sizeof left);
    snprintf(line, sizeof line, "%s  %5.1f%%  %.0f tokens/s  %.1f MB/s  %s left", crew->phase, 100 * share,
             (double)sum->tokens / seconds, 1e-6 * (double)sum->bytes / seconds, left);
    if (crew->on_terminal)
        lt_log_progress(line);
    else
        lt_log_info("%s", line);
}

/* Tells and hears the news. Collective. */
static lt_status exchange(const lt_crew *crew, news *all, news *sum) {
    const news mine = {
        .done = atomic_load(&crew->done),
        .bytes = atomic_load(&crew->bytes),
        .tokens = atomic_load(&crew->tokens),
        .running = atomic_load(&crew->running),
        .stop = atomic_load(&crew->stop),
    };
    LT_CHECK(lt_grid_all_gather(crew->grid, &mine, all, sizeof mine));
    *sum = (news){0};
    for (int rank = 0; rank < crew->grid->ranks; rank++) {
        sum->done += all[rank].done;
        sum->bytes += all[rank].bytes;
        sum->tokens += all[rank].tokens;
        sum->running += all[rank].running;
        sum->stop |= all[rank].stop;
    }
    return LT_OK;
}

/* Sleeps until the next exchange, or until this rank's threads have just ended. */
static void rest(lt_crew *crew, bool *ended, long wait_ms) {
    const struct timespec until = lt_thread_deadline(wait_ms);
    pthread_mutex_lock(&crew->mutex);
    while ((*ended || atomic_load(&crew->running) > 0) &&
           pthread_cond_timedwait(&crew->ended, &crew->mutex, &until) == 0)
        continue;
    *ended = atomic_load(&crew->running) == 0;
    pthread_mutex_unlock(&crew->mutex);
}

/* Ranks sleep equally long between two exchanges, so that none waits long for another: MPI waits busily. */
static lt_status keep_together(lt_crew *crew) {
    news *all = malloc((size_t)crew->grid->ranks * sizeof *all), sum;
    if (all == NULL) return lt_fail(LT_IO, "no memory for the news of %d ranks", crew->grid->ranks);
    pace since = {.begin_ms = now_ms(), .shown_ms = now_ms()};
    lt_status status = LT_OK;
    long wait_ms = SHORTEST_MS;
    bool ended = false;
    for (int64_t turn = 0;; turn++) {
        rest(crew, &ended, wait_ms);
        if (wait_ms < LONGEST_MS) wait_ms = 2 * wait_ms < LONGEST_MS ? 2 * wait_ms : LONGEST_MS;
        status = exchange(crew, all, &sum);
        if (status != LT_OK || sum.stop) atomic_store(&crew->stop, true);
        if (status != LT_OK || sum.running == 0) break;
        lt_watchdog_tick(crew->phase, turn);
        show(crew, &sum, &since);
    }
    free(all);
    return status;
}

static lt_status start(lt_crew *crew, hand *hands) {
    for (int i = 0; i < crew->threads; i++) {
        atomic_fetch_add(&crew->running, 1);
        const int error = pthread_create(&hands[i].thread, NULL, work, &hands[i]);
        if (error == 0) continue;
        atomic_fetch_sub(&crew->running, 1);
        hands[i].crew = NULL; /* this and those behind it do not run */
        return lt_fail(LT_IO, "cannot start thread %d of %d: %s", i + 1, crew->threads, strerror(error));
    }
    return LT_OK;
}

lt_status lt_crew_run(lt_crew *crew, const char *phase, int64_t total,
                      lt_status (*body)(void *context, int thread), void *context) {
    hand *hands = calloc((size_t)crew->threads + 1, sizeof *hands); /* one more ends the list */
    if (hands == NULL) note_failure(crew, lt_fail(LT_IO, "no memory for %d threads", crew->threads));
    crew->phase = phase;
    crew->total = total;
    crew->done = crew->bytes = crew->tokens = 0;
    for (int i = 0; hands != NULL && i < crew->threads; i++)
        hands[i] = (hand){.crew = crew, .number = i, .body = body, .context = context};
    const lt_status started = hands == NULL ? LT_OK : start(crew, hands);
    if (started != LT_OK) note_failure(crew, started);
    const lt_status together = keep_together(crew);
    for (hand *one = hands; one != NULL && one->crew != NULL; one++) pthread_join(one->thread, NULL);
    free(hands);
    LT_CHECK(together);
    if (crew->on_terminal) lt_log_progress(NULL);
    const lt_status mine = crew->status == LT_OK ? LT_OK : lt_fail(crew->status, "%s", crew->message);
    return lt_grid_share_status(crew->grid, mine, NULL);
}

typedef struct jobs {
    lt_crew *crew;
    int64_t count;
    _Atomic int64_t next;
    lt_status (*job)(void *context, int64_t number);
    void *context;
} jobs;

static lt_status do_jobs(void *context, int thread) {
    jobs *all = context;
    (void)thread;
    for (;;) {
        const int64_t number = atomic_fetch_add(&all->next, all->crew->grid->ranks);
        if (number >= all->count) return LT_OK;
        LT_CHECK(lt_crew_check(all->crew));
        LT_CHECK(all->job(all->context, number));
    }
}

lt_status lt_crew_each(lt_crew *crew, const char *phase, int64_t count, int64_t total,
                       lt_status (*job)(void *context, int64_t number), void *context) {
    jobs all = {.crew = crew, .count = count, .next = crew->grid->rank, .job = job, .context = context};
    return lt_crew_run(crew, phase, total, do_jobs, &all);
}
