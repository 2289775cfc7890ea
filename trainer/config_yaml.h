/* From YAML text to a filled lt_config: documents, sections, keys, overrides. Every value is checked by
 * itself as it is met; what depends on other keys is config_resolve.c's. Only the config_*.c files include
 * this.
 */
#ifndef LT_TRAINER_CONFIG_YAML_H
#define LT_TRAINER_CONFIG_YAML_H

#include "trainer/config_value.h"

enum { LT_MAX_CONFIG_BYTES = 1 << 20 };

/* A config that is being read, and where each value was written. */
typedef struct lt_config_reading {
    lt_config *config;
    lt_config_place origin;                     /* the file as a whole */
    lt_config_place places[LT_CONFIG_MAX_KEYS]; /* by table row; the origin where a key is not set */
    bool any_schedule;                          /* its keys are not checked against each other */
    lt_tokenizer **tokenizer;                   /* NULL: data.tokenizer is not opened */
} lt_config_reading;

/* Starts reading into `config`, which is set to the defaults. `origin` names the file and outlives the
 * reading. */
lt_status lt_reading_begin(const char *origin, lt_config *config, lt_config_reading *reading);

/* Reads a regular file of at most LT_MAX_CONFIG_BYTES; never waits on a pipe. `text` is malloc'ed. */
lt_status lt_config_read_file(const char *path, char **text, size_t *length);

/* Applies a whole config. */
lt_status lt_reading_apply_text(lt_config_reading *reading, const char *text, size_t length);

/* Applies one KEY.PATH=VALUE; VALUE is YAML. `option` outlives the reading. */
lt_status lt_reading_apply_override(lt_config_reading *reading, const char *option);

/* Follows the keys that depend on others (`kept`: the checkpoint's config or NULL), then checks that all
 * required keys are there and that the values go together. In config_resolve.c. */
lt_status lt_reading_resolve(lt_config_reading *reading, const lt_config *kept);

/* Fails at the place of `key`'s value with "KEY: MESSAGE". */
#define lt_reading_fail(reading, key, ...) \
    lt_config_fail(&(reading)->places[lt_config_row(lt_config_find(key))], key, __VA_ARGS__)

#endif
