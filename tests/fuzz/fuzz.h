/* What the fuzz targets share. A target is a libFuzzer program; FUZZ_CHECKPOINT names a small good
 * checkpoint, and what is made of it goes first into the folder FUZZ_CORPUS.
 *
 * Whatever a file holds, or the child that walks it says, reading it ends with LT_OK, LT_BAD_INPUT or LT_IO,
 * and with a message where it is not LT_OK. The sanitizers see the rest. */
#ifndef LT_TESTS_FUZZ_H
#define LT_TESTS_FUZZ_H

#include "checkpoints/stored.h"
#include "comm/watchdog.h"

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* There is no watchdog here: comm/watchdog.c would bring MPI along. */
void lt_watchdog_file(const char *path) {
    (void)path;
}

int LLVMFuzzerInitialize(int *argc, char ***argv);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static const char *checkpoint; /* the good one's path */

/* How often something happened, told at the end. */
static long executions, accepted, crashed;

static void tell(void) {
    printf("# fuzz: %ld executions: %ld accepted, %ld taken for a crash or hang of the child\n", executions,
           accepted, crashed);
}

static inline void check_status(lt_status status) {
    if (status == LT_OK) return;
    const char *message = lt_error_message();
    if ((status != LT_BAD_INPUT && status != LT_IO) || message[0] == '\0') abort();
    crashed += strstr(message, "the HDF5 library crashed") || strstr(message, "without an end");
}

static inline void put_in_corpus(const char *name, const void *bytes, size_t size) {
    char path[4096];
    snprintf(path, sizeof path, "%s/%s", getenv("FUZZ_CORPUS"), name);
    FILE *file = fopen(path, "w");
    if (file == NULL || fwrite(bytes, 1, size, file) != size || fclose(file) != 0) abort();
}

static inline void begin(void) {
    checkpoint = getenv("FUZZ_CHECKPOINT");
    if (checkpoint == NULL || getenv("FUZZ_CORPUS") == NULL) {
        fprintf(stderr, "FUZZ_CHECKPOINT and FUZZ_CORPUS must be set: tests/fuzz/run.sh does\n");
        exit(2);
    }
    atexit(tell);
}

#endif
