#include "model/cpu/pool.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

/* Operations follow each other within microseconds, so a waiting thread first spins, for about this many
 * turns, and only then sleeps; a machine with more threads than cores loses at most these turns. */
enum { SPINS = 4000 };

struct lt_pool {
    int threads;
    pthread_t *thread;
    pthread_mutex_t lock;
    pthread_cond_t wake;
    /* One run: written by the caller before `generation` moves on. */
    lt_task task;
    void *context;
    int64_t tasks;
    _Atomic int64_t next;
    _Atomic int working; /* workers that have not finished this run */
    _Atomic uint64_t generation;
    atomic_bool stop;
};

typedef struct worker_start {
    lt_pool *pool;
    int worker;
} worker_start;

static void pause_briefly(void) {
#if defined(__x86_64__)
    __builtin_ia32_pause();
#endif
}

static void take_tasks(lt_pool *pool, int worker) {
    for (;;) {
        int64_t index = atomic_fetch_add_explicit(&pool->next, 1, memory_order_relaxed);
        if (index >= pool->tasks) return;
        pool->task(pool->context, index, worker);
    }
}

static void wait_for_run(lt_pool *pool, uint64_t seen) {
    for (int spin = 0; spin < SPINS; spin++) {
        if (atomic_load_explicit(&pool->generation, memory_order_acquire) != seen) return;
        pause_briefly();
    }
    pthread_mutex_lock(&pool->lock);
    while (atomic_load(&pool->generation) == seen) pthread_cond_wait(&pool->wake, &pool->lock);
    pthread_mutex_unlock(&pool->lock);
}

static void wait_for_workers(lt_pool *pool) {
    for (int spin = 0; spin < SPINS; spin++) {
        if (atomic_load_explicit(&pool->working, memory_order_acquire) == 0) return;
        pause_briefly();
    }
    pthread_mutex_lock(&pool->lock);
    while (atomic_load(&pool->working) != 0) pthread_cond_wait(&pool->wake, &pool->lock);
    pthread_mutex_unlock(&pool->lock);
}

static void wake_all(lt_pool *pool) {
    pthread_mutex_lock(&pool->lock);
    pthread_cond_broadcast(&pool->wake);
    pthread_mutex_unlock(&pool->lock);
}

static void *work(void *argument) {
    worker_start start = *(worker_start *)argument;
    free(argument);
    lt_pool *pool = start.pool;
    for (uint64_t seen = 0;; seen++) {
        wait_for_run(pool, seen);
        if (atomic_load(&pool->stop)) return NULL;
        take_tasks(pool, start.worker);
        if (atomic_fetch_sub(&pool->working, 1) == 1) wake_all(pool);
    }
}

lt_status lt_pool_create(int threads, lt_pool **result) {
    lt_pool *pool = calloc(1, sizeof *pool);
    if (pool == NULL) return lt_fail(LT_IO, "no memory for a pool of %d threads", threads);
    pthread_mutex_init(&pool->lock, NULL);
    pthread_cond_init(&pool->wake, NULL);
    pool->threads = 1;
    pool->thread = calloc((size_t)threads, sizeof *pool->thread);
    lt_status status = LT_OK;
    for (int worker = 1; worker < threads && status == LT_OK; worker++) {
        worker_start *start = malloc(sizeof *start);
        int failed = start == NULL || pool->thread == NULL;
        if (!failed) {
            *start = (worker_start){pool, worker};
            failed = pthread_create(&pool->thread[worker], NULL, work, start);
        }
        if (failed) {
            free(start);
            status = lt_fail(LT_IO, "cannot start thread %d of %d: lower train.threads", worker + 1, threads);
        } else {
            pool->threads++;
        }
    }
    if (status != LT_OK) {
        lt_pool_destroy(pool);
        return status;
    }
    *result = pool;
    return LT_OK;
}

void lt_pool_destroy(lt_pool *pool) {
    if (pool == NULL) return;
    atomic_store(&pool->stop, true);
    atomic_fetch_add(&pool->generation, 1);
    wake_all(pool);
    for (int worker = 1; worker < pool->threads; worker++) pthread_join(pool->thread[worker], NULL);
    pthread_cond_destroy(&pool->wake);
    pthread_mutex_destroy(&pool->lock);
    free(pool->thread);
    free(pool);
}

void lt_pool_run(lt_pool *pool, int64_t tasks, lt_task task, void *context) {
    if (tasks <= 1 || pool->threads == 1) {
        for (int64_t index = 0; index < tasks; index++) task(context, index, 0);
        return;
    }
    pool->task = task;
    pool->context = context;
    pool->tasks = tasks;
    atomic_store_explicit(&pool->next, 0, memory_order_relaxed);
    atomic_store_explicit(&pool->working, pool->threads - 1, memory_order_relaxed);
    pthread_mutex_lock(&pool->lock);
    atomic_fetch_add(&pool->generation, 1);
    pthread_cond_broadcast(&pool->wake);
    pthread_mutex_unlock(&pool->lock);
    take_tasks(pool, 0);
    wait_for_workers(pool);
}
