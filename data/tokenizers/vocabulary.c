#include "data/tokenizers/vocabulary.h"

#include <stdlib.h>
#include <string.h>
#include <xxhash.h>

static lt_status no_memory(void) {
    return lt_fail(LT_IO, "no memory for a tokenizer's vocabulary");
}

/* ---- texts ---- */

/* The slot of a text: where it is, or where it would be. */
static size_t find_slot(const lt_vocabulary *vocabulary, const char *text, size_t bytes) {
    const size_t mask = vocabulary->slots - 1;
    size_t i = (size_t)XXH3_64bits(text, bytes) & mask;
    while (vocabulary->slot[i] >= 0) {
        const lt_token_text *token = &vocabulary->token[vocabulary->slot[i]];
        if (token->bytes == bytes && memcmp(vocabulary->text + token->place, text, bytes) == 0) break;
        i = (i + 1) & mask;
    }
    return i;
}

/* At least half of the slots stay free. */
static lt_status grow_slots(lt_vocabulary *vocabulary) {
    if (2 * (vocabulary->count + 1) <= vocabulary->slots) return LT_OK;
    const size_t slots = vocabulary->slots == 0 ? 1024 : 2 * vocabulary->slots;
    int32_t *grown = malloc(slots * sizeof *grown);
    if (grown == NULL) return no_memory();
    memset(grown, 0xff, slots * sizeof *grown);
    free(vocabulary->slot);
    vocabulary->slot = grown;
    vocabulary->slots = slots;
    for (size_t i = 0; i < vocabulary->count; i++) {
        const lt_token_text *token = &vocabulary->token[i];
        grown[find_slot(vocabulary, vocabulary->text + token->place, token->bytes)] = (int32_t)i;
    }
    return LT_OK;
}

static lt_status grow_tokens(lt_vocabulary *vocabulary, size_t bytes) {
    if (vocabulary->count == vocabulary->capacity) {
        const size_t capacity = 2 * vocabulary->capacity + 512;
        lt_token_text *grown = reallocarray(vocabulary->token, capacity, sizeof *grown);
        if (grown == NULL) return no_memory();
        vocabulary->token = grown;
        vocabulary->capacity = capacity;
    }
    if (vocabulary->text_capacity - vocabulary->text_bytes <=
        bytes) { /* so it is there for an empty token, too */
        const size_t capacity = 2 * vocabulary->text_capacity + bytes + 4096;
        char *grown = realloc(vocabulary->text, capacity);
        if (grown == NULL) return no_memory();
        vocabulary->text = grown;
        vocabulary->text_capacity = capacity;
    }
    return LT_OK;
}

lt_status lt_vocabulary_add(lt_vocabulary *vocabulary, const char *text, size_t bytes, int32_t id) {
    LT_CHECK(grow_slots(vocabulary));
    LT_CHECK(grow_tokens(vocabulary, bytes));
    const size_t slot = find_slot(vocabulary, text, bytes);
    if (vocabulary->slot[slot] >= 0)
        return lt_fail(LT_BAD_INPUT, "token '%.*s' is listed twice", (int)bytes, text);
    memcpy(vocabulary->text + vocabulary->text_bytes, text, bytes);
    vocabulary->slot[slot] = (int32_t)vocabulary->count;
    vocabulary->token[vocabulary->count++] =
        (lt_token_text){.place = vocabulary->text_bytes, .bytes = (uint32_t)bytes, .id = id};
    vocabulary->text_bytes += bytes;
    return LT_OK;
}

int32_t lt_vocabulary_find(const lt_vocabulary *vocabulary, const char *text, size_t bytes) {
    if (vocabulary->slots == 0) return -1;
    const int32_t index = vocabulary->slot[find_slot(vocabulary, text, bytes)];
    return index < 0 ? -1 : vocabulary->token[index].id;
}

void lt_vocabulary_free(lt_vocabulary *vocabulary) {
    free(vocabulary->text);
    free(vocabulary->token);
    free(vocabulary->slot);
    *vocabulary = (lt_vocabulary){0};
}

/* ---- merges ---- */

static void put_merge(lt_merges *merges, lt_merge merge) {
    const size_t mask = merges->slots - 1;
    size_t i = lt_merges_hash(merge.left, merge.right) & mask;
    while (merges->slot[i].left >= 0 &&
           (merges->slot[i].left != merge.left || merges->slot[i].right != merge.right))
        i = (i + 1) & mask;
    merges->count += merges->slot[i].left < 0;
    merges->slot[i] = merge;
}

lt_status lt_merges_add(lt_merges *merges, lt_merge merge) {
    if (2 * (merges->count + 1) > merges->slots) {
        lt_merges grown = {.slots = merges->slots == 0 ? 1024 : 2 * merges->slots};
        grown.slot = malloc(grown.slots * sizeof *grown.slot);
        if (grown.slot == NULL) return no_memory();
        memset(grown.slot, 0xff, grown.slots * sizeof *grown.slot);
        for (size_t i = 0; i < merges->slots; i++)
            if (merges->slot[i].left >= 0) put_merge(&grown, merges->slot[i]);
        free(merges->slot);
        *merges = grown;
    }
    put_merge(merges, merge);
    return LT_OK;
}
