#define _GNU_SOURCE
#include "record.h"

#include "preload.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdbool.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/syscall.h>

static const char *below;
static int file = -1, rank;
static pthread_mutex_t threads = PTHREAD_MUTEX_INITIALIZER;

/* ---- the order of all processes ---- */

static void begin(void) {
    pthread_mutex_lock(&threads);
    while (flock(file, LOCK_EX) != 0 && errno == EINTR) continue;
}

static void end(void) {
    flock(file, LOCK_UN);
    pthread_mutex_unlock(&threads);
}

static void put(const void *data, size_t size) {
    if (syscall(SYS_write, file, data, size) != (long)size) abort();
}

static void put_record(record_kind kind, int64_t inode, int64_t offset, int64_t size, const char *path,
                       const char *other) {
    record r = {.kind = (int32_t)kind, .rank = rank, .inode = inode, .offset = offset, .size = size};
    if (strlen(path) >= sizeof r.path || strlen(other) >= sizeof r.other) abort();
    strcpy(r.path, path);
    strcpy(r.other, other);
    put(&r, sizeof r);
}

__attribute__((constructor)) static void start(void) {
    const char *name = getenv("RECORD_FILE"), *note = getenv("RECORD_NOTE");
    below = getenv("RECORD_BELOW");
    if (name == NULL || below == NULL) return;
    rank = atoi(preload_rank());
    file = (int)syscall(SYS_openat, AT_FDCWD, name, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0666);
    if (file < 0) abort();
    if (note == NULL || rank != 0) return;
    begin();
    put_record(RECORD_SAY, 0, 0, (int64_t)strlen(note), "", "");
    put(note, strlen(note));
    end();
}

/* ---- which file ---- */

/* What is below the folder, relative to it; else NULL. The path may end in a slash. */
static const char *relative(char *path) {
    const size_t length = below == NULL ? 0 : strlen(below);
    if (length == 0 || file < 0 || strncmp(path, below, length) != 0) return NULL;
    if (path[length] != '/' && path[length] != '\0') return NULL;
    for (size_t at = strlen(path); at > length && path[at - 1] == '/'; at--) path[at - 1] = '\0';
    return path + length;
}

typedef struct place {
    char path[PRELOAD_PATH_BYTES];
    const char *name; /* NULL: none of ours */
    int64_t inode;
    bool is_folder;
} place;

/* Whether it is one of ours and there. */
static bool find(place *p, const char *name) {
    struct stat about = {0};
    p->inode = 0;
    preload_absolute(name, p->path);
    p->name = relative(p->path);
    if (p->name == NULL || stat(p->path, &about) != 0) return false;
    p->inode = (int64_t)about.st_ino;
    p->is_folder = S_ISDIR(about.st_mode);
    return true;
}

static bool find_open(place *p, int descriptor) {
    struct stat about = {0};
    preload_path_of(descriptor, p->path);
    p->name = relative(p->path);
    if (p->name == NULL || fstat(descriptor, &about) != 0) return false;
    p->inode = (int64_t)about.st_ino;
    p->is_folder = S_ISDIR(about.st_mode);
    return true;
}

/* ---- the calls ---- */

/* After an open() that may have made or emptied the file. */
static void put_opened(place *p, const char *name, bool was_there, bool emptied) {
    find(p, name);
    if (!was_there)
        put_record(RECORD_CREATE, p->inode, 0, 0, p->name, "");
    else if (emptied)
        put_record(RECORD_TRUNCATE, p->inode, 0, 0, p->name, "");
}

int open(const char *name, int flags, ...) {
    REAL(open);
    va_list more;
    va_start(more, flags);
    const mode_t mode = (flags & O_CREAT) != 0 ? va_arg(more, mode_t) : 0;
    va_end(more);
    place p;
    find(&p, name);
    if (p.name == NULL || (flags & (O_CREAT | O_TRUNC)) == 0) return real(name, flags, mode);
    begin();
    const bool there = find(&p, name);
    const int opened = real(name, flags, mode);
    if (opened >= 0) put_opened(&p, name, there, (flags & O_TRUNC) != 0);
    end();
    return opened;
}

FILE *fopen(const char *name, const char *mode) {
    REAL(fopen);
    place p;
    find(&p, name);
    if (p.name == NULL || mode[0] == 'r') return real(name, mode);
    begin();
    const bool there = find(&p, name);
    FILE *opened = real(name, mode);
    if (opened != NULL) put_opened(&p, name, there, mode[0] == 'w');
    end();
    return opened;
}

static void put_written(const place *p, const void *data, ssize_t size, off_t offset) {
    if (size <= 0) return;
    put_record(RECORD_WRITE, p->inode, offset, size, p->name, "");
    put(data, (size_t)size);
}

/* All that the file holds, again. */
int fflush(FILE *stream) {
    REAL(fflush);
    place p;
    if (stream == NULL || !find_open(&p, fileno(stream))) return real(stream);
    begin();
    const int result = real(stream);
    const int reading = (int)syscall(SYS_openat, AT_FDCWD, p.path, O_RDONLY | O_CLOEXEC);
    char data[4096];
    off_t offset = 0;
    for (ssize_t got; (got = syscall(SYS_pread64, reading, data, sizeof data, offset)) > 0; offset += got)
        put_written(&p, data, got, offset);
    syscall(SYS_close, reading);
    end();
    return result;
}

ssize_t write(int descriptor, const void *data, size_t size) {
    REAL(write);
    place p;
    const bool said = descriptor == STDERR_FILENO && file >= 0 && size > 6 && memcmp(data, "saved ", 6) == 0;
    if (!said && !find_open(&p, descriptor)) return real(descriptor, data, size);
    begin();
    const ssize_t written = real(descriptor, data, size);
    if (said) {
        put_record(RECORD_SAY, 0, 0, (int64_t)size, "", "");
        put(data, size);
    } else {
        put_written(&p, data, written, lseek(descriptor, 0, SEEK_CUR) - written);
    }
    end();
    return written;
}

ssize_t pwrite(int descriptor, const void *data, size_t size, off_t offset) {
    REAL(pwrite);
    place p;
    if (!find_open(&p, descriptor)) return real(descriptor, data, size, offset);
    begin();
    const ssize_t written = real(descriptor, data, size, offset);
    put_written(&p, data, written, offset);
    end();
    return written;
}

int ftruncate(int descriptor, off_t length) {
    REAL(ftruncate);
    place p;
    if (!find_open(&p, descriptor)) return real(descriptor, length);
    begin();
    const int result = real(descriptor, length);
    if (result == 0) put_record(RECORD_TRUNCATE, p.inode, 0, length, p.name, "");
    end();
    return result;
}

int fsync(int descriptor) {
    REAL(fsync);
    place p;
    if (!find_open(&p, descriptor)) return real(descriptor);
    begin();
    const int result = real(descriptor);
    if (result == 0) put_record(p.is_folder ? RECORD_SYNC_FOLDER : RECORD_SYNC, p.inode, 0, 0, p.name, "");
    end();
    return result;
}

/* The end of a call on names. */
static int put_result(int result, record_kind kind, const place *p, const char *other) {
    if (result == 0) put_record(kind, p->inode, 0, 0, p->name, other);
    end();
    return result;
}

int mkdir(const char *name, mode_t mode) {
    REAL(mkdir);
    place p;
    find(&p, name);
    if (p.name == NULL) return real(name, mode);
    begin();
    return put_result(real(name, mode), RECORD_MAKE_FOLDER, &p, "");
}

int link(const char *from, const char *to) {
    REAL(link);
    place p, other;
    find(&other, to);
    if (!find(&p, from) || other.name == NULL) return real(from, to);
    begin();
    return put_result(real(from, to), RECORD_LINK, &p, other.name);
}

int rename(const char *from, const char *to) {
    REAL(rename);
    place p, other;
    find(&other, to);
    if (!find(&p, from) || other.name == NULL) return real(from, to);
    begin();
    return put_result(real(from, to), RECORD_RENAME, &p, other.name);
}

int unlink(const char *name) {
    REAL(unlink);
    place p;
    if (!find(&p, name)) return real(name);
    begin();
    return put_result(real(name), RECORD_REMOVE, &p, "");
}

int rmdir(const char *name) {
    REAL(rmdir);
    place p;
    if (!find(&p, name)) return real(name);
    begin();
    return put_result(real(name), RECORD_REMOVE, &p, "");
}
