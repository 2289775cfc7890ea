/* What all spools hold together: which there are, in the order of the input, and how much of each is kept.
 * Internal to data/prepare. */
#ifndef LT_DATA_PREPARE_SURVEY_H
#define LT_DATA_PREPARE_SURVEY_H

#include "data/prepare/duplicates.h"
#include "data/prepare/spool.h"
#include "data/prepare/tokenise.h"

typedef struct lt_survey_spool {
    int64_t piece, part;
    int64_t documents[LT_SPLITS], tokens[LT_SPLITS]; /* kept */
} lt_survey_spool;

typedef struct lt_survey_piece {
    int64_t lines_before; /* of its file */
} lt_survey_piece;

struct lt_survey {
    const lt_prepare_plan *plan;
    const lt_prepare_folder *folder;
    int64_t count, capacity;
    lt_survey_spool *spools;
    lt_survey_piece *pieces; /* [plan->piece_count] */
    char **bad;              /* [files]: why the file is left out, or NULL */
    /* of the files that are not left out */
    int64_t without_key, null;
    lt_document_drops dropped;
    int64_t read, text_bytes, empty, replaced, duplicates; /* documents read; of both splits */
    int64_t tokens[LT_SPLITS], documents[LT_SPLITS];       /* kept */
    lt_drops drops;
};

/* Surveys what lt_prepare_tokenise() left. LT_BAD_INPUT: a file none of whose rows has a key, where bad input
 * is not skipped. The caller closes it, also after an error. Collective. */
lt_status lt_survey_open(lt_crew *crew, const lt_prepare_plan *plan, const lt_prepare_folder *folder,
                         lt_survey *survey);

/* Counts again, without the survey's drops. Collective. */
lt_status lt_survey_drop(lt_crew *crew, lt_survey *survey);
void lt_survey_close(lt_survey *survey);

/* Opens spool `index` and loads its documents; those that are dropped are in no split. The caller closes it,
 * also after an error. Local, thread-safe. */
lt_status lt_survey_load(const lt_survey *survey, int64_t index, lt_spool *spool);

#endif
