#include "data/tokenizers/utf8.h"

#include <string.h>

lt_utf8 lt_utf8_next(const char *text, size_t bytes, size_t *length) {
    const unsigned char *at = (const unsigned char *)text, first = at[0];
    *length = 1;
    if (first < 0x80) return LT_UTF8_CHARACTER;
    const size_t whole = first >= 0xf0 ? 4 : first >= 0xe0 ? 3 : 2;
    if (first < 0xc2 || first > 0xf4) return LT_UTF8_ILL;
    /* The second byte's range keeps out overlong forms, surrogates and what is over U+10FFFF (table 3-7). */
    unsigned char low = first == 0xe0 ? 0xa0 : first == 0xf0 ? 0x90 : 0x80;
    unsigned char high = first == 0xed ? 0x9f : first == 0xf4 ? 0x8f : 0xbf;
    for (; *length < whole; (*length)++) {
        if (*length == bytes) return LT_UTF8_CUT;
        if (at[*length] < low || at[*length] > high) return LT_UTF8_ILL;
        low = 0x80;
        high = 0xbf;
    }
    return LT_UTF8_CHARACTER;
}

size_t lt_utf8_valid(const char *text, size_t bytes) {
    size_t at = 0, length;
    while (at < bytes) {
        uint64_t eight;
        if (bytes - at >= sizeof eight) { /* ASCII, eight at a time */
            memcpy(&eight, text + at, sizeof eight);
            if ((eight & 0x8080808080808080U) == 0) {
                at += sizeof eight;
                continue;
            }
        }
        if (lt_utf8_next(text + at, bytes - at, &length) != LT_UTF8_CHARACTER) return at;
        at += length;
    }
    return at;
}

size_t lt_utf8_replace(const char *text, size_t bytes, char *out, int64_t *replaced) {
    size_t at = 0, written = 0;
    while (at < bytes) {
        const size_t valid = lt_utf8_valid(text + at, bytes - at);
        memcpy(out + written, text + at, valid);
        written += valid;
        at += valid;
        if (at == bytes) break;
        size_t length;
        lt_utf8_next(text + at, bytes - at, &length);
        memcpy(out + written, LT_REPLACEMENT, LT_REPLACEMENT_BYTES);
        written += LT_REPLACEMENT_BYTES;
        at += length;
        (*replaced)++;
    }
    return written;
}
