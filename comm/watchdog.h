/* A thread that ends the process with LT_IO when nothing has moved for a given time, so that a hung network never
 * burns a reservation. The message says which rank waited, in which phase, for how long.
 */
#ifndef LT_COMM_WATCHDOG_H
#define LT_COMM_WATCHDOG_H

#include "comm/grid.h"

/* Starts the thread; `timeout_s` 0 disables it. Local. */
lt_status lt_watchdog_start(const lt_grid *grid, double timeout_s);

/* Something moved; `phase` (a string literal such as "gradient reduction", step number beside it) is what this rank
 * does next. Cheap enough for every micro-batch. Local, thread-safe. */
void lt_watchdog_tick(const char *phase, int64_t step);

void lt_watchdog_stop(void);

#endif
