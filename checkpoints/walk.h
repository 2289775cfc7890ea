/* Walks the structure of a checkpoint file with HDF5. Runs in a child process alone (probe.h): HDF5 may crash
 * or hang on a damaged file.
 */
#ifndef LT_CHECKPOINTS_WALK_H
#define LT_CHECKPOINTS_WALK_H

#include "checkpoints/pack.h"
#include "comm/status.h"

#include <stdbool.h>

/* Puts into `answer`: lt_checkpoint_header (its config pointer void); the config's length (int64_t) and
 * bytes; then for each tensor a byte 1, an lt_stored_tensor (its pointer void) and, unless it has a problem,
 * its addresses; a byte 0.
 * `*newer`: the file has a newer format (LT_BAD_INPUT). */
lt_status lt_walk(const char *path, lt_pack *answer, bool *newer);

#endif
