/* The record of everything that the processes of a run did to the files and folders below one folder, in the
 * order in which it happened: written by record.c, which is preloaded, read by power_cut.c.
 *
 *   RECORD_FILE=FILE      where it is appended to; not below the next one
 *   RECORD_BELOW=FOLDER   absolute
 *   RECORD_NOTE=TEXT      what rank 0 says first
 *
 * An operation and its record are one step for all processes. What fails is not recorded. Writing through
 * stdio is recorded when it is flushed. */
#ifndef LT_TESTS_FAULT_RECORD_H
#define LT_TESTS_FAULT_RECORD_H

#include <stdint.h>

typedef enum record_kind {
    RECORD_SAY, /* a line for people; `size` bytes follow the record */
    /* of a file, named by its inode */
    RECORD_WRITE,    /* at `offset`; `size` bytes follow the record */
    RECORD_TRUNCATE, /* to `size` */
    RECORD_SYNC,
    /* of a folder: of that in which `path` lies */
    RECORD_CREATE,
    RECORD_MAKE_FOLDER,
    RECORD_LINK, /* of what is `path` to `other` */
    RECORD_RENAME,
    RECORD_REMOVE,
    RECORD_SYNC_FOLDER, /* this one is `path` itself */
} record_kind;

enum { RECORD_PATH_BYTES = 256 };

/* Paths are relative to RECORD_BELOW: "" is that folder, "/out" one in it. */
typedef struct record {
    int32_t kind, rank;
    int64_t inode, offset, size;
    char path[RECORD_PATH_BYTES], other[RECORD_PATH_BYTES];
} record;

#endif
