#include "data/prepare/shards.h"

#include "data/manifest.h"
#include "data/reader.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <xxhash.h>

enum { BLOCK_BYTES = 1 << 20 };

const char *const lt_split_names[LT_SPLITS] = {"train", LT_PREPARE_VALIDATION};

typedef struct cutting {
    lt_crew *crew;
    const lt_survey *survey;
    bool validation_placed;
    int64_t *before[LT_SPLITS]; /* malloc'ed [spools + 1]: tokens of the split before a spool */
} cutting;

/* A shard that is being written. */
typedef struct shard {
    const cutting *all;
    int split;
    int64_t first, count; /* tokens, of the split */
    lt_aside file;
    XXH3_state_t *hash;
    unsigned char *block; /* malloc'ed [BLOCK_BYTES] */
    int64_t documents;    /* that end in it */
    json_t *sources;
    int64_t source_file, source_first, source_last; /* the present source; -1: none */
} shard;

int64_t lt_shards_count(const lt_survey *survey, int split) {
    const int64_t most = survey->plan->options->shard_tokens;
    return (survey->tokens[split] + most - 1) / most;
}

void lt_shards_name(int64_t number, char name[LT_SHARD_NAME_BYTES]) {
    snprintf(name, LT_SHARD_NAME_BYTES, "shard_%06" PRId64 ".bin", number);
}

void lt_shards_entry_name(int split, int64_t number, char name[LT_SHARD_NAME_BYTES]) {
    snprintf(name, LT_SHARD_NAME_BYTES, "%s_%06" PRId64 ".json", lt_split_names[split], number);
}

static lt_status put(shard *to, const void *data, size_t bytes) {
    XXH3_128bits_update(to->hash, data, bytes);
    return lt_aside_append(&to->file, data, bytes);
}

/* Copies tokens `begin` to `end` of a spool. */
static lt_status copy(shard *to, const lt_spool *spool, int64_t begin, int64_t end) {
    int64_t at = spool->header.tokens_at + begin * spool->header.token_bytes;
    const int64_t stop = spool->header.tokens_at + end * spool->header.token_bytes;
    while (at < stop) {
        const size_t size = stop - at < BLOCK_BYTES ? (size_t)(stop - at) : BLOCK_BYTES;
        LT_CHECK(lt_crew_check(to->all->crew));
        LT_CHECK(lt_spool_read(spool, at, to->block, size));
        LT_CHECK(put(to, to->block, size));
        at += (int64_t)size;
    }
    return LT_OK;
}

/* ---- where the documents come from ---- */

static lt_status end_source(shard *to) {
    const lt_files *files = to->all->survey->plan->files;
    if (to->source_file < 0) return LT_OK;
    const char *path = lt_files_path(files, to->source_file);
    json_t *source =
        json_pack("{s:o, s:s?, s:I, s:I}", "file", lt_json_name(path), "unit", lt_documents_unit(path),
                  "first", (json_int_t)to->source_first, "last", (json_int_t)to->source_last);
    to->source_file = -1;
    return json_array_append_new(to->sources, source) == 0
               ? LT_OK
               : lt_fail(LT_IO, "no memory for a shard's sources");
}

static lt_status note_source(shard *to, int64_t file, int64_t place) {
    if (to->source_file != file) {
        LT_CHECK(end_source(to));
        to->source_file = file;
        to->source_first = place;
    }
    to->source_last = place;
    return LT_OK;
}

/* ---- documents ---- */

/* Takes what of spool `index` belongs to the shard; documents in a row are copied at once. */
static lt_status take_documents(shard *to, int64_t index, const lt_spool *spool) {
    const lt_survey *survey = to->all->survey;
    const int64_t piece = survey->spools[index].piece, end = to->first + to->count;
    int64_t at = to->all->before[to->split][index]; /* in the split */
    int64_t offset = 0, begin = 0, stop = 0;        /* in the spool; begin to stop is still to be copied */
    for (int64_t i = 0; i < lt_spool_count(spool) && at < end; i++) {
        const lt_spool_document *document = &spool->documents[i];
        const int64_t tokens = document->tokens, here = offset;
        offset += tokens;
        if (document->split != (uint32_t)to->split) continue;
        const int64_t from = at > to->first ? at : to->first, until = at + tokens < end ? at + tokens : end;
        if (from < until) {
            if (stop != here + from - at) {
                LT_CHECK(copy(to, spool, begin, stop));
                begin = here + from - at;
            }
            stop = here + until - at;
            to->documents += until == at + tokens;
            LT_CHECK(note_source(to, survey->plan->pieces[piece].file,
                                 document->place + survey->pieces[piece].lines_before));
        }
        at += tokens;
    }
    return copy(to, spool, begin, stop);
}

static lt_status write_tokens(shard *to) {
    const cutting *all = to->all;
    const int64_t *before = all->before[to->split], spools = all->survey->count;
    unsigned char header[LT_SHARD_HEADER_BYTES];
    int64_t low = 0, high = spools; /* the last spool that begins at or before the shard */
    while (high - low > 1) {
        const int64_t middle = low + (high - low) / 2;
        if (before[middle] <= to->first)
            low = middle;
        else
            high = middle;
    }
    lt_shard_write_header(header, to->count, all->survey->plan->token_bytes);
    LT_CHECK(put(to, header, sizeof header));
    for (int64_t i = low; i < spools && before[i] < to->first + to->count; i++) {
        lt_spool spool;
        if (before[i + 1] == before[i]) continue;
        lt_status status = lt_survey_load(all->survey, i, &spool);
        if (status == LT_OK) status = take_documents(to, i, &spool);
        lt_spool_close(&spool);
        LT_CHECK(status);
    }
    return end_source(to);
}

/* ---- shards ---- */

static const char *folder_of(const cutting *all, int split) {
    const lt_prepare_folder *folder = all->survey->folder;
    return split == LT_TRAIN        ? folder->path
           : all->validation_placed ? folder->split_path
                                    : folder->split_work;
}

static int64_t file_bytes(const shard *to) {
    return LT_SHARD_HEADER_BYTES + to->count * to->all->survey->plan->token_bytes;
}

static lt_status write_entry(const shard *to, const char *shard_name, const char *name) {
    const XXH128_hash_t hash = XXH3_128bits_digest(to->hash);
    const char *work = to->all->survey->folder->work;
    char checksum[33];
    snprintf(checksum, sizeof checksum, "%016" PRIx64 "%016" PRIx64, hash.high64, hash.low64);
    json_t *entry = json_pack("{s:s, s:I, s:I, s:I, s:s, s:O}", "file", shard_name, "tokens",
                              (json_int_t)to->count, "documents", (json_int_t)to->documents, "bytes",
                              (json_int_t)file_bytes(to), "xxh3_128", checksum, "sources", to->sources);
    char *text = entry == NULL ? NULL : json_dumps(entry, JSON_COMPACT);
    const lt_status status = text == NULL
                                 ? lt_fail(LT_IO, "no memory for the manifest's entry of %s", shard_name)
                                 : lt_aside_write(work, work, name, text, strlen(text));
    free(text);
    json_decref(entry);
    return status;
}

/* The entry comes first: a shard with its name has one. */
static lt_status write_shard(shard *to, const char *name, const char *entry_name) {
    const char *work = to->all->survey->folder->work;
    to->block = malloc(BLOCK_BYTES);
    to->hash = XXH3_createState();
    to->sources = json_array();
    if (to->block == NULL || to->hash == NULL || to->sources == NULL)
        return lt_fail(LT_IO, "no memory to write %s", name);
    XXH3_128bits_reset(to->hash);
    LT_CHECK(lt_aside_open(&to->file, work, folder_of(to->all, to->split), name));
    LT_CHECK(write_tokens(to));
    LT_CHECK(write_entry(to, name, entry_name));
    return lt_aside_commit(&to->file);
}

static bool is_written(const shard *to, const char *name, const char *entry_name) {
    char path[PATH_MAX], entry[PATH_MAX];
    struct stat info;
    return lt_aside_join(path, folder_of(to->all, to->split), name) == LT_OK && stat(path, &info) == 0 &&
           info.st_size == file_bytes(to) &&
           lt_aside_join(entry, to->all->survey->folder->work, entry_name) == LT_OK &&
           access(entry, F_OK) == 0;
}

static lt_status cut_shard(void *context, int64_t job) {
    const cutting *all = context;
    const lt_survey *survey = all->survey;
    const int64_t train = lt_shards_count(survey, LT_TRAIN), most = survey->plan->options->shard_tokens;
    shard to = {.all = all, .split = job < train ? LT_TRAIN : LT_VALIDATION, .source_file = -1};
    const int64_t number = job < train ? job : job - train;
    char name[LT_SHARD_NAME_BYTES], entry_name[LT_SHARD_NAME_BYTES];
    to.first = number * most;
    to.count = survey->tokens[to.split] - to.first < most ? survey->tokens[to.split] - to.first : most;
    lt_shards_name(number, name);
    lt_shards_entry_name(to.split, number, entry_name);
    lt_status status = LT_OK;
    if (!is_written(&to, name, entry_name)) status = write_shard(&to, name, entry_name);
    lt_aside_abandon(&to.file);
    free(to.block);
    XXH3_freeState(to.hash);
    json_decref(to.sources);
    atomic_fetch_add(&all->crew->done, to.count);
    atomic_fetch_add(&all->crew->tokens, to.count);
    atomic_fetch_add(&all->crew->bytes, file_bytes(&to));
    return status;
}

static lt_status add_up(cutting *all) {
    const lt_survey *survey = all->survey;
    for (int split = 0; split < LT_SPLITS; split++) {
        int64_t *before = all->before[split] = calloc((size_t)survey->count + 1, sizeof *before);
        if (before == NULL) return lt_fail(LT_IO, "no memory for the table of spools");
        for (int64_t i = 0; i < survey->count; i++)
            before[i + 1] = before[i] + survey->spools[i].tokens[split];
    }
    return LT_OK;
}

lt_status lt_shards_write(lt_crew *crew, const lt_survey *survey) {
    cutting all = {.crew = crew, .survey = survey};
    struct stat info;
    all.validation_placed = stat(survey->folder->split_path, &info) == 0;
    lt_status status = lt_grid_share_status(crew->grid, add_up(&all), NULL);
    const int64_t shards = lt_shards_count(survey, LT_TRAIN) + lt_shards_count(survey, LT_VALIDATION);
    const int64_t tokens = survey->tokens[LT_TRAIN] + survey->tokens[LT_VALIDATION];
    if (status == LT_OK) status = lt_crew_each(crew, "writing shards", shards, tokens, cut_shard, &all);
    for (int split = 0; split < LT_SPLITS; split++) free(all.before[split]);
    return status;
}
