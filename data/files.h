/* Reading many files at given offsets from several threads, with at most LT_FILES_OPEN descriptors kept open:
 * the least recently used one makes room. Internal to data/; knows bytes, not formats.
 */
#ifndef LT_DATA_FILES_H
#define LT_DATA_FILES_H

#include "data/source.h"

#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>
#include <time.h>

enum { LT_FILES_OPEN = 64, LT_FILES_HEAD = 16 };

typedef struct lt_files lt_files;

/* Opens every file of `source` once, to know that it can be read, its size and its first bytes. Takes what
 * `source` holds over, also on failure. LT_BAD_INPUT: missing, unreadable, not a regular file; LT_IO: a
 * device or a limit of the system failed. Messages start with `key`. */
lt_status lt_files_open(lt_source *source, const char *key, lt_files **files);
void lt_files_close(lt_files *files);

/* What was found when the file was opened. The head is up to LT_FILES_HEAD first bytes, zeros behind a short
 * file. */
int64_t lt_files_count(const lt_files *files);
const char *lt_files_key(const lt_files *files);
const char *lt_files_path(const lt_files *files, int64_t file);
int64_t lt_files_bytes(const lt_files *files, int64_t file);
struct timespec lt_files_modified(const lt_files *files, int64_t file);
const unsigned char *lt_files_head(const lt_files *files, int64_t file);

/* Sets what the system knows the file by, whatever it is called. */
void lt_files_identity(const lt_files *files, int64_t file, dev_t *device, ino_t *inode);

/* Whether the file still has the size and the time of last change that it had when it was opened. LT_IO names
 * it otherwise. */
lt_status lt_files_check_unchanged(const lt_files *files, int64_t file);

/* Reads exactly `count` bytes at `offset`. Thread-safe. LT_IO names the file: it vanished, shrank, or the
 * read failed. */
lt_status lt_files_read(lt_files *files, int64_t file, int64_t offset, void *buffer, size_t count);

#endif
