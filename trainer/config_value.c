#include "trainer/config_value.h"

#include <ctype.h>
#include <errno.h>
#include <inttypes.h>
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

void lt_config_where(const lt_config_place *place, const char *key, char where[LT_WHERE_SIZE]) {
    char option[LT_CLIPPED_SIZE], line[32] = "";
    const bool in_file = place->option == NULL;
    const char *what = in_file ? place->file : lt_clip(place->option, option);
    if (in_file && place->line > 0) snprintf(line, sizeof line, ":%d", place->line);
    snprintf(where, LT_WHERE_SIZE, "%s%s%s%s%s", in_file ? "" : "--set ", what, line, key != NULL ? ": " : "",
             key != NULL ? key : "");
}

lt_status lt_config_fail(const lt_config_place *place, const char *key, const char *format, ...) {
    char message[2048], where[LT_WHERE_SIZE];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(message, sizeof message, format, arguments);
    va_end(arguments);
    lt_config_where(place, key, where);
    return lt_fail(LT_BAD_INPUT, "%s: %s", where, message);
}

const char *lt_clip(const char *text, char *clipped) {
    size_t length = strlen(text);
    if (length < LT_CLIPPED_SIZE) {
        memcpy(clipped, text, length + 1);
        return clipped;
    }
    length = LT_CLIPPED_SIZE - 4;
    while (length > 0 && ((unsigned char)text[length] & 0xC0) == 0x80) length--;
    memcpy(clipped, text, length);
    memcpy(clipped + length, "...", 4);
    return clipped;
}

/* ---- what a scalar is
 * ------------------------------------------------------------------------------------------- */

bool lt_scalar_is_null(const lt_scalar *scalar) {
    static const char *const spellings[] = {"", "~", "null", "Null", "NULL"};
    for (size_t i = 0; scalar->plain && i < sizeof spellings / sizeof *spellings; i++) {
        if (strcmp(scalar->text, spellings[i]) == 0) return true;
    }
    return false;
}

static bool parse_boolean(const char *text, bool *value) {
    static const char *const spellings[] = {"false", "False", "FALSE", "true", "True", "TRUE"};
    for (int i = 0; i < 6; i++) {
        if (strcmp(text, spellings[i]) == 0) {
            *value = i >= 3;
            return true;
        }
    }
    return false;
}

static const char *skip_digits(const char *text) {
    while (isdigit((unsigned char)*text)) text++;
    return text;
}

/* Decimal integers only: 0x10 and 010 mean different things to different YAML versions. `fits` is false past
 * 64 bits. */
static bool parse_integer(const char *text, int64_t *value, bool *fits) {
    const char *digits = text + (*text == '-' || *text == '+');
    const char *end = skip_digits(digits);
    if (end == digits || *end != '\0' || (digits[0] == '0' && digits[1] != '\0')) return false;
    errno = 0;
    *value = strtoll(text, NULL, 10);
    *fits = errno != ERANGE;
    return true;
}

/* Decimal numbers only; what strtod() takes beyond them (hexadecimal, inf, nan) is none. */
static bool parse_number(const char *text, double *value) {
    const char *whole = text + (*text == '-' || *text == '+');
    const char *end = skip_digits(whole);
    bool any = end != whole;
    if (*end == '.') {
        const char *fraction = end + 1;
        end = skip_digits(fraction);
        any = any || end != fraction;
    }
    if (any && (*end == 'e' || *end == 'E')) {
        const char *exponent = end + 1;
        exponent += *exponent == '-' || *exponent == '+';
        end = skip_digits(exponent);
        any = end != exponent;
    }
    if (!any || *end != '\0') return false;
    *value = strtod(text, NULL);
    return true;
}

/* "16 GiB" or a plain number of bytes. */
static bool parse_bytes(const char *text, int64_t *value, bool *fits) {
    static const char *const units[] = {"KiB", "MiB", "GiB", "TiB"};
    char digits[32];
    size_t length = (size_t)(skip_digits(text) - text);
    const char *unit = text + length;
    if (*unit == '\0' || length >= sizeof digits) return parse_integer(text, value, fits);
    memcpy(digits, text, length);
    digits[length] = '\0';
    unit += *unit == ' ';
    for (int i = 0; i < 4; i++) {
        if (strcmp(unit, units[i]) != 0) continue;
        if (!parse_integer(digits, value, fits)) return false;
        *fits = *fits && !__builtin_mul_overflow(*value, INT64_C(1) << (10 * (i + 1)), value);
        return true;
    }
    return false;
}

bool lt_scalar_number(const lt_scalar *scalar, double *value) {
    return scalar->plain && parse_number(scalar->text, value);
}

static bool looks_like_another_type(const lt_scalar *scalar) {
    double number;
    bool boolean;
    return scalar->plain && (lt_scalar_is_null(scalar) || parse_boolean(scalar->text, &boolean) ||
                             parse_number(scalar->text, &number));
}

/* ---- messages
 * --------------------------------------------------------------------------------------------------- */

void lt_join_choices(const char *choices, char *text, size_t size) {
    size_t length = 0;
    const char *last = strrchr(choices, '|');
    for (const char *c = choices; *c != '\0' && length + 5 < size; c++) {
        const char *piece = c == last ? " or " : ", ";
        if (*c == '|') {
            length += (size_t)snprintf(text + length, size - length, "%s", piece);
        } else {
            text[length++] = *c;
        }
    }
    text[length] = '\0';
}

static void describe_integers(const lt_config_key *key, bool limits, char *text, size_t size) {
    const char *what = key->type == LT_KEY_BYTES ? "a number of bytes such as 16 GiB," : "an integer";
    if (key->high >= LT_FAR_LIMIT && !limits) {
        snprintf(text, size, "%s of at least %" PRId64, what, key->low);
    } else {
        snprintf(text, size, "%s from %" PRId64 " to %" PRId64, what, key->low, key->high);
    }
}

static void describe_numbers(const lt_config_key *key, bool limits, char *text, size_t size) {
    const char *what = key->type == LT_KEY_PAIR ? "a list of two numbers" : "a number";
    if (key->maximum >= 100 && key->minimum >= 0 && !limits) {
        snprintf(text, size, "%s %s %.9g", what, key->open_minimum ? "above" : "of at least", key->minimum);
    } else {
        snprintf(text, size, "%s %s %.9g %s %.9g", what, key->open_minimum ? "above" : "from", key->minimum,
                 key->open_maximum   ? "to below"
                 : key->open_minimum ? "and up to"
                                     : "to",
                 key->maximum);
    }
}

void lt_value_expected(const lt_config_key *key, bool limits, char *text, size_t size) {
    switch (key->type) {
    case LT_KEY_INTEGER:
    case LT_KEY_BYTES:
        describe_integers(key, limits, text, size);
        break;
    case LT_KEY_NUMBER:
    case LT_KEY_PAIR:
        describe_numbers(key, limits, text, size);
        break;
    case LT_KEY_BOOLEAN:
        snprintf(text, size, "true or false");
        break;
    case LT_KEY_CHOICE:
        lt_join_choices(key->choices, text, size);
        break;
    case LT_KEY_STRING:
        snprintf(text, size, "a text");
        break;
    case LT_KEY_SOURCES:
        snprintf(text, size, "a path or a list of paths");
        break;
    }
    size_t length = strlen(text);
    if (key->word != NULL) snprintf(text + length, size - length, ", or %s", key->word);
}

static void describe_found(const lt_scalar *scalar, char *text, size_t size) {
    char clipped[LT_CLIPPED_SIZE];
    lt_clip(scalar->text, clipped);
    if (lt_scalar_is_null(scalar)) {
        snprintf(text, size, "%s", scalar->length == 0 ? "nothing" : scalar->text);
    } else if (scalar->plain) {
        snprintf(text, size, "%s", clipped);
    } else {
        snprintf(text, size, "the text \"%s\"", clipped);
    }
}

static lt_status wrong_value(const lt_config_key *key, const lt_scalar *scalar, const lt_config_place *place,
                             bool limits) {
    char found[2 * LT_CLIPPED_SIZE], expected[256];
    describe_found(scalar, found, sizeof found);
    lt_value_expected(key, limits, expected, sizeof expected);
    return lt_config_fail(place, key->path, "found %s, expected %s", found, expected);
}

lt_status lt_value_to_come(const lt_config_key *key, const char *found, const char *use,
                           const lt_config_place *place) {
    return lt_config_fail(place, key->path, "%s needs %s, which this version does not have; use %s", found,
                          key->capability, use);
}

/* ---- setting
 * ---------------------------------------------------------------------------------------------------- */

static bool in_choices(const char *choices, const char *text) {
    size_t length = strlen(text);
    for (const char *c = choices; c != NULL; c = strchr(c, '|')) {
        c += *c == '|';
        if (strncmp(c, text, length) == 0 && (c[length] == '|' || c[length] == '\0')) return true;
    }
    return false;
}

static lt_status set_integer(const lt_config_key *key, const lt_scalar *scalar, const lt_config_place *place,
                             lt_config *config) {
    int64_t value = 0;
    bool fits = true;
    bool parsed = scalar->plain && (key->type == LT_KEY_BYTES ? parse_bytes(scalar->text, &value, &fits)
                                                              : parse_integer(scalar->text, &value, &fits));
    if (!parsed) return wrong_value(key, scalar, place, false);
    if (!fits || value < key->low || value > key->high) return wrong_value(key, scalar, place, true);
    *(int64_t *)lt_config_field(key, config) = value;
    return LT_OK;
}

static lt_status set_number(const lt_config_key *key, int index, const lt_scalar *scalar,
                            const lt_config_place *place, lt_config *config) {
    double value = 0;
    if (!lt_scalar_number(scalar, &value)) return wrong_value(key, scalar, place, false);
    bool inside = isfinite(value) && value >= key->minimum && value <= key->maximum;
    if (key->open_minimum && value == key->minimum) inside = false;
    if (key->open_maximum && value == key->maximum) inside = false;
    if (!inside) return wrong_value(key, scalar, place, true);
    ((double *)lt_config_field(key, config))[index] = value == 0 ? 0 : value; /* no -0 */
    return LT_OK;
}

static lt_status copy_text(const char *text, char **copy) {
    *copy = strdup(text);
    return *copy != NULL ? LT_OK : lt_fail(LT_IO, "out of memory while reading the config");
}

lt_status lt_scalar_string(const lt_scalar *scalar, const char *key, const char *expected,
                           const lt_config_place *place, char **text) {
    char found[2 * LT_CLIPPED_SIZE];
    describe_found(scalar, found, sizeof found);
    if (looks_like_another_type(scalar) && scalar->length > 0) {
        return lt_config_fail(place, key, "found %s, expected %s; put it in quotes if it is meant as one",
                              found, expected);
    }
    if (scalar->length == 0) return lt_config_fail(place, key, "found nothing, expected %s", expected);
    if (strlen(scalar->text) != scalar->length) {
        return lt_config_fail(place, key, "found a text with a NUL character, expected %s", expected);
    }
    if (scalar->length > LT_MAX_STRING_BYTES) {
        return lt_config_fail(place, key, "found a text of %zu bytes, expected at most %d", scalar->length,
                              LT_MAX_STRING_BYTES);
    }
    return copy_text(scalar->text, text);
}

static lt_status set_text(const lt_config_key *key, const lt_scalar *scalar, const lt_config_place *place,
                          lt_config *config) {
    char *text = NULL;
    if (key->type == LT_KEY_CHOICE) {
        bool known = strlen(scalar->text) == scalar->length && in_choices(key->choices, scalar->text);
        if (!known) return wrong_value(key, scalar, place, false);
        LT_CHECK(copy_text(scalar->text, &text));
    } else {
        LT_CHECK(lt_scalar_string(scalar, key->path, "a text", place, &text));
    }
    lt_value_clear(key, config);
    *(char **)lt_config_field(key, config) = text;
    return LT_OK;
}

/* Refuses what only a later version can do, now that the value is known to be sound. */
static lt_status check_available(const lt_config_key *key, const lt_config *config,
                                 const lt_config_place *place) {
    if (key->available == NULL) return LT_OK;
    char written[LT_MAX_STRING_BYTES + 1], found[LT_CLIPPED_SIZE], use[128];
    const char *text = NULL;
    if (key->type == LT_KEY_STRING || key->type == LT_KEY_CHOICE) {
        text = *(char *const *)lt_config_value(key, config);
    } else if (key->type == LT_KEY_BOOLEAN) {
        text = *(const bool *)lt_config_value(key, config) ? "true" : "false";
    } else {
        int64_t value = *(const int64_t *)lt_config_value(key, config);
        snprintf(written, sizeof written, "%" PRId64, value);
        text = key->word != NULL && value == key->empty ? key->word : written;
    }
    if (text == NULL || in_choices(key->available, text)) return LT_OK;
    bool several = strchr(key->available, '|') != NULL;
    lt_join_choices(several ? key->available : key->fallback, use, sizeof use);
    return lt_value_to_come(key, lt_clip(text, found), use, place);
}

lt_status lt_value_set(const lt_config_key *key, const lt_scalar *scalar, const lt_config_place *place,
                       lt_config *config) {
    if (key->word != NULL && strcmp(scalar->text, key->word) == 0) {
        lt_value_clear(key, config);
        return LT_OK;
    }
    switch (key->type) {
    case LT_KEY_INTEGER:
    case LT_KEY_BYTES:
        LT_CHECK(set_integer(key, scalar, place, config));
        break;
    case LT_KEY_NUMBER:
        LT_CHECK(set_number(key, 0, scalar, place, config));
        break;
    case LT_KEY_BOOLEAN: {
        bool value = false;
        if (!scalar->plain || !parse_boolean(scalar->text, &value))
            return wrong_value(key, scalar, place, false);
        *(bool *)lt_config_field(key, config) = value;
        break;
    }
    case LT_KEY_CHOICE:
    case LT_KEY_STRING:
        LT_CHECK(set_text(key, scalar, place, config));
        break;
    case LT_KEY_PAIR:
    case LT_KEY_SOURCES:
        return wrong_value(key, scalar, place, false);
    }
    return check_available(key, config, place);
}

lt_status lt_value_set_pair(const lt_config_key *key, int index, const lt_scalar *scalar,
                            const lt_config_place *place, lt_config *config) {
    return set_number(key, index, scalar, place, config);
}
