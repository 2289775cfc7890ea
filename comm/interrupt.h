/* A wish to stop that long work outside training steps looks for: indexing data, verifying and restoring a
 * checkpoint. It changes nothing that a later start needs, so it may be left at any point. (Steps, validation
 * and saves have rules of their own: trainer/train.h.) No MPI is needed here. */
#ifndef LT_COMM_INTERRUPT_H
#define LT_COMM_INTERRUPT_H

#include "comm/status.h"

#include <stdbool.h>

/* From now on lt_interrupt_check() says no. `name`: of the signal, a string literal. Async-signal-safe. */
void lt_interrupt(const char *name);

/* LT_STOPPED with the signal and what was being done (such as "indexing data.train") after lt_interrupt().
 * Cheap enough for every file and chunk. Local, thread-safe. */
lt_status lt_interrupt_check(const char *doing);

/* Whether lt_interrupt() was called. Local, thread-safe. */
bool lt_interrupted(void);

#endif
