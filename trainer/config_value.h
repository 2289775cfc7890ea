/* Values of config keys: read from a scalar with type, range and capability checked, written as YAML,
 * compared, copied. No YAML library here: config_yaml.c walks the document. Only the config_*.c files include
 * this.
 */
#ifndef LT_TRAINER_CONFIG_VALUE_H
#define LT_TRAINER_CONFIG_VALUE_H

#include "trainer/config_table.h"

/* Where a value was written: a line of a file, or the text of a --set such as "train.steps=5". */
typedef struct lt_config_place {
    const char *file;
    int line;           /* from 1; 0: the whole file */
    const char *option; /* NULL: in the file */
} lt_config_place;

/* "PLACE: KEY" as messages begin; `key` may be NULL. */
enum { LT_WHERE_SIZE = 4352 };
void lt_config_where(const lt_config_place *place, const char *key, char where[LT_WHERE_SIZE]);

/* "PLACE: KEY: MESSAGE" as LT_BAD_INPUT; `key` may be NULL. */
__attribute__((format(printf, 3, 4))) lt_status lt_config_fail(const lt_config_place *place, const char *key,
                                                               const char *format, ...);

/* A scalar of a document; `plain` if it stood there without quotes. */
typedef struct lt_scalar {
    const char *text; /* ends with NUL */
    size_t length;    /* differs from strlen(text) if the scalar holds a NUL */
    bool plain;
} lt_scalar;

enum { LT_CLIPPED_SIZE = 100, LT_MAX_STRING_BYTES = 4000 };

/* `text` cut to what a message can hold, at a character's border. Returns `clipped` [LT_CLIPPED_SIZE]. */
const char *lt_clip(const char *text, char *clipped);

/* Whether the scalar is YAML's null: nothing, ~ or null. */
bool lt_scalar_is_null(const lt_scalar *scalar);

/* Stores the scalar as the value of `key` (any type but PAIR and SOURCES, apart from its word). LT_BAD_INPUT:
 * wrong type, out of range, or a value of a capability to come. */
lt_status lt_value_set(const lt_config_key *key, const lt_scalar *scalar, const lt_config_place *place,
                       lt_config *config);

/* The number at `index` of a PAIR. */
lt_status lt_value_set_pair(const lt_config_key *key, int index, const lt_scalar *scalar,
                            const lt_config_place *place, lt_config *config);

/* The decimal number that a plain scalar is; false for anything else. */
bool lt_scalar_number(const lt_scalar *scalar, double *value);

/* A path or other text that is not empty, malloc'ed into `text`. `expected` completes the message. */
lt_status lt_scalar_string(const lt_scalar *scalar, const char *key, const char *expected,
                           const lt_config_place *place, char **text);

/* What `key` takes, in words: "an integer of at least 1". With `limits` far-off upper limits are named too.
 */
void lt_value_expected(const lt_config_key *key, bool limits, char *text, size_t size);

/* Refuses a value of a capability to come: "KEY: FOUND needs ..., which this version does not have; use ...".
 */
lt_status lt_value_to_come(const lt_config_key *key, const char *found, const char *use,
                           const lt_config_place *place);

/* "a|b|c" as "a, b or c". */
void lt_join_choices(const char *choices, char *text, size_t size);

/* The value as YAML on one line. */
void lt_value_write(const lt_config_key *key, const lt_config *config, FILE *out);

bool lt_value_equal(const lt_config_key *key, const lt_config *a, const lt_config *b);
lt_status lt_value_copy(const lt_config_key *key, const lt_config *from, lt_config *to);

/* Frees the value, if it owns memory, and sets it to nothing. */
void lt_value_clear(const lt_config_key *key, lt_config *config);

/* The default: `fallback`, or nothing where there is none. */
lt_status lt_value_default(const lt_config_key *key, lt_config *config);

#endif
