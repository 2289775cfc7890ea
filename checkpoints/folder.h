/* A run's folder: which checkpoints it holds, who uses it, what is kept. All functions are local and are
 * called by rank 0 alone, which shares the result.
 */
#ifndef LT_CHECKPOINTS_FOLDER_H
#define LT_CHECKPOINTS_FOLDER_H

#include "comm/status.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Makes the folder (and its parents) where it is missing, durably, and proves that files can be written
 * there, with room for `bytes` more. `key` is the config's name for it, in messages. `made` is for
 * lt_folder_unmake(). LT_BAD_INPUT with the reason (LT_IO where a new folder cannot be synced): found before
 * the first step; then what was made is gone again. */
lt_status lt_folder_prepare(const char *key, const char *directory, int64_t bytes, size_t *made);

/* Removes the folders that lt_folder_prepare() made, where they are still empty. */
void lt_folder_unmake(const char *directory, size_t made);

/* Takes the folder for this run: `lock` in it names host, process and SLURM job. LT_IO where a live run holds
 * it (its host and job named); a lock whose owner is dead on this host, or that carries this SLURM job's id
 * from another host, is taken over; so is one that names nobody. Then removes the `*.partial` files of dead
 * runs. LT_BAD_INPUT where it cannot be written. The owner is the calling process: call it and unlock from
 * the same one. */
lt_status lt_folder_lock(const char *directory);
/* Whether this process still holds the lock: LT_IO where it does not. Called before every save: SLURM gives
 * up a node that it cannot reach and starts the job elsewhere, while the ranks on the old one live on. */
lt_status lt_folder_check_lock(const char *directory);
/* Removes this process's lock; any other stays. */
void lt_folder_unlock(const char *directory);

/* Whether the folder holds anything of a run (checkpoints or metrics). */
bool lt_folder_holds_run(const char *directory);

/* Path of the good checkpoint of the highest step into `path` (empty string: none). A damaged newer one is
 * reported as a warning and renamed `*.damaged`. Good means lt_checkpoint_verify(): all of the newest file is
 * read. A newest one of a newer format is LT_BAD_INPUT and stays. */
lt_status lt_folder_latest(const char *directory, char *path, size_t size);

/* Renames the checkpoints of `directory` with a step above `step` to `*.superseded`. */
lt_status lt_folder_supersede(const char *directory, int64_t step);

/* Deletes old checkpoints: the newest `keep` stay (0: all), and every one whose step is a multiple of
 * `keep_every` (0: no such rule). Called only after the newest is durable. */
lt_status lt_folder_retain(const char *directory, int64_t keep, int64_t keep_every);

/* Removes the checkpoints, metrics and leftovers of an earlier run (`--overwrite`). */
lt_status lt_folder_clear(const char *directory);

#endif
