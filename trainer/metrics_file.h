/* The file behind trainer/metrics.h: found as an earlier run left it, cut back to the step that the run goes
 * on from. Used by metrics.c alone.
 */
#ifndef LT_TRAINER_METRICS_FILE_H
#define LT_TRAINER_METRICS_FILE_H

#include "comm/status.h"

#include <stdint.h>
#include <sys/types.h>

/* lt_metrics_open() without its struct: `path` is malloc'ed, `file` is open for appending, `size` its length;
 * `validations`: its lines of validation losses of `last_step`.
 * On an error the caller still frees `path` and closes `file` unless it is -1. */
lt_status lt_metrics_file_open(const char *directory, int64_t last_step, char **path, int *file, off_t *size,
                               int64_t *validations);

#endif
