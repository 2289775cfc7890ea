#include "trainer/arguments.h"

#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

bool lt_option(int argc, char **argv, int *index, const char *name, const char **value) {
    const char *argument = argv[*index];
    const size_t length = strlen(name);
    if (strncmp(argument, name, length) != 0) return false;
    if (argument[length] == '=') {
        *value = argument + length + 1;
        return true;
    }
    if (argument[length] != '\0') return false;
    *value = *index + 1 < argc ? argv[++*index] : NULL;
    return true;
}

lt_status lt_option_integer(const char *name, const char *text, int64_t low, int64_t high, int64_t *value) {
    char *end = NULL;
    errno = 0;
    const long long number = text == NULL ? 0 : strtoll(text, &end, 10);
    if (text == NULL || end == text || *end != '\0' || errno != 0 || number < low || number > high)
        return lt_fail(LT_BAD_INPUT, "%s: found '%s', expected a whole number from %lld to %lld", name,
                       text == NULL ? "" : text, (long long)low, (long long)high);
    *value = number;
    return LT_OK;
}

lt_status lt_option_number(const char *name, const char *text, double low, double high, double *value) {
    char *end = NULL;
    const double number = text == NULL ? 0 : strtod(text, &end);
    if (text == NULL || end == text || *end != '\0' || !isfinite(number) || number < low || number > high)
        return lt_fail(LT_BAD_INPUT, "%s: found '%s', expected a number from %g to %g", name,
                       text == NULL ? "" : text, low, high);
    *value = number;
    return LT_OK;
}

static lt_status append(const char *option, const char *value, const char **list, int *count) {
    if (value == NULL) return lt_fail(LT_BAD_INPUT, "%s needs a value; see lazytrain train --help", option);
    if (*count == LT_MAX_ARGUMENTS)
        return lt_fail(LT_BAD_INPUT, "%s is given more than %d times", option, LT_MAX_ARGUMENTS);
    list[(*count)++] = value;
    return LT_OK;
}

static lt_status single(const char *option, const char *value, const char **to) {
    if (value == NULL || *value == '\0')
        return lt_fail(LT_BAD_INPUT, "%s needs a value; see lazytrain train --help", option);
    *to = value;
    return LT_OK;
}

lt_status lt_train_parse(int argc, char **argv, lt_train_arguments *arguments) {
    *arguments = (lt_train_arguments){.resume = "auto"};
    for (int i = 0; i < argc; i++) {
        const char *value = NULL;
        if (strcmp(argv[i], "--help") == 0 || strcmp(argv[i], "-h") == 0) {
            arguments->help = true;
        } else if (strcmp(argv[i], "--overwrite") == 0) {
            arguments->overwrite = true;
        } else if (lt_option(argc, argv, &i, "--set", &value)) {
            LT_CHECK(append("--set", value, arguments->overrides, &arguments->override_count));
        } else if (lt_option(argc, argv, &i, "--device", &value)) {
            snprintf(arguments->device, sizeof arguments->device, "train.device=%s",
                     value == NULL ? "" : value);
            LT_CHECK(append("--device", value == NULL ? NULL : arguments->device, arguments->overrides,
                            &arguments->override_count));
        } else if (lt_option(argc, argv, &i, "--allow", &value)) {
            LT_CHECK(append("--allow", value, arguments->allowed, &arguments->allowed_count));
        } else if (lt_option(argc, argv, &i, "--resume", &value)) {
            LT_CHECK(single("--resume", value, &arguments->resume));
        } else if (lt_option(argc, argv, &i, "--init-from", &value)) {
            LT_CHECK(single("--init-from", value, &arguments->init_from));
        } else if (argv[i][0] == '-' && argv[i][1] != '\0') {
            return lt_fail(LT_BAD_INPUT, "unknown option %s; see lazytrain train --help", argv[i]);
        } else if (arguments->config_path != NULL) {
            return lt_fail(LT_BAD_INPUT, "two config files are given, %s and %s; expected one",
                           arguments->config_path, argv[i]);
        } else {
            arguments->config_path = argv[i];
        }
    }
    if (arguments->config_path == NULL && !arguments->help)
        return lt_fail(LT_BAD_INPUT,
                       "no config file is given; expected lazytrain train CONFIG.yaml [OPTION]...");
    if (arguments->overwrite && strcmp(arguments->resume, "none") != 0)
        return lt_fail(LT_BAD_INPUT,
                       "--overwrite goes with --resume none, which starts anew; found --resume %s",
                       arguments->resume);
    if (arguments->init_from != NULL && strcmp(arguments->resume, "auto") != 0 &&
        strcmp(arguments->resume, "none") != 0)
        return lt_fail(LT_BAD_INPUT,
                       "--init-from starts a new run and --resume %s continues one; give one of them",
                       arguments->resume);
    return LT_OK;
}
