/* Plain text: the whole file is one document, also an empty one; or with a separator, what lies between two.
 * The bytes are given as they are: no line end, BOM or broken UTF-8 is touched. */
#include "data/documents/filter.h"

#include <inttypes.h>
#include <stdlib.h>

typedef struct plain_documents {
    lt_documents base;
    lt_pieces pieces;
    bool given; /* the whole file, without a separator */
} plain_documents;

static lt_status plain_open(lt_documents *documents) {
    plain_documents *plain = (plain_documents *)documents;
    plain->pieces.separator = documents->options.separator;
    plain->pieces.limit_bytes = documents->options.limit_bytes;
    if (lt_filter_scores(documents) || lt_filter_languages(documents))
        return lt_fail(LT_BAD_INPUT, "%s: '%s' is plain text, which has no %s for data.filter.%s",
                       lt_files_key(documents->files), lt_files_path(documents->files, documents->file),
                       lt_filter_scores(documents) ? LT_SCORE_KEY : LT_LANGUAGE_KEY,
                       lt_filter_scores(documents) ? "min_int_score" : "language");
    return lt_stream_open(documents->files, documents->file, documents->compression, &plain->pieces.stream);
}

static lt_status next_piece(lt_documents *documents, lt_document *document, bool *found) {
    plain_documents *plain = (plain_documents *)documents;
    lt_piece piece;
    document->place = plain->pieces.place;
    LT_CHECK(lt_pieces_next(&plain->pieces, &document->text, &document->bytes, &piece));
    if (piece == LT_PIECE_TOO_LONG)
        return lt_fail(LT_BAD_INPUT,
                       "%s: '%s': the document at byte %" PRId64
                       " has more than %zu bytes, the longest that is read; split the file, or set "
                       "data.separator to what stands between its documents",
                       lt_files_key(documents->files), lt_files_path(documents->files, documents->file),
                       document->place, documents->options.limit_bytes);
    documents->text_bytes = plain->pieces.place;
    documents->file_bytes = lt_stream_offset(plain->pieces.stream);
    *found = piece == LT_PIECE_FOUND || (documents->options.separator == NULL && !plain->given);
    plain->given = true;
    return LT_OK;
}

static lt_status plain_next(lt_documents *documents, lt_document *document, bool *found) {
    do LT_CHECK(next_piece(documents, document, found));
    while (*found && !lt_filter_keeps(documents, &(lt_document_row){0}, document->text, document->bytes));
    return LT_OK;
}

static void plain_close(lt_documents *documents) {
    plain_documents *plain = (plain_documents *)documents;
    lt_stream_close(plain->pieces.stream);
    free(plain->pieces.data);
}

const lt_document_kind lt_plain_documents = {
    "text", "byte", sizeof(plain_documents), plain_open, plain_next, plain_close, NULL, NULL, NULL,
};
