/* The one table of config keys: it parses, validates, documents, prints and guards on resume. A new key is a
 * field of lt_config and a row here. Only the config_*.c files include this.
 */
#ifndef LT_TRAINER_CONFIG_TABLE_H
#define LT_TRAINER_CONFIG_TABLE_H

#include "trainer/config.h"

#include <stddef.h>

/* An upper limit from here on is no news to a reader; only who oversteps it is told. */
enum { LT_FAR_LIMIT = 65536 };

typedef enum lt_key_type {
    LT_KEY_INTEGER, /* int64_t */
    LT_KEY_BYTES,   /* int64_t, also written "16 GiB" */
    LT_KEY_NUMBER,  /* double */
    LT_KEY_PAIR,    /* double[2] */
    LT_KEY_BOOLEAN, /* bool */
    LT_KEY_CHOICE,  /* char *, one of `choices` */
    LT_KEY_STRING,  /* char * */
    LT_KEY_SOURCES, /* lt_config_sources */
} lt_key_type;

/* What a resumed run may do with the key (contracts.md, "On resume"). */
typedef enum lt_key_resume {
    LT_RESUME_FREE,
    LT_RESUME_FREE_BITS, /* free, but the bits of further steps change: said once */
    LT_RESUME_ALLOW,     /* with --allow KEY */
    LT_RESUME_NEVER,
} lt_key_resume;

typedef struct lt_config_key {
    const char *path; /* "model.attention.kind" */
    lt_key_type type;
    size_t offset; /* in lt_config */

    bool required;
    const char *fallback; /* the default, as a config would write it; NULL if required or resolved */
    const char
        *resolved; /* what an unset key follows, for the help text; NULL: it does not depend on other keys */

    int64_t low, high;       /* LT_KEY_INTEGER, LT_KEY_BYTES */
    double minimum, maximum; /* LT_KEY_NUMBER, LT_KEY_PAIR */
    bool open_minimum, open_maximum;
    const char *choices; /* "lazy|softmax" */

    const char *word; /* "none", "never", "auto": stands for `empty` (numbers), NULL (strings), no sources */
    int64_t empty;

    lt_key_resume resume;
    const char *capability; /* of a version to come: what other values need */
    const char *available;  /* the values that work without it, as printed: "cpu|auto" */

    const char *unit;
    const char *help;
} lt_config_key;

extern const lt_config_key lt_config_keys[];
extern const int lt_config_key_count;

/* The row of `path`, or NULL. */
const lt_config_key *lt_config_find(const char *path);

/* Its number: the index into lt_config.set. */
int lt_config_row(const lt_config_key *key);

/* Whether keys lie below `path` ("model", "model.attention"). */
bool lt_config_is_section(const char *path);

/* The key or section whose name is nearest to `path`, written to `nearest` [size]; false if none is near. */
bool lt_config_nearest(const char *path, char *nearest, size_t size);

/* Where the value of `key` lies. */
static inline void *lt_config_field(const lt_config_key *key, lt_config *config) {
    return (char *)config + key->offset;
}
static inline const void *lt_config_value(const lt_config_key *key, const lt_config *config) {
    return (const char *)config + key->offset;
}

#endif
