#include "data/prepare/survey.h"

#include <stdlib.h>
#include <string.h>

/* ---- pieces ---- */

static lt_status add_spools(lt_survey *survey, int64_t piece, int64_t parts) {
    for (int64_t part = 0; part < parts; part++) {
        if (survey->count == survey->capacity) {
            const int64_t capacity = survey->capacity == 0 ? 64 : 2 * survey->capacity;
            lt_survey_spool *grown = reallocarray(survey->spools, (size_t)capacity, sizeof *grown);
            if (grown == NULL) return lt_fail(LT_IO, "no memory for the table of spools");
            survey->spools = grown;
            survey->capacity = capacity;
        }
        survey->spools[survey->count++] = (lt_survey_spool){.piece = piece, .part = part};
    }
    return LT_OK;
}

/* The pieces of one file together. */
typedef struct file_result {
    int64_t lines, without_key, null;
    lt_documents_seen seen;
    lt_document_drops dropped;
} file_result;

static void add_result(file_result *sum, const lt_piece_result *one) {
    sum->lines += one->lines;
    sum->without_key += one->without_key;
    sum->null += one->null;
    sum->seen.key |= one->seen.key;
    sum->seen.text |= one->seen.text;
    sum->seen.score |= one->seen.score;
    sum->seen.language |= one->seen.language;
    sum->dropped.int_score += one->dropped.int_score;
    sum->dropped.language += one->dropped.language;
    sum->dropped.min_chars += one->dropped.min_chars;
    sum->dropped.max_chars += one->dropped.max_chars;
}

static void count_file(lt_survey *survey, const file_result *file) {
    survey->without_key += file->without_key;
    survey->null += file->null;
    survey->dropped.int_score += file->dropped.int_score;
    survey->dropped.language += file->dropped.language;
    survey->dropped.min_chars += file->dropped.min_chars;
    survey->dropped.max_chars += file->dropped.max_chars;
}

static lt_status leave_out(lt_survey *survey, int64_t file, const char *why) {
    survey->bad[file] = strdup(why);
    return survey->bad[file] != NULL ? LT_OK : lt_fail(LT_IO, "no memory for a message");
}

/* None of the rows of all pieces has a key: reading the file as a whole says which, and what there is. */
static lt_status check_keys(lt_survey *survey, int64_t file, const file_result *sum) {
    const lt_prepare_plan *plan = survey->plan;
    lt_documents *documents;
    lt_document document;
    bool found;
    if (!lt_documents_lack_keys(&plan->options->documents, &sum->seen, sum->without_key)) return LT_OK;
    lt_status status = lt_documents_open(plan->files, file, &plan->options->documents, &documents);
    if (status != LT_OK) return status;
    status = lt_documents_next(documents, &document, &found);
    lt_documents_close(documents);
    return status;
}

/* Adds the pieces of one file, from *piece on, which moves behind them. */
static lt_status add_file(lt_survey *survey, lt_piece_result *result, int64_t *piece) {
    const lt_prepare_plan *plan = survey->plan;
    const int64_t file = plan->pieces[*piece].file, before = survey->count;
    file_result sum = {0};
    for (; *piece < plan->piece_count && plan->pieces[*piece].file == file; ++*piece) {
        bool found;
        LT_CHECK(lt_piece_result_read(survey->folder, *piece, result, &found));
        if (!found)
            return lt_fail(LT_IO, "piece %lld vanished from '%s'", (long long)*piece, survey->folder->work);
        survey->pieces[*piece].lines_before = sum.lines;
        add_result(&sum, result);
        if (result->bad && survey->bad[file] == NULL) LT_CHECK(leave_out(survey, file, result->message));
        if (!result->bad) LT_CHECK(add_spools(survey, *piece, result->parts));
    }
    if (survey->bad[file] == NULL) {
        const lt_status status = check_keys(survey, file, &sum);
        if (status != LT_BAD_INPUT || !plan->options->skip_bad) LT_CHECK(status);
        if (status != LT_OK) LT_CHECK(leave_out(survey, file, lt_error_message()));
    }
    if (survey->bad[file] != NULL)
        survey->count = before;
    else
        count_file(survey, &sum);
    return LT_OK;
}

static lt_status add_files(lt_survey *survey) {
    const lt_prepare_plan *plan = survey->plan;
    lt_piece_result *result = malloc(sizeof *result);
    survey->pieces = calloc((size_t)plan->piece_count + 1, sizeof *survey->pieces);
    survey->bad = calloc((size_t)lt_files_count(plan->files) + 1, sizeof *survey->bad);
    lt_status status = LT_OK;
    if (result == NULL || survey->pieces == NULL || survey->bad == NULL)
        status = lt_fail(LT_IO, "no memory for the table of pieces");
    for (int64_t piece = 0; piece < plan->piece_count && status == LT_OK;)
        status = add_file(survey, result, &piece);
    free(result);
    return status;
}

/* ---- spools ---- */

/* What is counted in a spool, a column each; all are exact in a double. */
enum { DOCUMENTS, TOKENS = DOCUMENTS + LT_SPLITS, TEXT_BYTES = TOKENS + LT_SPLITS, EMPTY, REPLACED, COLUMNS };

typedef struct counting {
    lt_survey *survey;
    lt_crew *crew;
    double *table; /* [spools][COLUMNS] */
} counting;

static lt_status count_spool(void *context, int64_t index) {
    const counting *all = context;
    const lt_survey_spool *named = &all->survey->spools[index];
    double *row = all->table + index * COLUMNS;
    lt_spool spool;
    const lt_status status = lt_spool_open(&spool, all->survey->folder->work, named->piece, named->part);
    for (int split = 0; split < LT_SPLITS && status == LT_OK; split++) {
        row[DOCUMENTS + split] = (double)spool.header.documents[split];
        row[TOKENS + split] = (double)spool.header.tokens[split];
    }
    row[TEXT_BYTES] = (double)spool.header.text_bytes;
    row[EMPTY] = (double)spool.header.empty;
    row[REPLACED] = (double)spool.header.replaced;
    lt_spool_close(&spool);
    atomic_fetch_add(&all->crew->done, 1);
    return status;
}

static lt_status count_kept(void *context, int64_t index) {
    const counting *all = context;
    double *row = all->table + index * COLUMNS;
    lt_spool spool;
    const lt_status status = lt_survey_load(all->survey, index, &spool);
    for (int64_t i = 0; status == LT_OK && i < lt_spool_count(&spool); i++) {
        const lt_spool_document *document = &spool.documents[i];
        if (document->split >= LT_SPLITS) continue;
        row[DOCUMENTS + document->split] += 1;
        row[TOKENS + document->split] += document->tokens;
    }
    lt_spool_close(&spool);
    atomic_fetch_add(&all->crew->done, 1);
    return status;
}

/* Each rank fills the rows of its spools; all get all. Collective. */
static lt_status count_all(lt_crew *crew, lt_survey *survey, lt_status (*count)(void *context, int64_t index),
                           double **table) {
    const size_t cells = (size_t)survey->count * COLUMNS;
    *table = calloc(cells + 1, sizeof **table);
    counting all = {survey, crew, *table};
    lt_status status = *table == NULL ? lt_fail(LT_IO, "no memory for the table of spools") : LT_OK;
    status = lt_grid_share_status(crew->grid, status, NULL);
    if (status == LT_OK) status = lt_crew_each(crew, "counting", survey->count, survey->count, count, &all);
    if (status == LT_OK) status = lt_grid_sum_disjoint(crew->grid, *table, (int64_t)cells);
    if (status != LT_OK || *table == NULL) {
        free(*table);
        *table = NULL;
        return status;
    }
    memset(survey->documents, 0, sizeof survey->documents);
    memset(survey->tokens, 0, sizeof survey->tokens);
    for (int64_t i = 0; i < survey->count; i++)
        for (int split = 0; split < LT_SPLITS; split++) {
            lt_survey_spool *spool = &survey->spools[i];
            survey->documents[split] += spool->documents[split] =
                (int64_t)(*table)[i * COLUMNS + DOCUMENTS + split];
            survey->tokens[split] += spool->tokens[split] = (int64_t)(*table)[i * COLUMNS + TOKENS + split];
        }
    return LT_OK;
}

lt_status lt_survey_open(lt_crew *crew, const lt_prepare_plan *plan, const lt_prepare_folder *folder,
                         lt_survey *survey) {
    double *table;
    *survey = (lt_survey){.plan = plan, .folder = folder};
    LT_CHECK(lt_grid_share_status(crew->grid, add_files(survey), NULL));
    LT_CHECK(count_all(crew, survey, count_spool, &table));
    for (int64_t i = 0; i < survey->count; i++) {
        survey->text_bytes += (int64_t)table[i * COLUMNS + TEXT_BYTES];
        survey->empty += (int64_t)table[i * COLUMNS + EMPTY];
        survey->replaced += (int64_t)table[i * COLUMNS + REPLACED];
    }
    free(table);
    survey->read = survey->documents[LT_TRAIN] + survey->documents[LT_VALIDATION];
    return LT_OK;
}

lt_status lt_survey_drop(lt_crew *crew, lt_survey *survey) {
    double *table;
    LT_CHECK(count_all(crew, survey, count_kept, &table));
    free(table);
    survey->duplicates = survey->read - survey->documents[LT_TRAIN] - survey->documents[LT_VALIDATION];
    return LT_OK;
}

lt_status lt_survey_load(const lt_survey *survey, int64_t index, lt_spool *spool) {
    const lt_survey_spool *named = &survey->spools[index];
    LT_CHECK(lt_spool_open(spool, survey->folder->work, named->piece, named->part));
    LT_CHECK(lt_spool_load(spool));
    lt_drops_mark(&survey->drops, index, spool);
    return LT_OK;
}

void lt_survey_close(lt_survey *survey) {
    lt_drops_close(&survey->drops);
    for (int64_t i = 0; survey->bad != NULL && i < lt_files_count(survey->plan->files); i++)
        free(survey->bad[i]);
    free(survey->bad);
    free(survey->pieces);
    free(survey->spools);
}
