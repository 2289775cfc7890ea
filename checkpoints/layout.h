/* The structure of a checkpoint file: everything in it but the chunks, made by HDF5 without writing to a
 * disk. */
#ifndef LT_CHECKPOINTS_LAYOUT_H
#define LT_CHECKPOINTS_LAYOUT_H

#include "checkpoints/checkpoint.h"

/* Lays out a checkpoint with `header` and the tensors of `registry`, all chunks allocated and none written,
 * and writes it to the new or emptied file `path`, in its final length. `addresses` receives the offset of
 * every chunk in the order of chunks.h. Not thread-safe (HDF5 is not). Local: rank 0. LT_IO; LT_BAD_INPUT: a
 * config text that no attribute can hold. */
lt_status lt_layout_write(const char *path, const lt_checkpoint_header *header, const lt_registry *registry,
                          int64_t *addresses);

#endif
