#include "comm/watchdog.h"
#include "comm/deadline.h"
#include "comm/interrupt.h"
#include "comm/log.h"
#include "comm/thread.h"

#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

static const double nanoseconds = 1e9;

/* How long rank r leaves the word to each rank below it, and to the launcher that tells it to end: longer
 * than a launcher takes to end the others on a busy machine (SIGTERM, then SIGKILL a second or two later),
 * and ranks do not begin to wait at the same moment. A thousand ranks must not wait an hour, so only the
 * first few are told apart. */
static const double courtesy_s = 5.0;
enum { COURTEOUS_RANKS = 8 };

/* Between what every rank says and the end, so that all are heard. */
static const double hearing_s = 1.0;

/* How long a last message may take: the reader of stderr may hang too. */
enum { LAST_WORDS_S = 3 };

/* Written by tick() without a lock. The three may be of different ticks when they are read, which costs no
 * more than a message that names the phase before. */
static _Atomic(const char *) last_phase = "start";
static _Atomic int64_t last_step;
static _Atomic int64_t last_tick_ns, granted_ns;
static _Atomic(const char *) file_in_use;

static struct {
    pthread_t thread;
    pthread_mutex_t lock;
    pthread_cond_t changed; /* `stop` or what is granted */
    bool running, stop;
    double timeout_s;
    int64_t timeout_ns, courtesy_ns; /* until this rank says that it waits; from then until it ends the job */
    int64_t ending_ns;               /* the same, more, once it was told to stop */
    int rank;
    char host[256];
} watchdog = {.lock = PTHREAD_MUTEX_INITIALIZER};

static int64_t now_ns(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * 1000000000 + now.tv_nsec;
}

void lt_watchdog_alive(void) {
    atomic_store_explicit(&last_tick_ns, now_ns(), memory_order_relaxed);
}

void lt_watchdog_tick(const char *phase, int64_t step) {
    atomic_store_explicit(&last_phase, phase, memory_order_relaxed);
    atomic_store_explicit(&last_step, step, memory_order_relaxed);
    lt_watchdog_alive();
}

void lt_watchdog_file(const char *path) {
    atomic_store_explicit(&file_in_use, path, memory_order_relaxed);
}

void lt_watchdog_grant(double seconds) {
    pthread_mutex_lock(&watchdog.lock);
    atomic_store_explicit(&granted_ns, (int64_t)(seconds * nanoseconds), memory_order_relaxed);
    if (watchdog.running) pthread_cond_signal(&watchdog.changed);
    pthread_mutex_unlock(&watchdog.lock);
}

/* Says what this rank waits for. Not an error yet: another rank may know better, or the wait may end. */
static void speak(int64_t waited_ns) {
    char text[1024];
    const char *file = atomic_load_explicit(&file_in_use, memory_order_relaxed);
    snprintf(text, sizeof text, "rank %d on host %s waits for %.0f s in phase \"%s\" of step %lld%s%s%s",
             watchdog.rank, watchdog.host, (double)waited_ns / nanoseconds,
             atomic_load_explicit(&last_phase, memory_order_relaxed),
             (long long)atomic_load_explicit(&last_step, memory_order_relaxed),
             file == NULL ? "" : " (last file: ", file == NULL ? "" : file, file == NULL ? "" : ")");
    lt_log_aside(text);
}

/* Says what hung and ends the process. */
static _Noreturn void bark(int64_t waited_ns) {
    /* stderr may block, or another thread hold the log's lock while it blocks */
    lt_deadline(LAST_WORDS_S, LT_IO);

    char text[1024];
    snprintf(text, sizeof text,
             "rank %d on host %s has not moved for %.0f s in phase \"%s\" of step %lld "
             "(train.stall_timeout_s is %g): "
             "a peer, the network or the file system hangs; ending the job with exit code %d, start it again "
             "to go on "
             "from the last checkpoint",
             watchdog.rank, watchdog.host, (double)waited_ns / nanoseconds,
             atomic_load_explicit(&last_phase, memory_order_relaxed),
             (long long)atomic_load_explicit(&last_step, memory_order_relaxed), watchdog.timeout_s, LT_IO);
    lt_log_error(text);
    lt_grid_abort(NULL, LT_IO);
}

static void *watch(void *unused) {
    (void)unused;
    /* Waking this much later than asked means that the whole process was stopped, and the ticks with it. */
    const int64_t lateness_ns = watchdog.timeout_ns / 10 + 1000000000;
    int64_t spoken = 0; /* the tick after which this rank said that it waits */
    pthread_mutex_lock(&watchdog.lock);
    while (!watchdog.stop) {
        int64_t last = atomic_load_explicit(&last_tick_ns, memory_order_relaxed);
        int64_t deadline =
            last + watchdog.timeout_ns + atomic_load_explicit(&granted_ns, memory_order_relaxed);
        const bool told = lt_interrupted();
        if (spoken == last) deadline += watchdog.courtesy_ns + (told ? watchdog.ending_ns : 0);
        struct timespec until = {.tv_sec = (time_t)(deadline / 1000000000),
                                 .tv_nsec = (long)(deadline % 1000000000)};
        if (pthread_cond_timedwait(&watchdog.changed, &watchdog.lock, &until) != ETIMEDOUT || watchdog.stop)
            continue;

        const int64_t now = now_ns();
        if (last != atomic_load_explicit(&last_tick_ns, memory_order_relaxed) || told != lt_interrupted())
            continue;
        if (now > deadline + lateness_ns) {
            atomic_store_explicit(&last_tick_ns, now, memory_order_relaxed);
        } else if (spoken != last) {
            speak(now - last);
            spoken = last;
        } else {
            bark(now - last);
        }
    }
    pthread_mutex_unlock(&watchdog.lock);
    return NULL;
}

lt_status lt_watchdog_start(const lt_grid *grid, double timeout_s) {
    /* a century: later deadlines would overflow the clock */
    if (!(timeout_s >= 0 && timeout_s <= 3.2e9))
        return lt_fail(LT_BAD_INPUT,
                       "train.stall_timeout_s: found %g, expected seconds from 0 (off) to 3.2e9", timeout_s);
    if (watchdog.running) return lt_fail(LT_BAD_INPUT, "the watchdog runs already");
    if (timeout_s == 0) return LT_OK;

    int ranks_first = grid->rank < COURTEOUS_RANKS ? grid->rank : COURTEOUS_RANKS;
    double courtesy = courtesy_s < timeout_s ? courtesy_s : timeout_s;
    watchdog.timeout_s = timeout_s;
    watchdog.timeout_ns = (int64_t)(timeout_s * nanoseconds);
    watchdog.ending_ns = (int64_t)(courtesy * nanoseconds);
    watchdog.courtesy_ns = (int64_t)((hearing_s + ranks_first * courtesy) * nanoseconds);
    lt_watchdog_grant(0);
    lt_watchdog_file(NULL);
    watchdog.rank = grid->rank;
    snprintf(watchdog.host, sizeof watchdog.host, "%s", grid->host);
    watchdog.stop = false;
    lt_watchdog_tick("start", 0);

    pthread_condattr_t attributes;
    pthread_condattr_init(&attributes);
    pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC);
    pthread_cond_init(&watchdog.changed, &attributes);
    pthread_condattr_destroy(&attributes);
    int error = lt_thread_start(&watchdog.thread, watch, NULL);
    if (error)
        return lt_fail(LT_IO, "the watchdog's thread cannot be started on rank %d: %s", grid->rank,
                       strerror(error));
    watchdog.running = true;
    return LT_OK;
}

void lt_watchdog_stop(void) {
    if (!watchdog.running) return;
    pthread_mutex_lock(&watchdog.lock);
    watchdog.stop = true;
    pthread_cond_signal(&watchdog.changed);
    pthread_mutex_unlock(&watchdog.lock);
    pthread_join(watchdog.thread, NULL);
    pthread_cond_destroy(&watchdog.changed);
    watchdog.running = false;
}
