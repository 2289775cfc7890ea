/* The documents of a token shard as text, for `lazytrain inspect`. */
#include "data/printed.h"
#include "data/reader.h"

#include <inttypes.h>

enum { BLOCK_TOKENS = 4096, SHOWN_BYTES = 160 };

/* Tokens from a shard's start on, one after another. */
typedef struct token_stream {
    lt_files *files;
    const lt_shard_header *header;
    int64_t next, first, end; /* token to come; the block holds those from first to before end */
    unsigned char block[BLOCK_TOKENS * 4];
} token_stream;

/* There is a next one. */
static lt_status next_token(token_stream *stream, int32_t *id) {
    const int token_bytes = stream->header->token_bytes;
    if (stream->next == stream->end) {
        const int64_t left = stream->header->tokens - stream->next;
        stream->first = stream->next;
        stream->end += left < BLOCK_TOKENS ? left : BLOCK_TOKENS;
        LT_CHECK(lt_files_read(stream->files, 0, LT_SHARD_HEADER_BYTES + stream->first * token_bytes,
                               stream->block, (size_t)((stream->end - stream->first) * token_bytes)));
    }
    *id = (int32_t)lt_shard_token(stream->block + (stream->next - stream->first) * token_bytes, token_bytes);
    stream->next++;
    return LT_OK;
}

/* One document, up to its end of text, or `limit` bytes of it (0: all). */
static lt_status print_document(token_stream *stream, int32_t end_of_text, lt_detokenizer *detokenizer,
                                size_t limit, FILE *out) {
    size_t printed = 0, bytes;
    const char *text;
    int32_t id = -1;
    putc('"', out);
    while (stream->next < stream->header->tokens && (limit == 0 || printed < limit)) {
        LT_CHECK(next_token(stream, &id));
        if (id == end_of_text) break;
        LT_CHECK(lt_detokenize(detokenizer, id, &text, &bytes));
        lt_print_escaped(text, bytes, out);
        printed += bytes;
    }
    const bool cut = id != end_of_text && stream->next < stream->header->tokens;
    LT_CHECK(lt_detokenize_end(detokenizer, &text, &bytes));
    if (!cut) lt_print_escaped(text, bytes, out);
    fprintf(out, "\"%s\n", cut ? "..." : "");
    return LT_OK;
}

static lt_status print_documents(token_stream *stream, const lt_tokenizer *tokenizer, int64_t sample,
                                 lt_detokenizer *detokenizer, FILE *out) {
    const int32_t end_of_text = lt_tokenizer_end_of_text(tokenizer);
    if (sample == 0 && stream->next < stream->header->tokens) {
        fprintf(out, "first:        ");
        return print_document(stream, end_of_text, detokenizer, SHOWN_BYTES, out);
    }
    for (int64_t i = 1; i <= sample && stream->next < stream->header->tokens; i++) {
        fprintf(out, "document %" PRId64 ": ", i);
        LT_CHECK(print_document(stream, end_of_text, detokenizer, 0, out));
    }
    return LT_OK;
}

lt_status lt_shard_print_documents(lt_files *files, const lt_shard_header *header,
                                   const lt_tokenizer *tokenizer, bool opens, int64_t sample, FILE *out) {
    token_stream stream = {.files = files, .header = header};
    lt_detokenizer *detokenizer;
    int32_t opening;
    if (opens) LT_CHECK(next_token(&stream, &opening));
    LT_CHECK(lt_detokenizer_create(tokenizer, &detokenizer));
    const lt_status status = print_documents(&stream, tokenizer, sample, detokenizer, out);
    lt_detokenizer_destroy(detokenizer);
    return status;
}
