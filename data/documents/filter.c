/* The filter of rows. */
#include "data/documents/filter.h"

#include <string.h>

bool lt_filter_scores(const lt_documents *documents) {
    return documents->options.filter->min_int_score >= 0;
}

bool lt_filter_languages(const lt_documents *documents) {
    return documents->options.filter->language != NULL;
}

static bool is_language(const char *language, const lt_document_row *row) {
    return row->language != NULL && row->language_bytes == strlen(language) &&
           memcmp(row->language, language, row->language_bytes) == 0;
}

/* Code points: bytes that continue none. */
static int64_t count_characters(const char *text, size_t bytes) {
    int64_t count = 0;
    for (size_t i = 0; i < bytes; i++) count += ((unsigned char)text[i] & 0xc0) != 0x80;
    return count;
}

bool lt_filter_keeps(lt_documents *documents, const lt_document_row *row, const char *text, size_t bytes) {
    const lt_document_filter *filter = documents->options.filter;
    lt_document_drops *dropped = &documents->dropped;
    if (lt_filter_scores(documents) && !(row->scored && row->score >= (double)filter->min_int_score))
        return dropped->int_score++, false;
    if (lt_filter_languages(documents) && !is_language(filter->language, row))
        return dropped->language++, false;
    if (filter->min_chars < 0 && filter->max_chars < 0) return true;
    const int64_t characters = count_characters(text, bytes);
    if (characters < filter->min_chars) return dropped->min_chars++, false;
    if (filter->max_chars >= 0 && characters > filter->max_chars) return dropped->max_chars++, false;
    return true;
}
