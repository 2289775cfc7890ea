/* The names of a run's files in its folder. */
#ifndef LT_CHECKPOINTS_STEPS_H
#define LT_CHECKPOINTS_STEPS_H

#include "comm/status.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* What may stand behind `step_%08d.h5` in a name. */
typedef enum lt_step_file {
    LT_STEP_NONE, /* not such a name */
    LT_STEP_CHECKPOINT,
    LT_STEP_PARTIAL,
    LT_STEP_DAMAGED,
    LT_STEP_SUPERSEDED,
} lt_step_file;

/* What `name` is; its step into `*step` unless that is NULL. */
lt_step_file lt_step_parse(const char *name, int64_t *step);

/* The steps of all checkpoints in `directory`, highest first; malloc'ed. LT_IO. */
lt_status lt_steps_list(const char *directory, int64_t **steps, int64_t *count);

/* Path of the checkpoint of `step`, with `suffix` behind it. */
lt_status lt_step_path(char *path, size_t size, const char *directory, int64_t step, const char *suffix);

/* Removes every file of `directory` whose name `chosen` takes. A missing folder holds none. LT_IO. */
lt_status lt_folder_remove(const char *directory, bool (*chosen)(const char *name));

#endif
