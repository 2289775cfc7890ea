/* Byte-pair encoding of one word: of all neighbouring pairs that have a merge the one of lowest rank is
 * joined, the leftmost of equal ones, until none has one (Sennrich et al., arXiv 1508.07909). Internal to
 * data/tokenizers/. Local.
 *
 * Short words are scanned again for each merge; long ones keep their pairs in a heap: O(n log n) time, 44
 * bytes a symbol.
 */
#ifndef LT_DATA_TOKENIZERS_MERGE_H
#define LT_DATA_TOKENIZERS_MERGE_H

#include "data/tokenizers/vocabulary.h"

/* What the merging of long words keeps for the next; {0} at first. */
typedef struct lt_merge_space {
    struct lt_merge_symbol *symbol; /* malloc'ed */
    struct lt_merge_pair *heap;     /* malloc'ed */
    size_t symbol_capacity, heap_capacity, pairs;
} lt_merge_space;

/* Joins the `count` symbols at `id` in place; the new count comes back in it. `merges` holds at least one.
 * LT_IO: no memory. */
lt_status lt_merge_word(const lt_merges *merges, lt_merge_space *space, int32_t *id, size_t *count);
void lt_merge_space_free(lt_merge_space *space);

#endif
