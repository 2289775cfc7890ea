/* The thread that tokenises: the file that is read, and those that come next, each that nobody else has or
 * does. */
#include "data/raw/raw.h"
#include "comm/thread.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

enum { FILES_AHEAD = 8, NICENESS = 5 };

/* ---- one file ---- */

typedef struct tokenising {
    lt_raw *raw;
    lt_documents *documents;
    lt_encoder *encoder;
    lt_cache_writer *writer;
    lt_token_list tokens; /* of one document */
} tokenising;

static lt_status append_document(tokenising *all, const lt_document *document) {
    const lt_raw_options *options = &all->raw->options;
    all->tokens.count = 0;
    LT_CHECK(lt_encode(all->encoder, document->text, document->bytes, &all->tokens));
    if (options->document_token_first) LT_CHECK(lt_cache_append(all->writer, &options->document_token, 1));
    LT_CHECK(lt_cache_append(all->writer, all->tokens.id, all->tokens.count));
    if (!options->document_token_first) LT_CHECK(lt_cache_append(all->writer, &options->document_token, 1));
    return LT_OK;
}

static lt_status append_documents(tokenising *all, int64_t file) {
    const lt_raw *raw = all->raw;
    LT_CHECK(lt_files_check_unchanged(raw->files, file));
    LT_CHECK(lt_documents_open(raw->files, file, &raw->options.documents, &all->documents));
    LT_CHECK(lt_encoder_create(raw->options.tokenizer, &all->encoder));
    for (;;) {
        lt_document document;
        bool found;
        if (raw->ended) return lt_fail(LT_STOPPED, "stopped");
        LT_CHECK(lt_documents_next(all->documents, &document, &found));
        if (!found) return lt_files_check_unchanged(raw->files, file);
        LT_CHECK(append_document(all, &document));
        all->raw->documents++;
    }
}

/* Writes the entry of a file; *busy: someone else does, or did. */
static lt_status tokenise(lt_raw *raw, int64_t file, bool *busy) {
    tokenising all = {.raw = raw};
    LT_CHECK(lt_cache_begin(&raw->cache, raw->file[file].entry, &all.writer));
    *busy = all.writer == NULL;
    if (*busy) return LT_OK;
    lt_status status = append_documents(&all, file);
    lt_documents_close(all.documents);
    lt_encoder_destroy(all.encoder);
    free(all.tokens.id);
    if (status == LT_OK) return lt_cache_finish(all.writer);
    lt_cache_abandon(all.writer);
    return status;
}

/* ---- which file ---- */

/* What a file failed with waits until it is its turn to be read. */
static void remember_failure(lt_raw *raw, int64_t file, lt_status status) {
    pthread_mutex_lock(&raw->mutex);
    if (status != LT_STOPPED && raw->file[file].failure == NULL) {
        raw->file[file].failure = strdup(lt_error_message());
        raw->file[file].status = status;
    }
    pthread_cond_broadcast(&raw->changed);
    pthread_mutex_unlock(&raw->mutex);
}

/* The file `ahead` places behind the cursor; -1 where its tokens are there or it cannot be read. `bytes`
 * grows by what is there. */
static int64_t missing_file(lt_raw *raw, lt_raw_cursor cursor, int64_t ahead, int64_t *bytes) {
    const int64_t place = cursor.place + ahead, count = lt_files_count(raw->files);
    const int64_t file = lt_raw_file_at(raw, &cursor.shuffle, cursor.epoch + place / count, place % count);
    lt_cache_reader reader = {.descriptor = -1};
    const lt_status status = lt_cache_look(&raw->cache, raw->file[file].entry, &reader);
    const bool whole = reader.whole;
    *bytes += reader.tokens * raw->cache.token_bytes;
    lt_cache_reader_close(&reader);
    if (status != LT_OK) remember_failure(raw, file, status);
    return whole || raw->file[file].failure != NULL ? -1 : file;
}

/* Tokenises the first file from the cursor on that nobody has; false: there is none. What is read ahead takes
 * at most half of this dataset's share of the cache, so that it is not evicted before it is read. A file that
 * is held open may be evicted. */
static bool tokenise_next(lt_raw *raw) {
    pthread_mutex_lock(&raw->mutex);
    const lt_raw_cursor cursor = raw->cursor;
    const bool held = raw->reader.whole;
    int64_t bytes = held ? raw->reader.tokens * raw->cache.token_bytes : 0;
    pthread_mutex_unlock(&raw->mutex);
    const int64_t most = raw->cache.limit_bytes / 2 / (raw->options.sharers > 1 ? raw->options.sharers : 1);
    for (int64_t ahead = held; ahead < FILES_AHEAD && ahead < lt_files_count(raw->files); ahead++) {
        if (ahead > 0 && bytes > most) return false;
        const int64_t file = missing_file(raw, cursor, ahead, &bytes);
        bool busy = true;
        const lt_status status = file < 0 ? LT_OK : tokenise(raw, file, &busy);
        if (status == LT_STOPPED) return false;
        if (status == LT_IO && ahead > 0) return false; /* there may be room once it is the file's turn */
        if (status != LT_OK) remember_failure(raw, file, status);
        if (!busy || status != LT_OK) return true;
    }
    return false;
}

static void *work(void *argument) {
    lt_raw *raw = argument;
    setpriority(PRIO_PROCESS, (id_t)syscall(SYS_gettid), NICENESS); /* training goes first */
    pthread_mutex_lock(&raw->mutex);
    while (!raw->ended) {
        const uint64_t calls = raw->calls;
        pthread_mutex_unlock(&raw->mutex);
        const bool worked = tokenise_next(raw);
        pthread_mutex_lock(&raw->mutex);
        pthread_cond_broadcast(&raw->changed);
        if (worked || raw->ended || raw->calls != calls) continue;
        /* A process that writes what comes next may die. */
        const struct timespec until = lt_thread_deadline(1000);
        pthread_cond_timedwait(&raw->changed, &raw->mutex, &until);
    }
    pthread_mutex_unlock(&raw->mutex);
    return NULL;
}

lt_status lt_raw_worker_start(lt_raw *raw) {
    if (raw->started) return LT_OK;
    const int error = lt_thread_start(&raw->thread, work, raw);
    raw->started = error == 0;
    return error == 0 ? LT_OK : lt_fail(LT_IO, "cannot start the thread that tokenises: %s", strerror(error));
}

void lt_raw_worker_end(lt_raw *raw) {
    if (!raw->started) return;
    pthread_mutex_lock(&raw->mutex);
    raw->ended = true;
    pthread_cond_broadcast(&raw->changed);
    pthread_mutex_unlock(&raw->mutex);
    pthread_join(raw->thread, NULL);
    raw->started = false;
}
