#include "checkpoints/steps.h"

#include "checkpoints/system.h"

#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

lt_step_file lt_step_parse(const char *name, int64_t *step) {
    static const char PREFIX[] = "step_";
    if (strncmp(name, PREFIX, sizeof PREFIX - 1) != 0) return LT_STEP_NONE;
    const char *digits = name + sizeof PREFIX - 1;
    size_t count = strspn(digits, "0123456789");
    /* One step has one name: eight digits, or more without a leading zero. */
    if (count < 8 || count > 18 || (count > 8 && digits[0] == '0')) return LT_STEP_NONE;
    if (step) *step = strtoll(digits, NULL, 10);
    const char *rest = digits + count;
    if (strcmp(rest, ".h5") == 0) return LT_STEP_CHECKPOINT;
    if (strcmp(rest, ".h5.partial") == 0) return LT_STEP_PARTIAL;
    if (strcmp(rest, ".h5.damaged") == 0) return LT_STEP_DAMAGED;
    if (strcmp(rest, ".h5.superseded") == 0) return LT_STEP_SUPERSEDED;
    return LT_STEP_NONE;
}

lt_status lt_step_path(char *path, size_t size, const char *directory, int64_t step, const char *suffix) {
    char name[64];
    snprintf(name, sizeof name, "step_%08lld.h5%s", (long long)step, suffix);
    return lt_join_path(path, size, directory, name);
}

static int higher_first(const void *left, const void *right) {
    int64_t a = *(const int64_t *)left, b = *(const int64_t *)right;
    return (a < b) - (a > b);
}

lt_status lt_steps_list(const char *directory, int64_t **steps, int64_t *count) {
    int64_t capacity = 0;
    lt_status status = LT_OK;
    *steps = NULL;
    *count = 0;
    DIR *folder = opendir(directory);
    if (!folder) return errno == ENOENT ? LT_OK : lt_system_failure("open folder", directory);
    for (struct dirent *entry; errno = 0, (entry = readdir(folder));) {
        int64_t step;
        if (lt_step_parse(entry->d_name, &step) != LT_STEP_CHECKPOINT) continue;
        if (*count == capacity) {
            capacity = capacity * 2 + 16;
            int64_t *grown = realloc(*steps, (size_t)capacity * sizeof *grown);
            if (!grown) {
                status = lt_fail(LT_IO, "%s: no memory for the list of checkpoints", directory);
                break;
            }
            *steps = grown;
        }
        (*steps)[(*count)++] = step;
    }
    if (status == LT_OK && errno != 0) status = lt_system_failure("list folder", directory);
    closedir(folder);
    if (status != LT_OK) {
        free(*steps);
        *steps = NULL;
        *count = 0;
    } else if (*count > 0) {
        qsort(*steps, (size_t)*count, sizeof **steps, higher_first);
    }
    return status;
}

lt_status lt_folder_remove(const char *directory, bool (*chosen)(const char *name)) {
    lt_status status = LT_OK;
    DIR *folder = opendir(directory);
    if (!folder) return errno == ENOENT ? LT_OK : lt_system_failure("open folder", directory);
    for (struct dirent *entry; status == LT_OK && (errno = 0, entry = readdir(folder));) {
        if (!chosen(entry->d_name)) continue;
        char path[LT_PATH_BYTES];
        status = lt_join_path(path, sizeof path, directory, entry->d_name);
        if (status == LT_OK && unlink(path) != 0 && errno != ENOENT)
            status = lt_system_failure("remove", path);
    }
    if (status == LT_OK && errno != 0 && errno != ENOENT)
        status = lt_system_failure("list folder", directory);
    closedir(folder);
    return status;
}
