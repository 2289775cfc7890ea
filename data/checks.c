#include "data/checks.h"
#include "comm/log.h"
#include "comm/thread.h"
#include "data/manifest.h"

#include <inttypes.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <xxhash.h>

enum { BLOCK_BYTES = 1 << 20, CHECKSUM = 33 };

typedef struct checked_file {
    int64_t file;
    char checksum[CHECKSUM];
} checked_file;

struct lt_checks {
    lt_files *files;
    int64_t count;
    checked_file *own; /* malloc'ed [count]: this rank's */
    char *block;       /* malloc'ed [BLOCK_BYTES] */
    pthread_t thread;
    bool started;
    atomic_bool ended;
    pthread_mutex_t mutex; /* of all below */
    pthread_cond_t changed;
    int64_t epoch, done, wanted; /* files of the epoch: checked, to be checked by now */
    lt_status status;
    char message[LT_ERROR_MESSAGE_BYTES];
};

/* ---- which files ---- */

static const char *base_name(const char *path) {
    const char *slash = strrchr(path, '/');
    return slash == NULL ? path : slash + 1;
}

/* The folder of a path, to `folder`. */
static void folder_of(const char *path, char folder[PATH_MAX]) {
    const size_t length = (size_t)(base_name(path) - path);
    snprintf(folder, PATH_MAX, "%.*s", length > 1 ? (int)length - 1 : (int)length, length == 0 ? "." : path);
    if (length == 0) memcpy(folder, ".", 2);
}

/* The checksum of a name; `*hint` is where it probably is, and then where the next one is. */
static const char *find_checksum(const lt_manifest *manifest, const char *name, int64_t *hint) {
    for (int64_t i = 0; i < manifest->count; i++) {
        const int64_t at = (*hint + i) % manifest->count;
        if (strcmp(manifest->shards[at].name, name) != 0) continue;
        *hint = at + 1;
        return manifest->shards[at].checksum;
    }
    return NULL;
}

/* Files come in order, so those of a folder are neighbours: its manifest is read once. */
static void list_files(lt_checks *checks, int64_t share, int64_t shares) {
    lt_manifest manifest = {0};
    char folder[PATH_MAX] = "", next[PATH_MAX];
    int64_t hint = 0;
    for (int64_t file = 0; file < lt_files_count(checks->files); file++) {
        const char *path = lt_files_path(checks->files, file);
        folder_of(path, next);
        if (strcmp(next, folder) != 0) {
            lt_manifest_free(&manifest);
            memcpy(folder, next, sizeof folder);
            /* Of a folder that is only partly here what is used is used unchecked. */
            if (lt_manifest_recognise(folder) &&
                lt_manifest_read(folder, lt_files_key(checks->files), &manifest) != LT_OK)
                lt_log_warning("%s; the shards of this folder are not checked", lt_error_message());
        }
        const char *checksum = find_checksum(&manifest, base_name(path), &hint);
        if (checksum == NULL || file % shares != share) continue;
        checks->own[checks->count].file = file;
        snprintf(checks->own[checks->count++].checksum, CHECKSUM, "%s", checksum);
    }
    lt_manifest_free(&manifest);
}

/* ---- the thread ---- */

static lt_status hash_file(lt_checks *checks, int64_t file, char hash[CHECKSUM]) {
    XXH3_state_t *state = XXH3_createState();
    if (state == NULL) return lt_fail(LT_IO, "no memory to check a shard");
    XXH3_128bits_reset(state);
    const int64_t bytes = lt_files_bytes(checks->files, file);
    lt_status status = LT_OK;
    for (int64_t at = 0; at < bytes && status == LT_OK && !checks->ended; at += BLOCK_BYTES) {
        const size_t size = (size_t)(bytes - at < BLOCK_BYTES ? bytes - at : BLOCK_BYTES);
        status = lt_files_read(checks->files, file, at, checks->block, size);
        if (status == LT_OK) XXH3_128bits_update(state, checks->block, size);
    }
    const XXH128_hash_t value = XXH3_128bits_digest(state);
    XXH3_freeState(state);
    snprintf(hash, CHECKSUM, "%016" PRIx64 "%016" PRIx64, value.high64, value.low64);
    return status;
}

static lt_status check_file(lt_checks *checks, const checked_file *one) {
    char hash[CHECKSUM];
    LT_CHECK(hash_file(checks, one->file, hash));
    if (checks->ended || strcmp(hash, one->checksum) == 0) return LT_OK;
    return lt_fail(
        LT_IO,
        "%s: '%s' changed: its checksum is %s, in the manifest %s; put the shard back (`lazytrain inspect "
        "--verify` checks its folder) and start again",
        lt_files_key(checks->files), lt_files_path(checks->files, one->file), hash, one->checksum);
}

static void *work(void *argument) {
    lt_checks *checks = argument;
    pthread_mutex_lock(&checks->mutex);
    while (!checks->ended && checks->status == LT_OK) {
        if (checks->done >= checks->wanted) {
            pthread_cond_wait(&checks->changed, &checks->mutex);
            continue;
        }
        const checked_file *one = &checks->own[checks->done];
        pthread_mutex_unlock(&checks->mutex);
        const lt_status status = check_file(checks, one);
        pthread_mutex_lock(&checks->mutex);
        checks->done++;
        checks->status = status;
        if (status != LT_OK) snprintf(checks->message, sizeof checks->message, "%s", lt_error_message());
    }
    pthread_mutex_unlock(&checks->mutex);
    return NULL;
}

/* ---- the caller's side ---- */

static lt_status start_thread(lt_checks *checks) {
    const int error = lt_thread_start(&checks->thread, work, checks);
    checks->started = error == 0;
    return error == 0 ? LT_OK
                      : lt_fail(LT_IO, "cannot start the thread that checks shards: %s", strerror(error));
}

lt_status lt_checks_start(lt_files *files, int64_t share, int64_t shares, lt_checks **out) {
    *out = NULL;
    lt_checks *checks = calloc(1, sizeof *checks);
    if (checks == NULL) return lt_fail(LT_IO, "no memory to check shards");
    checks->files = files;
    checks->own = calloc((size_t)lt_files_count(files), sizeof *checks->own);
    checks->block = malloc(BLOCK_BYTES);
    pthread_mutex_init(&checks->mutex, NULL);
    pthread_cond_init(&checks->changed, NULL);
    lt_status status = LT_OK;
    if (checks->own == NULL || checks->block == NULL)
        status = lt_fail(LT_IO, "no memory to check shards");
    else
        list_files(checks, share, shares);
    if (status == LT_OK && checks->count > 0) status = start_thread(checks);
    if (status == LT_OK && checks->count > 0)
        *out = checks;
    else
        lt_checks_end(checks);
    return status;
}

lt_status lt_checks_advance(lt_checks *checks, int64_t epoch, double fraction) {
    if (checks == NULL) return LT_OK;
    pthread_mutex_lock(&checks->mutex);
    if (epoch != checks->epoch && checks->done == checks->count) { /* an epoch's checks are finished first */
        checks->epoch = epoch;
        checks->done = 0;
    }
    checks->wanted = epoch != checks->epoch ? checks->count : (int64_t)(fraction * (double)checks->count) + 1;
    if (checks->wanted > checks->count) checks->wanted = checks->count;
    if (checks->wanted > checks->done) pthread_cond_signal(&checks->changed);
    const lt_status status = checks->status == LT_OK ? LT_OK : lt_fail(checks->status, "%s", checks->message);
    pthread_mutex_unlock(&checks->mutex);
    return status;
}

void lt_checks_end(lt_checks *checks) {
    if (checks == NULL) return;
    if (checks->started) {
        pthread_mutex_lock(&checks->mutex);
        checks->ended = true;
        pthread_cond_signal(&checks->changed);
        pthread_mutex_unlock(&checks->mutex);
        pthread_join(checks->thread, NULL);
    }
    pthread_cond_destroy(&checks->changed);
    pthread_mutex_destroy(&checks->mutex);
    free(checks->own);
    free(checks->block);
    free(checks);
}
