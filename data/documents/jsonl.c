/* JSON Lines: each line is an object, its document the string under the text key.
 *
 * A row without the key, or with null there, is skipped and counted; one with another type is an error, and
 * so is a file none of whose rows has the key. Of a key that stands twice the last one counts, as in most
 * readers. Integers may have more than 64 bits. Lines of white space alone, a BOM at the start and a missing
 * last line end are nothing; what is not UTF-8, a lone surrogate, NaN, or a number beyond a double is broken
 * JSON. */
#include "data/documents/filter.h"

#include <inttypes.h>
#include <jansson.h>
#include <stdlib.h>
#include <string.h>

enum { KEYS_BYTES = 200 };

typedef struct jsonl_documents {
    lt_documents base;
    lt_pieces pieces;
    int64_t line;                           /* the last one that was read */
    json_t *row;                            /* holds the document that was given last */
    bool any_key;                           /* a row has had the key */
    bool any_text, any_score, any_language; /* a row has had a text, and of these rows one the filter's key */
    char keys[KEYS_BYTES];                  /* of the first row without it, for the message */
} jsonl_documents;

static lt_status jsonl_open(lt_documents *documents) {
    jsonl_documents *rows = (jsonl_documents *)documents;
    rows->pieces.separator = "\n";
    rows->pieces.limit_bytes = documents->options.limit_bytes;
    return lt_stream_open(documents->files, documents->file, documents->compression, &rows->pieces.stream);
}

/* The next line; NULL behind the last. */
static lt_status next_line(jsonl_documents *rows, const char **text, size_t *bytes) {
    lt_documents *documents = &rows->base;
    lt_piece piece;
    const lt_status status = lt_pieces_next(&rows->pieces, text, bytes, &piece);
    if (status != LT_OK)
        return lt_fail(status, "%s (while reading line %" PRId64 ")", lt_error_message(), rows->line + 1);
    documents->text_bytes = rows->pieces.place;
    rows->line++;
    if (piece == LT_PIECE_TOO_LONG)
        return lt_fail(LT_BAD_INPUT,
                       "%s: '%s' line %" PRId64
                       " has more than %zu bytes, the longest that is read; split or remove it",
                       lt_files_key(documents->files), lt_files_path(documents->files, documents->file),
                       rows->line, documents->options.limit_bytes);
    if (piece == LT_PIECE_NONE) *text = NULL;
    if (rows->line == 1 && *text != NULL && *bytes >= 3 && memcmp(*text, "\xef\xbb\xbf", 3) == 0) {
        *text += 3;
        *bytes -= 3;
    }
    return LT_OK;
}

static bool is_blank(const char *text, size_t bytes) {
    while (bytes > 0 && strchr(" \t\r", text[bytes - 1]) != NULL && text[bytes - 1] != '\0') bytes--;
    return bytes == 0;
}

static const char *type_name(const json_t *value) {
    switch (json_typeof(value)) {
    case JSON_OBJECT:
        return "an object";
    case JSON_ARRAY:
        return "a list";
    case JSON_STRING:
        return "a string";
    case JSON_NULL:
        return "null";
    case JSON_TRUE:
    case JSON_FALSE:
        return "a boolean";
    default:
        return "a number";
    }
}

static lt_status parse(jsonl_documents *rows, const char *text, size_t bytes) {
    const char *key = lt_files_key(rows->base.files),
               *path = lt_files_path(rows->base.files, rows->base.file);
    json_error_t error;
    json_decref(rows->row);
    /* Integers as reals: those of more than 64 bits are read, too. */
    rows->row = json_loadb(text, bytes, JSON_ALLOW_NUL | JSON_DECODE_ANY | JSON_DECODE_INT_AS_REAL, &error);
    if (rows->row == NULL && json_error_code(&error) == json_error_out_of_memory)
        return lt_fail(LT_IO, "%s: '%s' line %" PRId64 ": no memory for %zu bytes of JSON", key, path,
                       rows->line, bytes);
    if (rows->row == NULL)
        return lt_fail(LT_BAD_INPUT, "%s: '%s' line %" PRId64 ": broken JSON at byte %d of the line: %s", key,
                       path, rows->line, error.position, error.text);
    if (!json_is_object(rows->row))
        return lt_fail(LT_BAD_INPUT, "%s: '%s' line %" PRId64 " is %s, expected a JSON object a line", key,
                       path, rows->line, type_name(rows->row));
    return LT_OK;
}

/* "query, choices, gold": the keys of the row, as many as there is room for. */
static void note_keys(jsonl_documents *rows) {
    const char *key;
    json_t *value;
    size_t used = 0;
    json_object_foreach(rows->row, key, value) {
        const int size = snprintf(rows->keys + used, KEYS_BYTES - used, used == 0 ? "%s" : ", %s", key);
        if (size < 0 || (size_t)size >= KEYS_BYTES - used) break;
        used += (size_t)size;
    }
}

/* A wrong key is told from a file without documents. */
static lt_status check_end(const jsonl_documents *rows) {
    const lt_documents *documents = &rows->base;
    const bool scored = !lt_filter_scores(documents) || rows->any_score;
    if (rows->any_text && (!scored || (lt_filter_languages(documents) && !rows->any_language)))
        return lt_fail(LT_BAD_INPUT,
                       "%s: '%s': none of its rows has the key '%s', which data.filter.%s needs",
                       lt_files_key(documents->files), lt_files_path(documents->files, documents->file),
                       scored ? LT_LANGUAGE_KEY : LT_SCORE_KEY, scored ? "language" : "min_int_score");
    if (rows->any_key || rows->base.without_key == 0) return LT_OK;
    return lt_fail(
        LT_BAD_INPUT,
        "%s: '%s': none of its %" PRId64 " rows has the key '%s' (data.text_key); the first one has: %s",
        lt_files_key(rows->base.files), lt_files_path(rows->base.files, rows->base.file),
        rows->base.without_key, rows->base.options.text_key, rows->keys[0] != '\0' ? rows->keys : "none");
}

static lt_status wrong_type(const jsonl_documents *rows, const char *key, const json_t *value,
                            const char *expected) {
    return lt_fail(LT_BAD_INPUT, "%s: '%s' line %" PRId64 ": '%s' is %s, expected %s or null",
                   lt_files_key(rows->base.files), lt_files_path(rows->base.files, rows->base.file),
                   rows->line, key, type_name(value), expected);
}

/* What the filter looks at. */
static lt_status read_row(jsonl_documents *rows, lt_document_row *row) {
    *row = (lt_document_row){0};
    rows->any_text = true;
    const json_t *score = lt_filter_scores(&rows->base) ? json_object_get(rows->row, LT_SCORE_KEY) : NULL;
    const json_t *language =
        lt_filter_languages(&rows->base) ? json_object_get(rows->row, LT_LANGUAGE_KEY) : NULL;
    rows->any_score |= score != NULL;
    rows->any_language |= language != NULL;
    if (score != NULL && !json_is_null(score)) {
        if (!json_is_number(score)) return wrong_type(rows, LT_SCORE_KEY, score, "a number");
        row->scored = true;
        row->score = json_number_value(score);
    }
    if (language != NULL && !json_is_null(language)) {
        if (!json_is_string(language)) return wrong_type(rows, LT_LANGUAGE_KEY, language, "a string");
        row->language = json_string_value(language);
        row->language_bytes = json_string_length(language);
    }
    return LT_OK;
}

static lt_status jsonl_next(lt_documents *documents, lt_document *document, bool *found) {
    jsonl_documents *rows = (jsonl_documents *)documents;
    *found = false;
    for (;;) {
        const char *text;
        size_t bytes;
        LT_CHECK(next_line(rows, &text, &bytes));
        if (text == NULL) return check_end(rows);
        if (is_blank(text, bytes)) continue;
        LT_CHECK(parse(rows, text, bytes));
        const json_t *value = json_object_get(rows->row, documents->options.text_key);
        if (value == NULL && documents->without_key++ == 0) note_keys(rows);
        if (value == NULL) continue;
        rows->any_key = true;
        if (json_is_null(value)) {
            documents->null++;
            continue;
        }
        if (!json_is_string(value)) return wrong_type(rows, documents->options.text_key, value, "a string");
        lt_document_row row;
        LT_CHECK(read_row(rows, &row));
        *document = (lt_document){json_string_value(value), json_string_length(value), rows->line};
        *found = lt_filter_keeps(documents, &row, document->text, document->bytes);
        if (*found) return LT_OK;
    }
}

static void jsonl_close(lt_documents *documents) {
    jsonl_documents *rows = (jsonl_documents *)documents;
    json_decref(rows->row);
    lt_stream_close(rows->pieces.stream);
    free(rows->pieces.data);
}

const lt_document_kind lt_jsonl_documents = {
    "JSON Lines", "line", sizeof(jsonl_documents), jsonl_open, jsonl_next, jsonl_close, NULL, NULL,
};
