/* What `lazytrain inspect` says of a tokenizer. */
#include "data/printed.h"
#include "data/tokenizers/kind.h"

#include <errno.h>
#include <inttypes.h>
#include <string.h>

enum { BYTES = 256, SHOWN_RANGES = 8 };

typedef struct pieces {
    int64_t empty, longest; /* ids without text; the first id of the longest text */
    bool byte[BYTES];       /* whether a token is this byte alone */
} pieces;

static size_t piece_bytes(const lt_tokenizer *tokenizer, int64_t id) {
    return tokenizer->place[id + 1] - tokenizer->place[id];
}

static pieces survey(const lt_tokenizer *tokenizer) {
    pieces all = {0};
    for (int64_t id = 0; id < tokenizer->vocabulary; id++) {
        const size_t bytes = piece_bytes(tokenizer, id);
        all.empty += bytes == 0;
        if (bytes > piece_bytes(tokenizer, all.longest)) all.longest = id;
        if (bytes == 1) all.byte[(unsigned char)tokenizer->text[tokenizer->place[id]]] = true;
    }
    return all;
}

/* Text with such a byte in it may have no ids of its own. */
static void print_bytes(const bool byte[BYTES], FILE *out) {
    int missing = 0, ranges = 0;
    for (int i = 0; i < BYTES; i++) missing += !byte[i];
    fprintf(out, "bytes:        %d of 256 are tokens", BYTES - missing);
    for (int first = 0, end; first < BYTES && ranges <= SHOWN_RANGES; first = end + 1) {
        for (end = first; end < BYTES && !byte[end];) end++;
        if (end == first) continue;
        if (++ranges > SHOWN_RANGES)
            fprintf(out, ", ...");
        else
            fprintf(out, "%s%02x", ranges == 1 ? "; not " : ", ", (unsigned)first);
        if (ranges <= SHOWN_RANGES && end - 1 > first) fprintf(out, "-%02x", (unsigned)(end - 1));
    }
    putc('\n', out);
}

lt_status lt_tokenizer_inspect(const char *name, FILE *out) {
    lt_tokenizer *tokenizer;
    LT_CHECK(lt_tokenizer_open(name, "inspect", &tokenizer));
    const pieces all = survey(tokenizer);
    fprintf(out, "tokenizer:    %s\n", name);
    fprintf(out, "kind:         %s\n", tokenizer->name);
    fprintf(out, "hash:         %s\n", tokenizer->hash);
    fprintf(out, "vocabulary:   %" PRId64 "\n", tokenizer->vocabulary);
    if (tokenizer->end_of_text >= 0)
        fprintf(out, "end of text:  %" PRId32 "\n", tokenizer->end_of_text);
    else
        fprintf(out, "end of text:  none\n");
    fprintf(out, "without text: %" PRId64 " ids (special tokens, and ids that no token has)\n", all.empty);
    print_bytes(all.byte, out);
    if (tokenizer->vocabulary > all.empty) {
        const size_t bytes = piece_bytes(tokenizer, all.longest);
        fprintf(out, "longest:      %zu bytes, id %" PRId64 ": ", bytes, all.longest);
        lt_print_string(tokenizer->text + tokenizer->place[all.longest], bytes, out);
        putc('\n', out);
    }
    lt_tokenizer_close(tokenizer);
    if (fflush(out) != 0 || ferror(out))
        return lt_fail(LT_IO, "inspect: cannot write the report: %s", strerror(errno));
    return LT_OK;
}
