/* The few file operations that checkpoints and their folder share, with the errors as messages. */
#ifndef LT_CHECKPOINTS_SYSTEM_H
#define LT_CHECKPOINTS_SYSTEM_H

#include "comm/status.h"

#include <stddef.h>
#include <sys/types.h>

/* LT_IO `cannot OPERATION PATH: REASON`, the reason from errno. */
lt_status lt_system_failure(const char *operation, const char *path);

/* Writes all of `bytes` bytes at `offset`, whatever a single call takes. */
lt_status lt_write_at(int file, const char *path, const void *data, size_t bytes, off_t offset);

/* Makes renames, links and removals in `directory` durable. */
lt_status lt_sync_directory(const char *directory);

/* `directory/name` into `path` [size]. LT_BAD_INPUT where it does not fit. */
lt_status lt_join_path(char *path, size_t size, const char *directory, const char *name);

enum { LT_PATH_BYTES = 4096 };

#endif
