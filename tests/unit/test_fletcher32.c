/* The checksum of checkpoints/fletcher32.c is the one that HDF5's filter stores and accepts. */
#include "checkpoints/fletcher32.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>
#include <hdf5.h>
#include <stdio.h>
#include <unistd.h>

/* The definition, word by word: RFC 1146's Fletcher-32 over big-endian words with end-around carries. */
static uint32_t by_definition(const unsigned char *data, size_t bytes) {
    uint32_t first = 0, second = 0;
    for (size_t i = 0; i < bytes; i += 2) {
        uint32_t word = (uint32_t)data[i] << 8 | (i + 1 < bytes ? data[i + 1] : 0);
        first += word;
        first = (first & 0xffff) + (first >> 16);
        second += first;
        second = (second & 0xffff) + (second >> 16);
    }
    return second << 16 | first;
}

/* Worked by hand: words 0x6162 0x6364 0x6500 sum to 0x129c6 -> 0x29c7, running sums 0x6162, 0xc4c6, 0x29c7 to
 * 0x14fef -> 0x4ff0. */
static void known_values(void **state) {
    (void)state;
    static const unsigned char ones[4] = {0xff, 0xff, 0xff, 0xff}, zeros[64] = {0};
    assert_int_equal(lt_fletcher32("abcde", 5), 0x4ff029c7);
    assert_int_equal(lt_fletcher32("", 0), 0);
    assert_int_equal(lt_fletcher32(zeros, sizeof zeros), 0);
    assert_int_equal(lt_fletcher32(ones, sizeof ones), 0xffffffff);
    unsigned char stored[4];
    lt_fletcher32_store("abcde", 5, stored);
    assert_memory_equal(stored, "\xc7\x29\xf0\x4f", 4);
}

/* Lengths around the vector loop's rounds (32 bytes) and blocks (11,520 bytes), odd ones and odd addresses.
 */
static void every_length(void **state) {
    (void)state;
    enum { BYTES = 40000 };
    unsigned char *data = malloc(BYTES + 8);
    srand(1);
    for (int fill = 0; fill < 3; fill++) {
        for (int i = 0; i < BYTES + 8; i++)
            data[i] = (unsigned char)(fill == 0 ? rand() >> 7 : fill == 1 ? 0xff : 0);
        for (size_t bytes = 0; bytes < 200; bytes++)
            for (size_t at = 0; at < 3; at++)
                assert_int_equal(lt_fletcher32(data + at, bytes), by_definition(data + at, bytes));
        for (size_t bytes = 11500; bytes < 11560; bytes++)
            assert_int_equal(lt_fletcher32(data, bytes), by_definition(data, bytes));
        for (int i = 0; i < 50; i++) {
            size_t bytes = (size_t)rand() % BYTES;
            assert_int_equal(lt_fletcher32(data + 1, bytes), by_definition(data + 1, bytes));
        }
    }
    free(data);
}

/* What HDF5 writes behind a chunk. */
static void as_hdf5(void **state) {
    (void)state;
    enum { ELEMENTS = 7001 };
    char path[] = "/tmp/lazytrain-fletcher-XXXXXX";
    int file = mkstemp(path);
    float *values = malloc(ELEMENTS * sizeof *values);
    for (int i = 0; i < ELEMENTS; i++) values[i] = (float)i * 0.37f - 500.0f;
    hsize_t size = ELEMENTS;
    hid_t h = H5Fcreate(path, H5F_ACC_TRUNC, H5P_DEFAULT, H5P_DEFAULT);
    hid_t space = H5Screate_simple(1, &size, NULL), list = H5Pcreate(H5P_DATASET_CREATE);
    H5Pset_chunk(list, 1, &size);
    H5Pset_fletcher32(list);
    hid_t set = H5Dcreate2(h, "x", H5T_IEEE_F32LE, space, H5P_DEFAULT, list, H5P_DEFAULT);
    assert_true(H5Dwrite(set, H5T_NATIVE_FLOAT, H5S_ALL, H5S_ALL, H5P_DEFAULT, values) >= 0);
    assert_true(H5Fflush(h, H5F_SCOPE_GLOBAL) >= 0);
    hsize_t offset = 0, bytes = 0;
    haddr_t address = 0;
    unsigned mask = 1;
    assert_true(H5Dget_chunk_info(set, space, 0, &offset, &mask, &address, &bytes) >= 0);
    assert_int_equal(bytes, sizeof(float) * ELEMENTS + 4);
    unsigned char *chunk = malloc(bytes), sum[4];
    assert_int_equal(pread(file, chunk, bytes, (off_t)address), bytes);
    lt_fletcher32_store(values, sizeof(float) * ELEMENTS, sum);
    assert_memory_equal(chunk + sizeof(float) * ELEMENTS, sum, 4);
    H5Dclose(set);
    H5Pclose(list);
    H5Sclose(space);
    H5Fclose(h);
    free(chunk);
    free(values);
    close(file);
    unlink(path);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(known_values),
        cmocka_unit_test(every_length),
        cmocka_unit_test(as_hdf5),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
