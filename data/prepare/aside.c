#define _GNU_SOURCE /* sync_file_range */

#include "data/prepare/aside.h"

#include <errno.h>
#include <fcntl.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { BUFFER_BYTES = 1 << 18, WRITEBACK_BYTES = 1 << 23 };

lt_status lt_aside_failed(const char *what, const char *path) {
    const int code = errno;
    const char *hint = code == ENOSPC || code == EDQUOT
                           ? "; free space there and run the same command again, which goes on from here"
                           : "";
    return lt_fail(LT_IO, "cannot %s '%s': %s%s", what, path, strerror(code), hint);
}

lt_status lt_aside_join(char path[PATH_MAX], const char *folder, const char *name) {
    const size_t folder_bytes = strlen(folder), bytes = strlen(name);
    if (folder_bytes + bytes + 2 > PATH_MAX)
        return lt_fail(LT_BAD_INPUT, "the path %s/%s has %zu bytes, at most %d are possible", folder, name,
                       folder_bytes + bytes + 1, PATH_MAX - 1);
    memcpy(path, folder, folder_bytes);
    path[folder_bytes] = '/';
    memcpy(path + folder_bytes + 1, name, bytes + 1);
    return LT_OK;
}

lt_status lt_aside_open(lt_aside *file, const char *work, const char *folder, const char *name) {
    static atomic_long opened; /* two folders may get files of one name at a time */
    char host[128] = "", aside[512];
    *file = (lt_aside){.descriptor = -1};
    gethostname(host, sizeof host - 1);
    snprintf(aside, sizeof aside, "%.128s.%.128s.%ld.%ld" LT_ASIDE_ENDING, name, host, (long)getpid(),
             atomic_fetch_add(&opened, 1));
    LT_CHECK(lt_aside_join(file->path, folder, name));
    LT_CHECK(lt_aside_join(file->partial, work, aside));
    file->buffer = malloc(BUFFER_BYTES);
    if (file->buffer == NULL) return lt_fail(LT_IO, "no memory to write '%s'", file->path);
    file->descriptor = open(file->partial, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);
    if (file->descriptor >= 0) return LT_OK;
    const lt_status status = lt_aside_failed("create", file->partial);
    free(file->buffer);
    file->buffer = NULL;
    return status;
}

static lt_status write_at(const lt_aside *file, int64_t offset, const void *data, size_t bytes) {
    const char *at = data;
    while (bytes > 0) {
        const ssize_t done = pwrite(file->descriptor, at, bytes, offset);
        if (done < 0 && errno == EINTR) continue;
        if (done == 0) errno = EIO;
        if (done <= 0) return lt_aside_failed("write to", file->partial);
        at += done;
        bytes -= (size_t)done;
        offset += done;
    }
    return LT_OK;
}

static lt_status flush(lt_aside *file) {
    LT_CHECK(write_at(file, file->written, file->buffer, file->used));
    file->written += (int64_t)file->used;
    file->used = 0;
    const int64_t waiting = file->written - file->started;
    if (waiting < WRITEBACK_BYTES) return LT_OK;
    sync_file_range(file->descriptor, file->started, waiting, SYNC_FILE_RANGE_WRITE); /* a hint */
    file->started = file->written;
    return LT_OK;
}

lt_status lt_aside_append(lt_aside *file, const void *data, size_t bytes) {
    const unsigned char *at = data;
    while (bytes > 0) {
        const size_t room = BUFFER_BYTES - file->used, part = bytes < room ? bytes : room;
        memcpy(file->buffer + file->used, at, part);
        file->used += part;
        at += part;
        bytes -= part;
        if (file->used == BUFFER_BYTES) LT_CHECK(flush(file));
    }
    return LT_OK;
}

lt_status lt_aside_put(lt_aside *file, int64_t offset, const void *data, size_t bytes) {
    LT_CHECK(flush(file));
    return write_at(file, offset, data, bytes);
}

static lt_status finish(lt_aside *file) {
    LT_CHECK(flush(file));
    if (fsync(file->descriptor) != 0) return lt_aside_failed("sync", file->partial);
    if (rename(file->partial, file->path) != 0) return lt_aside_failed("rename to", file->path);
    return LT_OK;
}

static void release(lt_aside *file) {
    close(file->descriptor);
    free(file->buffer);
    file->buffer = NULL;
}

lt_status lt_aside_commit(lt_aside *file) {
    const lt_status status = finish(file);
    if (status == LT_OK)
        release(file);
    else
        lt_aside_abandon(file);
    return status;
}

void lt_aside_abandon(lt_aside *file) {
    if (file->buffer == NULL) return;
    unlink(file->partial);
    release(file);
}

lt_status lt_aside_write(const char *work, const char *folder, const char *name, const void *data,
                         size_t bytes) {
    lt_aside file;
    LT_CHECK(lt_aside_open(&file, work, folder, name));
    const lt_status status = lt_aside_append(&file, data, bytes);
    if (status == LT_OK) return lt_aside_commit(&file);
    lt_aside_abandon(&file);
    return status;
}

lt_status lt_aside_sync_folder(const char *folder) {
    const int descriptor = open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (descriptor < 0) return lt_aside_failed("open folder", folder);
    /* File systems that cannot sync a folder say EINVAL or ENOTSUP. */
    const bool failed = fsync(descriptor) != 0 && errno != EINVAL && errno != ENOTSUP;
    const lt_status status = failed ? lt_aside_failed("sync folder", folder) : LT_OK;
    close(descriptor);
    return status;
}
