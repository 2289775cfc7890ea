/* Threads that work while the main thread keeps the ranks together: several times a second all ranks tell
 * each other how far they are and whether one has failed or is to stop, so that no rank waits for one that
 * left. Internal to data/prepare. */
#ifndef LT_DATA_PREPARE_CREW_H
#define LT_DATA_PREPARE_CREW_H

#include "comm/grid.h"

#include <pthread.h>
#include <stdatomic.h>

typedef struct lt_crew {
    const lt_grid *grid;
    int threads;
    bool on_terminal;
    /* of the present phase */
    const char *phase;                   /* "tokenising" */
    int64_t total;                       /* of `done`, over all ranks */
    _Atomic int64_t done, bytes, tokens; /* of this rank, for the progress line */
    atomic_bool stop;
    atomic_int running;
    pthread_mutex_t mutex; /* guards what follows */
    pthread_cond_t ended;  /* the last thread has */
    lt_status status;      /* of the first thread that failed */
    char message[LT_ERROR_MESSAGE_BYTES];
} lt_crew;

void lt_crew_open(lt_crew *crew, const lt_grid *grid, int threads, bool on_terminal);
void lt_crew_close(lt_crew *crew);

/* Runs `body` on each thread, numbered from 0, until all of all ranks have returned, and reports progress:
 * `total` is what `done` will add up to, here and on the other ranks. All ranks return the same status, the
 * gravest, with its message. Collective. */
lt_status lt_crew_run(lt_crew *crew, const char *phase, int64_t total,
                      lt_status (*body)(void *context, int thread), void *context);

/* The same for jobs 0 to `count`, dealt to ranks in turn and to threads as they come; `total` as above. */
lt_status lt_crew_each(lt_crew *crew, const char *phase, int64_t count, int64_t total,
                       lt_status (*job)(void *context, int64_t number), void *context);

/* LT_STOPPED: a signal came, or another thread or rank failed, and this one is to return. Bodies call it
 * often. Local, thread-safe. */
lt_status lt_crew_check(lt_crew *crew);

#endif
