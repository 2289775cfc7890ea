#include "data/order.h"

#include <stddef.h>

enum { ROUNDS = 12 };

/* The finaliser of SplitMix64 (Stafford's mix 13): every bit of the input changes each bit of the output with
 * a chance of one half. */
static uint64_t mix(uint64_t x) {
    x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9u;
    x = (x ^ (x >> 27)) * 0x94d049bb133111ebu;
    return x ^ (x >> 31);
}

typedef struct network {
    int half_bits; /* a value has twice as many */
    uint64_t key[ROUNDS];
    uint64_t swap; /* 1: values 0 and 1 change places in the end */
} network;

/* What it computes is part of what a checkpoint means: another constant would give a resumed run other data.
 */
static network make_network(uint64_t samples, uint64_t seed, uint64_t epoch) {
    const uint64_t step = 0x9e3779b97f4a7c15u;
    network result = {.half_bits = 1};
    while (result.half_bits < 32 && (uint64_t)1 << (2 * result.half_bits) < samples) result.half_bits++;
    uint64_t state = mix(mix(seed + step) ^ epoch);
    for (int i = 0; i < ROUNDS; i++) result.key[i] = mix(state += step);
    result.swap = mix(state + step) & 1;
    return result;
}

/* A bijection of 0 ... 2^(2 half_bits) - 1, as each round can be undone. */
static uint64_t permute(const network *net, uint64_t value) {
    uint64_t mask = ((uint64_t)1 << net->half_bits) - 1;
    uint64_t left = value >> net->half_bits, right = value & mask;
    for (int i = 0; i < ROUNDS; i++) {
        uint64_t next = left ^ (mix(right ^ net->key[i]) & mask);
        left = right;
        right = next;
    }
    value = left << net->half_bits | right;
    /* The rounds alone are always an even permutation (from 4 bits on), which shows in the order of few
     * samples: a swap by the toss of a coin gives odd ones their half. */
    return value < 2 ? value ^ net->swap : value;
}

int64_t lt_order_sample(const lt_order *order, int64_t item, int64_t *epoch) {
    int64_t turn = item / order->samples, place = item % order->samples;
    if (epoch != NULL) *epoch = turn;
    if (!order->shuffle || order->samples == 1) return place;
    uint64_t samples = (uint64_t)order->samples, value = (uint64_t)place;
    network net = make_network(samples, order->seed, (uint64_t)turn);
    /* The domain is less than four times as large as the range, or four for the least: a few turns on
     * average. A walk that starts inside comes back inside, and no two walks end in one place. */
    do value = permute(&net, value);
    while (value >= samples);
    return (int64_t)value;
}
