/* The tokens of a BPE model by their text, and its merges by the pair of ids that they join. Built once, then
 * only read. Internal to data/tokenizers/. Local.
 */
#ifndef LT_DATA_TOKENIZERS_VOCABULARY_H
#define LT_DATA_TOKENIZERS_VOCABULARY_H

#include "comm/status.h"

#include <stddef.h>
#include <stdint.h>

enum { LT_MAX_TOKENS = 1 << 24 }; /* ids below this */

typedef struct lt_token_text {
    size_t place; /* in `text` */
    uint32_t bytes;
    int32_t id;
} lt_token_text;

typedef struct lt_vocabulary {
    char *text; /* malloc'ed: all texts */
    size_t text_bytes, text_capacity;
    lt_token_text *token; /* malloc'ed [capacity], in the order of lt_vocabulary_add() */
    size_t count, capacity;
    int32_t *slot; /* malloc'ed [slots, a power of two]: index into token, or -1 */
    size_t slots;
} lt_vocabulary;

/* LT_BAD_INPUT: the text is there already; LT_IO: no memory. */
lt_status lt_vocabulary_add(lt_vocabulary *vocabulary, const char *text, size_t bytes, int32_t id);

/* The id of a text, or -1. */
int32_t lt_vocabulary_find(const lt_vocabulary *vocabulary, const char *text, size_t bytes);
void lt_vocabulary_free(lt_vocabulary *vocabulary);

/* A merge of `left` and `right` into `result`; the lowest rank goes first. */
typedef struct lt_merge {
    int32_t left, right; /* left -1: a free slot */
    int32_t rank, result;
} lt_merge;

typedef struct lt_merges {
    lt_merge *slot; /* malloc'ed [slots, a power of two] */
    size_t slots, count;
} lt_merges;

/* A pair that is there already gets the new rank, as in the reference. LT_IO: no memory. */
lt_status lt_merges_add(lt_merges *merges, lt_merge merge);

static inline size_t lt_merges_hash(int32_t left, int32_t right) {
    const uint64_t pair = (uint64_t)(uint32_t)left << 32 | (uint32_t)right;
    return (size_t)((pair * UINT64_C(0x9e3779b97f4a7c15)) >> 32);
}

/* The merge of a pair, or NULL. */
static inline const lt_merge *lt_merges_find(const lt_merges *merges, int32_t left, int32_t right) {
    const size_t mask = merges->slots - 1;
    for (size_t i = lt_merges_hash(left, right) & mask;; i = (i + 1) & mask) {
        const lt_merge *merge = &merges->slot[i];
        if (merge->left == left && merge->right == right) return merge;
        if (merge->left < 0) return NULL;
    }
}

#endif
