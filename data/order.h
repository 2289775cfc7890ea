/* The order of samples: item g of a run is sample permutation_{seed, epoch}(g mod N) of epoch g div N, with a
 * keyed permutation in O(1) time and memory (a Feistel network over the smallest even number of bits that
 * holds N, walked until it falls inside). Independent of ranks; nothing to save but g.
 */
#ifndef LT_DATA_ORDER_H
#define LT_DATA_ORDER_H

#include <stdbool.h>
#include <stdint.h>

typedef struct lt_order {
    int64_t samples; /* N >= 1 */
    uint64_t seed;
    bool shuffle; /* false: the identity */
} lt_order;

/* The sample of item g >= 0, and its epoch if `epoch` is not NULL. */
int64_t lt_order_sample(const lt_order *order, int64_t item, int64_t *epoch);

#endif
