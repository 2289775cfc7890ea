/* Which rows are left out: lt_document_filter. Internal to data/documents. */
#ifndef LT_DATA_DOCUMENTS_FILTER_H
#define LT_DATA_DOCUMENTS_FILTER_H

#include "data/documents.h"

#define LT_SCORE_KEY "int_score"
#define LT_LANGUAGE_KEY "language"

/* What a row has beside its text. */
typedef struct lt_document_row {
    bool scored;
    double score;
    const char *language; /* NULL: none */
    size_t language_bytes;
} lt_document_row;

/* Whether these columns or keys must be read. */
bool lt_filter_scores(const lt_documents *documents);
bool lt_filter_languages(const lt_documents *documents);

/* Whether a row is a document; else it is counted, by the first reason. */
bool lt_filter_keeps(lt_documents *documents, const lt_document_row *row, const char *text, size_t bytes);

#endif
