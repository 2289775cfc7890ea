/* A file that is complete or absent: written aside, synced, then renamed. Writes are buffered and in order;
 * the system starts to put them on the disk at once, so that the sync finds little left. Internal to
 * data/prepare. Local. */
#ifndef LT_DATA_PREPARE_ASIDE_H
#define LT_DATA_PREPARE_ASIDE_H

#include "comm/status.h"

#include <limits.h>
#include <stddef.h>
#include <stdint.h>

#define LT_ASIDE_ENDING ".partial"

typedef struct lt_aside {
    char path[PATH_MAX], partial[PATH_MAX];
    int descriptor;
    int64_t written, started; /* bytes: in the file; of them, on their way to the disk */
    unsigned char *buffer;    /* NULL: not open */
    size_t used;
} lt_aside;

/* `path` = `folder`/`name`. LT_BAD_INPUT: it has too many bytes. */
lt_status lt_aside_join(char path[PATH_MAX], const char *folder, const char *name);

/* What becomes `folder`/`name` is written in the folder `work` of the same file system, under a name that no
 * other process has. LT_IO: it cannot be. The caller ends it by lt_aside_commit() or lt_aside_abandon(). */
lt_status lt_aside_open(lt_aside *file, const char *work, const char *folder, const char *name);

lt_status lt_aside_append(lt_aside *file, const void *data, size_t bytes);

/* Over bytes that were appended. */
lt_status lt_aside_put(lt_aside *file, int64_t offset, const void *data, size_t bytes);

/* Gives the file its name, durably but for the folder. After an error it is abandoned. */
lt_status lt_aside_commit(lt_aside *file);

/* Removes it; nothing where it is not open. */
void lt_aside_abandon(lt_aside *file);

/* The whole of a small file at once. */
lt_status lt_aside_write(const char *work, const char *folder, const char *name, const void *data,
                         size_t bytes);

/* Makes renames in the folder durable. */
lt_status lt_aside_sync_folder(const char *folder);

/* LT_IO: "cannot WHAT PATH: " and errno's reason, with what to do. */
lt_status lt_aside_failed(const char *what, const char *path);

#endif
