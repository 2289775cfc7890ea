#include "trainer/sample.h"

#include <math.h>

/* SplitMix64 (Steele, Lea, Flood 2014), to a double in [0, 1). */
static double uniform(uint64_t *state) {
    uint64_t x = *state += 0x9e3779b97f4a7c15u;
    x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9u;
    x = (x ^ (x >> 27)) * 0x94d049bb133111ebu;
    return (double)((x ^ (x >> 31)) >> 11) * 0x1p-53;
}

/* Whether token a comes before b: larger logit, then lower id. */
static int before(const float *logits, int32_t a, int32_t b) {
    if (logits[a] != logits[b]) return logits[a] > logits[b];
    return a < b;
}

static void sift_down(const float *logits, int32_t *heap, int64_t root, int64_t count) {
    for (int64_t child; (child = 2 * root + 1) < count; root = child) {
        if (child + 1 < count && before(logits, heap[child + 1], heap[child])) child++;
        if (!before(logits, heap[child], heap[root])) return;
        const int32_t swapped = heap[child];
        heap[child] = heap[root];
        heap[root] = swapped;
    }
}

/* Puts the `wanted` best tokens at the end of `order`, the best one last: the first turns of a heap sort. */
static void select_best(const float *logits, int64_t vocabulary, int64_t wanted, int32_t *order) {
    for (int64_t i = 0; i < vocabulary; i++) order[i] = (int32_t)i;
    for (int64_t root = vocabulary / 2 - 1; root >= 0; root--) sift_down(logits, order, root, vocabulary);
    for (int64_t left = vocabulary; left > vocabulary - wanted; left--) {
        const int32_t best = order[0];
        order[0] = order[left - 1];
        order[left - 1] = best;
        sift_down(logits, order, 0, left - 1);
    }
}

int32_t lt_sample(lt_sampler *sampler, const float *logits, int64_t vocabulary, int32_t *order) {
    const int64_t wanted = sampler->temperature == 0                           ? 1
                           : sampler->top_k > 0 && sampler->top_k < vocabulary ? sampler->top_k
                                                                               : vocabulary;
    select_best(logits, vocabulary, wanted, order);
    const int32_t best = order[vocabulary - 1];
    if (wanted == 1) return best;
    double total = 0;
    for (int64_t i = vocabulary - wanted; i < vocabulary; i++)
        total += exp(((double)logits[order[i]] - (double)logits[best]) / sampler->temperature);
    double target = uniform(&sampler->state) * total;
    for (int64_t i = vocabulary - 1; i > vocabulary - wanted; i--) {
        target -= exp(((double)logits[order[i]] - (double)logits[best]) / sampler->temperature);
        if (target < 0) return order[i];
    }
    return order[vocabulary - wanted];
}
