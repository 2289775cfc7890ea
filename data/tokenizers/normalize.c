/* memmem() is GNU's. */
#define _GNU_SOURCE
#include "data/tokenizers/normalize.h"

#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <utf8proc.h>

void lt_normalizers_free(lt_normalizers *normalizers) {
    for (int i = 0; i < normalizers->count; i++) {
        free(normalizers->at[i].what);
        free(normalizers->at[i].with);
    }
    normalizers->count = 0;
}

void lt_normalize_space_free(lt_normalize_space *space) {
    free(space->text[0]);
    free(space->text[1]);
    *space = (lt_normalize_space){0};
}

/* A step from one text to the other. */
typedef struct text_step {
    const char *text;
    size_t bytes;
    char **out;
    size_t *capacity;
} text_step;

static lt_status reserve(const text_step *step, size_t bytes) {
    if (bytes <= *step->capacity) return LT_OK;
    char *grown = realloc(*step->out, bytes);
    if (grown == NULL) return lt_fail(LT_IO, "no memory to normalize a text of %zu bytes", step->bytes);
    *step->out = grown;
    *step->capacity = bytes;
    return LT_OK;
}

/* ---- normalization forms ---- */

/* Every form leaves ASCII alone; the composed ones leave everything below U+0300 (bytes up to 0xcb) alone,
 * but for the compatibility characters of Latin-1 under K. */
static bool stays(lt_normalizer_kind kind, const char *text, size_t bytes) {
    const unsigned char first = kind == LT_NFC ? 0xcc : 0x80;
    unsigned char greatest = 0;
    for (size_t i = 0; i < bytes; i++)
        greatest = (unsigned char)text[i] > greatest ? (unsigned char)text[i] : greatest;
    return greatest < first;
}

static utf8proc_option_t options_of(lt_normalizer_kind kind) {
    const utf8proc_option_t form = kind == LT_NFC || kind == LT_NFKC ? UTF8PROC_COMPOSE : UTF8PROC_DECOMPOSE;
    const utf8proc_option_t compatibility = kind == LT_NFKC || kind == LT_NFKD ? UTF8PROC_COMPAT : 0;
    return UTF8PROC_STABLE | form | compatibility;
}

static lt_status apply_form(const text_step *step, lt_normalizer_kind kind, size_t *bytes) {
    utf8proc_uint8_t *result = NULL;
    const utf8proc_ssize_t length = utf8proc_map((const utf8proc_uint8_t *)step->text,
                                                 (utf8proc_ssize_t)step->bytes, &result, options_of(kind));
    if (length < 0)
        return lt_fail(length == UTF8PROC_ERROR_NOMEM ? LT_IO : LT_FAILED,
                       "a text of %zu bytes cannot be normalized: %s", step->bytes, utf8proc_errmsg(length));
    free(*step->out);
    *step->out = (char *)result;
    *step->capacity = *bytes = (size_t)length;
    return LT_OK;
}

/* ---- strings ---- */

static lt_status prepend(const text_step *step, const char *with, size_t *bytes) {
    const size_t length = strlen(with);
    LT_CHECK(reserve(step, length + step->bytes));
    memcpy(*step->out, with, length);
    memcpy(*step->out + length, step->text, step->bytes);
    *bytes = length + step->bytes;
    return LT_OK;
}

static const char *find(const char *text, size_t bytes, const char *what, size_t length) {
    return length == 1 ? memchr(text, what[0], bytes) : memmem(text, bytes, what, length);
}

static lt_status replace(const text_step *step, const char *what, const char *with, size_t *bytes) {
    const size_t length = strlen(what), put = strlen(with);
    const char *end = step->text + step->bytes, *found;
    size_t count = 0;
    for (const char *at = step->text; (found = find(at, (size_t)(end - at), what, length)) != NULL;
         at = found + length)
        count++;
    LT_CHECK(reserve(step, step->bytes + count * put)); /* at least */
    char *out = *step->out;
    const char *at = step->text;
    for (; (found = find(at, (size_t)(end - at), what, length)) != NULL; at = found + length) {
        memcpy(out, at, (size_t)(found - at));
        out += found - at;
        memcpy(out, with, put);
        out += put;
    }
    memcpy(out, at, (size_t)(end - at));
    *bytes = (size_t)(out - *step->out) + (size_t)(end - at);
    return LT_OK;
}

lt_status lt_normalize(const lt_normalizers *normalizers, lt_normalize_space *space, const char **text,
                       size_t *bytes) {
    int side = 0;
    for (int i = 0; i<normalizers->count && * bytes> 0; i++) {
        const lt_normalizer *normalizer = &normalizers->at[i];
        const text_step step = {*text, *bytes, &space->text[side], &space->capacity[side]};
        if (normalizer->kind == LT_PREPEND)
            LT_CHECK(prepend(&step, normalizer->with, bytes));
        else if (normalizer->kind == LT_REPLACE)
            LT_CHECK(replace(&step, normalizer->what, normalizer->with, bytes));
        else if (stays(normalizer->kind, *text, *bytes))
            continue;
        else
            LT_CHECK(apply_form(&step, normalizer->kind, bytes));
        *text = space->text[side];
        side = 1 - side;
    }
    return LT_OK;
}
