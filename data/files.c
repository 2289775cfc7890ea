#include "data/files.h"

#include "comm/interrupt.h"
#include "comm/watchdog.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

_Static_assert(sizeof(off_t) == sizeof(int64_t), "files over 2 GiB need a 64-bit off_t");

enum { NO_SLOT = -1 };

typedef struct entry {
    int64_t bytes;
    dev_t device;
    ino_t inode;
    struct timespec modified;
    int slot; /* that holds its descriptor, or NO_SLOT */
    unsigned char head[LT_FILES_HEAD];
} entry;

typedef struct slot {
    int descriptor; /* -1: empty */
    int64_t file;
    int users; /* threads that read through it: not to be closed */
    uint64_t used;
} slot;

struct lt_files {
    lt_source source;
    char *key;
    entry *entries;
    pthread_mutex_t mutex; /* guards slots, clock and entries[].slot */
    slot slots[LT_FILES_OPEN];
    uint64_t clock;
};

/* The least recently used open slot that nobody reads through; NO_SLOT if all are in use. */
static int oldest_idle(const lt_files *files) {
    int oldest = NO_SLOT;
    for (int i = 0; i < LT_FILES_OPEN; i++) {
        const slot *candidate = &files->slots[i];
        if (candidate->descriptor < 0 || candidate->users > 0) continue;
        if (oldest == NO_SLOT || candidate->used < files->slots[oldest].used) oldest = i;
    }
    return oldest;
}

static void empty_slot(lt_files *files, int index) {
    slot *victim = &files->slots[index];
    close(victim->descriptor);
    victim->descriptor = -1;
    files->entries[victim->file].slot = NO_SLOT;
}

/* A slot to open another file in, emptied if need be; NO_SLOT if readers hold them all. */
static int free_slot(lt_files *files) {
    for (int i = 0; i < LT_FILES_OPEN; i++)
        if (files->slots[i].descriptor < 0) return i;
    int oldest = oldest_idle(files);
    if (oldest != NO_SLOT) empty_slot(files, oldest);
    return oldest;
}

/* Opens without ever waiting for a writer, should the path have become a FIFO; where the process may open no
 * more files, idle ones of this set are closed to make room. */
static int open_descriptor(lt_files *files, const char *path) {
    for (;;) {
        int descriptor = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
        if (descriptor >= 0) return descriptor;
        int error = errno;
        if (error == EINTR) continue;
        int idle = error == EMFILE || error == ENFILE ? oldest_idle(files) : NO_SLOT;
        if (idle == NO_SLOT) {
            errno = error;
            return -1;
        }
        empty_slot(files, idle);
    }
}

/* Gives a descriptor of `file`, kept in `*slot_index`, or the caller's own if that is NO_SLOT. errno on -1.
 */
static int acquire(lt_files *files, int64_t file, int *slot_index) {
    pthread_mutex_lock(&files->mutex);
    entry *wanted = &files->entries[file];
    int descriptor;
    if (wanted->slot != NO_SLOT) {
        descriptor = files->slots[wanted->slot].descriptor;
    } else {
        int chosen = free_slot(files);
        descriptor = open_descriptor(files, files->source.path[file]);
        if (descriptor >= 0 && chosen != NO_SLOT) {
            files->slots[chosen] = (slot){.descriptor = descriptor, .file = file};
            wanted->slot = chosen;
        }
    }
    *slot_index = descriptor >= 0 ? wanted->slot : NO_SLOT;
    if (*slot_index != NO_SLOT) {
        files->slots[*slot_index].users++;
        files->slots[*slot_index].used = ++files->clock;
    }
    int error = errno;
    pthread_mutex_unlock(&files->mutex);
    errno = error;
    return descriptor;
}

static void release(lt_files *files, int descriptor, int slot_index) {
    if (slot_index == NO_SLOT) {
        close(descriptor);
        return;
    }
    pthread_mutex_lock(&files->mutex);
    files->slots[slot_index].users--;
    pthread_mutex_unlock(&files->mutex);
}

/* pread() that goes on after a short read: the number of bytes read, less than `count` only at the end of the
 * file; -1 and errno on failure. */
static int64_t read_fully(int descriptor, void *buffer, size_t count, int64_t offset) {
    size_t done = 0;
    while (done < count) {
        ssize_t got = pread(descriptor, (char *)buffer + done, count - done, offset + (int64_t)done);
        if (got < 0 && errno == EINTR) continue;
        if (got < 0) return -1;
        if (got == 0) break;
        done += (size_t)got;
    }
    return (int64_t)done;
}

/* What is wrong with the input repeats; what is wrong with the machine may pass. */
static lt_status open_failure(int error) {
    switch (error) {
    case EACCES:
    case EPERM:
    case ENOENT:
    case ENOTDIR:
    case EISDIR:
    case ELOOP:
    case ENAMETOOLONG:
    case ENXIO:
        return LT_BAD_INPUT;
    default:
        return LT_IO;
    }
}

static lt_status look_at(lt_files *files, int64_t file) {
    const char *path = files->source.path[file];
    lt_watchdog_file(path);
    int slot_index;
    int descriptor = acquire(files, file, &slot_index);
    if (descriptor < 0)
        return lt_fail(open_failure(errno), "%s: cannot open '%s': %s", files->key, path, strerror(errno));
    entry *found = &files->entries[file];
    lt_status status = LT_OK;
    struct stat attributes = {0};
    if (fstat(descriptor, &attributes) != 0)
        status = lt_fail(LT_IO, "%s: cannot look at '%s': %s", files->key, path, strerror(errno));
    else if (!S_ISREG(attributes.st_mode))
        status = lt_fail(LT_BAD_INPUT, "%s: '%s' is not a regular file", files->key, path);
    else if (read_fully(descriptor, found->head, LT_FILES_HEAD, 0) < 0)
        status = lt_fail(LT_IO, "%s: reading '%s' failed: %s", files->key, path, strerror(errno));
    found->bytes = attributes.st_size;
    found->device = attributes.st_dev;
    found->inode = attributes.st_ino;
    found->modified = attributes.st_mtim;
    release(files, descriptor, slot_index);
    return status;
}

lt_status lt_files_open(lt_source *source, const char *key, lt_files **out) {
    *out = NULL;
    lt_files *files = calloc(1, sizeof *files);
    if (files == NULL) {
        lt_source_destroy(source);
        return lt_fail(LT_IO, "%s: no memory for the table of files", key);
    }
    files->source = *source;
    *source = (lt_source){0};
    pthread_mutex_init(&files->mutex, NULL);
    for (int i = 0; i < LT_FILES_OPEN; i++) files->slots[i].descriptor = -1;

    lt_status status = LT_OK;
    files->key = strdup(key);
    files->entries = calloc((size_t)files->source.count, sizeof *files->entries);
    if (files->key == NULL || files->entries == NULL) {
        status = lt_fail(LT_IO, "%s: no memory for the table of %" PRId64 " files", key, files->source.count);
        goto done;
    }
    for (int64_t i = 0; i < files->source.count; i++) files->entries[i].slot = NO_SLOT;
    for (int64_t i = 0; i < files->source.count; i++) {
        LT_CHECK_DONE(status, lt_interrupt_check("looking at data files"));
        LT_CHECK_DONE(status, look_at(files, i));
    }
    *out = files;
done:
    if (status != LT_OK) lt_files_close(files);
    return status;
}

void lt_files_close(lt_files *files) {
    if (files == NULL) return;
    lt_watchdog_file(NULL);
    for (int i = 0; i < LT_FILES_OPEN; i++)
        if (files->slots[i].descriptor >= 0) close(files->slots[i].descriptor);
    pthread_mutex_destroy(&files->mutex);
    lt_source_destroy(&files->source);
    free(files->entries);
    free(files->key);
    free(files);
}

int64_t lt_files_count(const lt_files *files) {
    return files->source.count;
}

const char *lt_files_key(const lt_files *files) {
    return files->key;
}

const char *lt_files_path(const lt_files *files, int64_t file) {
    return files->source.path[file];
}

int64_t lt_files_bytes(const lt_files *files, int64_t file) {
    return files->entries[file].bytes;
}

const unsigned char *lt_files_head(const lt_files *files, int64_t file) {
    return files->entries[file].head;
}

void lt_files_identity(const lt_files *files, int64_t file, dev_t *device, ino_t *inode) {
    *device = files->entries[file].device;
    *inode = files->entries[file].inode;
}

/* Whether the name still leads to the file of the start: one that was deleted or replaced can be read for a
 * while where it is open, but neither on a host that opens it now nor after a restart. */
static bool still_there(const char *path, const entry *found) {
    struct stat now;
    return stat(path, &now) == 0 && now.st_ino == found->inode && now.st_dev == found->device;
}

struct timespec lt_files_modified(const lt_files *files, int64_t file) {
    return files->entries[file].modified;
}

lt_status lt_files_check_unchanged(const lt_files *files, int64_t file) {
    const entry *found = &files->entries[file];
    const char *path = files->source.path[file];
    struct stat now;
    if (stat(path, &now) != 0)
        return lt_fail(LT_IO, "%s: cannot look at '%s' again: %s; it could be read at the start", files->key,
                       path, strerror(errno));
    if (now.st_size == found->bytes && now.st_mtim.tv_sec == found->modified.tv_sec &&
        now.st_mtim.tv_nsec == found->modified.tv_nsec)
        return LT_OK;
    return lt_fail(LT_IO,
                   "%s: '%s' changed in mid-run: it has %" PRId64 " bytes and had %" PRId64
                   " at the start, or was written to; put the file back and start again",
                   files->key, path, (int64_t)now.st_size, found->bytes);
}

lt_status lt_files_read(lt_files *files, int64_t file, int64_t offset, void *buffer, size_t count) {
    const char *path = files->source.path[file];
    lt_watchdog_file(path);
    int slot_index;
    int descriptor = acquire(files, file, &slot_index);
    if (descriptor < 0)
        return lt_fail(LT_IO, "%s: cannot open '%s' again: %s; it could be read at the start", files->key,
                       path, strerror(errno));
    int64_t got = read_fully(descriptor, buffer, count, offset);
    int error = errno;
    struct stat now;
    int64_t bytes = offset + got; /* that the file has, if it ends here */
    if (got < (int64_t)count && fstat(descriptor, &now) == 0 && now.st_size < bytes) bytes = now.st_size;
    release(files, descriptor, slot_index);
    if (got < 0)
        return lt_fail(LT_IO, "%s: reading %zu bytes of '%s' at byte %" PRId64 " failed: %s", files->key,
                       count, path, offset, strerror(error));
    if ((size_t)got < count)
        return lt_fail(LT_IO,
                       "%s: '%s' shrank in mid-run: it has %" PRId64 " bytes and had %" PRId64
                       " at the start; put the file back and start again",
                       files->key, path, bytes, files->entries[file].bytes);
    if (!still_there(path, &files->entries[file]))
        return lt_fail(LT_IO,
                       "%s: '%s' vanished in mid-run: it was removed, renamed or replaced; put the file back "
                       "and start again",
                       files->key, path);
    return LT_OK;
}
