/* What the tests of operations and models share: random inputs, comparison with the reference, buffers on a
 * device, and one loop over every device that the program is linked with and this machine has.
 *
 * Host memory comes from test_alloc() and is freed by the teardown test_free_all(), also after a failure.
 * Buffers on a device lie between guard bytes that are checked when the device is closed, and at addresses
 * that may be aligned to their element and no more (TEST_OFFSETS). Under AddressSanitizer each allocation
 * ends with its buffer.
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
/* The same, rounded to the devices' compute type: what the device takes is then what the reference takes. */
float *test_values(test_random *random, int64_t count, double mean, double std);
void test_round(float *values, int64_t count);
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
/* Of values that were rounded once to the compute type, which may move each of them by half a unit of its
 * last place beyond that. */
void test_close_rounded(const char *what, const float *got, const double *expected, int64_t count,
                        double tolerance, double floor);

/* What may separate values of the compute type from exact ones, of the largest entry, where `tolerance` would
 * do in float32: in bfloat16 half a unit of the last place more. */
double test_tolerance(double tolerance);

/* The devices that a program tests, and what they have in common, are those of one of two files that it is
 * linked with: tests/reference/cpu_devices.c (each instruction set of this machine; settings are 1, 2 and 3
 * threads) or tests/emulation/devices.cpp (an emulated GPU; settings are orders of threads). */
extern const char *const TEST_DEVICES[]; /* ended by NULL */
enum { TEST_SETTINGS = 3 };              /* of each device, from 1 on: all must give the same bits */
extern const lt_type TEST_COMPUTE_TYPE;
extern const lt_status TEST_NO_MEMORY;        /* what allocate() answers to more than there is */
extern const int TEST_OFFSETS[TEST_SETTINGS]; /* elements from an aligned address to a buffer */
/* Whether the device's kernels of attention are others where buffers are aligned to 16 bytes: their bits are
 * too. */
bool test_alignment_chooses(lt_device *device);
extern const int TEST_GUARDS; /* elements after a buffer: 0 under AddressSanitizer, which needs none */

/* NULL where this machine lacks that device. */
lt_device *test_open_device(const char *name, int setting);

/* Memory for buffers, of exactly this size under AddressSanitizer. */
lt_mem test_device_memory(lt_device *device, size_t bytes);
void test_free_device_memory(lt_device *device, lt_mem mem, size_t bytes);

/* A device and the buffers that a test has on it. */
typedef struct test_arena {
    lt_device *device;
    int offset;  /* elements before a buffer */
    int kernels; /* 0 to 2, for the test to set: bits are compared between settings of one number */
    struct {
        lt_mem whole, inner;
        size_t bytes, inner_bytes;
    } buffers[128];
    int count;
    unsigned char *record; /* everything read so far */
    size_t record_bytes, record_capacity;
} test_arena;

/* Buffers with the given content; NULL: NaN in floats and doubles, zero otherwise. A compute buffer has the
 * compute type, to which values are rounded. */
lt_mem test_float_buffer(test_arena *arena, const float *values, int64_t count);
lt_mem test_compute_buffer(test_arena *arena, const float *values, int64_t count);
lt_mem test_double_buffer(test_arena *arena, const double *values, int64_t count);
lt_mem test_integer_buffer(test_arena *arena, const int32_t *values, int64_t count);
lt_mem test_byte_buffer(test_arena *arena, size_t bytes);

/* Reads a buffer into memory of the test, and notes the bits for comparison between settings: floats from a
 * buffer of float32 or the compute type. */
float *test_read_floats(test_arena *arena, lt_mem from, int64_t count);
double *test_read_doubles(test_arena *arena, lt_mem from, int64_t count);

/* Notes bits that were read in another way. */
void test_note(test_arena *arena, const void *values, size_t bytes);

/* Reserves the device's scratch memory for `attention` (NULL: none), matrices of rows x hidden and flat
 * arrays of up to `largest` elements. */
void test_reserve(test_arena *arena, const lt_attention *attention, int64_t rows, int64_t hidden,
                  int64_t largest);

/* Runs `body` on every device that this machine has, in each setting, and fails unless what it reads has the
 * same bits in all of them. */
typedef void (*test_body)(test_arena *arena, const void *context);
void test_every_device(test_body body, const void *context);

#endif
