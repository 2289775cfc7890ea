#include "checkpoints/system.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

lt_status lt_system_failure(const char *operation, const char *path) {
    int code = errno;
    const char *hint = "";
    if (code == ENOSPC || code == EDQUOT) hint = " (free space there, or lower checkpoint.keep)";
    if (code == ENOENT) hint = " (does every host see this folder?)";
    return lt_fail(LT_IO, "cannot %s %s: %s%s", operation, path, strerror(code), hint);
}

lt_status lt_write_at(int file, const char *path, const void *data, size_t bytes, off_t offset) {
    const char *p = data;
    while (bytes > 0) {
        ssize_t n = pwrite(file, p, bytes, offset);
        if (n < 0 && errno == EINTR) continue;
        if (n == 0) errno = EIO;
        if (n <= 0) return lt_system_failure("write to", path);
        p += n;
        bytes -= (size_t)n;
        offset += n;
    }
    return LT_OK;
}

lt_status lt_sync_directory(const char *directory) {
    int folder = open(directory, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (folder < 0) return lt_system_failure("open folder", directory);
    /* File systems that cannot sync a folder say EINVAL or ENOTSUP; there is nothing more to do on them. */
    int failed = fsync(folder) != 0 && errno != EINVAL && errno != ENOTSUP;
    lt_status status = failed ? lt_system_failure("sync folder", directory) : LT_OK;
    close(folder);
    return status;
}

lt_status lt_join_path(char *path, size_t size, const char *directory, const char *name) {
    int n = snprintf(path, size, "%s/%s", directory, name);
    if (n < 0 || (size_t)n >= size)
        return lt_fail(LT_BAD_INPUT, "%s/%s: the path has %d bytes, at most %zu are possible", directory,
                       name, n, size - 1);
    return LT_OK;
}
