/* The other half of config_value.h: values written as YAML, compared, copied, cleared. */
#include "trainer/config_value.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* The shortest text that reads back as `value`, with a point: YAML 1.1 readers take 1e-08 for a string. */
static void write_number(double value, FILE *out) {
    char text[40];
    for (int digits = 15; digits <= 17; digits++) {
        snprintf(text, sizeof text, "%.*g", digits, value);
        if (strtod(text, NULL) == value) break;
    }
    const char *exponent = strchr(text, 'e');
    int mantissa = exponent != NULL ? (int)(exponent - text) : (int)strlen(text);
    bool point = memchr(text, '.', (size_t)mantissa) != NULL;
    fprintf(out, "%.*s%s%s", mantissa, text, point ? "" : ".0", exponent != NULL ? exponent : "");
}

/* The character at `text`, which is valid UTF-8 (the YAML reader saw to it), and its length. */
static unsigned decode(const char *text, int *length) {
    const unsigned char *c = (const unsigned char *)text;
    *length = c[0] < 0x80 ? 1 : c[0] < 0xE0 ? 2 : c[0] < 0xF0 ? 3 : 4;
    unsigned character = *length == 1 ? c[0] : c[0] & (0x7FU >> *length);
    for (int i = 1; i < *length; i++) {
        if ((c[i] & 0xC0) != 0x80) { /* never past the end of a text that is not UTF-8 after all */
            *length = i;
            break;
        }
        character = character << 6 | (c[i] & 0x3FU);
    }
    return character;
}

/* A double-quoted scalar; what YAML does not take as it is, or would fold, is escaped. */
static void write_text(const char *text, FILE *out) {
    fputc('"', out);
    int length;
    for (; *text != '\0'; text += length) {
        unsigned character = decode(text, &length);
        bool special = character < 0x20 || (character >= 0x7F && character <= 0xA0) || character == 0x2028 ||
                       character == 0x2029 || character == 0xFEFF || character == 0xFFFE ||
                       character == 0xFFFF;
        if (character == '"' || character == '\\') {
            fprintf(out, "\\%c", (char)character);
        } else if (special) {
            fprintf(out, "\\u%04X", character);
        } else {
            fwrite(text, 1, (size_t)length, out);
        }
    }
    fputc('"', out);
}

/* [a, b]; [{path: a, weight: 1.0}, ...] with weights; or {name: [a], other: [b, c]} if the sources have
 * names. */
static void write_sources(const lt_config_sources *sources, FILE *out) {
    bool named = sources->count > 0 && sources->item[0].name != NULL;
    fputs(named ? "{" : "[", out);
    for (int i = 0; i < sources->count; i++) {
        const lt_config_source *item = &sources->item[i];
        bool opens = named && (i == 0 || strcmp(item->name, sources->item[i - 1].name) != 0);
        if (i > 0) fputs(opens ? "], " : ", ", out);
        if (opens) {
            write_text(item->name, out);
            fputs(": [", out);
        }
        if (item->weight > 0) fputs("{path: ", out);
        write_text(item->path, out);
        if (item->weight > 0) {
            fputs(", weight: ", out);
            write_number(item->weight, out);
            fputc('}', out);
        }
    }
    fputs(named ? "]}" : "]", out);
}

static bool is_empty(const lt_config_key *key, const void *value) {
    switch (key->type) {
    case LT_KEY_INTEGER:
    case LT_KEY_BYTES:
        return *(const int64_t *)value == key->empty;
    case LT_KEY_NUMBER:
        return *(const double *)value == (double)key->empty;
    case LT_KEY_STRING:
        return *(char *const *)value == NULL;
    case LT_KEY_SOURCES:
        return ((const lt_config_sources *)value)->count == 0;
    default:
        return false;
    }
}

void lt_value_write(const lt_config_key *key, const lt_config *config, FILE *out) {
    const void *value = lt_config_value(key, config);
    if (key->word != NULL && is_empty(key, value)) {
        fputs(key->word, out);
        return;
    }
    switch (key->type) {
    case LT_KEY_INTEGER:
    case LT_KEY_BYTES:
        fprintf(out, "%" PRId64, *(const int64_t *)value);
        break;
    case LT_KEY_NUMBER:
        write_number(*(const double *)value, out);
        break;
    case LT_KEY_PAIR:
        fputc('[', out);
        write_number(((const double *)value)[0], out);
        fputs(", ", out);
        write_number(((const double *)value)[1], out);
        fputc(']', out);
        break;
    case LT_KEY_BOOLEAN:
        fputs(*(const bool *)value ? "true" : "false", out);
        break;
    case LT_KEY_CHOICE:
    case LT_KEY_STRING: {
        const char *text = *(char *const *)value;
        if (text == NULL) {
            fputc('~', out);
        } else if (key->type == LT_KEY_CHOICE) {
            fputs(text, out);
        } else {
            write_text(text, out);
        }
        break;
    }
    case LT_KEY_SOURCES:
        write_sources(value, out);
        break;
    }
}

static bool same_text(const char *a, const char *b) {
    return a == NULL || b == NULL ? a == b : strcmp(a, b) == 0;
}

bool lt_value_equal(const lt_config_key *key, const lt_config *a, const lt_config *b) {
    const void *x = lt_config_value(key, a), *y = lt_config_value(key, b);
    const double *p = x, *q = y;
    switch (key->type) {
    case LT_KEY_INTEGER:
    case LT_KEY_BYTES:
        return *(const int64_t *)x == *(const int64_t *)y;
    case LT_KEY_NUMBER:
        return p[0] == q[0];
    case LT_KEY_PAIR:
        return p[0] == q[0] && p[1] == q[1];
    case LT_KEY_BOOLEAN:
        return *(const bool *)x == *(const bool *)y;
    case LT_KEY_CHOICE:
    case LT_KEY_STRING:
        return same_text(*(char *const *)x, *(char *const *)y);
    case LT_KEY_SOURCES:
        break;
    }
    const lt_config_sources *s = x, *t = y;
    if (s->count != t->count) return false;
    for (int i = 0; i < s->count; i++) {
        bool same = same_text(s->item[i].path, t->item[i].path) &&
                    same_text(s->item[i].name, t->item[i].name) && s->item[i].weight == t->item[i].weight;
        if (!same) return false;
    }
    return true;
}

static lt_status copy_text(const char *text, char **copy) {
    *copy = text != NULL ? strdup(text) : NULL;
    return text == NULL || *copy != NULL ? LT_OK : lt_fail(LT_IO, "out of memory while reading the config");
}

lt_status lt_value_copy(const lt_config_key *key, const lt_config *from, lt_config *to) {
    lt_value_clear(key, to);
    const void *source = lt_config_value(key, from);
    void *target = lt_config_field(key, to);
    switch (key->type) {
    case LT_KEY_INTEGER:
    case LT_KEY_BYTES:
        *(int64_t *)target = *(const int64_t *)source;
        break;
    case LT_KEY_NUMBER:
        *(double *)target = *(const double *)source;
        break;
    case LT_KEY_PAIR:
        memcpy(target, source, 2 * sizeof(double));
        break;
    case LT_KEY_BOOLEAN:
        *(bool *)target = *(const bool *)source;
        break;
    case LT_KEY_CHOICE:
    case LT_KEY_STRING:
        return copy_text(*(char *const *)source, target);
    case LT_KEY_SOURCES: {
        const lt_config_sources *sources = source;
        lt_config_sources *copies = target;
        for (int i = 0; i < sources->count; i++) {
            lt_config_source *copy =
                &copies->item[copies->count++]; /* counted first: what is there is freed */
            copy->weight = sources->item[i].weight;
            LT_CHECK(copy_text(sources->item[i].path, &copy->path));
            LT_CHECK(copy_text(sources->item[i].name, &copy->name));
        }
        break;
    }
    }
    return LT_OK;
}

void lt_value_clear(const lt_config_key *key, lt_config *config) {
    void *value = lt_config_field(key, config);
    switch (key->type) {
    case LT_KEY_INTEGER:
    case LT_KEY_BYTES:
        *(int64_t *)value = key->empty;
        break;
    case LT_KEY_NUMBER:
        *(double *)value = (double)key->empty;
        break;
    case LT_KEY_PAIR:
        memset(value, 0, 2 * sizeof(double));
        break;
    case LT_KEY_BOOLEAN:
        *(bool *)value = false;
        break;
    case LT_KEY_CHOICE:
    case LT_KEY_STRING:
        free(*(char **)value);
        *(char **)value = NULL;
        break;
    case LT_KEY_SOURCES: {
        lt_config_sources *sources = value;
        for (int i = 0; i < sources->count; i++) {
            free(sources->item[i].path);
            free(sources->item[i].name);
        }
        memset(sources, 0, sizeof *sources);
        break;
    }
    }
}

lt_status lt_value_default(const lt_config_key *key, lt_config *config) {
    lt_value_clear(key, config);
    if (key->fallback == NULL) return LT_OK;
    if (key->type == LT_KEY_PAIR) {
        double *pair = lt_config_field(key, config);
        sscanf(key->fallback, "[%lf, %lf]", &pair[0], &pair[1]);
        return LT_OK;
    }
    lt_scalar scalar = {.text = key->fallback, .length = strlen(key->fallback), .plain = true};
    lt_config_place place = {.file = "the table of defaults"};
    return lt_value_set(key, &scalar, &place, config);
}
