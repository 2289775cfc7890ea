#include "data/raw/cache.h"
#include "comm/log.h"
#include "data/reader.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

enum { BUFFER_BYTES = 1 << 20 };

static lt_status fail(const lt_cache *cache, const char *what, const char *entry, const char *ending) {
    return lt_fail(LT_IO, "data.cache_dir: %s '%s/%s%s': %s", what, cache->folder, entry, ending,
                   strerror(errno));
}

static void path_of(const lt_cache *cache, const char *entry, const char *ending, char path[PATH_MAX]) {
    snprintf(path, PATH_MAX, "%s/%s%s", cache->folder, entry, ending);
}

/* Cuts the last name off a path: what it lies in. */
static void to_parent(char *path) {
    char *slash = strrchr(path, '/');
    if (slash == NULL)
        memcpy(path, ".", 2);
    else if (slash == path)
        path[1] = '\0';
    else
        *slash = '\0';
}

lt_status lt_cache_check(const lt_cache *cache, bool write, const char *key) {
    const char *folder = cache->folder;
    char path[PATH_MAX];
    struct stat info;
    snprintf(path, sizeof path, "%s", folder);
    while (stat(path, &info) != 0 && errno == ENOENT && strcmp(path, ".") != 0) to_parent(path);
    if (stat(path, &info) == 0 && S_ISDIR(info.st_mode) &&
        access(path, R_OK | X_OK | (write ? W_OK : 0)) == 0)
        return LT_OK;
    const char *reason =
        stat(path, &info) == 0 && !S_ISDIR(info.st_mode) ? "it is no folder" : strerror(errno);
    return lt_fail(LT_BAD_INPUT, "%s: cannot use '%s' for the cache '%s': %s", key, path, folder, reason);
}

/* Makes the folder and those above it. */
static bool make_folder(const char *folder) {
    char path[PATH_MAX];
    if (mkdir(folder, 0777) == 0 || errno == EEXIST) return true;
    if (errno != ENOENT) return false;
    snprintf(path, sizeof path, "%s", folder);
    to_parent(path);
    return strcmp(path, folder) != 0 && make_folder(path) && (mkdir(folder, 0777) == 0 || errno == EEXIST);
}

lt_status lt_cache_open(const char *folder, int64_t limit_bytes, int token_bytes, const char *key,
                        lt_cache *cache) {
    *cache = (lt_cache){.limit_bytes = limit_bytes, .token_bytes = token_bytes};
    if (strlen(folder) > PATH_MAX - 64)
        return lt_fail(LT_BAD_INPUT, "%s: the folder's name is too long", key);
    cache->folder = strdup(folder);
    return cache->folder != NULL ? LT_OK : lt_fail(LT_IO, "%s: no memory", key);
}

void lt_cache_close(lt_cache *cache) {
    free(cache->folder);
    cache->folder = NULL;
}

int64_t lt_cache_tokens(const lt_cache *cache, const char *entry) {
    char path[PATH_MAX];
    path_of(cache, entry, ".count", path);
    FILE *file = fopen(path, "re");
    if (file == NULL) return -1;
    int64_t tokens;
    if (fscanf(file, "%" SCNd64 " tokens", &tokens) != 1 || tokens < 0) tokens = -1;
    fclose(file);
    return tokens;
}

/* ---- reading ---- */

/* llm.c's header, with the upper half of a count that it has no room for behind the count. */
static void fill_header(const lt_cache *cache, int64_t tokens, unsigned char head[LT_SHARD_HEADER_BYTES]) {
    lt_shard_write_header(head, tokens, cache->token_bytes);
    for (int byte = 0; byte < 4; byte++)
        head[12 + byte] = (unsigned char)((uint64_t)tokens >> (32 + 8 * byte));
}

/* Whether the header says what the file's size says. */
static bool is_sound(const lt_cache *cache, int descriptor, int64_t bytes) {
    unsigned char head[LT_SHARD_HEADER_BYTES], expected[LT_SHARD_HEADER_BYTES];
    fill_header(cache, (bytes - LT_SHARD_HEADER_BYTES) / cache->token_bytes, expected);
    return (bytes - LT_SHARD_HEADER_BYTES) % cache->token_bytes == 0 &&
           pread(descriptor, head, sizeof head, 0) == (ssize_t)sizeof head &&
           memcmp(head, expected, sizeof head) == 0;
}

/* Opens KEY.partial while someone writes it. What a writer left that is gone is not read: after a power cut
 * it may be anything. -1: nothing there, or errno. */
static int open_partial(const char *path) {
    const int descriptor = open(path, O_RDONLY | O_CLOEXEC);
    if (descriptor < 0 || flock(descriptor, LOCK_SH | LOCK_NB) != 0) return descriptor;
    close(descriptor);
    errno = ENOENT;
    return -1;
}

static lt_status open_entry(const lt_cache *cache, const char *entry, lt_cache_reader *reader) {
    char path[PATH_MAX];
    path_of(cache, entry, ".bin", path);
    int descriptor = open(path, O_RDONLY | O_CLOEXEC);
    reader->whole = descriptor >= 0;
    if (descriptor >= 0) {
        struct stat info;
        if (fstat(descriptor, &info) != 0 || !is_sound(cache, descriptor, info.st_size)) {
            lt_log_warning("data.cache_dir: '%s' is damaged; its file is tokenised again", path);
            close(descriptor);
            if (unlink(path) != 0 && errno != ENOENT) return fail(cache, "cannot remove", entry, ".bin");
            reader->whole = false;
            descriptor = -1;
        } else {
            futimens(descriptor, NULL); /* used now; a cache of someone else's may refuse */
        }
    }
    if (descriptor < 0) {
        path_of(cache, entry, ".partial", path);
        descriptor = open_partial(path);
    }
    if (descriptor < 0 && errno != ENOENT) return fail(cache, "cannot open", entry, ".partial");
    reader->descriptor = descriptor;
    return LT_OK;
}

/* Whether what is open is no longer the entry: it became whole, or another writer began anew. */
static bool is_outdated(const lt_cache *cache, const char *entry, const lt_cache_reader *reader) {
    char path[PATH_MAX];
    struct stat named, open_one;
    path_of(cache, entry, ".partial", path);
    return !reader->whole && (stat(path, &named) != 0 || fstat(reader->descriptor, &open_one) != 0 ||
                              named.st_ino != open_one.st_ino);
}

static bool is_there(const lt_cache *cache, const char *entry, const char *ending) {
    char path[PATH_MAX];
    path_of(cache, entry, ending, path);
    return access(path, F_OK) == 0;
}

bool lt_cache_has(const lt_cache *cache, const char *entry) {
    return is_there(cache, entry, ".bin");
}

lt_status lt_cache_look(const lt_cache *cache, const char *entry, lt_cache_reader *reader) {
    if (reader->descriptor >= 0 && is_outdated(cache, entry, reader)) lt_cache_reader_close(reader);
    if (reader->descriptor < 0) LT_CHECK(open_entry(cache, entry, reader));
    reader->tokens = 0;
    if (reader->descriptor < 0) return LT_OK;
    struct stat info;
    if (fstat(reader->descriptor, &info) != 0) return fail(cache, "cannot look at", entry, "");
    if (info.st_size > LT_SHARD_HEADER_BYTES)
        reader->tokens = (info.st_size - LT_SHARD_HEADER_BYTES) / cache->token_bytes;
    return LT_OK;
}

lt_status lt_cache_read(const lt_cache *cache, const lt_cache_reader *reader, int64_t first, int64_t count,
                        void *tokens) {
    const size_t size = (size_t)(count * cache->token_bytes);
    const int64_t offset = LT_SHARD_HEADER_BYTES + first * cache->token_bytes;
    for (size_t done = 0; done < size;) {
        const ssize_t got =
            pread(reader->descriptor, (char *)tokens + done, size - done, offset + (int64_t)done);
        if (got < 0 && errno == EINTR) continue;
        if (got <= 0)
            return lt_fail(LT_IO, "data.cache_dir: reading from '%s' failed: %s", cache->folder,
                           got < 0 ? strerror(errno) : "an entry shrank");
        done += (size_t)got;
    }
    return LT_OK;
}

void lt_cache_reader_close(lt_cache_reader *reader) {
    if (reader->descriptor >= 0) close(reader->descriptor);
    *reader = (lt_cache_reader){.descriptor = -1};
}

/* ---- writing ---- */

struct lt_cache_writer {
    const lt_cache *cache;
    char entry[LT_CACHE_KEY];
    int descriptor;
    int64_t tokens;
    size_t used; /* bytes of `buffer` */
    char buffer[BUFFER_BYTES];
};

/* Opens KEY.partial with the lock on it, `*left` bytes large; -1: someone else's, or errno. */
static int open_locked(const lt_cache *cache, const char *path, const char *entry, int flags, int64_t *left) {
    const int descriptor = open(path, O_RDWR | O_CREAT | O_CLOEXEC | flags, 0666);
    if (descriptor < 0) {
        if (errno == EEXIST) errno = EWOULDBLOCK;
        return -1;
    }
    if (flock(descriptor, LOCK_EX | LOCK_NB) != 0) {
        const int error = errno; /* of a file system that has no locks: waiting would never end */
        close(descriptor);
        errno = error;
        return -1;
    }
    struct stat locked, named;
    const bool own =
        fstat(descriptor, &locked) == 0 && stat(path, &named) == 0 && locked.st_ino == named.st_ino;
    if (own && !is_there(cache, entry, ".bin")) {
        *left = locked.st_size;
        return descriptor;
    }
    if (own) unlink(path); /* made beside an entry that became whole meanwhile */
    close(descriptor);
    errno = EWOULDBLOCK;
    return -1;
}

/* An empty .partial with the lock on it. What a writer left that was killed is not written over: others may
 * read it, and after a power cut it may be anything. */
static int lock_partial(const lt_cache *cache, const char *entry) {
    char path[PATH_MAX];
    int64_t left;
    path_of(cache, entry, ".partial", path);
    int descriptor = open_locked(cache, path, entry, 0, &left);
    if (descriptor < 0 || left == 0) return descriptor;
    unlink(path);
    close(descriptor);
    return open_locked(cache, path, entry, O_EXCL, &left);
}

lt_status lt_cache_begin(const lt_cache *cache, const char *entry, lt_cache_writer **out) {
    *out = NULL;
    if (is_there(cache, entry, ".bin")) return LT_OK;
    if (!make_folder(cache->folder)) return fail(cache, "cannot make the folder of", entry, ".partial");
    const int descriptor = lock_partial(cache, entry);
    if (descriptor < 0)
        return errno == EWOULDBLOCK ? LT_OK : fail(cache, "cannot write or lock", entry, ".partial");
    lt_cache_writer *writer = calloc(1, sizeof *writer);
    if (writer == NULL || ftruncate(descriptor, 0) != 0 ||
        ftruncate(descriptor, LT_SHARD_HEADER_BYTES) != 0 ||
        lseek(descriptor, LT_SHARD_HEADER_BYTES, SEEK_SET) < 0) {
        const lt_status status = fail(cache, "cannot write", entry, ".partial");
        free(writer);
        close(descriptor);
        return status;
    }
    writer->cache = cache;
    writer->descriptor = descriptor;
    snprintf(writer->entry, sizeof writer->entry, "%s", entry);
    *out = writer;
    return LT_OK;
}

static lt_status flush(lt_cache_writer *writer) {
    for (size_t done = 0; done < writer->used;) {
        const ssize_t put = write(writer->descriptor, writer->buffer + done, writer->used - done);
        if (put < 0 && errno == EINTR) continue;
        if (put < 0) return fail(writer->cache, "cannot write", writer->entry, ".partial");
        done += (size_t)put;
    }
    writer->used = 0;
    return LT_OK;
}

lt_status lt_cache_append(lt_cache_writer *writer, const int32_t *ids, size_t count) {
    const size_t token_bytes = (size_t)writer->cache->token_bytes;
    for (size_t i = 0; i < count; i++) {
        if (BUFFER_BYTES - writer->used < token_bytes) LT_CHECK(flush(writer));
        const uint32_t id = (uint32_t)ids[i];
        char *to = writer->buffer + writer->used;
        for (size_t byte = 0; byte < token_bytes; byte++) to[byte] = (char)(id >> (8 * byte));
        writer->used += token_bytes;
    }
    writer->tokens += (int64_t)count;
    return LT_OK;
}

static lt_status write_header(const lt_cache_writer *writer) {
    unsigned char head[LT_SHARD_HEADER_BYTES];
    fill_header(writer->cache, writer->tokens, head);
    if (pwrite(writer->descriptor, head, sizeof head, 0) != (ssize_t)sizeof head ||
        fsync(writer->descriptor) != 0)
        return fail(writer->cache, "cannot write", writer->entry, ".partial");
    return LT_OK;
}

static lt_status write_count(const lt_cache_writer *writer) {
    char aside[PATH_MAX], path[PATH_MAX];
    path_of(writer->cache, writer->entry, ".count.partial", aside);
    path_of(writer->cache, writer->entry, ".count", path);
    FILE *file = fopen(aside, "we");
    if (file == NULL) return fail(writer->cache, "cannot write", writer->entry, ".count");
    bool good = fprintf(file, "%" PRId64 " tokens\n", writer->tokens) > 0;
    good = fflush(file) == 0 && fsync(fileno(file)) == 0 && good;
    good = fclose(file) == 0 && good;
    if (!good || rename(aside, path) != 0)
        return fail(writer->cache, "cannot write", writer->entry, ".count");
    return LT_OK;
}

/* ---- eviction ---- */

typedef struct stored {
    char name[LT_CACHE_KEY + 4];
    int64_t bytes;
    struct timespec used;
} stored;

static int by_age(const void *left, const void *right) {
    const struct timespec a = ((const stored *)left)->used, b = ((const stored *)right)->used;
    if (a.tv_sec != b.tv_sec) return a.tv_sec < b.tv_sec ? -1 : 1;
    return a.tv_nsec < b.tv_nsec ? -1 : a.tv_nsec > b.tv_nsec;
}

static int is_whole(const struct dirent *entry) {
    const size_t length = strlen(entry->d_name);
    return length == LT_CACHE_KEY - 1 + 4 && strcmp(entry->d_name + length - 4, ".bin") == 0;
}

/* Removes what is longest unused, but for `keep`, until the rest fits. What goes wrong here costs room, no
 * more. */
static void evict(const lt_cache *cache, const char *keep) {
    struct dirent **names;
    const int count = scandir(cache->folder, &names, is_whole, NULL);
    if (count < 0) return;
    stored *list = calloc((size_t)count + 1, sizeof *list);
    int64_t total = 0;
    int known = 0;
    char path[PATH_MAX];
    for (int i = 0; i < count; i++) {
        struct stat info;
        path_of(cache, names[i]->d_name, "", path);
        if (list != NULL && stat(path, &info) == 0) {
            stored *one = &list[known++];
            snprintf(one->name, sizeof one->name, "%.*s", (int)sizeof one->name - 1, names[i]->d_name);
            one->bytes = info.st_size;
            one->used = info.st_mtim;
            total += info.st_size;
        }
        free(names[i]);
    }
    free(names);
    if (list != NULL) qsort(list, (size_t)known, sizeof *list, by_age);
    for (int i = 0; i < known && total > cache->limit_bytes; i++) {
        if (strncmp(list[i].name, keep, LT_CACHE_KEY - 1) == 0) continue;
        path_of(cache, list[i].name, "", path);
        if (unlink(path) == 0) total -= list[i].bytes;
    }
    free(list);
}

static void close_writer(lt_cache_writer *writer) {
    close(writer->descriptor);
    free(writer);
}

lt_status lt_cache_finish(lt_cache_writer *writer) {
    char partial[PATH_MAX], whole[PATH_MAX];
    path_of(writer->cache, writer->entry, ".partial", partial);
    path_of(writer->cache, writer->entry, ".bin", whole);
    lt_status status = LT_OK;
    LT_CHECK_DONE(status, flush(writer));
    LT_CHECK_DONE(status, write_header(writer));
    LT_CHECK_DONE(status, write_count(writer));
    if (rename(partial, whole) != 0)
        LT_CHECK_DONE(status, fail(writer->cache, "cannot rename", writer->entry, ".partial"));
    evict(writer->cache, writer->entry);
    close_writer(writer);
    return LT_OK;
done:
    lt_cache_abandon(writer);
    return status;
}

void lt_cache_abandon(lt_cache_writer *writer) {
    if (writer == NULL) return;
    char path[PATH_MAX];
    path_of(writer->cache, writer->entry, ".partial", path);
    unlink(path); /* while it is locked: nobody else's */
    close_writer(writer);
}
