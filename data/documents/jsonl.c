/* JSON Lines: each line is an object, its document the string under the text key.
 *
 * A row without the key, or with null there, is skipped and counted; one with another type is an error, and
 * so is a file none of whose rows has the key. Of a key that stands twice the last one counts, as in most
 * readers. Integers may have more than 64 bits. Lines of white space alone, a BOM at the start and a missing
 * last line end are nothing; what is not UTF-8, a lone surrogate, NaN, or a number beyond a double is broken
 * JSON. */
#include "data/documents/filter.h"
#include "data/documents/json_row.h"

#include <inttypes.h>
#include <jansson.h>
#include <stdlib.h>
#include <string.h>

enum { KEYS_BYTES = 200 };

typedef struct jsonl_documents {
    lt_documents base;
    lt_pieces pieces;
    int64_t begin, end; /* bytes: of the first line; a line that begins at the end is the next piece's */
    json_t *row;        /* holds the document that was given last, or */
    char *text;         /* malloc'ed [text_capacity] */
    size_t text_capacity;
    char keys[KEYS_BYTES]; /* of the first row without the key, for the message */
} jsonl_documents;

/* Counts the line ends from byte `from` to `to`, or moves `*from` behind the first one, or to `to`. */
static lt_status find_line_ends(const lt_documents *documents, int64_t *from, int64_t to, int64_t *count) {
    char block[1 << 14];
    while (*from < to) {
        const size_t size = to - *from < (int64_t)sizeof block ? (size_t)(to - *from) : sizeof block;
        LT_CHECK(lt_files_read(documents->files, documents->file, *from, block, size));
        for (const char *at = block; (at = memchr(at, '\n', size - (size_t)(at - block))) != NULL;) {
            at++;
            if (count == NULL) {
                *from += at - block;
                return LT_OK;
            }
            ++*count;
        }
        *from += (int64_t)size;
    }
    return LT_OK;
}

/* A piece begins with the first line that begins in it. */
static lt_status skip_line(jsonl_documents *rows) {
    const lt_documents *documents = &rows->base;
    rows->begin = documents->options.begin - 1;
    LT_CHECK(
        find_line_ends(documents, &rows->begin, lt_files_bytes(documents->files, documents->file), NULL));
    lt_stream_seek(rows->pieces.stream, rows->begin);
    rows->pieces.place = rows->begin;
    return LT_OK;
}

/* The number in the file of the line that was read last, for messages, which it leaves as it is. */
static int64_t line_number(const jsonl_documents *rows) {
    char message[LT_ERROR_MESSAGE_BYTES];
    int64_t at = 0, before = 0;
    snprintf(message, sizeof message, "%s", lt_error_message());
    if (find_line_ends(&rows->base, &at, rows->begin, &before) != LT_OK) before = 0;
    (void)lt_fail(LT_OK, "%s", message);
    return before + rows->base.lines;
}

static lt_status jsonl_open(lt_documents *documents) {
    jsonl_documents *rows = (jsonl_documents *)documents;
    rows->pieces.separator = "\n";
    rows->pieces.limit_bytes = documents->options.limit_bytes;
    rows->end = documents->options.end == 0 ? INT64_MAX : documents->options.end;
    LT_CHECK(lt_stream_open(documents->files, documents->file, documents->compression, &rows->pieces.stream));
    return documents->options.begin == 0 ? LT_OK : skip_line(rows);
}

/* The next line; NULL behind the last. */
static lt_status next_line(jsonl_documents *rows, const char **text, size_t *bytes) {
    lt_documents *documents = &rows->base;
    lt_piece piece;
    if (rows->pieces.place >= rows->end) {
        *text = NULL;
        return LT_OK;
    }
    const lt_status status = lt_pieces_next(&rows->pieces, text, bytes, &piece);
    if (status != LT_OK)
        return lt_fail(status, "%s (while reading line %" PRId64 ")", lt_error_message(),
                       line_number(rows) + 1);
    documents->text_bytes = rows->pieces.place - rows->begin;
    documents->file_bytes = lt_stream_offset(rows->pieces.stream) - rows->begin;
    documents->lines += piece != LT_PIECE_NONE;
    if (piece == LT_PIECE_TOO_LONG)
        return lt_fail(LT_BAD_INPUT,
                       "%s: '%s' line %" PRId64
                       " has more than %zu bytes, the longest that is read; split or remove it",
                       lt_files_key(documents->files), lt_files_path(documents->files, documents->file),
                       line_number(rows), documents->options.limit_bytes);
    if (piece == LT_PIECE_NONE) *text = NULL;
    if (documents->lines == 1 && rows->begin == 0 && *text != NULL && *bytes >= 3 &&
        memcmp(*text, "\xef\xbb\xbf", 3) == 0) {
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
                       line_number(rows), bytes);
    if (rows->row == NULL)
        return lt_fail(LT_BAD_INPUT, "%s: '%s' line %" PRId64 ": broken JSON at byte %d of the line: %s", key,
                       path, line_number(rows), error.position, error.text);
    if (!json_is_object(rows->row))
        return lt_fail(LT_BAD_INPUT, "%s: '%s' line %" PRId64 " is %s, expected a JSON object a line", key,
                       path, line_number(rows), type_name(rows->row));
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
    const lt_documents_seen *seen = &documents->seen;
    if (documents->options.end != 0) return LT_OK;
    const bool scored = !lt_filter_scores(documents) || seen->score;
    if (seen->text && (!scored || (lt_filter_languages(documents) && !seen->language)))
        return lt_fail(LT_BAD_INPUT,
                       "%s: '%s': none of its rows has the key '%s', which data.filter.%s needs",
                       lt_files_key(documents->files), lt_files_path(documents->files, documents->file),
                       scored ? LT_LANGUAGE_KEY : LT_SCORE_KEY, scored ? "language" : "min_int_score");
    if (seen->key || rows->base.without_key == 0) return LT_OK;
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
                   line_number(rows), key, type_name(value), expected);
}

/* What the filter looks at. */
static lt_status read_row(jsonl_documents *rows, lt_document_row *row) {
    *row = (lt_document_row){0};
    rows->base.seen.text = true;
    const json_t *score = lt_filter_scores(&rows->base) ? json_object_get(rows->row, LT_SCORE_KEY) : NULL;
    const json_t *language =
        lt_filter_languages(&rows->base) ? json_object_get(rows->row, LT_LANGUAGE_KEY) : NULL;
    rows->base.seen.score |= score != NULL;
    rows->base.seen.language |= language != NULL;
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

/* A string of the row, with its escapes resolved in rows->text. */
static lt_status take_string(jsonl_documents *rows, const lt_json_value *string, lt_document *document) {
    document->text = string->begin;
    document->bytes = string->bytes;
    if (!string->escaped) return LT_OK;
    if (string->bytes > rows->text_capacity) {
        free(rows->text);
        rows->text_capacity = 0;
        rows->text = malloc(2 * string->bytes);
        if (rows->text == NULL) return lt_stream_no_memory(rows->pieces.stream);
        rows->text_capacity = 2 * string->bytes;
    }
    document->text = rows->text;
    document->bytes = lt_json_unescape(string, rows->text);
    return LT_OK;
}

/* Reads a common row without the parser; *read false: the parser is to read it. `row` is what the filter
 * looks at; document->text is NULL where the row has null. */
static lt_status read_common(jsonl_documents *rows, const char *line, size_t bytes, lt_document *document,
                             lt_document_row *row, bool *read) {
    lt_documents *documents = &rows->base;
    lt_json_value wanted[] = {
        {.key = documents->options.text_key}, {.key = LT_SCORE_KEY}, {.key = LT_LANGUAGE_KEY}};
    const lt_json_value *text = &wanted[0], *score = &wanted[1], *language = &wanted[2];
    const bool filters = lt_filter_scores(documents) || lt_filter_languages(documents);
    *read = false;
    *row = (lt_document_row){0};
    if (!lt_json_row(line, bytes, wanted, filters ? 3 : 1)) return LT_OK;
    if (text->kind != LT_JSON_STRING && text->kind != LT_JSON_NULL) return LT_OK;
    if (filters &&
        (score->kind == LT_JSON_STRING || score->kind == LT_JSON_OTHER || language->kind == LT_JSON_NUMBER ||
         language->kind == LT_JSON_OTHER || (language->kind == LT_JSON_STRING && language->escaped)))
        return LT_OK;
    *read = true;
    documents->seen.key = true;
    document->text = NULL;
    if (text->kind == LT_JSON_NULL) return LT_OK;
    documents->seen.text = true;
    documents->seen.score |= filters && score->kind != LT_JSON_MISSING;
    documents->seen.language |= filters && language->kind != LT_JSON_MISSING;
    row->scored = filters && score->kind == LT_JSON_NUMBER;
    if (row->scored) row->score = strtod(score->begin, NULL); /* the row goes on behind it */
    if (filters && language->kind == LT_JSON_STRING) {
        row->language = language->begin;
        row->language_bytes = language->bytes;
    }
    return take_string(rows, text, document);
}

/* Reads any row, or says what is wrong with it; document->text is NULL where it has no text. */
static lt_status read_any(jsonl_documents *rows, const char *line, size_t bytes, lt_document *document,
                          lt_document_row *row) {
    lt_documents *documents = &rows->base;
    document->text = NULL;
    LT_CHECK(parse(rows, line, bytes));
    const json_t *value = json_object_get(rows->row, documents->options.text_key);
    if (value == NULL && documents->without_key++ == 0) note_keys(rows);
    if (value == NULL) return LT_OK;
    documents->seen.key = true;
    documents->null += json_is_null(value);
    if (json_is_null(value)) return LT_OK;
    if (!json_is_string(value)) return wrong_type(rows, documents->options.text_key, value, "a string");
    LT_CHECK(read_row(rows, row));
    document->text = json_string_value(value);
    document->bytes = json_string_length(value);
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
        lt_document_row row;
        bool read;
        LT_CHECK(read_common(rows, text, bytes, document, &row, &read));
        if (read)
            documents->null += document->text == NULL;
        else
            LT_CHECK(read_any(rows, text, bytes, document, &row));
        document->place = documents->lines;
        if (document->text == NULL) continue;
        *found = lt_filter_keeps(documents, &row, document->text, document->bytes);
        if (*found) return LT_OK;
    }
}

static void jsonl_close(lt_documents *documents) {
    jsonl_documents *rows = (jsonl_documents *)documents;
    json_decref(rows->row);
    free(rows->text);
    lt_stream_close(rows->pieces.stream);
    free(rows->pieces.data);
}

static lt_status jsonl_cut(lt_documents *documents, int64_t bytes, lt_document_borders *borders) {
    const int64_t size = lt_files_bytes(documents->files, documents->file);
    for (int64_t at = 0; at < size; at += bytes) LT_CHECK(lt_document_borders_add(borders, at));
    return lt_document_borders_add(borders, size);
}

const lt_document_kind lt_jsonl_documents = {
    "JSON Lines", "line", sizeof(jsonl_documents), jsonl_open, jsonl_next, jsonl_close, NULL, NULL, jsonl_cut,
};
