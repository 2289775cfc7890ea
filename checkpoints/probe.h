/* Runs lt_walk() on a file in a child process with limits on memory and time. */
#ifndef LT_CHECKPOINTS_PROBE_H
#define LT_CHECKPOINTS_PROBE_H

#include "checkpoints/pack.h"
#include "comm/status.h"

#include <stdbool.h>

/* Local. LT_OK: `answer` is complete. LT_BAD_INPUT: the walk's message, or that the child died, ran out of
 * processor time or memory, or that the file is none to walk. LT_IO: no child, or no answer within the time a
 * slow file system is given. The caller frees `answer` in every case. */
lt_status lt_probe(const char *path, lt_pack *answer, bool *newer);

#endif
