/* Where HDF5 keeps the structure of a checkpoint: in blocks that begin with a signature and hold a checksum,
 * most of them at their end. */
#ifndef LT_TESTS_CHECKPOINT_BLOCKS_H
#define LT_TESTS_CHECKPOINT_BLOCKS_H

#include "checkpoints/lookup3.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

typedef struct test_block {
    size_t start, size;
    size_t checksum; /* where in the block */
} test_block;

enum { TEST_CHECKSUM_BYTES = 4, TEST_MOST_BLOCK_BYTES = 16384 };

/* A direct block of a heap holds its checksum behind its addresses, and it is zero while it is computed. */
static inline bool test_block_is_direct(const unsigned char *at) {
    return memcmp(at, "FHDB", 4) == 0;
}

/* What the checksum of a block of `size` bytes at `at` should be. */
static inline uint32_t test_block_sum(const unsigned char *at, size_t size, size_t checksum) {
    unsigned char copy[TEST_MOST_BLOCK_BYTES];
    if (!test_block_is_direct(at)) return lt_lookup3(at, checksum);
    memcpy(copy, at, size);
    memset(copy + checksum, 0, TEST_CHECKSUM_BYTES);
    return lt_lookup3(copy, size);
}

static inline bool test_block_starts(const unsigned char *at) {
    static const char *const signatures[] = {"OHDR", "OCHK", "FRHP", "FHDB", "FHIB", "BTHD", "BTLF",   "BTIN",
                                             "FAHD", "FADB", "EAHD", "EAIB", "FSHD", "FSSE", "\x89HDF"};
    for (size_t i = 0; i < sizeof signatures / sizeof *signatures; i++)
        if (memcmp(at, signatures[i], 4) == 0) return true;
    return false;
}

/* The block at `at`, before `left` bytes of the file: as long as makes its checksum right. */
static inline bool test_block_measure(const unsigned char *at, size_t left, test_block *block) {
    const bool direct = test_block_is_direct(at);
    size_t size = direct ? 512 : 12;
    for (; size <= left && size <= TEST_MOST_BLOCK_BYTES; size += direct ? size : 1) {
        uint32_t sum;
        block->size = size;
        block->checksum = direct ? 17 : size - TEST_CHECKSUM_BYTES;
        memcpy(&sum, at + block->checksum, sizeof sum);
        if (test_block_sum(at, size, block->checksum) == sum) return true;
    }
    return false;
}

/* Finds at most `most` blocks of a file's `bytes` bytes. */
static inline size_t test_blocks_find(const unsigned char *file, size_t bytes, test_block *blocks,
                                      size_t most) {
    size_t count = 0;
    for (size_t at = 0; at + 12 <= bytes && count < most; at++) {
        if (!test_block_starts(file + at) || !test_block_measure(file + at, bytes - at, &blocks[count]))
            continue;
        blocks[count].start = at;
        at += blocks[count++].size - 1;
    }
    return count;
}

#endif
