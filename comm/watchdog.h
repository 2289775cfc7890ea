/* A thread that ends the process with LT_IO when nothing has moved for a given time, so that a hung network
 * never burns a reservation. The message says which rank waited, in which phase, for how long.
 *
 * First every rank that hangs says what it is waiting for, a line each; a second later one of them ends the
 * job with an error. The end is lt_grid_abort(): MPI_Abort, by which mpirun and srun end the other ranks at
 * once and return 74; and where that hangs (a launcher cut off by the broken network, a main thread that
 * holds MPI's locks) _exit() three seconds later. Where no launcher passes it on, every rank is ended by its
 * own watchdog. When one rank hangs all others soon wait for it, so rank r gives the ranks below it a few
 * seconds each to speak first, and one line is printed rather than one a rank. A rank that was told to stop
 * (lt_interrupt(); the launcher's SIGTERM follows another rank's end at once) leaves it some more to end this
 * one.
 */
#ifndef LT_COMM_WATCHDOG_H
#define LT_COMM_WATCHDOG_H

#include "comm/grid.h"

/* Starts the thread; `timeout_s` 0 disables it. Keeps nothing of `grid` but its rank and host. Time during
 * which the whole process was stopped (SIGSTOP, a suspended job) is forgiven once it goes on. LT_BAD_INPUT: a
 * negative timeout or a watchdog that already runs; LT_IO: no thread to be had. Local. */
lt_status lt_watchdog_start(const lt_grid *grid, double timeout_s);

/* From now on `seconds` beyond the timeout are granted: a restore, a save or the first step, in which ranks
 * wait for the work of one, may take longer than a step. 0 takes the grant back. Local, thread-safe. */
void lt_watchdog_grant(double seconds);

/* The file that is being read or written, for the message. `path` must stay valid until the next call; NULL:
 * none. Cheap enough for every sample. Local, thread-safe. */
void lt_watchdog_file(const char *path);

/* Something moved; `phase` (a string literal such as "gradient reduction", step number beside it) is what
 * this rank does next. Cheap enough for every micro-batch. Local, thread-safe. */
void lt_watchdog_tick(const char *phase, int64_t step);

/* Something moved in the phase under way. Local, thread-safe. */
void lt_watchdog_alive(void);

/* Ends the thread; harmless where none runs. Local. */
void lt_watchdog_stop(void);

#endif
