/* The added tokens of a tokenizer.json: texts that become one id wherever they stand, before anything else is
 * done (or after normalization, where they are marked `normalized`). Of tokens that begin at one place the
 * longest counts, of overlapping ones the leftmost. Internal to data/tokenizers/. Local.
 */
#ifndef LT_DATA_TOKENIZERS_ADDED_H
#define LT_DATA_TOKENIZERS_ADDED_H

#include "comm/status.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef struct lt_added_node {
    int32_t child, sibling; /* index into node, or -1 */
    int32_t id;             /* -1: no token ends here */
    unsigned char byte;
    bool left_spaces, right_spaces; /* the token takes the spaces around it, too */
} lt_added_node;

typedef struct lt_added {
    lt_added_node *node; /* malloc'ed [capacity] */
    int32_t count, capacity;
    int32_t root[256]; /* index + 1 of the node of a first byte; 0: none */
} lt_added;

/* Adds a token; one of the same text is replaced; an empty one is left out. LT_IO: no memory. */
lt_status lt_added_put(lt_added *added, const char *text, size_t bytes, int32_t id, bool left_spaces,
                       bool right_spaces);
void lt_added_free(lt_added *added);

typedef struct lt_added_match {
    int32_t id;
    size_t begin, end; /* with the spaces that it takes */
    size_t next;       /* where the search goes on */
} lt_added_match;

/* Finds the next token from `from` on; of the spaces before it, those from `taken` on are its. False: there
 * is none. */
bool lt_added_find(const lt_added *added, const char *text, size_t bytes, size_t from, size_t taken,
                   lt_added_match *match);

#endif
