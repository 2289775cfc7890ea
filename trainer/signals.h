/* Signals that ask a run for something (contracts.md). Handlers only set a number; the training loop looks at
 * it between micro-batches and all ranks agree on what follows. */
#ifndef LT_TRAINER_SIGNALS_H
#define LT_TRAINER_SIGNALS_H

#include "comm/status.h"

/* What a rank asks for, by gravity: the codes that ranks agree on. */
typedef enum lt_request {
    LT_REQUEST_NONE,
    LT_REQUEST_PATIENCE, /* nothing, but this rank's thread still writes a checkpoint */
    LT_REQUEST_SAVE,     /* SIGUSR2: save after this step and go on */
    LT_REQUEST_STOP, /* SIGUSR1, SIGTERM, SIGINT, the wall-clock limit: drop the step, save, leave with 75 */
    LT_REQUEST_SAVE_AND_FAIL, /* an I/O error or bad data on some rank: drop the step, save, leave */
    LT_REQUEST_FAIL,          /* an error that will repeat: leave with 1 */
} lt_request;

/* Installs the handlers. A second SIGINT ends the process at once; SIGTERM after SIGUSR1 changes nothing.
 * SIGPIPE and SIGXFSZ are ignored, so that writes return errors. */
lt_status lt_signals_install(void);

/* The gravest request that signals have made, and its signal's name ("SIGUSR1") if `name` is not NULL. A
 * request to save is forgotten once it is returned; one to stop stays. */
lt_request lt_signals_take(const char **name);

#endif
