#include "data/raw/raw.h"
#include "comm/interrupt.h"
#include "comm/thread.h"
#include "comm/watchdog.h"
#include "data/order.h"

#include <inttypes.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <xxhash.h>

/* ---- open ---- */

/* The key of a file's entry: everything that its tokens depend on. */
static lt_status name_entry(lt_raw *raw, int64_t file) {
    char path[PATH_MAX], text[PATH_MAX + 1024];
    const char *name = lt_files_path(raw->files, file);
    if (realpath(name, path) == NULL) snprintf(path, sizeof path, "%s", name);
    const lt_documents_options *documents = &raw->options.documents;
    const struct timespec modified = lt_files_modified(raw->files, file);
    const lt_document_filter *filter = &raw->filter;
    const int length = snprintf(
        text, sizeof text,
        "1\x1f%s\x1f%" PRId64 "\x1f%lld.%09ld\x1f%s\x1f%s\x1f%s\x1f%" PRId64 "\x1f%s\x1f%" PRId64
        "\x1f%" PRId64 "\x1f%" PRId32 "\x1f%d",
        path, lt_files_bytes(raw->files, file), (long long)modified.tv_sec, modified.tv_nsec,
        lt_tokenizer_hash(raw->options.tokenizer), documents->text_key == NULL ? "" : documents->text_key,
        documents->separator == NULL ? "" : documents->separator, filter->min_int_score,
        filter->language == NULL ? "" : filter->language, filter->min_chars, filter->max_chars,
        raw->options.document_token, raw->options.document_token_first);
    if (length < 0 || length >= (int)sizeof text)
        return lt_fail(LT_BAD_INPUT, "%s: data.text_key or data.separator is too long",
                       lt_files_key(raw->files));
    const XXH128_hash_t hash = XXH3_128bits(text, (size_t)length);
    snprintf(raw->file[file].entry, LT_CACHE_KEY, "%016" PRIx64 "%016" PRIx64, hash.high64, hash.low64);
    return LT_OK;
}

/* A file that was never tokenised is at least opened, so that what is wrong at its beginning is found before
 * the first step. */
static lt_status look_at_file(lt_raw *raw, int64_t file) {
    LT_CHECK(lt_interrupt_check("looking at raw files"));
    LT_CHECK(name_entry(raw, file));
    raw->file[file].tokens = lt_cache_tokens(&raw->cache, raw->file[file].entry);
    if (raw->file[file].tokens >= 0) return LT_OK;
    lt_documents *documents = NULL;
    const lt_status status = lt_documents_open(raw->files, file, &raw->options.documents, &documents);
    lt_documents_close(documents);
    return status;
}

static void raw_close(lt_reader *base) {
    lt_raw *raw = (lt_raw *)base;
    lt_raw_worker_end(raw);
    for (int64_t i = 0; raw->file != NULL && i < lt_files_count(raw->files); i++) free(raw->file[i].failure);
    lt_cache_reader_close(&raw->reader);
    lt_cache_close(&raw->cache);
    pthread_cond_destroy(&raw->changed);
    pthread_mutex_destroy(&raw->mutex);
    free(raw->text_key);
    free(raw->separator);
    free(raw->language);
    free(raw->file);
    free(raw);
}

static lt_status check_options(const lt_dataset_options *options, const lt_files *files) {
    if (options->raw != NULL && options->raw->document_token < 0)
        return lt_fail(LT_BAD_INPUT,
                       "%s: '%s' needs a token between documents, and data.tokenizer has no end of text; set "
                       "data.document_token to an id",
                       options->key, lt_files_path(files, 0));
    if (options->raw != NULL) return LT_OK;
    return lt_fail(
        LT_BAD_INPUT,
        "%s: '%s' is raw text and no tokenizer is given; set data.tokenizer, or give .bin token shards",
        options->key, lt_files_path(files, 0));
}

static bool copy(const char *from, char **to) {
    *to = from == NULL ? NULL : strdup(from);
    return (*to == NULL) == (from == NULL);
}

/* The options are the caller's for the call alone. False: no memory. */
static bool own_options(lt_raw *raw, const lt_documents_options *from) {
    lt_documents_options *documents = &raw->options.documents;
    raw->filter = from->filter != NULL ? *from->filter : (lt_document_filter){-1, NULL, -1, -1};
    const bool good = copy(from->text_key, &raw->text_key) && copy(from->separator, &raw->separator) &&
                      copy(raw->filter.language, &raw->language);
    raw->filter.language = raw->language;
    documents->text_key = raw->text_key;
    documents->separator = raw->separator;
    documents->filter = &raw->filter;
    return good;
}

static lt_status raw_open(const lt_dataset_options *options, lt_files *files, lt_reader **out) {
    LT_CHECK(check_options(options, files));
    lt_raw *raw = calloc(1, sizeof *raw);
    if (raw == NULL) return lt_fail(LT_IO, "%s: no memory for the table of files", options->key);
    raw->base = (lt_reader){.samples = -1, .tokens = -1};
    raw->files = files;
    raw->options = *options->raw;
    const bool owned = own_options(raw, &options->raw->documents);
    raw->sequence_length = options->sequence_length;
    raw->vocabulary = options->vocabulary;
    raw->piece_samples = (options->raw->piece_tokens > 0 ? options->raw->piece_tokens : LT_PIECE_TOKENS) /
                         options->sequence_length;
    if (raw->piece_samples < 1) raw->piece_samples = 1;
    raw->reader.descriptor = -1;
    pthread_mutex_init(&raw->mutex, NULL);
    pthread_cond_init(&raw->changed, NULL);
    raw->file = calloc((size_t)lt_files_count(files), sizeof *raw->file);
    const int token_bytes =
        lt_tokenizer_vocabulary(raw->options.tokenizer) <= 65536 && raw->options.document_token < 65536 ? 2
                                                                                                        : 4;
    lt_status status = LT_OK;
    if (raw->file == NULL || !owned)
        LT_CHECK_DONE(status, lt_fail(LT_IO, "%s: no memory for the table of files", options->key));
    LT_CHECK_DONE(status, lt_cache_open(raw->options.cache_folder, raw->options.cache_bytes, token_bytes,
                                        "data.cache_dir", &raw->cache));
    bool whole = true; /* nothing will be written, so the folder may be one that cannot be */
    for (int64_t i = 0; i < lt_files_count(files); i++) {
        LT_CHECK_DONE(status, look_at_file(raw, i));
        whole = whole && lt_cache_has(&raw->cache, raw->file[i].entry);
    }
    LT_CHECK_DONE(status, lt_cache_check(&raw->cache, !whole, "data.cache_dir"));
    *out = &raw->base;
    return LT_OK;
done:
    raw_close(&raw->base);
    return status;
}

/* ---- order ---- */

int64_t lt_raw_file_at(const lt_raw *raw, const lt_shuffle *shuffle, int64_t epoch, int64_t place) {
    const lt_order order = {
        .samples = lt_files_count(raw->files), .seed = shuffle->seed, .shuffle = shuffle->shuffle};
    return lt_order_sample(&order, epoch * order.samples + place, NULL);
}

/* The sample of a file that stands at `index` of its order, in a piece of `samples` samples that begins at
 * `first`. */
static int64_t permute_piece(const lt_shuffle *shuffle, int64_t epoch, int64_t file, int64_t first,
                             int64_t samples, int64_t index) {
    const int64_t piece[4] = {(int64_t)shuffle->seed, epoch, file, first};
    const lt_order order = {
        .samples = samples, .seed = XXH3_64bits(piece, sizeof piece), .shuffle = shuffle->shuffle};
    return first + lt_order_sample(&order, index - first, NULL);
}

static int64_t samples_in(const lt_raw *raw, int64_t tokens) {
    return tokens <= 0 ? 0 : (tokens - 1) / raw->sequence_length;
}

static void call_worker(lt_raw *raw) {
    raw->calls++;
    pthread_cond_broadcast(&raw->changed);
}

static void next_file(lt_raw *raw, int64_t samples) {
    lt_raw_cursor *cursor = &raw->cursor;
    lt_cache_reader_close(&raw->reader);
    cursor->first += samples;
    if (++cursor->place == lt_files_count(raw->files)) {
        cursor->place = 0;
        cursor->epoch++;
    }
    call_worker(raw); /* there is another file to read ahead */
}

static void begin_walk(lt_raw *raw, const lt_shuffle *shuffle, int64_t item) {
    lt_raw_cursor *cursor = &raw->cursor;
    if (cursor->begun && cursor->shuffle.shuffle == shuffle->shuffle &&
        cursor->shuffle.seed == shuffle->seed && item >= cursor->first)
        return;
    lt_cache_reader_close(&raw->reader);
    *cursor = (lt_raw_cursor){.begun = true, .shuffle = *shuffle};
}

/* What is known of the item at the cursor's file. */
typedef enum whereabouts { HERE, BEHIND, WAIT } whereabouts;

/* Whether sample `index` of the file's order can be read, and which sample of the file it is. */
static lt_status find_in_file(lt_raw *raw, int64_t file, int64_t index, whereabouts *where, int64_t *sample) {
    lt_raw_file *known = &raw->file[file];
    if (known->tokens >= 0 && index >= samples_in(raw, known->tokens)) {
        *where = BEHIND;
        return LT_OK;
    }
    LT_CHECK(lt_cache_look(&raw->cache, known->entry, &raw->reader));
    if (raw->reader.whole) known->tokens = raw->reader.tokens;
    const int64_t first = index - index % raw->piece_samples;
    int64_t end = first + raw->piece_samples;
    if (known->tokens >= 0) {
        const int64_t all = samples_in(raw, known->tokens);
        *where = BEHIND;
        if (index >= all) return LT_OK;
        if (end > all) end = all;
    }
    *where = WAIT;
    const int64_t available = samples_in(raw, raw->reader.tokens);
    if (known->tokens < 0 && available < end) return LT_OK;
    *sample = permute_piece(&raw->cursor.shuffle, raw->cursor.epoch, file, first, end - first, index);
    if (*sample < available) *where = HERE;
    return LT_OK;
}

/* A long file takes longer than the watchdog grants: what tells is whether it goes on. */
static void note_progress(lt_raw *raw) {
    const int64_t progress = raw->documents + raw->reader.tokens;
    if (progress != raw->progress) lt_watchdog_alive();
    raw->progress = progress;
}

static lt_status wait_for_worker(lt_raw *raw, int64_t file) {
    if (raw->stop || (raw->heeded != NULL && raw->heeded(raw->heeded_context)))
        return lt_fail(LT_STOPPED, "stopped while waiting for tokens");
    note_progress(raw);
    if (raw->file[file].failure != NULL)
        return lt_fail(raw->file[file].status, "%s", raw->file[file].failure);
    call_worker(raw);
    const struct timespec until = lt_thread_deadline(50); /* other processes write, too, and do not tell */
    pthread_cond_timedwait(&raw->changed, &raw->mutex, &until);
    return LT_OK;
}

/* Moves the cursor to the file of an item; where that lies at or behind epoch `epochs`, found is false. */
static lt_status walk_to(lt_raw *raw, const lt_shuffle *shuffle, int64_t item, int64_t epochs, bool *found,
                         int64_t *file, int64_t *sample) {
    *found = false;
    begin_walk(raw, shuffle, item);
    LT_CHECK(lt_raw_worker_start(raw));
    lt_raw_cursor *cursor = &raw->cursor;
    while (!*found && cursor->epoch < epochs) {
        whereabouts where;
        *file = lt_raw_file_at(raw, shuffle, cursor->epoch, cursor->place);
        LT_CHECK(find_in_file(raw, *file, item - cursor->first, &where, sample));
        if (where == HERE) {
            *found = true;
        } else if (where == WAIT) {
            LT_CHECK(wait_for_worker(raw, *file));
        } else {
            next_file(raw, samples_in(raw, raw->file[*file].tokens));
            if (cursor->epoch > 0 && cursor->first == 0)
                return lt_fail(LT_BAD_INPUT,
                               "%s: '%s' and the other files hold no sample of %" PRId64
                               " tokens (data.seq_len + 1); give more text or a smaller data.seq_len",
                               lt_files_key(raw->files), lt_files_path(raw->files, 0),
                               raw->sequence_length + 1);
        }
    }
    return LT_OK;
}

/* ---- the reader's calls ---- */

static lt_status read_sample(lt_raw *raw, int64_t file, int64_t sample, int32_t *tokens) {
    const int64_t count = raw->sequence_length + 1;
    const size_t token_bytes = (size_t)raw->cache.token_bytes;
    unsigned char *packed = (unsigned char *)tokens + (size_t)count * (sizeof *tokens - token_bytes);
    LT_CHECK(lt_cache_read(&raw->cache, &raw->reader, sample * raw->sequence_length, count, packed));
    uint32_t id;
    if (lt_shard_unpack(packed, raw->cache.token_bytes, count, raw->vocabulary, tokens, &id) < 0)
        return LT_OK;
    return lt_fail(LT_FAILED,
                   "data.cache_dir: '%s/%s.bin', which holds the tokens of '%s': token id %" PRIu32
                   ", expected less than %" PRId64 " (model.vocab_size); remove it and start again",
                   raw->cache.folder, raw->file[file].entry, lt_files_path(raw->files, file), id,
                   raw->vocabulary);
}

static lt_status raw_read_item(lt_reader *base, const lt_shuffle *shuffle, int64_t item, int32_t *tokens,
                               int64_t *epoch) {
    lt_raw *raw = (lt_raw *)base;
    int64_t file = 0, sample = 0;
    bool found;
    pthread_mutex_lock(&raw->mutex);
    lt_status status = walk_to(raw, shuffle, item, INT64_MAX, &found, &file, &sample);
    if (status == LT_OK) status = read_sample(raw, file, sample, tokens);
    if (status == LT_OK && epoch != NULL) *epoch = raw->cursor.epoch;
    pthread_mutex_unlock(&raw->mutex);
    return status;
}

static lt_status raw_count(lt_reader *base, int64_t limit, int64_t *samples) {
    lt_raw *raw = (lt_raw *)base;
    const lt_shuffle natural = {.shuffle = false};
    int64_t file = 0, sample = 0;
    bool found;
    pthread_mutex_lock(&raw->mutex);
    const lt_status status = walk_to(raw, &natural, limit - 1, 1, &found, &file, &sample);
    *samples = found ? limit : raw->cursor.first;
    pthread_mutex_unlock(&raw->mutex);
    return status;
}

static void raw_stop(lt_reader *base, bool stop) {
    lt_raw *raw = (lt_raw *)base;
    pthread_mutex_lock(&raw->mutex);
    raw->stop = stop;
    pthread_cond_broadcast(&raw->changed);
    pthread_mutex_unlock(&raw->mutex);
}

static void raw_heed(lt_reader *base, bool (*stop)(void *context), void *context) {
    lt_raw *raw = (lt_raw *)base;
    pthread_mutex_lock(&raw->mutex);
    raw->heeded = stop;
    raw->heeded_context = context;
    pthread_mutex_unlock(&raw->mutex);
}

const lt_reader_kind lt_raw_reader = {
    .name = "a raw file",
    .open = raw_open,
    .close = raw_close,
    .read_item = raw_read_item,
    .count = raw_count,
    .stop = raw_stop,
    .heed = raw_heed,
};
