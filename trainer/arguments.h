/* The command line of `lazytrain train`. */
#ifndef LT_TRAINER_ARGUMENTS_H
#define LT_TRAINER_ARGUMENTS_H

#include "trainer/config.h"

enum { LT_MAX_ARGUMENTS = 256 };

typedef struct lt_train_arguments {
    const char *config_path;
    const char *overrides[LT_MAX_ARGUMENTS]; /* --set */
    int override_count;
    const char *allowed[LT_MAX_ARGUMENTS]; /* --allow */
    int allowed_count;
    const char *resume; /* "auto", "none" or a file */
    const char *init_from;
    char device[64]; /* "train.device=...", of --device; one of the overrides points here */
    bool overwrite;
    bool help;
} lt_train_arguments;

/* Strings point into argv. LT_BAD_INPUT names the argument. */
lt_status lt_train_parse(int argc, char **argv, lt_train_arguments *arguments);

/* Reads the option `name` of a command line at *index, as "--name VALUE" or "--name=VALUE": sets *value,
 * moves *index past it and returns true where argv[*index] is that option. A missing value leaves *value
 * NULL. */
bool lt_option(int argc, char **argv, int *index, const char *name, const char **value);

/* A whole number of an option in [low, high]. LT_BAD_INPUT names option, text and range. */
lt_status lt_option_integer(const char *name, const char *text, int64_t low, int64_t high, int64_t *value);

/* The same for a finite number. */
lt_status lt_option_number(const char *name, const char *text, double low, double high, double *value);

#endif
