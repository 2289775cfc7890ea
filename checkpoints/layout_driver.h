/* An HDF5 file driver that keeps a file's structure and drops its data: what HDF5 writes as metadata goes to
 * a file descriptor (sparse memory), what it writes as raw data is forgotten.
 *
 * Why: HDF5 fills the chunks of a filtered dataset when they are allocated, whatever H5D_FILL_TIME_NEVER
 * says, which would write every checkpoint twice; and it copes badly with a disk that fails under it. Here it
 * meets no disk.
 */
#ifndef LT_CHECKPOINTS_LAYOUT_DRIVER_H
#define LT_CHECKPOINTS_LAYOUT_DRIVER_H

#include <hdf5.h>

/* Where the structure goes. A write that fails is remembered in `error` (an errno value) and HDF5 is told
 * that all is well: after a failed close HDF5 1.10 crashes when the program exits. */
typedef struct lt_layout_target {
    int descriptor;
    int error;
} lt_layout_target;

/* Makes `access_list` open its file through the driver. `target` outlives the file. Negative on failure. */
herr_t lt_layout_driver_use(hid_t access_list, lt_layout_target *target);

#endif
