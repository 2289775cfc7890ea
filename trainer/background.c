#include "trainer/background.h"
#include "checkpoints/folder.h"
#include "checkpoints/save.h"
#include "comm/log.h"
#include "comm/thread.h"
#include "comm/watchdog.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

typedef enum phase { WRITING, PUBLISHING } phase;

struct lt_background {
    lt_run *run;
    lt_checkpoint_header header;
    lt_save *save;
    phase phase;
    bool tried; /* once, in vain */
    double began, foreground_s;

    pthread_t thread;
    bool running;     /* there is a thread to join */
    atomic_bool busy; /* it is at work */
    lt_status status; /* of what it did; read after it was joined */
    char message[LT_ERROR_MESSAGE_BYTES];
};

/* ---- the thread ---- */

static lt_status publish(lt_run *run, lt_save *save) {
    LT_CHECK(lt_folder_check_lock(run->config.checkpoint.dir));
    LT_CHECK(lt_metrics_sync(run->metrics));
    LT_CHECK(lt_save_publish(save));
    return lt_folder_retain(run->config.checkpoint.dir, run->config.checkpoint.keep,
                            run->config.checkpoint.keep_every);
}

static void *work(void *context) {
    lt_background *b = context;
    b->status = b->phase == WRITING ? lt_save_write(b->save) : publish(b->run, b->save);
    if (b->status != LT_OK) snprintf(b->message, sizeof b->message, "%s", lt_error_message());
    atomic_store(&b->busy, false);
    return NULL;
}

/* Where no thread is to be had the work is done here. */
static void start_thread(lt_background *b) {
    atomic_store(&b->busy, true);
    b->running = lt_thread_start(&b->thread, work, b) == 0;
    if (!b->running) work(b);
}

static lt_status join_thread(lt_background *b) {
    if (b->running) pthread_join(b->thread, NULL);
    b->running = false;
    return b->status == LT_OK ? LT_OK : lt_fail(b->status, "%s", b->message);
}

/* ---- what ranks do together ---- */

static bool is_active(const lt_run *run) {
    return run->background != NULL && run->background->save != NULL;
}

static void end(lt_background *b) {
    lt_save_end(b->save);
    b->save = NULL;
}

static lt_status begin(lt_run *run) {
    lt_background *b = run->background;
    const lt_tensor_access access = lt_run_tensors(run);
    *b = (lt_background){.run = run, .began = lt_now_s()};
    lt_run_header(run, &b->header);
    LT_CHECK(lt_run_share(run, lt_save_begin(&run->grid, run->layout, run->config.checkpoint.dir, &b->header,
                                             &run->registry, &access, run->snapshot, &b->save)));
    b->foreground_s = lt_now_s() - b->began;
    start_thread(b);
    return LT_OK;
}

lt_status lt_background_create(lt_run *run) {
    const lt_tensor_access access = lt_run_tensors(run);
    run->snapshot_bytes = lt_save_snapshot_bytes(&run->grid, &run->registry, &access);
    run->snapshot = malloc(run->snapshot_bytes + 1);
    run->background = calloc(1, sizeof *run->background);
    if (run->snapshot == NULL || run->background == NULL)
        return lt_fail(LT_IO, "no memory for the copy of a checkpoint (checkpoint.async)");
    memset(run->snapshot, 0, run->snapshot_bytes); /* no save is slowed by fresh pages */
    return LT_OK;
}

void lt_background_free(lt_run *run) {
    free(run->snapshot);
    free(run->background);
}

lt_status lt_background_start(lt_run *run) {
    LT_CHECK(lt_background_finish(run));
    lt_watchdog_tick("beginning a checkpoint", run->step);
    if (begin(run) == LT_OK) return LT_OK;
    LT_CHECK(lt_run_check_device(run));
    lt_log_warning("%s; trying once more", lt_error_message());
    return begin(run);
}

bool lt_background_busy(const lt_run *run) {
    return is_active(run) && atomic_load(&run->background->busy);
}

int64_t lt_background_step(const lt_run *run) {
    return is_active(run) ? run->background->header.step : -1;
}

static lt_status try_again(lt_run *run) {
    lt_background *b = run->background;
    if (b->tried) return lt_run_share(run, lt_fail(LT_IO, "%s", lt_error_message()));
    lt_log_warning("%s; the step goes on, the save is tried once more", lt_error_message());
    b->tried = true;
    b->phase = WRITING;
    start_thread(b);
    return LT_OK;
}

lt_status lt_background_advance(lt_run *run) {
    lt_background *b = run->background;
    if (!is_active(run)) return LT_OK;
    lt_status status = lt_run_share(run, join_thread(b));
    if (status != LT_OK) {
        status = try_again(run);
        if (status != LT_OK) end(b);
        return status;
    }
    if (b->phase == WRITING) {
        b->phase = PUBLISHING;
        if (run->grid.rank == 0) start_thread(b);
        return LT_OK;
    }
    char path[PATH_MAX];
    lt_run_checkpoint_path(run, b->header.step, path, sizeof path);
    lt_log_info("saved %s in %.2f s, steps waited %.2f s for it", path, lt_now_s() - b->began,
                b->foreground_s);
    end(b);
    return LT_OK;
}

lt_status lt_background_finish(lt_run *run) {
    const struct timespec moment = {.tv_nsec = 5000000};
    if (!is_active(run)) return LT_OK;
    lt_run_grant_transfer(run);
    while (is_active(run)) {
        int64_t written = -1;
        while (lt_background_busy(run)) {
            const int64_t now = lt_save_written(run->background->save);
            if (now != written)
                lt_watchdog_tick("waiting for a checkpoint to be written", lt_background_step(run));
            written = now;
            nanosleep(&moment, NULL);
        }
        LT_CHECK(lt_background_advance(run));
    }
    lt_watchdog_grant(0);
    return LT_OK;
}
