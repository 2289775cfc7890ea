/* What the tests of operations and models share: random inputs, comparison with the reference, buffers on a
 * device, and one loop over every device that this machine has.
 *
 * Host memory comes from test_alloc() and is freed by the teardown test_free_all(), also after a failure.
 * Buffers on a device lie between guard bytes that are checked when the device is closed, and at addresses
 * that are aligned to their element and no more. Under AddressSanitizer there are no guards: each allocation
 * has exactly the size of the buffer.
 */
#ifndef LT_TESTS_FIXTURE_H
#define LT_TESTS_FIXTURE_H

#include "model/ops.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

/* Zeroed memory that lives until the end of the test. */
void *test_alloc(int64_t count, size_t size);
int test_free_all(void **state);

#define TEST_NEW(type, count) ((type *)test_alloc((count), sizeof(type)))

/* A random generator (SplitMix64): the seed alone decides what comes. */
typedef struct test_random {
    uint64_t state;
} test_random;

double test_uniform(test_random *random); /* in (0, 1) */
double test_normal(test_random *random);
int64_t test_below(test_random *random, int64_t limit); /* 0 .. limit - 1 */

/* `count` floats drawn from N(mean, std). */
float *test_floats(test_random *random, int64_t count, double mean, double std);
int32_t *test_tokens(test_random *random, int64_t count, int64_t vocabulary);

/* The same values as doubles. */
double *test_widen(const float *values, int64_t count);

/* The first visible key of each of `length` queries at positions `first`, `first` + 1, ... of a row whose
 * documents start at 0 and at each of `boundaries` (ascending, ended by 0). */
void test_document_starts(const int *boundaries, int64_t first, int64_t length, int32_t *starts);

/* Fails unless every |got - expected| <= tolerance * max(max |expected|, floor). NaN never passes; with floor
 * 0, all of an expected tensor of zeros must be exactly 0. */
void test_close(const char *what, const float *got, const double *expected, int64_t count, double tolerance,
                double floor);
void test_close_doubles(const char *what, const double *got, const double *expected, int64_t count,
                        double tolerance, double floor);

/* A device and the buffers that a test has on it. */
typedef struct test_arena {
    lt_device *device;
    struct {
        lt_mem whole, inner;
        size_t bytes, inner_bytes;
    } buffers[32];
    int count;
    unsigned char *record; /* everything read so far */
    size_t record_bytes, record_capacity;
} test_arena;

/* Buffers with the given content; NULL: NaN in floats and doubles, zero otherwise. */
lt_mem test_float_buffer(test_arena *arena, const float *values, int64_t count);
lt_mem test_double_buffer(test_arena *arena, const double *values, int64_t count);
lt_mem test_integer_buffer(test_arena *arena, const int32_t *values, int64_t count);
lt_mem test_byte_buffer(test_arena *arena, size_t bytes);

/* Reads a buffer into memory of the test, and notes the bits for comparison between thread counts. */
float *test_read_floats(test_arena *arena, lt_mem from, int64_t count);
double *test_read_doubles(test_arena *arena, lt_mem from, int64_t count);

/* Notes bits that were read in another way. */
void test_note(test_arena *arena, const void *values, size_t bytes);

/* Reserves the device's scratch memory for `attention` (NULL: none), matrices of rows x hidden and flat
 * arrays of up to `largest` elements. */
void test_reserve(test_arena *arena, const lt_attention *attention, int64_t rows, int64_t hidden,
                  int64_t largest);

/* Runs `body` on a device of every instruction set that this machine has, with 1, 2 and 3 threads, and fails
 * unless what it reads has the same bits at each number of threads. */
typedef void (*test_body)(test_arena *arena, const void *context);
void test_every_device(test_body body, const void *context);

/* The same loop for code that makes its own use of the device: sets LAZYTRAIN_ISA, and returns NULL where the
 * machine lacks that instruction set. The list ends with NULL. */
extern const char *const TEST_INSTRUCTION_SETS[];
lt_device *test_open_device(const char *instruction_set, int threads);

#endif
