/* Files that the tests of data/ make for themselves, in a folder of their own that each test's teardown
 * removes. */
#ifndef LT_TESTS_DATA_FILES_H
#define LT_TESTS_DATA_FILES_H

#define _GNU_SOURCE /* nftw */

#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <setjmp.h>
#include <cmocka.h>

#include <fcntl.h>
#include <ftw.h>
#include <sys/stat.h>
#include <unistd.h>

#include "comm/status.h"

static char folder[64];

static inline int make_folder(void **state) {
    (void)state;
    strcpy(folder, "/tmp/lt_data_XXXXXX");
    return mkdtemp(folder) == NULL;
}

static inline int remove_entry(const char *path, const struct stat *status, int flag, struct FTW *place) {
    (void)status, (void)flag, (void)place;
    return remove(path);
}

static inline int remove_folder(void **state) {
    (void)state;
    return nftw(folder, remove_entry, 16, FTW_DEPTH | FTW_PHYS);
}

/* The path of `name` in the test's folder; one of 16 buffers in turn. */
static inline const char *in_folder(const char *name) {
    static char paths[16][512];
    static int next;
    char *path = paths[next++ % 16];
    snprintf(path, sizeof paths[0], "%s/%s", folder, name);
    return path;
}

static inline const char *write_file(const char *name, const void *data, size_t size) {
    const char *path = in_folder(name);
    FILE *file = fopen(path, "wb");
    assert_non_null(file);
    assert_int_equal(fwrite(data, 1, size, file), size);
    assert_int_equal(fclose(file), 0);
    return path;
}

static inline const char *write_text(const char *name, const char *text) {
    return write_file(name, text, strlen(text));
}

/* The header of a shard, little-endian as on the machines that the tests run on. */
static inline void fill_header(int32_t header[256], int32_t magic, int32_t version, int32_t tokens) {
    memset(header, 0, 1024);
    header[0] = magic, header[1] = version, header[2] = tokens;
}

/* A shard whose token i is (first + i * step) modulo `modulus`, as uint16 (width 2) or uint32 (width 4). */
static inline const char *write_shard(const char *name, int width, int32_t tokens, uint32_t first,
                                      uint32_t step, uint32_t modulus) {
    const char *path = in_folder(name);
    FILE *file = fopen(path, "wb");
    int32_t header[256];
    assert_non_null(file);
    fill_header(header, width == 2 ? 20240520 : 20240801, width == 2 ? 1 : 7, tokens);
    fwrite(header, sizeof header, 1, file);
    for (uint32_t i = 0; i < (uint32_t)tokens; i++) {
        uint32_t id = (first + i * step) % modulus;
        fwrite(&id, (size_t)width, 1, file);
    }
    assert_int_equal(fclose(file), 0);
    return path;
}

/* The stored message is one line that holds every one of the texts (NULL ends them). */
static inline void assert_message(const char *text, ...) {
    const char *message = lt_error_message();
    va_list texts;
    va_start(texts, text);
    for (; text != NULL; text = va_arg(texts, const char *))
        if (strstr(message, text) == NULL) fail_msg("expected '%s' in the message: %s", text, message);
    va_end(texts);
    assert_null(strchr(message, '\n'));
}

/* Sends stderr to a file in the test's folder until end_capture(), which gives back what was written. */
static int captured_descriptor;

static inline void begin_capture(void) {
    fflush(stderr);
    captured_descriptor = dup(2);
    int file = open(in_folder(".stderr"), O_WRONLY | O_CREAT | O_TRUNC, 0600);
    assert_true(captured_descriptor >= 0 && file >= 0);
    dup2(file, 2);
    close(file);
}

static inline const char *end_capture(void) {
    static char text[8192];
    fflush(stderr);
    dup2(captured_descriptor, 2);
    close(captured_descriptor);
    FILE *file = fopen(in_folder(".stderr"), "rb");
    assert_non_null(file);
    text[fread(text, 1, sizeof text - 1, file)] = '\0';
    fclose(file);
    return text;
}

/* The path of a file of the shared test data, or NULL. One of 4 buffers in turn. */
static inline const char *shared_data(const char *name) {
    static char paths[4][512];
    static int next;
    char *path = paths[next++ % 4];
    const char *root = getenv("LAZYTRAIN_TEST_DATA");
    snprintf(path, sizeof paths[0], "%s/%s", root == NULL ? "../shared/data" : root, name);
    return access(path, R_OK) == 0 ? path : NULL;
}

#endif
