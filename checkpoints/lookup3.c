#include "checkpoints/lookup3.h"

static uint32_t rotated(uint32_t value, int bits) {
    return value << bits | value >> (32 - bits);
}

static uint32_t word(const unsigned char *at) {
    return at[0] | (uint32_t)at[1] << 8 | (uint32_t)at[2] << 16 | (uint32_t)at[3] << 24;
}

/* The three words of the state go round: a, b, c, a, ... */
static void mix(uint32_t s[3]) {
    static const int bits[6] = {4, 6, 8, 16, 19, 4};
    for (int i = 0; i < 6; i++) {
        uint32_t *a = &s[i % 3], *b = &s[(i + 1) % 3], *c = &s[(i + 2) % 3];
        *a -= *c;
        *a ^= rotated(*c, bits[i]);
        *c += *b;
    }
}

static void finish(uint32_t s[3]) {
    static const int bits[7] = {14, 11, 25, 16, 4, 14, 24};
    for (int i = 0; i < 7; i++) {
        uint32_t *to = &s[(i + 2) % 3], from = s[(i + 1) % 3];
        *to ^= from;
        *to -= rotated(from, bits[i]);
    }
}

uint32_t lt_lookup3(const unsigned char *data, size_t bytes) {
    const uint32_t start = 0xdeadbeef + (uint32_t)bytes;
    uint32_t s[3] = {start, start, start};
    if (bytes == 0) return s[2];
    for (; bytes > 12; data += 12, bytes -= 12) {
        for (int i = 0; i < 3; i++) s[i] += word(data + 4 * i);
        mix(s);
    }
    unsigned char last[12] = {0};
    for (size_t i = 0; i < bytes; i++) last[i] = data[i];
    for (int i = 0; i < 3; i++) s[i] += word(last + 4 * i);
    finish(s);
    return s[2];
}
