/* Threads work in teams: one piece at a time is read by a team, batch by batch, by whichever of its threads
 * is free; each batch is encoded by the thread that read it, and what is encoded goes into the piece's spools
 * in order. So all threads have work while there is one piece left, and one file that cannot be cut keeps
 * them all busy. */
#include "data/prepare/tokenise.h"
#include "comm/thread.h"
#include "data/prepare/batch.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

enum {
    TEAM_THREADS = 8,
    BATCHES_A_THREAD = 4, /* read and not yet spooled */
    BATCH_BYTES = 1 << 18,
    BATCH_DOCUMENTS = 1 << 12,
    LONG_BYTES = 1 << 22, /* of a document that is encoded where it lies, one at a time */
    PART_PIECES = 4,      /* a part ends behind the text of so many pieces */
    PART_DOCUMENTS = 1 << 19,
    NAME_BYTES = 64,
};

static const uint64_t magic = 0x3130656365697074; /* "tpiece01" */

/* A piece that is being read and spooled. */
typedef struct reading {
    struct reading *next; /* of its team */
    int64_t piece;
    /* the reader's, under the team's mutex */
    lt_documents *documents; /* NULL: at the end */
    lt_document held;        /* a long document that waits for a batch of its own */
    bool holding;
    int64_t batches, part, part_bytes, part_documents, reported;
    bool known; /* the present part is spooled already */
    lt_piece_result result;
    /* the spool's */
    pthread_mutex_t mutex; /* guards flushing, flushed and waiting */
    bool flushing;
    int64_t flushed;   /* batches */
    lt_batch *waiting; /* encoded, by number */
    lt_spool_writer spool;
    int64_t open_part; /* -1: none */
} reading;

typedef struct work work;

typedef struct team {
    work *all;
    pthread_mutex_t mutex; /* guards the rest */
    pthread_cond_t changed;
    reading *present;  /* what is read now, or NULL */
    reading *readings; /* what is not wholly spooled */
    lt_batch *spare;
    int under_way; /* batches */
    int most;
} team;

struct work {
    lt_crew *crew;
    const lt_prepare_plan *plan;
    const lt_prepare_folder *folder;
    int64_t *mine; /* malloc'ed [count]: pieces */
    int64_t count, taken;
    pthread_mutex_t mutex; /* guards taken */
    int team_count;
    team *teams;
};

static void result_name(int64_t piece, char name[NAME_BYTES]) {
    snprintf(name, NAME_BYTES, "piece_%06" PRId64, piece);
}

lt_status lt_piece_result_read(const lt_prepare_folder *folder, int64_t piece, lt_piece_result *result,
                               bool *found) {
    char name[NAME_BYTES], path[PATH_MAX];
    result_name(piece, name);
    LT_CHECK(lt_aside_join(path, folder->work, name));
    FILE *file = fopen(path, "re");
    *found = file != NULL;
    if (file == NULL && errno == ENOENT) return LT_OK;
    if (file == NULL) return lt_aside_failed("open", path);
    const bool whole = fread(result, sizeof *result, 1, file) == 1 && result->magic == magic;
    fclose(file);
    return whole ? LT_OK : lt_fail(LT_IO, "'%s' is damaged; start anew with --overwrite", path);
}

/* ---- reading ---- */

static bool is_spooled(const work *all, const reading *from) {
    char name[LT_SPOOL_NAME_BYTES], path[PATH_MAX];
    lt_spool_name(from->piece, from->part, name);
    return lt_aside_join(path, all->folder->work, name) == LT_OK && access(path, F_OK) == 0;
}

/* The input ends here, or is bad. */
static lt_status end_reading(const work *all, reading *from, lt_status status) {
    lt_piece_result *result = &from->result;
    const lt_documents *documents = from->documents;
    if (status != LT_OK && !(status == LT_BAD_INPUT && all->plan->options->skip_bad)) return status;
    result->magic = magic;
    result->bad = status != LT_OK;
    if (result->bad) snprintf(result->message, sizeof result->message, "%s", lt_error_message());
    if (documents == NULL) return LT_OK;
    result->lines = documents->lines;
    result->without_key = documents->without_key;
    result->null = documents->null;
    result->seen = documents->seen;
    result->dropped = documents->dropped;
    lt_documents_close(from->documents);
    from->documents = NULL;
    return LT_OK;
}

static lt_status open_reading(work *all, team *own, bool *found) {
    pthread_mutex_lock(&all->mutex);
    *found = all->taken < all->count;
    const int64_t index = *found ? all->mine[all->taken++] : -1;
    pthread_mutex_unlock(&all->mutex);
    if (!*found) return LT_OK;
    reading *from = calloc(1, sizeof *from);
    if (from == NULL) return lt_fail(LT_IO, "no memory to read a piece");
    pthread_mutex_init(&from->mutex, NULL);
    from->piece = index;
    from->open_part = -1;
    from->known = is_spooled(all, from);
    from->next = own->readings;
    own->readings = own->present = from;
    const lt_prepare_piece *piece = &all->plan->pieces[index];
    lt_documents_options options = all->plan->options->documents;
    options.begin = piece->begin;
    options.end = piece->end;
    const lt_status status = lt_documents_open(all->plan->files, piece->file, &options, &from->documents);
    return status == LT_OK ? LT_OK : end_reading(all, from, status);
}

/* The next document, or *found false at the end. */
static lt_status next_document(const work *all, reading *from, lt_document *document, bool *found) {
    *found = from->holding;
    if (from->holding) *document = from->held;
    from->holding = false;
    if (*found || from->documents == NULL) return LT_OK;
    const lt_status status = lt_documents_next(from->documents, document, found);
    if (status == LT_OK && *found) return LT_OK;
    *found = false;
    return end_reading(all, from, status);
}

static lt_status fill(const work *all, reading *from, lt_batch *batch, lt_encoder *encoder) {
    while (batch->bytes < BATCH_BYTES && batch->count < BATCH_DOCUMENTS) {
        lt_document document;
        bool found;
        LT_CHECK(next_document(all, from, &document, &found));
        if (!found) return LT_OK;
        if (document.bytes < LONG_BYTES) {
            LT_CHECK(lt_batch_add(batch, &document));
        } else if (batch->count > 0) {
            from->held = document;
            from->holding = true;
            return LT_OK;
        } else {
            return from->known ? lt_batch_add(batch, &document)
                               : lt_batch_encode_long(batch, all->plan, encoder, &document);
        }
    }
    return LT_OK;
}

/* Parts end where the text read so far says, so a piece that is read again has the same. */
static void count_part(const work *all, reading *from, const lt_batch *batch) {
    if (batch->count > 0) from->result.parts = from->part + 1;
    from->part_bytes += batch->text_bytes;
    from->part_documents += batch->count;
    if (from->part_bytes < PART_PIECES * all->plan->options->piece_bytes &&
        from->part_documents < PART_DOCUMENTS)
        return;
    from->part++;
    from->part_bytes = from->part_documents = 0;
    from->known = is_spooled(all, from);
}

/* Tells the progress line how much of the file is behind. */
static void report(const work *all, reading *from, const lt_batch *batch) {
    const int64_t bytes = all->plan->pieces[from->piece].bytes;
    int64_t passed = from->documents == NULL ? bytes : from->documents->file_bytes;
    if (passed > bytes) passed = bytes;
    atomic_fetch_add(&all->crew->done, passed - from->reported);
    atomic_fetch_add(&all->crew->bytes, batch->text_bytes);
    from->reported = passed;
}

static lt_status read_batch(work *all, team *own, lt_encoder *encoder, lt_batch *batch, bool *found) {
    *found = own->present != NULL;
    if (!*found) LT_CHECK(open_reading(all, own, found));
    if (!*found) return LT_OK;
    reading *from = own->present;
    batch->reading = from;
    batch->number = from->batches++;
    batch->part = from->part;
    batch->known = from->known;
    LT_CHECK(fill(all, from, batch, encoder));
    count_part(all, from, batch);
    report(all, from, batch);
    batch->last = from->documents == NULL && !from->holding;
    if (batch->last) own->present = NULL;
    return LT_OK;
}

/* An empty batch, once there is room for one. */
static lt_status take_batch(team *own, lt_batch **batch) {
    while (own->under_way >= own->most) {
        const struct timespec until = lt_thread_deadline(1000); /* to look whether others have failed */
        LT_CHECK(lt_crew_check(own->all->crew));
        pthread_cond_timedwait(&own->changed, &own->mutex, &until);
    }
    *batch = own->spare;
    if (*batch != NULL)
        own->spare = (*batch)->next;
    else if ((*batch = calloc(1, sizeof **batch)) == NULL)
        return lt_fail(LT_IO, "no memory for documents");
    lt_batch_reset(*batch);
    own->under_way++;
    return LT_OK;
}

static void give_back(team *own, lt_batch *batch) {
    pthread_mutex_lock(&own->mutex);
    batch->next = own->spare;
    own->spare = batch;
    own->under_way--;
    pthread_cond_signal(&own->changed);
    pthread_mutex_unlock(&own->mutex);
}

/* ---- spooling ---- */

static lt_status close_part(reading *to) {
    if (to->open_part < 0) return LT_OK;
    to->open_part = -1;
    return lt_spool_commit(&to->spool);
}

static lt_status spool_batch(const work *all, reading *to, const lt_batch *batch) {
    if (to->open_part != batch->part) {
        LT_CHECK(close_part(to));
        to->open_part = batch->part; /* to be abandoned also after a failure */
        LT_CHECK(lt_spool_create(&to->spool, all->folder->work, to->piece, batch->part,
                                 all->plan->token_bytes, all->plan->options->dedup));
    }
    for (int64_t i = 0; i < batch->count; i++) {
        const lt_batch_document *document = &batch->documents[i];
        LT_CHECK(lt_spool_add(&to->spool, &document->spool, document->high, document->low));
    }
    to->spool.header.text_bytes += batch->text_bytes;
    to->spool.header.empty += batch->empty;
    to->spool.header.replaced += batch->replaced;
    return lt_spool_tokens(&to->spool, batch->tokens.id,
                           batch->tokens.count * (size_t)all->plan->token_bytes);
}

static void abandon_part(reading *to) {
    if (to->open_part >= 0) lt_spool_abandon(&to->spool);
    to->open_part = -1;
}

static lt_status finish_piece(const work *all, reading *to) {
    char name[NAME_BYTES];
    if (to->result.bad) abandon_part(to);
    LT_CHECK(close_part(to));
    result_name(to->piece, name);
    return lt_aside_write(all->folder->work, all->folder->work, name, &to->result, sizeof to->result);
}

static lt_status flush_batch(const work *all, reading *to, const lt_batch *batch) {
    if (batch->count > 0 && !batch->known) LT_CHECK(spool_batch(all, to, batch));
    return batch->last ? finish_piece(all, to) : LT_OK;
}

static void free_reading(reading *gone) {
    while (gone->waiting != NULL) {
        lt_batch *batch = gone->waiting;
        gone->waiting = batch->next;
        lt_batch_free(batch);
    }
    abandon_part(gone);
    lt_documents_close(gone->documents);
    pthread_mutex_destroy(&gone->mutex);
    free(gone);
}

static void remove_reading(team *own, reading *gone) {
    pthread_mutex_lock(&own->mutex);
    reading **link = &own->readings;
    while (*link != gone) link = &(*link)->next;
    *link = gone->next;
    pthread_mutex_unlock(&own->mutex);
    free_reading(gone);
}

/* Spools the batch and those that waited for it; or leaves it, to the thread that spools now or to the one
 * that brings what is missing. Under to->mutex but for the writing. */
static lt_status spool_in_order(work *all, team *own, reading *to, lt_batch *batch) {
    lt_status status = LT_OK;
    bool last = false;
    pthread_mutex_lock(&to->mutex);
    lt_batch **link = &to->waiting;
    while (*link != NULL && (*link)->number < batch->number) link = &(*link)->next;
    batch->next = *link;
    *link = batch;
    if (to->flushing) {
        pthread_mutex_unlock(&to->mutex);
        return LT_OK;
    }
    to->flushing = true;
    while (status == LT_OK && to->waiting != NULL && to->waiting->number == to->flushed) {
        lt_batch *first = to->waiting;
        to->waiting = first->next;
        pthread_mutex_unlock(&to->mutex);
        status = flush_batch(all, to, first);
        last = first->last;
        give_back(own, first);
        pthread_mutex_lock(&to->mutex);
        to->flushed++;
    }
    to->flushing = status != LT_OK; /* after a failure nobody goes on */
    pthread_mutex_unlock(&to->mutex);
    if (status == LT_OK && last) remove_reading(own, to);
    return status;
}

/* ---- threads ---- */

static lt_status work_on(work *all, team *own, lt_encoder *encoder) {
    for (;;) {
        lt_batch *batch = NULL;
        bool found = false;
        LT_CHECK(lt_crew_check(all->crew));
        pthread_mutex_lock(&own->mutex);
        lt_status status = take_batch(own, &batch);
        if (status == LT_OK) status = read_batch(all, own, encoder, batch, &found);
        pthread_mutex_unlock(&own->mutex);
        if (status == LT_OK && found && !batch->known && batch->tokens.count == 0)
            status = lt_batch_encode(batch, all->plan, encoder);
        if (status != LT_OK || !found) {
            if (batch != NULL) give_back(own, batch);
            return status;
        }
        atomic_fetch_add(&all->crew->tokens, (int64_t)batch->tokens.count);
        LT_CHECK(spool_in_order(all, own, batch->reading, batch));
    }
}

static lt_status work_in_team(void *context, int thread) {
    work *all = context;
    lt_encoder *encoder;
    LT_CHECK(lt_encoder_create(all->plan->tokenizer, &encoder));
    const lt_status status = work_on(all, &all->teams[thread % all->team_count], encoder);
    lt_encoder_destroy(encoder);
    return status;
}

static lt_status open_teams(work *all) {
    const int threads = all->crew->threads;
    all->team_count = (threads + TEAM_THREADS - 1) / TEAM_THREADS;
    all->teams = calloc((size_t)all->team_count, sizeof *all->teams);
    if (all->teams == NULL) return lt_fail(LT_IO, "no memory for %d threads", threads);
    for (int i = 0; i < all->team_count; i++) {
        team *one = &all->teams[i];
        one->all = all;
        one->most = BATCHES_A_THREAD * ((threads - i + all->team_count - 1) / all->team_count);
        pthread_mutex_init(&one->mutex, NULL);
        pthread_cond_init(&one->changed, NULL);
    }
    return LT_OK;
}

static void close_teams(work *all) {
    for (int i = 0; all->teams != NULL && i < all->team_count; i++) {
        team *one = &all->teams[i];
        while (one->readings != NULL) {
            reading *gone = one->readings;
            one->readings = gone->next;
            free_reading(gone);
        }
        while (one->spare != NULL) {
            lt_batch *batch = one->spare;
            one->spare = batch->next;
            lt_batch_free(batch);
        }
        pthread_cond_destroy(&one->changed);
        pthread_mutex_destroy(&one->mutex);
    }
    free(all->teams);
}

/* ---- dealing ---- */

/* Which pieces are not done: rank 0 looks, so that all deal the same. Collective. */
static lt_status find_open(const work *all, bool *open) {
    const int64_t count = all->plan->piece_count;
    lt_status status = LT_OK;
    lt_piece_result *result = malloc(sizeof *result);
    if (result == NULL) status = lt_fail(LT_IO, "no memory for a piece");
    for (int64_t i = 0; all->crew->grid->rank == 0 && i < count && status == LT_OK; i++) {
        bool done = false;
        status = lt_piece_result_read(all->folder, i, result, &done);
        if (status != LT_OK) break;
        /* A bad piece is read again where bad input is not skipped. */
        open[i] = !done || (result->bad && !all->plan->options->skip_bad);
    }
    free(result);
    LT_CHECK(lt_grid_share_status(all->crew->grid, status, NULL));
    return lt_grid_broadcast(all->crew->grid, open, (size_t)count * sizeof *open, 0);
}

/* Each open piece, in order, to the rank that has the fewest bytes. */
static void deal(work *all, const bool *open, int64_t *load, int64_t *total) {
    for (int64_t i = 0; i < all->plan->piece_count; i++) {
        if (!open[i]) continue;
        int least = 0;
        for (int rank = 1; rank < all->crew->grid->ranks; rank++)
            if (load[rank] < load[least]) least = rank;
        load[least] += all->plan->pieces[i].bytes + 1;
        *total += all->plan->pieces[i].bytes;
        if (least == all->crew->grid->rank) all->mine[all->count++] = i;
    }
}

/* Collective. */
static lt_status deal_open(work *all, int64_t *total) {
    const size_t count = (size_t)all->plan->piece_count, ranks = (size_t)all->crew->grid->ranks;
    bool *open = calloc(count + 1, sizeof *open);
    int64_t *load = calloc(ranks, sizeof *load);
    all->mine = calloc(count + 1, sizeof *all->mine);
    lt_status status = LT_OK;
    if (open == NULL || load == NULL || all->mine == NULL)
        status = lt_fail(LT_IO, "no memory for %zu pieces", count);
    status = lt_grid_share_status(all->crew->grid, status, NULL);
    if (status == LT_OK && open != NULL) status = find_open(all, open);
    if (status == LT_OK && open != NULL && load != NULL) deal(all, open, load, total);
    free(open);
    free(load);
    return status;
}

lt_status lt_prepare_tokenise(lt_crew *crew, const lt_prepare_plan *plan, const lt_prepare_folder *folder) {
    work all = {.crew = crew, .plan = plan, .folder = folder};
    int64_t total = 0;
    pthread_mutex_init(&all.mutex, NULL);
    lt_status status = deal_open(&all, &total);
    if (status == LT_OK) status = lt_grid_share_status(crew->grid, open_teams(&all), NULL);
    if (status == LT_OK) status = lt_crew_run(crew, "tokenising", total, work_in_team, &all);
    close_teams(&all);
    free(all.mine);
    pthread_mutex_destroy(&all.mutex);
    return status;
}
