#include "data/tokenizers/merge.h"

#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

enum {
    SHORT_WORD = 32,        /* symbols; more are faster in a heap */
    KEPT_SYMBOLS = 1 << 16, /* a longer word's memory is not kept for the next */
};

static int32_t rank_of(const lt_merge *merge) {
    return merge == NULL ? INT32_MAX : merge->rank;
}

/* ---- short words ---- */

static void merge_short(const lt_merges *merges, int32_t *id, size_t *count) {
    int32_t rank[SHORT_WORD]; /* of the pair that begins at each symbol */
    size_t n = *count;
    for (size_t i = 0; i + 1 < n; i++) rank[i] = rank_of(lt_merges_find(merges, id[i], id[i + 1]));
    while (n > 1) {
        size_t best = 0;
        for (size_t i = 1; i + 1 < n; i++)
            if (rank[i] < rank[best]) best = i;
        if (rank[best] == INT32_MAX) break;
        id[best] = lt_merges_find(merges, id[best], id[best + 1])->result;
        n--;
        memmove(id + best + 1, id + best + 2, (n - best - 1) * sizeof *id);
        if (n - best > 1) memmove(rank + best, rank + best + 1, (n - best - 1) * sizeof *rank);
        if (best > 0) rank[best - 1] = rank_of(lt_merges_find(merges, id[best - 1], id[best]));
        if (best + 1 < n) rank[best] = rank_of(lt_merges_find(merges, id[best], id[best + 1]));
    }
    *count = n;
}

/* ---- long words: a linked list of symbols and a heap of pairs, in which pairs that are gone stay until they
 * come up ---- */

struct lt_merge_symbol {
    int32_t id;             /* -1: joined to the one before */
    uint32_t before, after; /* NONE: there is none */
};

struct lt_merge_pair {
    int32_t rank;
    uint32_t place;      /* of the left symbol */
    int32_t left, right; /* ids: the pair is gone if others stand there now */
};

#define NONE UINT32_MAX

static bool comes_first(struct lt_merge_pair a, struct lt_merge_pair b) {
    return a.rank != b.rank ? a.rank < b.rank : a.place < b.place;
}

static lt_status no_memory(void) {
    return lt_fail(LT_IO, "no memory to encode a long word");
}

static void sift_down(struct lt_merge_pair *heap, size_t count, size_t at) {
    const struct lt_merge_pair pair = heap[at];
    for (size_t child; (child = 2 * at + 1) < count; at = child) {
        if (child + 1 < count && comes_first(heap[child + 1], heap[child])) child++;
        if (!comes_first(heap[child], pair)) break;
        heap[at] = heap[child];
    }
    heap[at] = pair;
}

static struct lt_merge_pair pop(lt_merge_space *space) {
    const struct lt_merge_pair top = space->heap[0];
    space->heap[0] = space->heap[--space->pairs];
    if (space->pairs > 0) sift_down(space->heap, space->pairs, 0);
    return top;
}

/* Adds the pair that begins at `place` behind the others, where it has a merge. */
static bool append_pair(const lt_merges *merges, lt_merge_space *space, uint32_t place) {
    if (place == NONE || space->symbol[place].after == NONE) return false;
    const int32_t left = space->symbol[place].id, right = space->symbol[space->symbol[place].after].id;
    const lt_merge *merge = lt_merges_find(merges, left, right);
    if (merge == NULL) return false;
    space->heap[space->pairs++] = (struct lt_merge_pair){merge->rank, place, left, right};
    return true;
}

/* The same, and up to where it belongs. */
static void push_pair(const lt_merges *merges, lt_merge_space *space, uint32_t place) {
    if (!append_pair(merges, space, place)) return;
    size_t at = space->pairs - 1;
    const struct lt_merge_pair pair = space->heap[at];
    for (; at > 0 && comes_first(pair, space->heap[(at - 1) / 2]); at = (at - 1) / 2)
        space->heap[at] = space->heap[(at - 1) / 2];
    space->heap[at] = pair;
}

/* A merge takes one pair out and puts at most two in, and there are at most count - 1 merges; but as many
 * symbols then are fewer: at no time are there more than 2 * count pairs. */
static lt_status reserve(lt_merge_space *space, size_t count) {
    if (count >= NONE) return lt_fail(LT_BAD_INPUT, "a word of %zu symbols is too long to encode", count);
    if (count > space->symbol_capacity) {
        lt_merge_space_free(space);
        space->symbol = reallocarray(NULL, count, sizeof *space->symbol);
        space->heap = reallocarray(NULL, 2 * count, sizeof *space->heap);
        if (space->symbol == NULL || space->heap == NULL) {
            lt_merge_space_free(space);
            return no_memory();
        }
        space->symbol_capacity = count;
    }
    space->pairs = 0;
    return LT_OK;
}

static void join(lt_merge_space *space, uint32_t place, int32_t result) {
    struct lt_merge_symbol *symbol = space->symbol;
    const uint32_t gone = symbol[place].after;
    symbol[place].id = result;
    symbol[place].after = symbol[gone].after;
    if (symbol[gone].after != NONE) symbol[symbol[gone].after].before = place;
    symbol[gone].id = -1;
}

static lt_status merge_long(const lt_merges *merges, lt_merge_space *space, int32_t *id, size_t *count) {
    const size_t n = *count;
    LT_CHECK(reserve(space, n));
    for (size_t i = 0; i < n; i++)
        space->symbol[i] = (struct lt_merge_symbol){id[i], i == 0 ? NONE : (uint32_t)i - 1,
                                                    i + 1 == n ? NONE : (uint32_t)i + 1};
    for (uint32_t i = 0; i < n; i++) append_pair(merges, space, i);
    for (size_t i = space->pairs / 2; i-- > 0;) sift_down(space->heap, space->pairs, i);
    while (space->pairs > 0) {
        const struct lt_merge_pair pair = pop(space);
        const struct lt_merge_symbol left = space->symbol[pair.place];
        if (left.id != pair.left || left.after == NONE || space->symbol[left.after].id != pair.right)
            continue;
        join(space, pair.place, lt_merges_find(merges, pair.left, pair.right)->result);
        push_pair(merges, space, left.before);
        push_pair(merges, space, pair.place);
    }
    *count = 0;
    for (uint32_t i = 0; i != NONE; i = space->symbol[i].after) id[(*count)++] = space->symbol[i].id;
    if (n > KEPT_SYMBOLS) lt_merge_space_free(space);
    return LT_OK;
}

lt_status lt_merge_word(const lt_merges *merges, lt_merge_space *space, int32_t *id, size_t *count) {
    if (*count > SHORT_WORD) return merge_long(merges, space, id, count);
    merge_short(merges, id, count);
    return LT_OK;
}

void lt_merge_space_free(lt_merge_space *space) {
    free(space->symbol);
    free(space->heap);
    *space = (lt_merge_space){0};
}
