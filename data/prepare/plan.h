/* What is to be done: the input files cut into pieces, and everything that decides the result. Internal to
 * data/prepare. */
#ifndef LT_DATA_PREPARE_PLAN_H
#define LT_DATA_PREPARE_PLAN_H

#include "data/prepare/prepare.h"
#include "data/tokenizer.h"

#include <jansson.h>

typedef struct lt_prepare_piece {
    int64_t file, begin, end; /* borders of lt_documents_cut() */
    int64_t bytes;            /* of the file, about */
} lt_prepare_piece;

typedef struct lt_prepare_plan {
    const lt_prepare_options *options;
    lt_tokenizer *tokenizer;
    int token_bytes; /* 2 up to a vocabulary of 65,536 */
    lt_files *files;
    lt_prepare_piece *pieces;
    int64_t piece_count, piece_capacity;
    json_t *about; /* "tokenizer", "settings", "inputs": as the manifest has them */
    json_t *begun; /* the same with what must not change while the folder is half done */
} lt_prepare_plan;

/* Opens tokenizer and files. LT_BAD_INPUT: bad or missing ones. Local: ranks that see the same files make the
 * same plan. The options outlive it; the caller closes it, also after an error. */
lt_status lt_prepare_plan_open(const lt_prepare_options *options, lt_prepare_plan *plan);
void lt_prepare_plan_close(lt_prepare_plan *plan);

/* LT_BAD_INPUT: the folder was made or begun with something else than `now`: what, there and here. */
lt_status lt_prepare_plan_compare(const char *folder, const json_t *there, const json_t *now);

/* A JSON string of a file name, with \xNN for bytes that are not UTF-8. */
json_t *lt_json_name(const char *name);

#endif
