/* A pool of threads that run numbered tasks. Which thread takes a task is a race; so a task's result depends
 * on its number alone, and everything built on the pool gives the same bits at any number of threads. */
#ifndef LT_MODEL_CPU_POOL_H
#define LT_MODEL_CPU_POOL_H

#include "comm/status.h"

#include <stdint.h>

typedef struct lt_pool lt_pool;

/* `worker` (0 <= worker < threads) names the thread, for its own scratch memory. */
typedef void (*lt_task)(void *context, int64_t index, int worker);

/* `threads` counts the caller, which works too. */
lt_status lt_pool_create(int threads, lt_pool **pool);
void lt_pool_destroy(lt_pool *pool);

/* Runs task(context, 0 .. tasks - 1) and returns when all are done. One caller at a time. */
void lt_pool_run(lt_pool *pool, int64_t tasks, lt_task task, void *context);

#endif
