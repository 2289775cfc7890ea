#include "data/prepare/folder.h"

#include "comm/log.h"
#include "data/manifest.h"
#include "data/prepare/aside.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

enum { LOCK_TRIES = 100, LOCK_WAIT_MS = 50 };

lt_status lt_prepare_folder_name(lt_prepare_folder *folder, const char *output) {
    const size_t bytes = strlen(output);
    folder->lock = -1;
    if (bytes == 0 || bytes >= PATH_MAX)
        return lt_fail(LT_BAD_INPUT, "--output: found a name of %zu bytes, expected 1 to %d", bytes,
                       PATH_MAX - 1);
    memcpy(folder->path, output, bytes + 1);
    LT_CHECK(lt_aside_join(folder->work, output, LT_PREPARE_WORK));
    LT_CHECK(lt_aside_join(folder->split_work, folder->work, LT_PREPARE_VALIDATION));
    return lt_aside_join(folder->split_path, output, LT_PREPARE_VALIDATION);
}

static bool exists(const char *folder, const char *name) {
    char path[PATH_MAX];
    struct stat info;
    return lt_aside_join(path, folder, name) == LT_OK && lstat(path, &info) == 0;
}

static bool ends_with(const char *text, const char *ending) {
    const size_t length = strlen(text), size = strlen(ending);
    return length >= size && strcmp(text + length - size, ending) == 0;
}

/* ---- making and removing ---- */

static lt_status make(const char *path) {
    if (mkdir(path, 0777) == 0 || errno == EEXIST) return LT_OK;
    return lt_fail(LT_BAD_INPUT, "--output: cannot create '%s': %s; choose a folder that can be written",
                   path, strerror(errno));
}

static lt_status make_with_parents(const char *path) {
    char part[PATH_MAX];
    struct stat info;
    for (const char *slash = strchr(path + 1, '/'); slash != NULL; slash = strchr(slash + 1, '/')) {
        memcpy(part, path, (size_t)(slash - path));
        part[slash - path] = '\0';
        LT_CHECK(make(part));
    }
    LT_CHECK(make(path));
    if (stat(path, &info) == 0 && S_ISDIR(info.st_mode)) return LT_OK;
    return lt_fail(LT_BAD_INPUT, "--output: '%s' is not a folder", path);
}

static bool is_shard(const char *name) {
    return strncmp(name, "shard_", 6) == 0 && ends_with(name, ".bin");
}

static bool is_anything(const char *name) {
    (void)name;
    return true;
}

static bool is_partial(const char *name) {
    return ends_with(name, LT_ASIDE_ENDING);
}

static bool is_work(const char *name) {
    return strcmp(name, "lock") != 0;
}

static bool is_product(const char *name) {
    return is_shard(name) || strcmp(name, LT_MANIFEST_NAME) == 0;
}

static bool is_own(const char *name) {
    return is_product(name) || strcmp(name, LT_PREPARE_WORK) == 0 || strcmp(name, LT_PREPARE_VALIDATION) == 0;
}

/* Removes the files of `folder` that `wanted` names; what is not there is fine. Folders stay. */
static lt_status remove_files(const char *folder, bool (*wanted)(const char *name)) {
    DIR *stream = opendir(folder);
    if (stream == NULL && (errno == ENOENT || errno == ENOTDIR)) return LT_OK;
    if (stream == NULL) return lt_aside_failed("open folder", folder);
    lt_status status = LT_OK;
    const struct dirent *entry;
    while (status == LT_OK && (entry = readdir(stream)) != NULL) {
        char path[PATH_MAX];
        if (strcmp(entry->d_name, ".") == 0 || strcmp(entry->d_name, "..") == 0 || !wanted(entry->d_name))
            continue;
        status = lt_aside_join(path, folder, entry->d_name);
        if (status == LT_OK && unlink(path) != 0 && errno != ENOENT && errno != EISDIR && errno != EPERM)
            status = lt_aside_failed("remove", path);
    }
    closedir(stream);
    return status;
}

static lt_status remove_folder(const char *folder) {
    if (rmdir(folder) == 0 || errno == ENOENT) return LT_OK;
    return lt_aside_failed("remove folder", folder);
}

/* Makes the folder as new; .work is there, which says that it is unfinished once the manifest is gone. */
static lt_status clear(const lt_prepare_folder *folder) {
    char manifest[PATH_MAX];
    LT_CHECK(lt_aside_join(manifest, folder->path, LT_MANIFEST_NAME));
    if (unlink(manifest) != 0 && errno != ENOENT) return lt_aside_failed("remove", manifest);
    LT_CHECK(lt_aside_sync_folder(folder->path));
    LT_CHECK(remove_files(folder->path, is_shard));
    if (exists(folder->path, LT_PREPARE_VALIDATION)) {
        LT_CHECK(remove_files(folder->split_path, is_product));
        LT_CHECK(remove_folder(folder->split_path));
    }
    LT_CHECK(remove_files(folder->split_work, is_anything));
    return remove_files(folder->work, is_work);
}

/* ---- what is there ---- */

/* LT_BAD_INPUT: the folder holds what `allowed` does not name. */
static lt_status check_contents(const lt_prepare_folder *folder, bool (*allowed)(const char *name)) {
    DIR *stream = opendir(folder->path);
    if (stream == NULL)
        return lt_fail(LT_BAD_INPUT, "--output: cannot read folder '%s': %s", folder->path, strerror(errno));
    lt_status status = LT_OK;
    const struct dirent *entry;
    while (status == LT_OK && (entry = readdir(stream)) != NULL) {
        const char *name = entry->d_name;
        if (strcmp(name, ".") == 0 || strcmp(name, "..") == 0 || allowed(name)) continue;
        status =
            lt_fail(LT_BAD_INPUT,
                    "--output: '%s' holds '%s', which is no half-done work of prepare; choose a new or empty "
                    "folder%s",
                    folder->path, name, is_own(name) ? ", or --overwrite" : "");
    }
    closedir(stream);
    return status;
}

static bool is_unfinished(const char *name) {
    return strcmp(name, LT_PREPARE_WORK) == 0;
}

/* Another run may be about to end: it is waited for a while. Where there are no locks, there is none. */
static lt_status lock(lt_prepare_folder *folder) {
    char path[PATH_MAX];
    LT_CHECK(lt_aside_join(path, folder->work, "lock"));
    for (int i = 0; i < LOCK_TRIES; i++) {
        struct stat held, named;
        LT_CHECK(make(folder->work));
        folder->lock = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0666);
        if (folder->lock < 0 && errno == ENOENT) continue; /* the other run has just ended */
        if (folder->lock < 0)
            return lt_fail(LT_BAD_INPUT,
                           "--output: cannot write '%s': %s; choose a folder that can be written", path,
                           strerror(errno));
        const bool taken = flock(folder->lock, LOCK_EX | LOCK_NB) == 0 || errno != EWOULDBLOCK;
        if (taken && fstat(folder->lock, &held) == 0 && stat(path, &named) == 0 &&
            held.st_ino == named.st_ino)
            return LT_OK;
        lt_prepare_folder_close(folder);
        nanosleep(&(struct timespec){.tv_nsec = LOCK_WAIT_MS * 1000000}, NULL);
    }
    return lt_fail(LT_IO, "--output: '%s' is in use by another lazytrain prepare; wait for it or stop it",
                   folder->path);
}

void lt_prepare_folder_close(lt_prepare_folder *folder) {
    if (folder->lock >= 0) close(folder->lock);
    folder->lock = -1;
}

static lt_status write_begun(const lt_prepare_folder *folder, const lt_prepare_plan *plan) {
    char *text = json_dumps(plan->begun, JSON_COMPACT);
    if (text == NULL) return lt_fail(LT_IO, "no memory to describe the inputs");
    const lt_status status = lt_aside_write(folder->work, folder->work, "begun.json", text, strlen(text));
    free(text);
    return status;
}

/* Goes on with a half-done folder, if there is one that was begun. */
static lt_status go_on(const lt_prepare_folder *folder, const lt_prepare_plan *plan, bool *begun) {
    char path[PATH_MAX];
    LT_CHECK(lt_aside_join(path, folder->work, "begun.json"));
    *begun = access(path, F_OK) == 0;
    if (!*begun) return LT_OK;
    json_t *there = json_load_file(path, 0, NULL);
    const lt_status status =
        there == NULL ? lt_fail(LT_BAD_INPUT, "--output: '%s' is damaged; start anew with --overwrite", path)
                      : lt_prepare_plan_compare(folder->path, there, plan->begun);
    json_decref(there);
    LT_CHECK(status);
    lt_log_info("going on with the half-done folder %s", folder->path);
    LT_CHECK(remove_files(folder->split_work, is_partial));
    return remove_files(folder->work, is_partial);
}

static lt_status compare_finished(const lt_prepare_folder *folder, const lt_prepare_plan *plan) {
    lt_manifest manifest;
    LT_CHECK(lt_manifest_read(folder->path, "--output", &manifest));
    const lt_status status = lt_prepare_plan_compare(folder->path, manifest.json, plan->about);
    lt_manifest_free(&manifest);
    return status;
}

lt_status lt_prepare_folder_begin(lt_prepare_folder *folder, const lt_prepare_plan *plan, bool *finished) {
    const bool overwrite = plan->options->overwrite;
    bool begun = false;
    LT_CHECK(make_with_parents(folder->path));
    *finished = !overwrite && lt_manifest_recognise(folder->path);
    if (*finished && !exists(folder->path, LT_PREPARE_WORK)) return compare_finished(folder, plan);
    if (overwrite)
        LT_CHECK(check_contents(folder, is_own));
    else if (!exists(folder->path, LT_PREPARE_WORK))
        LT_CHECK(check_contents(folder, is_unfinished));
    LT_CHECK(lock(folder));
    *finished = !overwrite && lt_manifest_recognise(folder->path);
    if (*finished) {
        LT_CHECK(compare_finished(folder, plan));
        return lt_prepare_folder_end(folder);
    }
    if (!overwrite) LT_CHECK(go_on(folder, plan, &begun));
    if (begun) return LT_OK;
    LT_CHECK(clear(folder));
    LT_CHECK(make(folder->split_work));
    return write_begun(folder, plan);
}

lt_status lt_prepare_folder_place_validation(const lt_prepare_folder *folder) {
    if (exists(folder->path, LT_PREPARE_VALIDATION)) return LT_OK;
    LT_CHECK(lt_aside_sync_folder(folder->split_work));
    if (rename(folder->split_work, folder->split_path) != 0)
        return lt_aside_failed("rename to", folder->split_path);
    return lt_aside_sync_folder(folder->path);
}

lt_status lt_prepare_folder_end(lt_prepare_folder *folder) {
    LT_CHECK(remove_files(folder->split_work, is_anything));
    LT_CHECK(remove_folder(folder->split_work));
    LT_CHECK(remove_files(folder->work, is_work));
    LT_CHECK(remove_files(folder->work, is_anything));
    lt_prepare_folder_close(folder);
    LT_CHECK(remove_folder(folder->work));
    return lt_aside_sync_folder(folder->path);
}

void lt_prepare_folder_undo(lt_prepare_folder *folder) {
    char message[LT_ERROR_MESSAGE_BYTES];
    DIR *stream = opendir(folder->work);
    bool finished = stream == NULL;
    const struct dirent *entry;
    while (!finished && (entry = readdir(stream)) != NULL)
        finished = strncmp(entry->d_name, "spool_", 6) == 0;
    if (stream != NULL) closedir(stream);
    if (finished) return;
    snprintf(message, sizeof message, "%s", lt_error_message());
    if (lt_prepare_folder_end(folder) == LT_OK) rmdir(folder->path); /* if it is empty */
    (void)lt_fail(LT_OK, "%s", message);
}
