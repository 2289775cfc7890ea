#include "trainer/metrics_file.h"

#include "comm/log.h"
#include "trainer/metrics.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <jansson.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* What became of the old file's lines. */
typedef struct line_counts {
    int64_t kept, dropped;
    int64_t unreadable;       /* of those kept */
    int64_t first_unreadable; /* its number, from 1 */
    int64_t validations;      /* lines of validation losses of the last step */
} line_counts;

/* Whether the line is an object with a step; and whether it is of a validation. */
static bool read_step(const char *line, size_t length, int64_t *step, bool *validation) {
    json_t *object = json_loadb(line, length, 0, NULL);
    json_t *value = json_object_get(object, "step"); /* NULL for anything but an object */
    bool is_step = json_is_integer(value);
    if (is_step) *step = json_integer_value(value);
    *validation = json_object_get(object, "val_loss") != NULL;
    json_decref(object);
    return is_step;
}

/* Copies the lines that stay from `in` to `out`. An unreadable line is held back until another one follows:
 * only at the end is it the mark of a run that was cut off. */
static lt_status filter_lines(FILE *in, FILE *out, const char *path, int64_t last_step, line_counts *counts) {
    char *line = NULL, *held = NULL;
    size_t capacity = 0, held_length = 0;
    ssize_t got;
    bool failed = false;
    errno = 0;
    while (!failed && (got = getline(&line, &capacity, in)) > 0) {
        size_t length = (size_t)got;
        if (held != NULL) {
            failed = fwrite(held, 1, held_length, out) != held_length;
            counts->kept++;
            if (counts->unreadable++ == 0) counts->first_unreadable = counts->kept + counts->dropped;
            free(held);
            held = NULL;
        }
        int64_t step;
        bool validation;
        if (!read_step(line, length, &step, &validation)) {
            held = line;
            held_length = length;
            line = NULL;
            capacity = 0;
        } else if (step > last_step) {
            counts->dropped++;
        } else {
            counts->kept++;
            counts->validations += validation && step == last_step;
            failed = failed || fwrite(line, 1, length, out) != length;
            if (line[length - 1] != '\n') failed = failed || fputc('\n', out) == EOF;
        }
    }
    if (held != NULL) counts->dropped++;
    free(held);
    free(line);
    if (ferror(in) || !feof(in)) failed = true;
    if (!failed) return LT_OK;
    return lt_fail(LT_IO, "%s: cannot copy the metrics to %s.tmp: %s", path, path, strerror(errno));
}

/* "FIRST/SECOND" or, with an empty separator, both in a row; malloc'ed. */
static lt_status join(const char *first, const char *separator, const char *second, char **joined) {
    size_t size = strlen(first) + strlen(separator) + strlen(second) + 1;
    *joined = malloc(size);
    if (*joined == NULL) return lt_fail(LT_IO, "out of memory while opening the metrics in %s", first);
    snprintf(*joined, size, "%s%s%s", first, separator, second);
    return LT_OK;
}

static lt_status sync_folder(const char *directory) {
    int folder = open(directory, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    int result = folder >= 0 ? fsync(folder) : -1;
    int reason = errno;
    if (folder >= 0) close(folder);
    /* Some network file systems cannot sync a folder; they have no need to. */
    if (result == 0 || reason == EINVAL) return LT_OK;
    return lt_fail(LT_IO, "%s: fsync failed: %s", directory, strerror(reason));
}

/* Writes what stays of `in` aside and puts it in the place of `path`: also if that is all, so that a run
 * which lost the folder but lives on (lt_folder_check_lock) appends to a file that has no name. */
static lt_status cut_back(FILE *in, const char *directory, const char *path, int64_t last_step,
                          int64_t *validations) {
    line_counts counts = {0};
    char *aside = NULL;
    FILE *out = NULL;
    lt_status status = LT_OK;
    LT_CHECK_DONE(status, join(path, "", ".tmp", &aside));
    out = fopen(aside, "we");
    if (out == NULL) {
        status = lt_fail(LT_BAD_INPUT, "%s: cannot be written: %s", aside, strerror(errno));
        goto done;
    }
    LT_CHECK_DONE(status, filter_lines(in, out, path, last_step, &counts));
    *validations = counts.validations;
    bool written = fflush(out) == 0 && fsync(fileno(out)) == 0;
    written = fclose(out) == 0 && written;
    out = NULL;
    if (!written) {
        status = lt_fail(LT_IO, "%s: cannot be written: %s", aside, strerror(errno));
        goto done;
    }
    if (counts.unreadable > 0) {
        lt_log_warning("%s: %" PRId64 " lines are no metrics (the first is line %" PRId64
                       "); they stay as they are",
                       path, counts.unreadable, counts.first_unreadable);
    }
    if (rename(aside, path) != 0) {
        status = lt_fail(LT_IO, "%s: cannot be renamed to %s: %s", aside, path, strerror(errno));
        goto done;
    }
    status = sync_folder(directory);
done:
    if (out != NULL) fclose(out);
    if (aside != NULL) unlink(aside); /* gone already after a rename */
    free(aside);
    return status;
}

/* Whether metrics can go to `path`; `bytes` of it now, 0 where there is none. */
static lt_status look_at(const char *path, off_t *bytes) {
    struct stat info;
    *bytes = 0;
    if (stat(path, &info) != 0) {
        return errno == ENOENT ? LT_OK
                               : lt_fail(LT_BAD_INPUT, "%s: cannot be read: %s", path, strerror(errno));
    }
    if (!S_ISREG(info.st_mode)) return lt_fail(LT_BAD_INPUT, "%s: is no regular file; move it away", path);
    *bytes = info.st_size;
    return LT_OK;
}

lt_status lt_metrics_check(const char *directory) {
    char *path;
    off_t bytes;
    LT_CHECK(join(directory, "/", "metrics.jsonl", &path));
    const lt_status status = look_at(path, &bytes);
    free(path);
    return status;
}

/* Cuts the file at `path` back, if there is one. */
static lt_status cut_back_existing(const char *directory, const char *path, int64_t last_step,
                                   int64_t *validations) {
    off_t bytes;
    *validations = 0;
    LT_CHECK(look_at(path, &bytes));
    if (last_step == 0 || bytes == 0) return LT_OK; /* emptied when it is opened */
    FILE *in = fopen(path, "re");
    if (in == NULL) return lt_fail(LT_BAD_INPUT, "%s: cannot be read: %s", path, strerror(errno));
    lt_status status = cut_back(in, directory, path, last_step, validations);
    fclose(in);
    return status;
}

lt_status lt_metrics_file_open(const char *directory, int64_t last_step, char **path, int *file, off_t *size,
                               int64_t *validations) {
    struct stat info;
    LT_CHECK(join(directory, "/", "metrics.jsonl", path));
    LT_CHECK(cut_back_existing(directory, *path, last_step, validations));
    *file = open(*path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC | (last_step == 0 ? O_TRUNC : 0), 0666);
    if (*file < 0) return lt_fail(LT_BAD_INPUT, "%s: cannot be written: %s", *path, strerror(errno));
    if (fstat(*file, &info) != 0) return lt_fail(LT_IO, "%s: cannot be read: %s", *path, strerror(errno));
    *size = info.st_size;
    return sync_folder(directory);
}
