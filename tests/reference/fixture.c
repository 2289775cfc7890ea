#include "tests/reference/fixture.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- host memory
 * -------------------------------------------------------------------------------------------- */

static void **allocations;
static size_t allocation_count, allocation_capacity;

void *test_alloc(int64_t count, size_t size) {
    if (allocation_count == allocation_capacity) {
        allocation_capacity = allocation_capacity == 0 ? 64 : 2 * allocation_capacity;
        void **grown = realloc(allocations, allocation_capacity * sizeof *grown);
        if (grown == NULL) abort();
        allocations = grown;
    }
    void *memory = calloc(count > 0 ? (size_t)count : 1, size);
    if (memory == NULL) abort();
    allocations[allocation_count++] = memory;
    return memory;
}

int test_free_all(void **state) {
    (void)state;
    for (size_t i = 0; i < allocation_count; i++) free(allocations[i]);
    free(allocations);
    allocations = NULL;
    allocation_count = allocation_capacity = 0;
    return 0;
}

/* ---- inputs
 * ------------------------------------------------------------------------------------------------- */

static uint64_t next(test_random *random) {
    uint64_t x = random->state += 0x9e3779b97f4a7c15u;
    x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9u;
    x = (x ^ (x >> 27)) * 0x94d049bb133111ebu;
    return x ^ (x >> 31);
}

double test_uniform(test_random *random) {
    return ((double)(next(random) >> 11) + 0.5) * 0x1p-53;
}

double test_normal(test_random *random) {
    double radius = sqrt(-2.0 * log(test_uniform(random)));
    return radius * cos(6.283185307179586 * test_uniform(random));
}

int64_t test_below(test_random *random, int64_t limit) {
    return (int64_t)(next(random) % (uint64_t)limit);
}

float *test_floats(test_random *random, int64_t count, double mean, double std) {
    float *values = TEST_NEW(float, count);
    for (int64_t i = 0; i < count; i++) values[i] = (float)(mean + std * test_normal(random));
    return values;
}

/* To nearest, ties to even. */
static uint16_t to_bfloat16(float value) {
    uint32_t bits;
    memcpy(&bits, &value, sizeof bits);
    if (isnan(value)) return 0x7fff;
    return (uint16_t)((bits + 0x7fffu + (bits >> 16 & 1)) >> 16);
}

static float from_bfloat16(uint16_t half) {
    const uint32_t bits = (uint32_t)half << 16;
    float value;
    memcpy(&value, &bits, sizeof value);
    return value;
}

void test_round(float *values, int64_t count) {
    for (int64_t i = 0; TEST_COMPUTE_TYPE == LT_BFLOAT16 && i < count; i++)
        values[i] = from_bfloat16(to_bfloat16(values[i]));
}

float *test_values(test_random *random, int64_t count, double mean, double std) {
    float *values = test_floats(random, count, mean, std);
    test_round(values, count);
    return values;
}

int32_t *test_tokens(test_random *random, int64_t count, int64_t vocabulary) {
    int32_t *tokens = TEST_NEW(int32_t, count);
    for (int64_t i = 0; i < count; i++) tokens[i] = (int32_t)test_below(random, vocabulary);
    return tokens;
}

double *test_widen(const float *values, int64_t count) {
    double *wide = TEST_NEW(double, count);
    for (int64_t i = 0; i < count; i++) wide[i] = (double)values[i];
    return wide;
}

void test_document_starts(const int *boundaries, int64_t first, int64_t length, int32_t *starts) {
    for (int64_t i = 0; i < length; i++) {
        starts[i] = 0;
        for (const int *b = boundaries; *b != 0; b++)
            if (*b <= first + i) starts[i] = *b;
    }
}

/* ---- comparison
 * --------------------------------------------------------------------------------------------- */

static const double HALF_UNIT = 0x1p-8; /* of bfloat16's last place, of the smallest value that has it */

double test_tolerance(double tolerance) {
    return TEST_COMPUTE_TYPE == LT_BFLOAT16 ? tolerance + HALF_UNIT : tolerance;
}

/* Entries may be off by `tolerance` of the largest, and `rounding` of their own size. */
static void compare(const char *what, const double *got, const double *expected, int64_t count,
                    double tolerance, double rounding, double floor) {
    double scale = floor, worst = -1.0;
    int64_t where = 0;
    for (int64_t i = 0; i < count; i++) scale = fmax(scale, fabs(expected[i]));
    for (int64_t i = 0; i < count; i++) {
        double error = fabs(got[i] - expected[i]) - rounding * fabs(expected[i]);
        if (isnan(error)) error = INFINITY;
        if (error > worst) {
            worst = error;
            where = i;
        }
    }
    if (getenv("TEST_SHOW_ERRORS") != NULL)
        fprintf(stderr, "  %-24s error %.2e of %.2e\n", what, scale > 0.0 ? worst / scale : worst, tolerance);
    if (worst > tolerance * scale)
        fail_msg("%s[%lld of %lld]: got %.9g, expected %.9g: off by %.3g, allowed %.3g", what,
                 (long long)where, (long long)count, got[where], expected[where],
                 fabs(got[where] - expected[where]), tolerance * scale + rounding * fabs(expected[where]));
}

void test_close_doubles(const char *what, const double *got, const double *expected, int64_t count,
                        double tolerance, double floor) {
    compare(what, got, expected, count, tolerance, 0.0, floor);
}

void test_close(const char *what, const float *got, const double *expected, int64_t count, double tolerance,
                double floor) {
    compare(what, test_widen(got, count), expected, count, tolerance, 0.0, floor);
}

void test_close_rounded(const char *what, const float *got, const double *expected, int64_t count,
                        double tolerance, double floor) {
    compare(what, test_widen(got, count), expected, count, tolerance, test_tolerance(0.0), floor);
}

/* ---- devices
 * ------------------------------------------------------------------------------------------------ */

enum { GUARD_BYTE = 0xa5 };

/* Another buffer of `bytes`, its content at `first` of `inner_bytes`. */
static lt_mem *new_buffer(test_arena *arena, size_t bytes, size_t first, size_t inner_bytes) {
    assert_true((size_t)arena->count < sizeof arena->buffers / sizeof arena->buffers[0]);
    const int number = arena->count++;
    const lt_mem whole = test_device_memory(arena->device, bytes);
    arena->buffers[number].whole = arena->buffers[number].inner = whole;
    arena->buffers[number].inner.address += first;
    arena->buffers[number].bytes = bytes;
    arena->buffers[number].inner_bytes = inner_bytes;
    return &arena->buffers[number].inner;
}

static lt_mem place(test_arena *arena, lt_type type, int64_t count, const void *values) {
    const size_t element = lt_type_bytes(type), content = (size_t)count * element;
    const size_t first = (size_t)arena->offset * element,
                 bytes = first + content + (size_t)TEST_GUARDS * element;
    lt_mem *inner = new_buffer(arena, bytes, first, content);
    unsigned char *image = TEST_NEW(unsigned char, (int64_t)bytes);
    memset(image, GUARD_BYTE, bytes);
    memcpy(image + first, values, content);
    arena->device->ops->upload(arena->device, arena->buffers[arena->count - 1].whole, image, (int64_t)bytes);
    inner->type = type;
    return *inner;
}

static const float *or_unset(const float *values, int64_t count) {
    if (values != NULL) return values;
    float *unset = TEST_NEW(float, count);
    for (int64_t i = 0; i < count; i++) unset[i] = NAN;
    return unset;
}

lt_mem test_float_buffer(test_arena *arena, const float *values, int64_t count) {
    return place(arena, LT_FLOAT32, count, or_unset(values, count));
}

lt_mem test_compute_buffer(test_arena *arena, const float *values, int64_t count) {
    if (TEST_COMPUTE_TYPE == LT_FLOAT32) return test_float_buffer(arena, values, count);
    uint16_t *halves = TEST_NEW(uint16_t, count);
    values = or_unset(values, count);
    for (int64_t i = 0; i < count; i++) halves[i] = to_bfloat16(values[i]);
    return place(arena, LT_BFLOAT16, count, halves);
}

lt_mem test_double_buffer(test_arena *arena, const double *values, int64_t count) {
    if (values == NULL) {
        double *unset = TEST_NEW(double, count);
        for (int64_t i = 0; i < count; i++) unset[i] = (double)NAN;
        values = unset;
    }
    return place(arena, LT_FLOAT64, count, values);
}

lt_mem test_integer_buffer(test_arena *arena, const int32_t *values, int64_t count) {
    return place(arena, LT_INT32, count, values != NULL ? values : TEST_NEW(int32_t, count));
}

/* Aligned as allocate() gives it: what lies there is the device's own affair. */
lt_mem test_byte_buffer(test_arena *arena, size_t bytes) {
    return *new_buffer(arena, bytes, 0, bytes);
}

void test_note(test_arena *arena, const void *values, size_t bytes) {
    if (bytes == 0) return;
    if (arena->record_bytes + bytes > arena->record_capacity) {
        arena->record_capacity = 2 * (arena->record_bytes + bytes);
        unsigned char *grown = realloc(arena->record, arena->record_capacity);
        if (grown == NULL) abort();
        arena->record = grown;
    }
    memcpy(arena->record + arena->record_bytes, values, bytes);
    arena->record_bytes += bytes;
}

static void read_into(test_arena *arena, void *to, lt_mem from, int64_t count) {
    lt_status status = arena->device->ops->download(arena->device, to, from, count);
    if (status != LT_OK) fail_msg("download: %s", lt_error_message());
    test_note(arena, to, (size_t)count * lt_type_bytes(from.type));
}

float *test_read_floats(test_arena *arena, lt_mem from, int64_t count) {
    float *values = TEST_NEW(float, count);
    if (from.type == LT_BFLOAT16) {
        uint16_t *halves = TEST_NEW(uint16_t, count);
        read_into(arena, halves, from, count);
        for (int64_t i = 0; i < count; i++) values[i] = from_bfloat16(halves[i]);
    } else {
        read_into(arena, values, from, count);
    }
    return values;
}

double *test_read_doubles(test_arena *arena, lt_mem from, int64_t count) {
    double *values = TEST_NEW(double, count);
    read_into(arena, values, from, count);
    return values;
}

void test_reserve(test_arena *arena, const lt_attention *attention, int64_t rows, int64_t hidden,
                  int64_t largest) {
    const lt_attention small = {
        .batch = 1, .query_length = 1, .key_length = 1, .heads = 1, .key_heads = 1, .head_size = 2};
    const lt_attention *shape = attention != NULL ? attention : &small;
    size_t bytes = arena->device->ops->scratch_bytes(arena->device, shape, rows, hidden, largest);
    assert_int_equal(arena->device->ops->reserve(arena->device, bytes), LT_OK);
}

static void check_guards(test_arena *arena, int buffer) {
    size_t bytes = arena->buffers[buffer].bytes;
    if (bytes == arena->buffers[buffer].inner_bytes) return;
    unsigned char *content = TEST_NEW(unsigned char, (int64_t)bytes);
    lt_mem whole = arena->buffers[buffer].whole;
    assert_int_equal(arena->device->ops->download(arena->device, content, whole, (int64_t)bytes), LT_OK);
    size_t first = (size_t)(arena->buffers[buffer].inner.address - whole.address);
    for (size_t i = 0; i < bytes; i++) {
        if (i == first) i += arena->buffers[buffer].inner_bytes;
        if (i < bytes && content[i] != GUARD_BYTE)
            fail_msg("buffer %d (%zu bytes) was written %s its bounds", buffer,
                     arena->buffers[buffer].inner_bytes, i < first ? "before" : "after");
    }
}

static void close_arena(test_arena *arena) {
    for (int i = 0; i < arena->count; i++) {
        check_guards(arena, i);
        test_free_device_memory(arena->device, arena->buffers[i].whole, arena->buffers[i].bytes);
    }
    arena->device->ops->destroy(arena->device);
}

void test_every_device(test_body body, const void *context) {
    int devices = 0;
    for (const char *const *name = TEST_DEVICES; *name != NULL; name++) {
        test_arena firsts[TEST_SETTINGS] = {{0}};
        for (int setting = 1; setting <= TEST_SETTINGS; setting++) {
            test_arena arena = {.device = test_open_device(*name, setting),
                                .offset = TEST_OFFSETS[setting - 1]};
            if (arena.device == NULL) break;
            devices++;
            assert_int_equal(arena.device->compute_type, TEST_COMPUTE_TYPE);
            if (getenv("TEST_SHOW_ERRORS") != NULL) fprintf(stderr, " %s, setting %d\n", *name, setting);
            body(&arena, context);
            close_arena(&arena);
            test_arena *first = &firsts[arena.kernels];
            if (first->device == NULL) {
                *first = arena;
                continue;
            }
            if (first->record_bytes != arena.record_bytes ||
                (arena.record_bytes > 0 && memcmp(first->record, arena.record, arena.record_bytes) != 0))
                fail_msg("%s: setting %d gives other bits than an earlier one", *name, setting);
            free(arena.record);
        }
        for (int kernels = 0; kernels < TEST_SETTINGS; kernels++) free(firsts[kernels].record);
    }
    assert_true(devices > 0);
}
