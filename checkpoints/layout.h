/* The structure of a checkpoint file: everything in it but the chunks. HDF5 makes it once, before the first
 * step, in a child process (child.h) and without writing to a disk. A save then only puts its numbers into
 * it: it calls no HDF5, whose memory may be refused.
 */
#ifndef LT_CHECKPOINTS_LAYOUT_H
#define LT_CHECKPOINTS_LAYOUT_H

#include "checkpoints/checkpoint.h"

/* The offset of every chunk in the order of chunks.h. */
const int64_t *lt_layout_addresses(const lt_layout *layout);

/* Writes the structure, with step, tokens and samples of `header`, to `file` (of `path`), and sets its
 * length. Others may write their chunks meanwhile. Local: rank 0. LT_IO. */
lt_status lt_layout_write(lt_layout *layout, int file, const char *path, const lt_checkpoint_header *header);

#endif
