#include "checkpoints/folder.h"

#include "checkpoints/system.h"
#include "checkpoints/steps.h"
#include "comm/log.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

/* The lock is a text file. It is written whole under another name and linked into place: link() is atomic
 * over NFS too, fails where the name exists, and nobody ever reads half a lock (O_EXCL alone promises the
 * second only). A stale one is replaced by rename() under flock() of the stale file, so that of two that find
 * it stale the second finds another file in its place and judges anew.
 *
 * A process is named by its id and its start time, since ids come back, and by the boot of its machine, since
 * both come back after one. */
typedef struct owner {
    char host[256], boot[64], job[64]; /* job: SLURM's id, empty without one */
    long long pid;
    unsigned long long started; /* clock ticks since the boot */
} owner;

static void read_line(const char *path, char *text, size_t size) {
    text[0] = 0;
    int file = open(path, O_RDONLY | O_CLOEXEC);
    ssize_t n = file < 0 ? -1 : read(file, text, size - 1);
    if (file >= 0) close(file);
    text[n > 0 ? n : 0] = 0;
    text[strcspn(text, "\n")] = 0;
}

/* When process `pid` of this host started, and whether it runs; false where there is none, or a dead one
 * whose parent has not looked yet. */
static bool process_started(long long pid, unsigned long long *started) {
    char path[64], text[1024], state = 0;
    snprintf(path, sizeof path, "/proc/%lld/stat", pid);
    read_line(path, text, sizeof text);
    const char *after_name = strrchr(text, ')'); /* the name may hold anything, spaces and parentheses too */
    if (!after_name) return false;
    int fields = sscanf(after_name + 1,
                        " %c %*d %*d %*d %*d %*d %*u %*u %*u %*u %*u %*u %*u %*d %*d %*d %*d %*d %*d %llu",
                        &state, started);
    return fields == 2 && state != 'Z' && state != 'X';
}

static void describe_self(owner *self) {
    *self = (owner){.pid = getpid()};
    gethostname(self->host, sizeof self->host - 1);
    read_line("/proc/sys/kernel/random/boot_id", self->boot, sizeof self->boot);
    process_started(self->pid, &self->started);
    const char *job = getenv("SLURM_JOB_ID");
    snprintf(self->job, sizeof self->job, "%s", job ? job : "");
}

static bool same(const owner *a, const owner *b) {
    return a->pid == b->pid && a->started == b->started && strcmp(a->host, b->host) == 0 &&
           strcmp(a->boot, b->boot) == 0;
}

static int print_owner(const owner *o, char *text, size_t size) {
    return snprintf(text, size, "host=%s\npid=%lld\nstarted=%llu\nboot=%s\njob=%s\n", o->host, o->pid,
                    o->started, o->boot, o->job);
}

/* False: not a whole lock. */
static bool parse_owner(char *text, owner *o) {
    *o = (owner){.pid = -1};
    bool ended = false;
    for (char *line = text, *next; line && *line; line = next) {
        next = strchr(line, '\n');
        if (next) *next++ = 0;
        char *value = strchr(line, '=');
        if (!value || !next) return false;
        *value++ = 0;
        if (strcmp(line, "host") == 0) snprintf(o->host, sizeof o->host, "%s", value);
        if (strcmp(line, "boot") == 0) snprintf(o->boot, sizeof o->boot, "%s", value);
        if (strcmp(line, "pid") == 0) o->pid = strtoll(value, NULL, 10);
        if (strcmp(line, "started") == 0) o->started = strtoull(value, NULL, 10);
        if (strcmp(line, "job") == 0) snprintf(o->job, sizeof o->job, "%s", value), ended = true;
    }
    return ended && o->pid > 0 && o->host[0];
}

static bool is_stale(const owner *o, const owner *self) {
    if (strcmp(o->host, self->host) == 0) {
        unsigned long long started = 0;
        if (strcmp(o->boot, self->boot) != 0) return true;
        return !process_started(o->pid, &started) || started != o->started;
    }
    /* A job runs once at a time: one with our id on another host is our own, before it was requeued. */
    return o->job[0] && strcmp(o->job, self->job) == 0;
}

typedef struct lock_paths {
    char lock[LT_PATH_BYTES], mine[LT_PATH_BYTES];
} lock_paths;

static lt_status name_paths(const char *directory, const owner *self, lock_paths *paths) {
    char name[320];
    /* Ends like every leftover that the next owner removes. */
    snprintf(name, sizeof name, "lock.%s.%lld.partial", self->host, self->pid);
    LT_CHECK(lt_join_path(paths->lock, sizeof paths->lock, directory, "lock"));
    return lt_join_path(paths->mine, sizeof paths->mine, directory, name);
}

static lt_status cannot_write(const char *operation, const char *path, int code) {
    return lt_fail(LT_BAD_INPUT, "cannot %s %s: %s: choose a checkpoint.dir that can be written", operation,
                   path, strerror(code));
}

static lt_status write_mine(const lock_paths *paths, const owner *self) {
    char text[1024];
    int length = print_owner(self, text, sizeof text);
    unlink(paths->mine); /* a leftover under our process id may be another name of a lock */
    int file = open(paths->mine, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
    if (file < 0) return cannot_write("create", paths->mine, errno);
    bool failed = write(file, text, (size_t)length) != length || fsync(file) != 0;
    int code = errno;
    close(file);
    if (!failed) return LT_OK;
    unlink(paths->mine);
    return cannot_write("write", paths->mine, code);
}

typedef enum attempt { TAKEN, HELD, AGAIN, FAILED } attempt;

static attempt place(const lock_paths *paths, lt_status *status) {
    struct stat about;
    if (link(paths->mine, paths->lock) == 0) return TAKEN;
    int code = errno;
    /* Over NFS the answer to a link that was made may get lost: two names of the file tell. */
    if (stat(paths->mine, &about) == 0 && about.st_nlink == 2) return TAKEN;
    if (code == EEXIST) return HELD;
    if (code == ENOENT) return AGAIN; /* an owner that cleaned up took our file for a leftover */
    if (code == EPERM || code == ENOTSUP || code == ENOSYS || code == EMLINK) {
        /* No hard links here (some network and container file systems): claim the name, then put the text in.
         */
        int file = open(paths->lock, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
        if (file >= 0) {
            close(file);
            if (rename(paths->mine, paths->lock) == 0) return TAKEN;
            code = errno;
            unlink(paths->lock);
        } else if (errno == EEXIST) {
            return HELD;
        } else {
            code = errno;
        }
    }
    *status = cannot_write("place the lock", paths->lock, code);
    return FAILED;
}

static lt_status in_use(const char *directory, const owner *o) {
    return lt_fail(LT_IO,
                   "folder %s is in use by a run on host %s (process %lld%s%s): wait for it or stop it; if "
                   "it is dead, remove %s/lock",
                   directory, o->host, o->pid, o->job[0] ? ", SLURM job " : "", o->job, directory);
}

/* Looks at the lock that is there, and replaces it where its owner is gone. */
static attempt replace_stale(const char *directory, const lock_paths *paths, const owner *self,
                             bool may_be_unfinished, lt_status *status) {
    int file = open(paths->lock, O_RDWR | O_CLOEXEC);
    if (file < 0 && errno == ENOENT) return AGAIN;
    if (file < 0) {
        *status = cannot_write("open", paths->lock, errno);
        return FAILED;
    }
    attempt result = AGAIN;
    struct stat opened, present;
    char text[1024] = "";
    owner found;
    /* File systems without flock() leave a window of microseconds; NFS wants the file open for writing. */
    if (flock(file, LOCK_EX | LOCK_NB) != 0 && errno == EWOULDBLOCK) {
        close(file);
        return AGAIN;
    }
    ssize_t n = pread(file, text, sizeof text - 1, 0);
    bool whole = n > 0 && parse_owner(text, &found);
    bool still = fstat(file, &opened) == 0 && stat(paths->lock, &present) == 0 &&
                 opened.st_ino == present.st_ino && opened.st_dev == present.st_dev;
    if (still && whole && !is_stale(&found, self)) {
        *status = in_use(directory, &found);
        result = FAILED;
    } else if (still && (whole || !may_be_unfinished)) {
        if (whole)
            lt_log_warning("took over %s of a run that is gone (host %s, process %lld)", paths->lock,
                           found.host, found.pid);
        else
            lt_log_warning("took over %s, which names no run", paths->lock);
        result = rename(paths->mine, paths->lock) == 0 ? TAKEN : AGAIN;
    }
    close(file);
    return result;
}

static bool is_leftover(const char *name) {
    size_t length = strlen(name), suffix = strlen(".partial");
    if (lt_step_parse(name, NULL) == LT_STEP_PARTIAL || strcmp(name, "write_test.partial") == 0) return true;
    return strncmp(name, "lock.", 5) == 0 && length > suffix &&
           strcmp(name + length - suffix, ".partial") == 0;
}

lt_status lt_folder_lock(const char *directory) {
    owner self;
    lock_paths paths;
    lt_status status = LT_OK;
    describe_self(&self);
    LT_CHECK(name_paths(directory, &self, &paths));
    attempt now = AGAIN;
    for (int i = 0; i < 20 && (now == AGAIN || now == HELD); i++) {
        LT_CHECK(write_mine(&paths, &self));
        now = place(&paths, &status);
        if (now == HELD) now = replace_stale(directory, &paths, &self, i < 10, &status);
        if (now == AGAIN) nanosleep(&(struct timespec){.tv_nsec = 50 * 1000 * 1000}, NULL);
    }
    unlink(paths.mine);
    if (now == AGAIN || now == HELD)
        status =
            lt_fail(LT_IO, "%s changes hands too often: are many runs started in one folder?", paths.lock);
    if (status != LT_OK) return status;
    LT_CHECK(lt_sync_directory(directory));
    return lt_folder_remove(directory, is_leftover);
}

/* Whether the lock that stands in the folder is this process's; its path into `path`, its owner into `found`
 * (an empty host: it names nobody). */
static bool is_mine(const char *directory, char *path, size_t size, owner *found) {
    owner self;
    char text[1024] = "";
    describe_self(&self);
    *found = (owner){.pid = -1};
    if (lt_join_path(path, size, directory, "lock") != LT_OK) return false;
    int file = open(path, O_RDONLY | O_CLOEXEC);
    if (file < 0) return false;
    ssize_t n = read(file, text, sizeof text - 1);
    close(file);
    if (n <= 0 || !parse_owner(text, found)) found->host[0] = 0;
    return found->host[0] && same(found, &self);
}

lt_status lt_folder_check_lock(const char *directory) {
    owner found;
    char path[LT_PATH_BYTES];
    if (is_mine(directory, path, sizeof path, &found)) return LT_OK;
    if (found.host[0]) return in_use(directory, &found);
    return lt_fail(LT_IO,
                   "%s/lock is no longer this run's: it was removed or cannot be read; nothing more is "
                   "written there, start the run again to go on from the last checkpoint",
                   directory);
}

void lt_folder_unlock(const char *directory) {
    owner found;
    char path[LT_PATH_BYTES];
    if (is_mine(directory, path, sizeof path, &found)) unlink(path);
}
