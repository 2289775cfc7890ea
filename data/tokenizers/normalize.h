/* What is done to a text before it is cut into words: the normalizers of a tokenizer.json, in order. Internal
 * to data/tokenizers/. Local.
 */
#ifndef LT_DATA_TOKENIZERS_NORMALIZE_H
#define LT_DATA_TOKENIZERS_NORMALIZE_H

#include "comm/status.h"

#include <stddef.h>

typedef enum lt_normalizer_kind {
    LT_NFC, /* Unicode's normalization forms (UAX 15), by utf8proc */
    LT_NFD,
    LT_NFKC,
    LT_NFKD,
    LT_PREPEND, /* `with` before a text that is not empty */
    LT_REPLACE, /* `with` for each `what` */
} lt_normalizer_kind;

typedef struct lt_normalizer {
    lt_normalizer_kind kind;
    char *what, *with; /* malloc'ed */
} lt_normalizer;

enum { LT_MAX_NORMALIZERS = 8 };

typedef struct lt_normalizers {
    lt_normalizer at[LT_MAX_NORMALIZERS];
    int count;
} lt_normalizers;

void lt_normalizers_free(lt_normalizers *normalizers);

/* Two texts that grow; {0} at first. */
typedef struct lt_normalize_space {
    char *text[2]; /* malloc'ed [capacity] */
    size_t capacity[2];
} lt_normalize_space;

void lt_normalize_space_free(lt_normalize_space *space);

/* Points *text and *bytes, UTF-8, to what becomes of it: itself where nothing changes, else `space`, until
 * the next call. LT_IO: no memory. */
lt_status lt_normalize(const lt_normalizers *normalizers, lt_normalize_space *space, const char **text,
                       size_t *bytes);

#endif
