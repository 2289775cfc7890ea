/* Encodes and decodes strings, for tests: build/tests/tools/encode TOKENIZER <strings >answers
 *
 * A string is its length (uint64, as this machine has it) and its bytes. The answer: the number of ids
 * (uint64) and the ids (int32), then the length and the bytes of what they decode to, id by id. Ends with 1
 * if a piece of decoded text is not whole characters, with 2 if something fails, and says so. */
#include "comm/log.h"
#include "data/tokenizer.h"
#include "data/tokenizers/utf8.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef struct text {
    char *data;
    size_t bytes, capacity;
} text;

static void check(lt_status status) {
    if (status == LT_OK) return;
    lt_log_error(lt_error_message());
    exit(2);
}

static void make_room(text *t, size_t bytes) {
    if (bytes <= t->capacity) return;
    t->capacity = 2 * bytes;
    t->data = realloc(t->data, t->capacity);
    if (t->data == NULL) exit(2);
}

/* `strict`: the tokenizer promises whole characters. */
static void append(text *t, const char *data, size_t bytes, bool strict) {
    if (strict && lt_utf8_valid(data, bytes) != bytes) {
        fprintf(stderr, "decoding gave a part of a character\n");
        exit(1);
    }
    make_room(t, t->bytes + bytes);
    if (bytes > 0) memcpy(t->data + t->bytes, data, bytes);
    t->bytes += bytes;
}

static void decode(lt_detokenizer *detokenizer, const lt_token_list *tokens, bool strict, text *out) {
    const char *data;
    size_t bytes;
    out->bytes = 0;
    for (size_t i = 0; i < tokens->count; i++) {
        check(lt_detokenize(detokenizer, tokens->id[i], &data, &bytes));
        append(out, data, bytes, strict);
    }
    check(lt_detokenize_end(detokenizer, &data, &bytes));
    append(out, data, bytes, strict);
}

static void put(const void *data, uint64_t count, size_t size) {
    if (fwrite(&count, sizeof count, 1, stdout) != 1 || fwrite(data, size, count, stdout) != count) exit(2);
}

int main(int argc, char **argv) {
    lt_tokenizer *tokenizer;
    lt_encoder *encoder;
    lt_detokenizer *detokenizer;
    lt_token_list tokens = {0};
    text in = {0}, out = {0};
    if (argc != 2) return 2;
    check(lt_tokenizer_open(argv[1], "encode", &tokenizer));
    check(lt_encoder_create(tokenizer, &encoder));
    check(lt_detokenizer_create(tokenizer, &detokenizer));
    const bool strict = strcmp(argv[1], "bytes") != 0;
    for (uint64_t bytes; fread(&bytes, sizeof bytes, 1, stdin) == 1;) {
        make_room(&in, bytes);
        if (fread(in.data, 1, bytes, stdin) != bytes) return 2;
        tokens.count = 0;
        check(lt_encode(encoder, in.data, bytes, &tokens));
        decode(detokenizer, &tokens, strict, &out);
        put(tokens.id, tokens.count, sizeof *tokens.id);
        put(out.data, out.bytes, 1);
    }
    free(in.data);
    free(out.data);
    free(tokens.id);
    lt_detokenizer_destroy(detokenizer);
    lt_encoder_destroy(encoder);
    lt_tokenizer_close(tokenizer);
    return fflush(stdout) == 0 ? 0 : 2;
}
