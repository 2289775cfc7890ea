/* The parts of a save, for who wants to go on while files are written. lt_checkpoint_save() is all of them in
 * a row.
 *
 * lt_save_begin(), collective: with a snapshot, copies this rank's share of the tensors.
 * lt_save_write(): writes and fsyncs this rank's share, rank 0 the structure too. Local with a snapshot: it
 * calls no MPI, and any thread may; else collective. Then all ranks agree that every share is written.
 * lt_save_publish(), rank 0: renames the file and fsyncs the folder. lt_save_end(), local.
 */
#ifndef LT_CHECKPOINTS_SAVE_H
#define LT_CHECKPOINTS_SAVE_H

#include "checkpoints/checkpoint.h"

typedef struct lt_save lt_save;

/* Bytes of a snapshot of this rank's share, which `access->writer` may say; 0 of what lt_save_begin()
 * refuses. Local. */
size_t lt_save_snapshot_bytes(const lt_grid *grid, const lt_registry *registry,
                              const lt_tensor_access *access);

/* Begins the save of `header->step`. With `snapshot` (lt_save_snapshot_bytes(), the caller's until the end)
 * the tensors are copied there now and of `access` only the writer is asked afterwards; with NULL
 * lt_save_write() asks for them. `access` itself is copied. Strings of `header`, the registry and the grid
 * must live until the end. LT_IO as for lt_checkpoint_save(), the same on every rank; then there is nothing
 * to end. Collective. */
lt_status lt_save_begin(const lt_grid *grid, lt_layout *layout, const char *directory,
                        const lt_checkpoint_header *header, const lt_registry *registry,
                        const lt_tensor_access *access, void *snapshot, lt_save **save);

/* May be called again after it or lt_save_publish() failed, where there is a snapshot: everything is written
 * anew. */
lt_status lt_save_write(lt_save *save);

/* Bytes that lt_save_write() has written so far, to tell a slow disk from one that hangs. Local, any thread.
 */
int64_t lt_save_written(const lt_save *save);

lt_status lt_save_publish(lt_save *save);

/* Frees the save; rank 0 removes the file that was not published. NULL is fine. */
void lt_save_end(lt_save *save);

#endif
