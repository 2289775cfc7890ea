/* Threads beside the main one. No MPI is needed here. */
#ifndef LT_COMM_THREAD_H
#define LT_COMM_THREAD_H

#include <pthread.h>
#include <time.h>

/* Starts a thread with all signals blocked: they are the main thread's. 0, or an errno value. Local. */
int lt_thread_start(pthread_t *thread, void *(*run)(void *argument), void *argument);

/* The time so many milliseconds from now, for pthread_cond_timedwait(). Local. */
struct timespec lt_thread_deadline(long milliseconds);

#endif
