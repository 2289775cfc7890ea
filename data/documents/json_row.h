/* A row of JSON Lines, read for a few of its keys alone, several times faster than a parser that builds
 * values. Common rows only: what is broken, or rare, is left to that parser, which has the say and the
 * messages. Internal to data/documents. Local. */
#ifndef LT_DATA_DOCUMENTS_JSON_ROW_H
#define LT_DATA_DOCUMENTS_JSON_ROW_H

#include <stdbool.h>
#include <stddef.h>

typedef enum lt_json_kind {
    LT_JSON_MISSING,
    LT_JSON_NULL,
    LT_JSON_STRING,
    LT_JSON_NUMBER,
    LT_JSON_OTHER
} lt_json_kind;

typedef struct lt_json_value {
    const char *key; /* wanted: the caller's */
    lt_json_kind kind;
    const char *begin; /* in the row: of a string, what stands between the quotes */
    size_t bytes;
    bool escaped; /* a string with backslashes */
} lt_json_value;

/* Fills in the values of the wanted keys of an object; of a key that stands twice the last one. False: it is
 * no JSON object, or one that only the parser can judge. */
bool lt_json_row(const char *row, size_t bytes, lt_json_value *wanted, int count);

/* Copies an escaped string to `to`, which has room for its bytes; returns how many it has. */
size_t lt_json_unescape(const lt_json_value *string, char *to);

#endif
