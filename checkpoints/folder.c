#include "checkpoints/folder.h"

#include "checkpoints/steps.h"
#include "checkpoints/stored.h"
#include "checkpoints/system.h"
#include "comm/log.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

static const char METRICS[] = "metrics.jsonl";

/* ---- prepare
 * ---------------------------------------------------------------------------------------------------- */

/* A folder is there for good once its parent is synced; one that cannot be opened cannot be synced. */
static lt_status keep_folder(const char *path) {
    char parent[LT_PATH_BYTES];
    snprintf(parent, sizeof parent, "%s", path);
    char *slash = strrchr(parent, '/');
    if (slash) slash[slash == parent] = 0;
    const char *name = slash ? parent : ".";
    return access(name, R_OK) == 0 ? lt_sync_directory(name) : LT_OK;
}

/* `made`: how many bytes of the path name the first folder that was missing; 0: none was. */
static lt_status make_folder(const char *key, const char *directory, size_t *made) {
    char path[LT_PATH_BYTES];
    LT_CHECK(lt_join_path(path, sizeof path, directory, ""));
    for (char *slash = strchr(path + 1, '/'); slash; slash = strchr(slash + 1, '/')) {
        *slash = 0;
        int there = mkdir(path, 0777) != 0, failed = there && errno != EEXIST, code = errno;
        if (!there && *made == 0) *made = strlen(path);
        struct stat about;
        /* A parent that exists may refuse mkdir for another reason (read-only): look before complaining. */
        if (failed && stat(path, &about) == 0) failed = 0;
        if (failed)
            return lt_fail(LT_BAD_INPUT, "cannot create folder %s: %s: choose another %s", path,
                           strerror(code), key);
        if (!there) LT_CHECK(keep_folder(path));
        *slash = '/';
    }
    struct stat about;
    if (stat(directory, &about) != 0 || !S_ISDIR(about.st_mode))
        return lt_fail(LT_BAD_INPUT, "%s is not a folder: choose another %s", directory, key);
    return LT_OK;
}

/* Permission bits say nothing about read-only mounts, quotas or root: only a written file proves anything. */
static lt_status write_probe(const char *key, const char *directory) {
    char path[LT_PATH_BYTES];
    static char page[4096];
    LT_CHECK(lt_join_path(path, sizeof path, directory, "write_test.partial"));
    const char *operation = "create";
    int file = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);
    bool failed = file < 0;
    int code = errno;
    for (int i = 0; i < 16 && !failed; i++) {
        operation = "write to";
        errno = ENOSPC; /* what a short write means */
        failed = write(file, page, sizeof page) != (ssize_t)sizeof page;
        code = errno;
    }
    if (!failed) {
        operation = "sync";
        failed = fsync(file) != 0;
        code = errno;
    }
    if (file >= 0) {
        close(file);
        unlink(path);
    }
    if (!failed) return LT_OK;
    return lt_fail(LT_BAD_INPUT,
                   "folder %s cannot be written: cannot %s a test file there: %s: free or remount it, or "
                   "choose another %s",
                   directory, operation, strerror(code), key);
}

static lt_status check_room(const char *key, const char *directory, int64_t bytes) {
    struct statvfs about;
    if (statvfs(directory, &about) != 0)
        return lt_fail(LT_BAD_INPUT, "folder %s: cannot ask for its free space: %s", directory,
                       strerror(errno));
    if (about.f_blocks == 0) return LT_OK; /* some network file systems do not say */
    double free_bytes = (double)(geteuid() == 0 ? about.f_bfree : about.f_bavail) * (double)about.f_frsize;
    if (free_bytes >= (double)bytes) return LT_OK;
    return lt_fail(LT_BAD_INPUT,
                   "folder %s has no room: %lld bytes needed (%.1f MB), %.0f free (%.1f MB): free space, or "
                   "choose another %s",
                   directory, (long long)bytes, (double)bytes / 1e6, free_bytes, free_bytes / 1e6, key);
}

lt_status lt_folder_prepare(const char *key, const char *directory, int64_t bytes, size_t *made) {
    *made = 0;
    if (directory[0] == 0) return lt_fail(LT_BAD_INPUT, "%s is empty: expected a folder", key);
    lt_status status = make_folder(key, directory, made);
    if (status == LT_OK) status = check_room(key, directory, bytes);
    if (status == LT_OK) status = write_probe(key, directory);
    if (status == LT_OK) return LT_OK;
    lt_folder_unmake(directory, *made);
    *made = 0;
    return status;
}

void lt_folder_unmake(const char *directory, size_t made) {
    char path[LT_PATH_BYTES];
    if (made == 0) return;
    snprintf(path, sizeof path, "%s", directory);
    for (size_t length = strlen(path); length >= made;) {
        path[length] = 0;
        rmdir(path);
        while (length > 0 && path[--length] != '/') continue;
    }
}

/* ---- what it holds
 * ---------------------------------------------------------------------------------------------- */

static bool is_of_run(const char *name) {
    lt_step_file kind = lt_step_parse(name, NULL);
    return (kind != LT_STEP_NONE && kind != LT_STEP_PARTIAL) || strcmp(name, METRICS) == 0;
}

static bool is_any(const char *name) {
    return lt_step_parse(name, NULL) != LT_STEP_NONE || strcmp(name, METRICS) == 0;
}

bool lt_folder_holds_run(const char *directory) {
    DIR *folder = opendir(directory);
    if (!folder) return false;
    bool found = false;
    for (struct dirent *entry; !found && (entry = readdir(folder));) found = is_of_run(entry->d_name);
    closedir(folder);
    return found;
}

lt_status lt_folder_clear(const char *directory) {
    LT_CHECK(lt_folder_remove(directory, is_any));
    return lt_sync_directory(directory);
}

/* Good is what can be resumed from: every byte is read and checked here, because damage that is found while
 * ranks load comes too late to take the checkpoint before. The cost is one read of the newest file at each
 * start. */
static lt_status check_good(const char *path, int64_t step, bool *damaged) {
    lt_stored stored;
    lt_status status = lt_stored_open(path, &stored);
    *damaged = status == LT_BAD_INPUT && !stored.newer;
    if (status != LT_OK) return status;
    status = lt_stored_verify(path, &stored);
    if (status == LT_OK && stored.header.step != step)
        status = lt_fail(LT_BAD_INPUT, "%s: holds step %lld, not that of its name", path,
                         (long long)stored.header.step);
    *damaged = status == LT_BAD_INPUT;
    lt_stored_free(&stored);
    return status;
}

static lt_status rename_away(const char *directory, int64_t step, const char *suffix) {
    char from[LT_PATH_BYTES], to[LT_PATH_BYTES];
    LT_CHECK(lt_step_path(from, sizeof from, directory, step, ""));
    LT_CHECK(lt_step_path(to, sizeof to, directory, step, suffix));
    return rename(from, to) == 0 ? LT_OK : lt_system_failure("rename", from);
}

lt_status lt_folder_latest(const char *directory, char *path, size_t size) {
    int64_t *steps, count;
    bool renamed = false, found = false;
    LT_CHECK(lt_steps_list(directory, &steps, &count));
    lt_status status = LT_OK;
    for (int64_t i = 0; i < count && status == LT_OK && !found; i++) {
        bool damaged = false;
        LT_CHECK_DONE(status, lt_step_path(path, size, directory, steps[i], ""));
        status = check_good(path, steps[i], &damaged);
        found = status == LT_OK;
        if (!damaged) continue;
        lt_log_warning("%s; renamed to *.damaged, trying the checkpoint before", lt_error_message());
        status = rename_away(directory, steps[i], ".damaged");
        renamed = true;
    }
    if (status == LT_OK && renamed) status = lt_sync_directory(directory);
done:
    if (!found || status != LT_OK) path[0] = 0;
    free(steps);
    return status;
}

lt_status lt_folder_supersede(const char *directory, int64_t step) {
    int64_t *steps, count;
    LT_CHECK(lt_steps_list(directory, &steps, &count));
    lt_status status = LT_OK;
    int64_t i = 0;
    for (; i < count && steps[i] > step && status == LT_OK; i++)
        status = rename_away(directory, steps[i], ".superseded");
    if (status == LT_OK && i > 0) status = lt_sync_directory(directory);
    free(steps);
    return status;
}

lt_status lt_folder_retain(const char *directory, int64_t keep, int64_t keep_every) {
    int64_t *steps, count;
    if (keep <= 0) return LT_OK;
    LT_CHECK(lt_steps_list(directory, &steps, &count));
    lt_status status = LT_OK;
    for (int64_t i = keep; i < count && status == LT_OK; i++) {
        char path[LT_PATH_BYTES];
        if (keep_every > 0 && steps[i] % keep_every == 0) continue;
        status = lt_step_path(path, sizeof path, directory, steps[i], "");
        if (status == LT_OK && unlink(path) != 0 && errno != ENOENT)
            status = lt_system_failure("remove", path);
    }
    free(steps);
    return status;
}
