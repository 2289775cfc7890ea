/* Shards that `lazytrain prepare` made are read through once an epoch in the background and compared with the
 * checksums of their manifest, so that a run does not go on training on what a disk made of them. The work is
 * spread over the epoch and shared out among ranks. Internal to data/. Local.
 */
#ifndef LT_DATA_CHECKS_H
#define LT_DATA_CHECKS_H

#include "data/files.h"

typedef struct lt_checks lt_checks;

/* For files `share`, `share` + `shares`, ... of those that lie in prepared folders; *checks is NULL where
 * none does. The files outlive the checks. LT_BAD_INPUT: a manifest that cannot be read; LT_IO: no memory or
 * thread. */
lt_status lt_checks_start(lt_files *files, int64_t share, int64_t shares, lt_checks **checks);

/* Training is in this epoch, so far through it (0 to 1). LT_IO: a file is not what its manifest says, or
 * cannot be read; that stays. NULL is allowed. Thread-safe. */
lt_status lt_checks_advance(lt_checks *checks, int64_t epoch, double fraction);
void lt_checks_end(lt_checks *checks);

#endif
