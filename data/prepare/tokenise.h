/* Pieces to spools. Internal to data/prepare. */
#ifndef LT_DATA_PREPARE_TOKENISE_H
#define LT_DATA_PREPARE_TOKENISE_H

#include "data/prepare/crew.h"
#include "data/prepare/folder.h"

/* What became of a piece, once all its parts are spooled: the file piece_000012 of .work. */
typedef struct lt_piece_result {
    uint64_t magic;
    int64_t parts; /* spools */
    int64_t lines; /* of JSON Lines */
    int64_t without_key, null;
    lt_documents_seen seen;
    lt_document_drops dropped;
    int64_t bad; /* 1: it cannot be read, which the message says */
    char message[LT_ERROR_MESSAGE_BYTES];
} lt_piece_result;

/* Spools every piece that is not yet. With skip_bad a bad piece is a result, else an error. Collective. */
lt_status lt_prepare_tokenise(lt_crew *crew, const lt_prepare_plan *plan, const lt_prepare_folder *folder);

/* `*found` false: the piece is not done. Local. */
lt_status lt_piece_result_read(const lt_prepare_folder *folder, int64_t piece, lt_piece_result *result,
                               bool *found);

#endif
