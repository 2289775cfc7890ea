/* What the tests of the config share: a folder of their own, a minimal config in it, and checks of an error.
 */
#ifndef LT_TESTS_CONFIG_FIXTURE_H
#define LT_TESTS_CONFIG_FIXTURE_H

#include "trainer/config.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

static char folder[64], path[96];

static inline int make_folder(void **state) {
    (void)state;
    strcpy(folder, "/tmp/lt_config_XXXXXX");
    if (mkdtemp(folder) == NULL) return -1;
    snprintf(path, sizeof path, "%s/run.yaml", folder);
    return 0;
}

static inline int remove_folder(void **state) {
    (void)state;
    unlink(path);
    return rmdir(folder);
}

/* The required keys and nothing else, one section a line: model in line 1, data 2, optimizer 3, train 4,
 * checkpoint 5; what a test adds starts in line 6. */
static const char minimal[] =
    "model: {vocab_size: 300, hidden_size: 64, num_layers: 2, num_heads: 4, intermediate_size: 96}\n"
    "data: {train: train.bin, seq_len: 32}\n"
    "optimizer: {lr: 0.001}\n"
    "train: {steps: 100, global_batch: 16}\n"
    "checkpoint: {dir: runs/a}\n";

static inline void put(const char *text, size_t length) {
    FILE *file = fopen(path, "w");
    assert_non_null(file);
    assert_int_equal(fwrite(text, 1, length, file), length);
    assert_int_equal(fclose(file), 0);
}

/* Loads the minimal config with overrides (the list ends with NULL). */
static inline lt_status load_kept(lt_config *config, const char *kept, const char *const *options) {
    int count = 0;
    while (options[count] != NULL) count++;
    put(minimal, sizeof minimal - 1);
    lt_config_overrides overrides = {.text = options, .count = count};
    return lt_config_load(path, &overrides, kept, NULL, config);
}
#define LOAD(config, ...) load_kept(config, NULL, (const char *const[]){__VA_ARGS__, NULL})
#define LOAD_KEPT(config, kept, ...) load_kept(config, kept, (const char *const[]){__VA_ARGS__, NULL})

static inline void assert_loads(lt_status status) {
    if (status != LT_OK) fail_msg("%s", lt_error_message());
}

/* The error of `options` is LT_BAD_INPUT and holds `part`; it is one line. */
static inline void refuses(const char *const *options, const char *part) {
    lt_config config;
    lt_status status = load_kept(&config, NULL, options);
    if (status != LT_BAD_INPUT) fail_msg("%s: status %d", options[0], status);
    const char *message = lt_error_message();
    if (strstr(message, part) == NULL) fail_msg("%s: \"%s\" does not say \"%s\"", options[0], message, part);
    lt_config_free(&config); /* an error leaves nothing to free, and that is safe */
}
#define REFUSES(part, ...) refuses((const char *const[]){__VA_ARGS__, NULL}, part)

/* The error of a whole file. */
static inline void refuses_text(const char *text, size_t length, const char *part) {
    lt_config config;
    put(text, length);
    lt_status status = lt_config_load(path, NULL, NULL, NULL, &config);
    if (status != LT_BAD_INPUT) fail_msg("%.40s: status %d", text, status);
    if (strstr(lt_error_message(), part) == NULL)
        fail_msg("\"%s\" does not say \"%s\"", lt_error_message(), part);
    assert_null(strchr(lt_error_message(), '\n'));
}
#define REFUSES_TEXT(text, part) refuses_text(text, sizeof(text) - 1, part)

#define TEST(function) cmocka_unit_test_setup_teardown(function, make_folder, remove_folder)

#endif
