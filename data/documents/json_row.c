#include "data/documents/json_row.h"

#include "data/tokenizers/utf8.h"

#include <stdint.h>
#include <string.h>

enum { MOST_DEPTH = 32, NUMBER_BYTES = 300, EXPONENT_DIGITS = 2 };

typedef struct cursor {
    const char *at, *end;
    uint64_t seen; /* the bits of all bytes of strings: whether they are ASCII */
} cursor;

static const uint64_t each_byte = 0x0101010101010101, high_bits = 0x8080808080808080;

/* Whether a byte of the word is a quote, a backslash or a control character. */
static bool has_special(uint64_t word) {
    const uint64_t quote = word ^ each_byte * '"', backslash = word ^ each_byte * '\\';
    return ((((quote - each_byte) & ~quote) | ((backslash - each_byte) & ~backslash) |
             ((word - each_byte * 0x20) & ~word)) &
            high_bits) != 0;
}

static void skip_space(cursor *c) {
    while (c->at < c->end && (*c->at == ' ' || *c->at == '\t' || *c->at == '\r' || *c->at == '\n')) c->at++;
}

static int hex_digit(char digit) {
    return digit >= '0' && digit <= '9'   ? digit - '0'
           : digit >= 'a' && digit <= 'f' ? digit - 'a' + 10
           : digit >= 'A' && digit <= 'F' ? digit - 'A' + 10
                                          : -1;
}

/* The code unit of the "\uXXXX" at `at`; -1: there is none. */
static int code_unit(const char *at, const char *end) {
    int unit = 0;
    if (end - at < 6 || at[0] != '\\' || at[1] != 'u') return -1;
    for (int i = 2; i < 6; i++) {
        const int digit = hex_digit(at[i]);
        if (digit < 0) return -1;
        unit = unit << 4 | digit;
    }
    return unit;
}

static bool skip_escape(cursor *c) {
    if (c->end - c->at < 2) return false;
    if (c->at[1] != 'u') {
        const bool known = c->at[1] != '\0' && strchr("\"\\/bfnrt", c->at[1]) != NULL;
        c->at += 2;
        return known;
    }
    const int unit = code_unit(c->at, c->end);
    if (unit <= 0 || (unit >= 0xdc00 && unit <= 0xdfff)) return false;
    c->at += 6;
    if (unit < 0xd800 || unit > 0xdbff) return true;
    const int low = code_unit(c->at, c->end);
    c->at += 6;
    return low >= 0xdc00 && low <= 0xdfff;
}

/* From behind the opening quote to behind the closing one. */
static bool skip_string(cursor *c, lt_json_value *value) {
    value->kind = LT_JSON_STRING;
    value->begin = c->at;
    value->escaped = false;
    for (;;) {
        uint64_t word;
        while (c->end - c->at >= (ptrdiff_t)sizeof word) {
            memcpy(&word, c->at, sizeof word);
            if (has_special(word)) break;
            c->seen |= word;
            c->at += sizeof word;
        }
        while (c->at < c->end && (unsigned char)*c->at >= 0x20 && *c->at != '"' && *c->at != '\\')
            c->seen |= (unsigned char)*c->at++;
        if (c->at == c->end) return false;
        if (*c->at == '"') {
            value->bytes = (size_t)(c->at++ - value->begin);
            return true;
        }
        value->escaped = true;
        if (*c->at != '\\' || !skip_escape(c)) return false;
    }
}

static size_t skip_digits(cursor *c) {
    const char *begin = c->at;
    while (c->at < c->end && *c->at >= '0' && *c->at <= '9') c->at++;
    return (size_t)(c->at - begin);
}

/* One that cannot be too great for a double. */
static bool skip_number(cursor *c, lt_json_value *value) {
    value->kind = LT_JSON_NUMBER;
    value->begin = c->at;
    c->at += *c->at == '-';
    const bool zero = c->at < c->end && *c->at == '0';
    const size_t whole = skip_digits(c);
    if (whole == 0 || (zero && whole > 1)) return false;
    if (c->at < c->end && *c->at == '.') {
        c->at++;
        if (skip_digits(c) == 0) return false;
    }
    if (c->at < c->end && (*c->at == 'e' || *c->at == 'E')) {
        c->at++;
        if (c->at < c->end && (*c->at == '+' || *c->at == '-')) c->at++;
        const size_t digits = skip_digits(c);
        if (digits == 0 || digits > EXPONENT_DIGITS || whole > NUMBER_BYTES - 100) return false;
    }
    value->bytes = (size_t)(c->at - value->begin);
    return value->bytes < NUMBER_BYTES;
}

static bool skip_word(cursor *c, const char *word, lt_json_kind kind, lt_json_value *value) {
    const size_t bytes = strlen(word);
    value->kind = kind;
    if ((size_t)(c->end - c->at) < bytes || memcmp(c->at, word, bytes) != 0) return false;
    c->at += bytes;
    return true;
}

static bool skip_value(cursor *c, lt_json_value *value, int depth);

static bool accept(cursor *c, char wanted) {
    skip_space(c);
    if (c->at == c->end || *c->at != wanted) return false;
    c->at++;
    return true;
}

/* From behind the opening bracket. */
static bool skip_list(cursor *c, int depth) {
    lt_json_value item;
    if (accept(c, ']')) return true;
    do {
        skip_space(c);
        if (!skip_value(c, &item, depth)) return false;
    } while (accept(c, ','));
    return accept(c, ']');
}

static lt_json_value *find_wanted(lt_json_value *wanted, int count, const lt_json_value *key) {
    for (int i = 0; i < count; i++)
        if (strlen(wanted[i].key) == key->bytes && memcmp(wanted[i].key, key->begin, key->bytes) == 0)
            return &wanted[i];
    return NULL;
}

/* From behind the opening brace. */
static bool skip_object(cursor *c, lt_json_value *wanted, int count, int depth) {
    lt_json_value key, value;
    if (accept(c, '}')) return true;
    do {
        if (!accept(c, '"') || !skip_string(c, &key) || !accept(c, ':')) return false;
        if (count > 0 && key.escaped) return false; /* it may be a wanted one */
        lt_json_value *to = find_wanted(wanted, count, &key);
        value.key = to == NULL ? NULL : to->key;
        skip_space(c);
        if (!skip_value(c, &value, depth)) return false;
        if (to != NULL) *to = value;
    } while (accept(c, ','));
    return accept(c, '}');
}

static bool skip_value(cursor *c, lt_json_value *value, int depth) {
    if (c->at == c->end || depth == MOST_DEPTH) return false;
    switch (*c->at) {
    case '"':
        c->at++;
        return skip_string(c, value);
    case '{':
        value->kind = LT_JSON_OTHER;
        c->at++;
        return skip_object(c, NULL, 0, depth + 1);
    case '[':
        value->kind = LT_JSON_OTHER;
        c->at++;
        return skip_list(c, depth + 1);
    case 't':
        return skip_word(c, "true", LT_JSON_OTHER, value);
    case 'f':
        return skip_word(c, "false", LT_JSON_OTHER, value);
    case 'n':
        return skip_word(c, "null", LT_JSON_NULL, value);
    default:
        return skip_number(c, value);
    }
}

bool lt_json_row(const char *row, size_t bytes, lt_json_value *wanted, int count) {
    cursor c = {row, row + bytes, 0};
    for (int i = 0; i < count; i++) wanted[i].kind = LT_JSON_MISSING;
    if (!accept(&c, '{') || !skip_object(&c, wanted, count, 0)) return false;
    skip_space(&c);
    /* Outside strings everything is ASCII. */
    return c.at == c.end && ((c.seen & high_bits) == 0 || lt_utf8_valid(row, bytes) == bytes);
}

static char *put_code_point(char *to, unsigned point) {
    if (point < 0x80) {
        *to++ = (char)point;
    } else if (point < 0x800) {
        *to++ = (char)(0xc0 | point >> 6);
        *to++ = (char)(0x80 | (point & 0x3f));
    } else if (point < 0x10000) {
        *to++ = (char)(0xe0 | point >> 12);
        *to++ = (char)(0x80 | (point >> 6 & 0x3f));
        *to++ = (char)(0x80 | (point & 0x3f));
    } else {
        *to++ = (char)(0xf0 | point >> 18);
        *to++ = (char)(0x80 | (point >> 12 & 0x3f));
        *to++ = (char)(0x80 | (point >> 6 & 0x3f));
        *to++ = (char)(0x80 | (point & 0x3f));
    }
    return to;
}

size_t lt_json_unescape(const lt_json_value *string, char *to) {
    static const char letters[] = "bfnrt", meant[] = "\b\f\n\r\t";
    const char *at = string->begin, *end = at + string->bytes, *begin = to;
    while (at < end) {
        const char *next = memchr(at, '\\', (size_t)(end - at));
        const size_t plain = (size_t)((next == NULL ? end : next) - at);
        memcpy(to, at, plain);
        to += plain;
        at += plain;
        if (next == NULL) break;
        if (at[1] == 'u') {
            unsigned point = (unsigned)code_unit(at, end);
            at += 6;
            if (point >= 0xd800 && point <= 0xdbff) {
                point = 0x10000 + ((point - 0xd800) << 10) + ((unsigned)code_unit(at, end) - 0xdc00);
                at += 6;
            }
            to = put_code_point(to, point);
        } else {
            const char *letter = strchr(letters, at[1]);
            *to++ = letter == NULL ? at[1] : meant[letter - letters];
            at += 2;
        }
    }
    return (size_t)(to - begin);
}
