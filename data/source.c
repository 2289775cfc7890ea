#include "data/source.h"
#include "comm/log.h"
#include "data/manifest.h"

#include <dirent.h>
#include <errno.h>
#include <glob.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

static bool is_digit(char c) {
    return c >= '0' && c <= '9';
}

/* The separator sorts first, so that the files of a folder stay together. */
static int rank_of_byte(char c) {
    return c == '\0' ? 0 : c == '/' ? 1 : (int)(unsigned char)c + 2;
}

/* Compares the numbers at both positions and moves past them; leading zeros do not count. */
static int compare_numbers(const char **left, const char **right) {
    const char *l = *left, *r = *right;
    while (*l == '0') l++;
    while (*r == '0') r++;
    size_t left_digits = 0, right_digits = 0;
    while (is_digit(l[left_digits])) left_digits++;
    while (is_digit(r[right_digits])) right_digits++;
    *left = l + left_digits;
    *right = r + right_digits;
    if (left_digits != right_digits) return left_digits < right_digits ? -1 : 1;
    return memcmp(l, r, left_digits);
}

int lt_natural_compare(const char *left, const char *right) {
    const char *l = left, *r = right;
    while (*l != '\0' || *r != '\0') {
        int order;
        if (is_digit(*l) && is_digit(*r)) {
            order = compare_numbers(&l, &r);
        } else {
            order = rank_of_byte(*l) - rank_of_byte(*r);
            if (order == 0) l++, r++;
        }
        if (order != 0) return order;
    }
    return strcmp(left, right); /* "a1" and "a01" differ */
}

/* A list under construction. */
typedef struct builder {
    const char *key;
    lt_source *source;
    int64_t capacity;
} builder;

static lt_status out_of_memory(const builder *list) {
    return lt_fail(LT_IO, "%s: no memory for the list of files", list->key);
}

/* Appends `folder`/`name`, or `name` alone when `folder` is NULL. */
static lt_status append(builder *list, const char *folder, const char *name) {
    lt_source *source = list->source;
    if (source->count == list->capacity) {
        int64_t capacity = list->capacity == 0 ? 64 : list->capacity * 2;
        char **grown = reallocarray(source->path, (size_t)capacity, sizeof *grown);
        if (grown == NULL) return out_of_memory(list);
        source->path = grown;
        list->capacity = capacity;
    }
    size_t folder_length = folder == NULL ? 0 : strlen(folder), name_length = strlen(name);
    bool slash = folder_length > 0 && folder[folder_length - 1] != '/';
    char *path = malloc(folder_length + slash + name_length + 1);
    if (path == NULL) return out_of_memory(list);
    if (folder != NULL) memcpy(path, folder, folder_length);
    if (slash) path[folder_length] = '/';
    memcpy(path + folder_length + slash, name, name_length + 1);
    source->path[source->count++] = path;
    return LT_OK;
}

static const char *file_type(mode_t mode) {
    if (S_ISDIR(mode)) return "a folder";
    if (S_ISFIFO(mode)) return "a FIFO";
    if (S_ISSOCK(mode)) return "a socket";
    return "a device";
}

/* The message for a path that stat() refuses with `error`. */
static lt_status fail_stat(const builder *list, const char *path, int error) {
    struct stat link;
    bool dangling = error == ENOENT && lstat(path, &link) == 0;
    return lt_fail(LT_BAD_INPUT, "%s: cannot read '%s': %s%s", list->key, path, strerror(error),
                   dangling ? " (it is a symbolic link that leads nowhere)" : "");
}

static lt_status require_regular(const builder *list, const char *path) {
    struct stat status;
    if (stat(path, &status) != 0) return fail_stat(list, path, errno);
    if (S_ISREG(status.st_mode)) return LT_OK;
    return lt_fail(LT_BAD_INPUT, "%s: '%s' is %s, expected a regular file%s", list->key, path,
                   file_type(status.st_mode),
                   S_ISDIR(status.st_mode) ? "; list that folder itself, or a glob of the files in it" : "");
}

/* A folder of `lazytrain prepare`: the shards that its manifest lists. */
static lt_status expand_prepared(builder *list, const char *folder) {
    lt_manifest manifest;
    LT_CHECK(lt_manifest_read(folder, list->key, &manifest));
    lt_status status = LT_OK;
    for (int64_t i = 0; i < manifest.count && status == LT_OK; i++)
        status = append(list, folder, manifest.shards[i].name);
    if (manifest.count == 0)
        status =
            lt_fail(LT_BAD_INPUT, "%s: the prepared folder '%s' holds no shards: no document was left for it",
                    list->key, folder);
    lt_manifest_free(&manifest);
    return status;
}

static lt_status expand_folder(builder *list, const char *folder) {
    if (lt_manifest_recognise(folder)) return expand_prepared(list, folder);
    if (lt_manifest_unfinished(folder))
        return lt_fail(LT_BAD_INPUT, "%s: '%s' is half done: run lazytrain prepare again to finish it",
                       list->key, folder);
    DIR *stream = opendir(folder);
    if (stream == NULL)
        return lt_fail(LT_BAD_INPUT, "%s: cannot read folder '%s': %s", list->key, folder, strerror(errno));
    int64_t before = list->source->count;
    lt_status status = LT_OK;
    const struct dirent *entry;
    while (errno = 0, (entry = readdir(stream)) != NULL) {
        if (entry->d_name[0] == '.') continue;
        LT_CHECK_DONE(status, append(list, folder, entry->d_name));
    }
    if (errno != 0)
        status = lt_fail(LT_IO, "%s: reading folder '%s' failed: %s", list->key, folder, strerror(errno));
    else if (list->source->count == before)
        status = lt_fail(LT_BAD_INPUT, "%s: folder '%s' holds no files", list->key, folder);
done:
    closedir(stream);
    return status;
}

/* Where glob() met a folder that it could not read: its callback has no argument of the caller's. */
static _Thread_local char *unreadable_folder;
static _Thread_local int unreadable_error;

static int remember_unreadable(const char *path, int error) {
    free(unreadable_folder);
    unreadable_folder = strdup(path);
    unreadable_error = error;
    return 1;
}

static lt_status expand_glob(builder *list, const char *pattern) {
    glob_t matches;
    lt_status status = LT_OK;
    unreadable_folder = NULL;
    int result = glob(pattern, GLOB_NOSORT | GLOB_TILDE | GLOB_ERR, remember_unreadable, &matches);
    if (result == GLOB_NOSPACE) {
        status = out_of_memory(list);
    } else if (result == GLOB_ABORTED) {
        status = lt_fail(LT_BAD_INPUT, "%s: pattern '%s': cannot read folder '%s': %s", list->key, pattern,
                         unreadable_folder == NULL ? "?" : unreadable_folder, strerror(unreadable_error));
    } else if (result != 0 || matches.gl_pathc == 0) {
        status = lt_fail(LT_BAD_INPUT, "%s: no file matches '%s'", list->key, pattern);
    } else {
        for (size_t i = 0; i < matches.gl_pathc; i++)
            LT_CHECK_DONE(status, append(list, NULL, matches.gl_pathv[i]));
    }
done:
    free(unreadable_folder);
    unreadable_folder = NULL;
    if (result == 0) globfree(&matches);
    return status;
}

static lt_status expand_pattern(builder *list, const char *pattern) {
    struct stat found;
    if (pattern[0] == '\0') return lt_fail(LT_BAD_INPUT, "%s: an empty path", list->key);
    /* What exists under exactly this name is meant literally, also when the name holds a '['. */
    if (stat(pattern, &found) == 0)
        return S_ISDIR(found.st_mode) ? expand_folder(list, pattern) : append(list, NULL, pattern);
    int error = errno;
    bool is_pattern = strpbrk(pattern, "*?[") != NULL || pattern[0] == '~';
    if (!is_pattern || (error != ENOENT && error != ENOTDIR && error != ENAMETOOLONG))
        return fail_stat(list, pattern, error);
    return expand_glob(list, pattern);
}

static int compare_paths(const void *left, const void *right) {
    return lt_natural_compare(*(char *const *)left, *(char *const *)right);
}

/* A file's name without links, and its place in the list. */
typedef struct resolved {
    char *name;
    int64_t index;
} resolved;

static int compare_resolved(const void *left, const void *right) {
    const resolved *l = left, *r = right;
    int order = strcmp(l->name, r->name);
    return order != 0 ? order : l->index < r->index ? -1 : l->index > r->index;
}

/* Takes entries that `names` (sorted) says are the same file out of the list, the first in order stays. */
static void drop_repeated(const builder *list, const resolved *names) {
    lt_source *source = list->source;
    int64_t repeated = 0, first = 0;
    for (int64_t i = 1; i < source->count; i++) {
        if (strcmp(names[i].name, names[first].name) != 0) {
            first = i;
            continue;
        }
        char **path = &source->path[names[i].index];
        if (repeated++ == 0)
            lt_log_warning("%s: '%s' is listed twice (also as '%s') and is read once", list->key,
                           source->path[names[first].index], *path);
        free(*path);
        *path = NULL;
    }
    if (repeated > 1)
        lt_log_warning("%s: %lld files are listed more than once and are read once", list->key,
                       (long long)repeated);
    int64_t kept = 0;
    for (int64_t i = 0; i < source->count; i++)
        if (source->path[i] != NULL) source->path[kept++] = source->path[i];
    source->count = kept;
}

static lt_status remove_repeated(const builder *list) {
    const lt_source *source = list->source;
    lt_status status = LT_OK;
    resolved *names = calloc((size_t)source->count, sizeof *names);
    if (names == NULL) return out_of_memory(list);
    int64_t count = 0;
    for (; count < source->count; count++) {
        names[count] = (resolved){realpath(source->path[count], NULL), count};
        if (names[count].name == NULL) {
            status = fail_stat(list, source->path[count], errno);
            goto done;
        }
    }
    qsort(names, (size_t)count, sizeof *names, compare_resolved);
    drop_repeated(list, names);
done:
    for (int64_t i = 0; i < count; i++) free(names[i].name);
    free(names);
    return status;
}

lt_status lt_source_expand(const char *const *patterns, int pattern_count, const char *key,
                           lt_source *source) {
    *source = (lt_source){0};
    builder list = {.key = key, .source = source};
    for (int i = 0; i < pattern_count; i++) LT_CHECK(expand_pattern(&list, patterns[i]));
    if (source->count == 0) return lt_fail(LT_BAD_INPUT, "%s: no files are given", key);
    qsort(source->path, (size_t)source->count, sizeof *source->path, compare_paths);
    for (int64_t i = 0; i < source->count; i++) LT_CHECK(require_regular(&list, source->path[i]));
    return remove_repeated(&list);
}

lt_status lt_source_single(const char *path, const char *key, lt_source *source) {
    *source = (lt_source){0};
    builder list = {.key = key, .source = source};
    LT_CHECK(require_regular(&list, path));
    return append(&list, NULL, path);
}

void lt_source_destroy(lt_source *source) {
    for (int64_t i = 0; i < source->count; i++) free(source->path[i]);
    free(source->path);
    *source = (lt_source){0};
}
