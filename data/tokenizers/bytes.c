/* The bytes tokenizer: every byte is its own token. */
#include "data/tokenizers/kind.h"

static lt_status bytes_open(lt_tokenizer *tokenizer, const lt_blob *files, int count, const char *key) {
    (void)files, (void)count, (void)key;
    lt_piece_table table = {0};
    lt_status status = LT_OK;
    for (int i = 0; i < LT_BYTES_VOCABULARY && status == LT_OK; i++)
        status = lt_piece_table_add(&table, &(char){(char)i}, i < 256);
    if (status == LT_OK) status = lt_piece_table_finish(&table, tokenizer);
    lt_piece_table_free(&table);
    tokenizer->name = "bytes";
    tokenizer->end_of_text = LT_BYTES_END_OF_DOCUMENT;
    return status;
}

static lt_status bytes_encode(lt_encoder *encoder, const char *text, size_t bytes, lt_token_list *tokens) {
    (void)encoder;
    LT_CHECK(lt_token_list_reserve(tokens, bytes));
    int32_t *id = tokens->id + tokens->count;
    for (size_t i = 0; i < bytes; i++) id[i] = (unsigned char)text[i];
    tokens->count += bytes;
    return LT_OK;
}

const lt_tokenizer_kind lt_bytes_kind = {
    .tokenizer_bytes = sizeof(lt_tokenizer),
    .encoder_bytes = sizeof(lt_encoder),
    .any_bytes = true,
    .open = bytes_open,
    .encode = bytes_encode,
};
