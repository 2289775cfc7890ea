/* One good checkpoint in a folder of its own, for the tests of reading and writing. Include after cmocka.h.
 */
#ifndef LT_TESTS_CHECKPOINT_FIXTURE_H
#define LT_TESTS_CHECKPOINT_FIXTURE_H

#include "checkpoint_files.h"

#include <fcntl.h>
#include <hdf5.h>
#include <signal.h>
#include <sys/stat.h>
#include <unistd.h>

static lt_grid grid;
static char folder[256], good[300], bad[300];
static test_model saved;
static unsigned char *image; /* bytes of the good file */
static size_t image_bytes;

static void read_image(void) {
    struct stat about;
    int file = open(good, O_RDONLY);
    assert_true(file >= 0 && fstat(file, &about) == 0);
    image_bytes = (size_t)about.st_size;
    image = malloc(image_bytes);
    assert_int_equal(read(file, image, image_bytes), image_bytes);
    close(file);
}

static int set_up(void **state) {
    (void)state;
    int argc = 0;
    char **argv = NULL;
    if (lt_grid_open(&argc, &argv, &grid) != LT_OK) return -1;
    signal(SIGXFSZ, SIG_IGN);
    H5Eset_auto2(H5E_DEFAULT, NULL, NULL);
    lt_model_shape shape = test_shape(1);
    test_model_create(&saved, &shape, true);
    test_folder(folder);
    snprintf(good, sizeof good, "%s/step_00000007.h5", folder);
    snprintf(bad, sizeof bad, "%s/bad.h5", folder);
    lt_checkpoint_header header = test_header(7);
    lt_tensor_access access = test_access(&saved);
    if (test_save(&grid, folder, &header, &saved.registry, &access) != LT_OK) return -1;
    read_image();
    return 0;
}

static int tear_down(void **state) {
    (void)state;
    free(image);
    test_model_destroy(&saved);
    test_remove_folder(folder);
    lt_grid_close(&grid);
    return 0;
}

static void assert_says(lt_status found, lt_status expected, const char *text) {
    if (found != expected || !strstr(lt_error_message(), text))
        print_message("status %d, message: %s\n", found, lt_error_message());
    assert_int_equal(found, expected);
    assert_non_null(strstr(lt_error_message(), text));
}

#endif
