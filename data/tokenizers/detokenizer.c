/* Ids to text: the pieces' bytes put together, whole characters given out. */
#include "data/tokenizers/kind.h"
#include "data/tokenizers/utf8.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

enum { PENDING_BYTES = 3 }; /* of a character whose last byte is missing */

struct lt_detokenizer {
    const lt_tokenizer *tokenizer;
    bool begun;   /* text was given out, is pending, or its space was left out */
    size_t bytes; /* in `input`, all of them the beginning of one character */
    char *input;  /* [PENDING_BYTES + the longest piece] */
    char *output; /* [3 times that] */
};

static size_t longest_piece(const lt_tokenizer *tokenizer) {
    size_t longest = 1;
    for (int64_t i = 0; i < tokenizer->vocabulary; i++) {
        const size_t bytes = tokenizer->place[i + 1] - tokenizer->place[i];
        if (bytes > longest) longest = bytes;
    }
    return longest;
}

lt_status lt_detokenizer_create(const lt_tokenizer *tokenizer, lt_detokenizer **out) {
    const size_t bytes = PENDING_BYTES + longest_piece(tokenizer);
    lt_detokenizer *detokenizer = calloc(1, sizeof *detokenizer);
    if (detokenizer != NULL) {
        detokenizer->tokenizer = tokenizer;
        detokenizer->input = malloc(bytes);
        detokenizer->output = malloc(LT_REPLACEMENT_BYTES * bytes);
    }
    *out = detokenizer;
    if (detokenizer != NULL && detokenizer->input != NULL && detokenizer->output != NULL) return LT_OK;
    lt_detokenizer_destroy(detokenizer);
    *out = NULL;
    return lt_fail(LT_IO, "no memory to turn tokens into text");
}

void lt_detokenizer_destroy(lt_detokenizer *detokenizer) {
    if (detokenizer == NULL) return;
    free(detokenizer->input);
    free(detokenizer->output);
    free(detokenizer);
}

/* Adds the text of a token, without the space that only its place at the beginning brought. */
static void append_piece(lt_detokenizer *detokenizer, int32_t id) {
    const lt_tokenizer *tokenizer = detokenizer->tokenizer;
    const char *piece = tokenizer->text + tokenizer->place[id];
    size_t bytes = tokenizer->place[id + 1] - tokenizer->place[id];
    const bool literal = tokenizer->literal != NULL && tokenizer->literal[id];
    if (!detokenizer->begun && !literal && tokenizer->leading_space != LT_KEEP_SPACES && bytes > 0 &&
        piece[0] == ' ') {
        piece++, bytes--;
        detokenizer->begun = tokenizer->leading_space == LT_DROP_ONE_SPACE;
    }
    detokenizer->begun |= bytes > 0;
    memcpy(detokenizer->input + detokenizer->bytes, piece, bytes);
    detokenizer->bytes += bytes;
}

lt_status lt_detokenize(lt_detokenizer *detokenizer, int32_t id, const char **text, size_t *bytes) {
    const lt_tokenizer *tokenizer = detokenizer->tokenizer;
    if (id < 0 || id >= tokenizer->vocabulary)
        return lt_fail(LT_BAD_INPUT, "there is no token %" PRId32 ", expected 0 to %" PRId64, id,
                       tokenizer->vocabulary - 1);
    append_piece(detokenizer, id);
    /* What ends in the middle of a character waits for the rest. */
    size_t whole = 0, length;
    while (whole < detokenizer->bytes &&
           lt_utf8_next(detokenizer->input + whole, detokenizer->bytes - whole, &length) != LT_UTF8_CUT)
        whole += length;
    int64_t replaced = 0;
    *text = detokenizer->output;
    if (tokenizer->kind->any_bytes)
        memcpy(detokenizer->output, detokenizer->input, *bytes = whole);
    else
        *bytes = lt_utf8_replace(detokenizer->input, whole, detokenizer->output, &replaced);
    detokenizer->bytes -= whole;
    memmove(detokenizer->input, detokenizer->input + whole, detokenizer->bytes);
    return LT_OK;
}

lt_status lt_detokenize_end(lt_detokenizer *detokenizer, const char **text, size_t *bytes) {
    const bool any_bytes = detokenizer->tokenizer->kind->any_bytes;
    *text = any_bytes ? detokenizer->input : LT_REPLACEMENT;
    *bytes = any_bytes ? detokenizer->bytes : detokenizer->bytes > 0 ? LT_REPLACEMENT_BYTES : 0;
    detokenizer->bytes = 0;
    detokenizer->begun = false;
    return LT_OK;
}
