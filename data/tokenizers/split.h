/* How a text is cut into the words that BPE merges within: a chain of splitters, each cutting the pieces of
 * the one before (the pre-tokenizers of a tokenizer.json: Split, Digits, ByteLevel's pattern). Patterns are
 * matched by PCRE2, with the meaning that Oniguruma, the reference's engine, gives them. Internal to
 * data/tokenizers/. Local.
 */
#ifndef LT_DATA_TOKENIZERS_SPLIT_H
#define LT_DATA_TOKENIZERS_SPLIT_H

#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>

#include "comm/status.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* What becomes of a match. */
typedef enum lt_split_behaviour {
    LT_ISOLATED,             /* a piece of its own */
    LT_REMOVED,              /* none */
    LT_MERGED_WITH_PREVIOUS, /* a piece with what lies before it */
    LT_MERGED_WITH_NEXT,
    LT_CONTIGUOUS, /* a piece with the matches that touch it */
} lt_split_behaviour;

typedef struct lt_splitter {
    pcre2_code *code; /* NULL: cuts where a word that begins with U+2581 follows something else */
    lt_split_behaviour behaviour;
    bool invert; /* what lies between matches counts as a match, and a match does not */
} lt_splitter;

/* Characters that Unicode 15.0 to 16.0 assigned, which PCRE2 10.42 does not know and the reference does. */
typedef struct lt_unicode_range {
    uint32_t first, last;
    char category[3]; /* "Lo" */
} lt_unicode_range;

extern const lt_unicode_range lt_unicode_since_14[];
extern const size_t lt_unicode_since_14_count;

enum { LT_MAX_SPLITTERS = 8 };

typedef struct lt_splitters {
    lt_splitter at[LT_MAX_SPLITTERS];
    int count;
} lt_splitters;

/* GPT-2's pattern, which ByteLevel uses (github.com/openai/gpt-2, src/encoder.py). */
extern const char lt_byte_level_pattern[];

/* Adds a splitter at the end. `pattern` is an Oniguruma one, or where `literal` is set the text itself.
 * LT_BAD_INPUT: it cannot be compiled, or means something else to PCRE2. */
lt_status lt_splitters_add(lt_splitters *splitters, const char *pattern, bool literal,
                           lt_split_behaviour behaviour, bool invert);

/* Adds the splitter without a pattern. */
lt_status lt_splitters_add_marks(lt_splitters *splitters);
void lt_splitters_free(lt_splitters *splitters);

/* What matching needs of memory; one a thread. {0} at first. */
typedef struct lt_split_space {
    pcre2_match_data *match[LT_MAX_SPLITTERS];
    pcre2_match_context *context;
    pcre2_jit_stack *stack;
} lt_split_space;

lt_status lt_split_space_create(const lt_splitters *splitters, lt_split_space *space);
void lt_split_space_free(lt_split_space *space);

/* Calls `word` for each word of `text` (UTF-8), in order; none is empty. The first failure of `word` is
 * returned; LT_FAILED: a pattern takes more than the engine allows. */
lt_status lt_split(const lt_splitters *splitters, lt_split_space *space, const char *text, size_t bytes,
                   lt_status (*word)(void *context, const char *text, size_t bytes), void *context);

#endif
