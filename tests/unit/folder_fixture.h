/* A fresh folder for each test, and a look into it. Include after cmocka.h. */
#ifndef LT_TESTS_FOLDER_FIXTURE_H
#define LT_TESTS_FOLDER_FIXTURE_H

#include "checkpoint_files.h"

#include "checkpoints/folder.h"
#include "comm/log.h"

#include <sys/stat.h>
#include <unistd.h>

static lt_grid grid;
static test_model model;
static char folder[256];

static int start(void **state) {
    (void)state;
    int argc = 0;
    char **argv = NULL;
    lt_model_shape shape = test_shape(1);
    if (lt_grid_open(&argc, &argv, &grid) != LT_OK) return -1;
    test_model_create(&model, &shape, true);
    lt_log_set_rank(1); /* who is not rank 0 prints no warnings */
    return 0;
}

static int end(void **state) {
    (void)state;
    test_model_destroy(&model);
    lt_grid_close(&grid);
    return 0;
}

static int set_up(void **state) {
    (void)state;
    unsetenv("SLURM_JOB_ID");
    test_folder(folder);
    return 0;
}

static int tear_down(void **state) {
    (void)state;
    test_remove_folder(folder);
    return 0;
}

static const char *in_folder(const char *name) {
    static char path[600];
    snprintf(path, sizeof path, "%s/%s", folder, name);
    return path;
}

static bool exists(const char *name) {
    struct stat about;
    return lstat(in_folder(name), &about) == 0;
}

static void put_text(const char *name, const char *text) {
    FILE *file = fopen(in_folder(name), "w");
    assert_non_null(file);
    fputs(text, file);
    fclose(file);
}

static void assert_says(lt_status found, lt_status expected, const char *text) {
    if (found != expected || !strstr(lt_error_message(), text))
        print_message("status %d, message: %s\n", found, lt_error_message());
    assert_int_equal(found, expected);
    assert_non_null(strstr(lt_error_message(), text));
}

#endif
