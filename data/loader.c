#include "data/loader.h"
#include "comm/thread.h"

#include <inttypes.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

/* One micro-batch of the ring. */
typedef struct slot {
    int64_t step, micro_batch_index;
    int32_t *inputs, *targets, *document_starts;
    int64_t documents[LT_MIXTURE_SOURCES], epochs[LT_MIXTURE_SOURCES];
} slot;

struct lt_loader {
    lt_loader_options options;
    int64_t slot_count; /* queue_depth and the one that the caller works on */
    slot *slots;
    int32_t *memory;                    /* of all slots */
    int32_t *row;                       /* [T + 1], the thread's own */
    int64_t epochs[LT_MIXTURE_SOURCES]; /* of the last item of each source, the thread's own */

    pthread_t thread;
    atomic_bool stop; /* changed under the mutex, also read between rows */
    pthread_mutex_t mutex;
    pthread_cond_t changed; /* one of the values below */
    int64_t filled;         /* micro-batches that the thread has read */
    int64_t taken;          /* that the caller was given */
    int64_t released;       /* that the caller is done with */
    bool finished;          /* the thread reads no more: the end, or `status` */
    lt_status status;
    char message[LT_ERROR_MESSAGE_BYTES];
};

static double now_ms(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec * 1e3 + (double)now.tv_nsec / 1e6;
}

void lt_document_starts(const int32_t *tokens, int64_t sequence_length, int64_t document_token,
                        bool token_first, int32_t *starts) {
    int32_t start = 0;
    for (int64_t t = 0; t < sequence_length; t++) {
        bool opens = token_first ? tokens[t] == document_token : t > 0 && tokens[t - 1] == document_token;
        if (opens) start = (int32_t)t;
        starts[t] = start;
    }
}

/* ---- what it takes
 * ---------------------------------------------------------------------------------------------- */

/* Tokens of one slot's arrays, and of all slots and the row together. False where they do not fit 63 bits. */
static bool count_elements(const lt_loader_options *o, int64_t *batch, int64_t *all) {
    int64_t arrays = (o->document_mask ? 3 : 2) * ((int64_t)o->queue_depth + 1);
    return !__builtin_mul_overflow(o->micro_batch, o->sequence_length, batch) &&
           !__builtin_mul_overflow(*batch, arrays, all) &&
           !__builtin_add_overflow(*all, o->sequence_length + 1, all) && *all <= INT64_MAX / 8;
}

static lt_status check_options(const lt_loader_options *o) {
    int64_t batches, rows, items;
    if (o->sequence_length < 1 || o->sequence_length >= INT32_MAX || o->micro_batch < 1 ||
        o->micro_batches < 1 || o->first_micro_batch < 0 || o->first_step < 1 || o->first_item < 0 ||
        o->queue_depth < 1)
        return lt_fail(LT_BAD_INPUT,
                       "loader: sequence length %" PRId64 ", micro-batch %" PRId64 ", micro-batches %" PRId64
                       ", first micro-batch %" PRId64 ", first step %" PRId64
                       ", queue depth %d; expected all "
                       "above 0, the first micro-batch from 0",
                       o->sequence_length, o->micro_batch, o->micro_batches, o->first_micro_batch,
                       o->first_step, o->queue_depth);
    if (__builtin_add_overflow(o->first_micro_batch, o->micro_batches, &batches) ||
        __builtin_mul_overflow(batches, o->micro_batch, &rows) || rows > o->global_batch)
        return lt_fail(LT_BAD_INPUT,
                       "loader: micro-batches %" PRId64 " to %" PRId64 " of %" PRId64
                       " sequences, expected to be within train.global_batch %" PRId64,
                       o->first_micro_batch, o->first_micro_batch + (o->micro_batches - 1), o->micro_batch,
                       o->global_batch);
    if (o->last_step > 0 && (__builtin_mul_overflow(o->last_step, o->global_batch, &items) ||
                             __builtin_add_overflow(o->first_item, items, &items)))
        return lt_fail(LT_BAD_INPUT,
                       "train.steps %" PRId64 " times train.global_batch %" PRId64 " is over %" PRId64
                       " sequences; lower one of them",
                       o->last_step, o->global_batch, INT64_MAX);
    return LT_OK;
}

static lt_status check_datasets(const lt_loader_options *o) {
    for (int i = 0; i < o->mixture->sources; i++) {
        const int64_t length = lt_dataset_sequence_length(o->mixture->dataset[i]);
        if (length != o->sequence_length)
            return lt_fail(LT_BAD_INPUT,
                           "loader: sequence length %" PRId64 ", expected the dataset's %" PRId64,
                           o->sequence_length, length);
    }
    return LT_OK;
}

int64_t lt_loader_bytes(const lt_loader_options *options) {
    int64_t batch, elements;
    if (check_options(options) != LT_OK || !count_elements(options, &batch, &elements)) return -1;
    return (int64_t)sizeof(lt_loader) + (options->queue_depth + (int64_t)1) * (int64_t)sizeof(slot) +
           elements * (int64_t)sizeof(int32_t);
}

/* ---- the thread
 * ------------------------------------------------------------------------------------------------- */

static lt_status read_row(lt_loader *loader, int64_t item, int64_t row, slot *into) {
    const lt_loader_options *o = &loader->options;
    int source;
    int64_t epoch;
    LT_CHECK(lt_mixture_read(o->mixture, item, loader->row, &source, &epoch));
    loader->epochs[source] = epoch;
    int64_t length = o->sequence_length, at = row * length;
    for (int64_t t = 0; t < length; t++) into->documents[source] += loader->row[t] == o->document_token;
    memcpy(into->inputs + at, loader->row, (size_t)length * sizeof(int32_t));
    memcpy(into->targets + at, loader->row + 1, (size_t)length * sizeof(int32_t));
    if (o->document_mask)
        lt_document_starts(loader->row, length, o->document_token, o->document_token_first,
                           into->document_starts + at);
    return LT_OK;
}

/* Waits for room in the ring. NULL: the loader is to stop. */
static slot *wait_for_slot(lt_loader *loader) {
    pthread_mutex_lock(&loader->mutex);
    while (!loader->stop && loader->filled - loader->released == loader->slot_count)
        pthread_cond_wait(&loader->changed, &loader->mutex);
    slot *room = loader->stop ? NULL : &loader->slots[loader->filled % loader->slot_count];
    pthread_mutex_unlock(&loader->mutex);
    return room;
}

static void hand_over(lt_loader *loader) {
    pthread_mutex_lock(&loader->mutex);
    loader->filled++;
    pthread_cond_broadcast(&loader->changed);
    pthread_mutex_unlock(&loader->mutex);
}

/* Fills the ring to the end of the last step; `*stopped` if it was told to stop before. */
static lt_status read_all(lt_loader *loader, bool *stopped) {
    const lt_loader_options *o = &loader->options;
    for (int i = 0; i < o->mixture->sources; i++)
        LT_CHECK(lt_mixture_epoch(o->mixture, i, o->first_item, loader->row, &loader->epochs[i]));
    for (int64_t step = o->first_step; step <= o->last_step; step++) {
        for (int64_t i = 0; i < o->micro_batches; i++) {
            slot *into = wait_for_slot(loader);
            *stopped = into == NULL;
            if (*stopped) return LT_OK;
            into->step = step;
            into->micro_batch_index = o->first_micro_batch + i;
            memset(into->documents, 0, sizeof into->documents);
            int64_t first = o->first_item + (step - o->first_step) * o->global_batch +
                            into->micro_batch_index * o->micro_batch;
            for (int64_t row = 0; row < o->micro_batch; row++) {
                *stopped = loader->stop;
                if (*stopped) return LT_OK;
                LT_CHECK(read_row(loader, first + row, row, into));
            }
            memcpy(into->epochs, loader->epochs, sizeof into->epochs);
            hand_over(loader);
        }
    }
    return LT_OK;
}

static void *run(void *argument) {
    lt_loader *loader = argument;
    bool stopped = false;
    lt_status status = read_all(loader, &stopped);
    pthread_mutex_lock(&loader->mutex);
    if (status == LT_STOPPED && loader->stop) { /* in a wait that lt_loader_stop() ended */
        status = LT_OK;
        stopped = true;
    }
    loader->status = status;
    if (status != LT_OK) {
        strncpy(loader->message, lt_error_message(), sizeof loader->message - 1);
    } else if (!stopped) {
        loader->status = LT_FAILED;
        snprintf(loader->message, sizeof loader->message,
                 "loader: a micro-batch was asked for behind the last one of step %" PRId64,
                 loader->options.last_step);
    }
    loader->finished = true;
    pthread_cond_broadcast(&loader->changed);
    pthread_mutex_unlock(&loader->mutex);
    return NULL;
}

/* ---- the caller's side
 * ------------------------------------------------------------------------------------------ */

static void free_loader(lt_loader *loader) {
    free(loader->slots);
    free(loader->memory);
    free(loader);
}

/* Allocates everything and cuts it into slots; NULL without memory. */
static lt_loader *make_loader(const lt_loader_options *options, int64_t batch, int64_t elements) {
    lt_loader *loader = calloc(1, sizeof *loader);
    if (loader == NULL) return NULL;
    loader->options = *options;
    loader->slot_count = (int64_t)options->queue_depth + 1;
    loader->slots = calloc((size_t)loader->slot_count, sizeof *loader->slots);
    loader->memory = malloc((size_t)elements * sizeof *loader->memory);
    if (loader->slots == NULL || loader->memory == NULL) {
        free_loader(loader);
        return NULL;
    }
    int32_t *next = loader->memory;
    for (int64_t i = 0; i < loader->slot_count; i++) {
        slot *part = &loader->slots[i];
        part->inputs = next;
        part->targets = next + batch;
        part->document_starts = options->document_mask ? next + 2 * batch : NULL;
        next += (options->document_mask ? 3 : 2) * batch;
    }
    loader->row = next;
    atomic_init(&loader->stop, false);
    pthread_mutex_init(&loader->mutex, NULL);
    pthread_cond_init(&loader->changed, NULL);
    return loader;
}

lt_status lt_loader_start(const lt_loader_options *options, lt_loader **out) {
    *out = NULL;
    LT_CHECK(check_options(options));
    LT_CHECK(check_datasets(options));
    int64_t batch, elements;
    lt_loader *loader =
        count_elements(options, &batch, &elements) ? make_loader(options, batch, elements) : NULL;
    if (loader == NULL)
        return lt_fail(LT_IO,
                       "loader: no memory for %d micro-batches of %" PRId64 " x %" PRId64
                       " tokens read ahead; lower train.micro_batch",
                       options->queue_depth, options->micro_batch, options->sequence_length);
    int error = lt_thread_start(&loader->thread, run, loader);
    if (error != 0) {
        free_loader(loader);
        return lt_fail(LT_IO, "loader: cannot start the reading thread: %s", strerror(error));
    }
    *out = loader;
    return LT_OK;
}

/* The caller is done with the micro-batch that it has. */
static void release_taken(lt_loader *loader) {
    if (loader->released == loader->taken) return;
    loader->released = loader->taken;
    pthread_cond_broadcast(&loader->changed);
}

bool lt_loader_wait(lt_loader *loader, int milliseconds) {
    const struct timespec until = lt_thread_deadline(milliseconds);
    pthread_mutex_lock(&loader->mutex);
    release_taken(loader);
    int error = 0;
    while (loader->filled == loader->taken && !loader->finished && error == 0)
        error = pthread_cond_timedwait(&loader->changed, &loader->mutex, &until);
    const bool ready = loader->filled > loader->taken || loader->finished;
    pthread_mutex_unlock(&loader->mutex);
    return ready;
}

lt_status lt_loader_next(lt_loader *loader, lt_batch *batch) {
    double start_ms = now_ms();
    pthread_mutex_lock(&loader->mutex);
    release_taken(loader);
    while (loader->filled == loader->taken && !loader->finished)
        pthread_cond_wait(&loader->changed, &loader->mutex);
    bool available = loader->filled > loader->taken;
    const slot *next = &loader->slots[loader->taken % loader->slot_count];
    if (available) loader->taken++;
    pthread_mutex_unlock(&loader->mutex);
    if (!available) return lt_fail(loader->status, "%s", loader->message);
    *batch = (lt_batch){
        .step = next->step,
        .micro_batch_index = next->micro_batch_index,
        .inputs = next->inputs,
        .targets = next->targets,
        .document_starts = next->document_starts,
        .documents = next->documents,
        .epochs = next->epochs,
        .wait_ms = now_ms() - start_ms,
    };
    return LT_OK;
}

void lt_loader_stop(lt_loader *loader) {
    if (loader == NULL) return;
    pthread_mutex_lock(&loader->mutex);
    loader->stop = true;
    pthread_cond_broadcast(&loader->changed);
    pthread_mutex_unlock(&loader->mutex);
    lt_mixture_stop(loader->options.mixture, true);
    pthread_join(loader->thread, NULL);
    lt_mixture_stop(loader->options.mixture, false);
    pthread_cond_destroy(&loader->changed);
    pthread_mutex_destroy(&loader->mutex);
    free_loader(loader);
}
