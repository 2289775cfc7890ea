/* UTF-8 as RFC 3629 has it: no overlong forms, no surrogates, nothing over U+10FFFF. Local. */
#ifndef LT_DATA_TOKENIZERS_UTF8_H
#define LT_DATA_TOKENIZERS_UTF8_H

#include <stddef.h>
#include <stdint.h>

#define LT_REPLACEMENT "\xef\xbf\xbd" /* U+FFFD */
enum { LT_REPLACEMENT_BYTES = 3 };

typedef enum lt_utf8 {
    LT_UTF8_CHARACTER, /* a whole character */
    LT_UTF8_ILL,       /* the maximal part of an ill-formed sequence: one U+FFFD stands for it */
    LT_UTF8_CUT,       /* the beginning of a character; the text ends in it */
} lt_utf8;

/* What the `bytes` (at least 1) at `text` begin with, and how many bytes it takes. */
lt_utf8 lt_utf8_next(const char *text, size_t bytes, size_t *length);

/* How many bytes at the start are whole characters. */
size_t lt_utf8_valid(const char *text, size_t bytes);

/* Puts U+FFFD for each maximal part of an ill-formed sequence. `out` holds 3 * bytes, which always suffices.
 * Returns the bytes written; adds to `replaced`. */
size_t lt_utf8_replace(const char *text, size_t bytes, char *out, int64_t *replaced);

#endif
