/* What this binary is: printed by --version and the banner, recorded in checkpoints. */
#ifndef LT_TRAINER_VERSION_H
#define LT_TRAINER_VERSION_H

#include "checkpoints/checkpoint.h"
#include "comm/grid.h"
#include "model/ops.h"

const char *lt_version(void);       /* "0.1.0" */
const char *lt_commit(void);        /* "1a2b3c4d5e6f", with '+' where the tree had changes */
const char *lt_build_options(void); /* compiler flags and instruction sets */

/* Fills in who makes a checkpoint. Collective: host names are gathered. */
lt_status lt_provenance_fill(const lt_grid *grid, const lt_device *device, lt_provenance *provenance);

#endif
