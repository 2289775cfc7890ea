#include "checkpoints/fletcher32.h"

#include <string.h>

/* With n words w[0..n) the sums are S1 = sum of w[i] and S2 = sum of (n - i) w[i], modulo 65535. Both are
 * linear, so three things make them fast:
 *  - words are dealt to LANES independent pairs of sums (a[j] += w; b[j] += a[j]) in vectors; with word i = k
 * LANES + j of a block of ROUNDS x LANES words, S1 = sum a[j],   S2 = LANES sum b[j] - sum j a[j];
 *  - 2^16 = 1 modulo 65535, so swapping the bytes of a word multiplies it by 256: the words are summed as a
 *    little-endian machine reads them, and the sums are swapped once, at the end;
 *  - 360 rounds keep b[j] <= 360 x 361 / 2 x 65535 within 32 bits.
 */
enum { LANES = 16, ROUNDS = 360 };
static const uint64_t MODULUS = 65535;

_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__,
               "checkpoints are written on little-endian machines only");

typedef struct sums {
    uint64_t first, second; /* below 65535 between blocks */
    uint64_t any;           /* not 0 once a word was */
} sums;

/* Four 32-bit lanes: the vector that every machine has. A load of one holds eight words, the even ones in its
 * lower halves, the odd ones in its upper halves. */
typedef uint32_t quad __attribute__((vector_size(16)));
enum { QUADS = LANES / 8 };

static void add_lanes(sums *total, const unsigned char *data, size_t rounds) {
    quad a[QUADS][2] = {{{0}}}, b[QUADS][2] = {{{0}}}; /* [..][0] even words, [..][1] odd words */
    for (size_t k = 0; k < rounds; k++) {
        quad words[QUADS];
        memcpy(words, data + k * sizeof words, sizeof words);
#pragma GCC unroll 2
        for (int q = 0; q < QUADS; q++) {
            a[q][0] += words[q] & 0xffff;
            a[q][1] += words[q] >> 16;
            b[q][0] += a[q][0];
            b[q][1] += a[q][1];
        }
    }
    uint64_t first = 0, later = 0, second = 0;
    for (int j = 0; j < LANES; j++) {
        int q = j / 8, lane = j % 8 / 2, odd = j % 2;
        first += a[q][odd][lane];
        later += (uint64_t)j * a[q][odd][lane];
        second += b[q][odd][lane];
    }
    second = second * LANES - later;
    total->second = (total->second + (uint64_t)rounds * LANES * total->first + second) % MODULUS;
    total->first = (total->first + first) % MODULUS;
    total->any |= first;
}

static void add_word(sums *total, uint16_t word) {
    total->first = (total->first + word) % MODULUS;
    total->second = (total->second + total->first) % MODULUS;
    total->any |= word;
}

uint32_t lt_fletcher32(const void *data, size_t bytes) {
    const unsigned char *p = data;
    const size_t round_bytes = LANES * sizeof(uint16_t);
    sums total = {0, 0, 0};
    while (bytes >= round_bytes) {
        size_t rounds = bytes / round_bytes;
        if (rounds > ROUNDS) rounds = ROUNDS;
        add_lanes(&total, p, rounds);
        p += rounds * round_bytes;
        bytes -= rounds * round_bytes;
    }
    for (; bytes >= 2; p += 2, bytes -= 2) add_word(&total, (uint16_t)(p[0] | p[1] << 8));
    if (bytes) add_word(&total, p[0]);

    /* HDF5 folds carries instead of dividing, which never turns a sum that was not 0 into 0. */
    if (!total.any) return 0;
    uint32_t first = (uint32_t)(total.first * 256 % MODULUS),
             second = (uint32_t)(total.second * 256 % MODULUS);
    if (first == 0) first = (uint32_t)MODULUS;
    if (second == 0) second = (uint32_t)MODULUS;
    return second << 16 | first;
}

void lt_fletcher32_store(const void *data, size_t bytes, unsigned char stored[LT_FLETCHER32_BYTES]) {
    uint32_t sum = lt_fletcher32(data, bytes);
    for (int i = 0; i < LT_FLETCHER32_BYTES; i++) stored[i] = (unsigned char)(sum >> (8 * i));
}
