#include "data/prepare/batch.h"

#include <stdlib.h>
#include <string.h>
#include <xxhash.h>

enum { KEPT_BYTES = 1 << 21 };

void lt_batch_reset(lt_batch *batch) {
    if (batch->capacity > KEPT_BYTES) {
        free(batch->text);
        batch->text = NULL;
        batch->capacity = 0;
    }
    if (batch->tokens.capacity * sizeof *batch->tokens.id > KEPT_BYTES) {
        free(batch->tokens.id);
        batch->tokens = (lt_token_list){0};
    }
    batch->bytes = 0;
    batch->count = 0;
    batch->tokens.count = 0;
    batch->text_bytes = batch->empty = batch->replaced = 0;
    batch->known = batch->last = false;
}

void lt_batch_free(lt_batch *batch) {
    if (batch == NULL) return;
    free(batch->text);
    free(batch->documents);
    free(batch->tokens.id);
    free(batch);
}

static lt_status no_memory(size_t bytes) {
    return lt_fail(LT_IO, "no memory for %zu bytes of documents", bytes);
}

/* An entry for a document, whose tokens and hash are not yet known. */
static lt_status add_entry(lt_batch *batch, const lt_document *document) {
    if (batch->count == batch->document_capacity) {
        const int64_t capacity = batch->count == 0 ? 64 : 2 * batch->count;
        lt_batch_document *grown = reallocarray(batch->documents, (size_t)capacity, sizeof *grown);
        if (grown == NULL) return no_memory((size_t)capacity * sizeof *grown);
        batch->documents = grown;
        batch->document_capacity = capacity;
    }
    batch->documents[batch->count++] =
        (lt_batch_document){.spool = {.place = document->place}, .bytes = document->bytes};
    batch->text_bytes += (int64_t)document->bytes;
    batch->empty += document->bytes == 0;
    return LT_OK;
}

lt_status lt_batch_add(lt_batch *batch, const lt_document *document) {
    const size_t needed = batch->bytes + document->bytes;
    if (needed > batch->capacity || batch->text == NULL) {
        const size_t capacity = needed < 2 * batch->capacity ? 2 * batch->capacity : needed + 1;
        char *grown = realloc(batch->text, capacity);
        if (grown == NULL) return no_memory(capacity);
        batch->text = grown;
        batch->capacity = capacity;
    }
    if (document->bytes > 0) memcpy(batch->text + batch->bytes, document->text, document->bytes);
    batch->bytes = needed;
    return add_entry(batch, document);
}

/* The hash alone decides the split, so equal texts are on one side. */
static uint32_t split_of(uint64_t hash, double fraction) {
    return (double)hash < fraction * 0x1p64 ? LT_VALIDATION : LT_TRAIN;
}

static lt_status encode(lt_batch *batch, const lt_prepare_plan *plan, lt_encoder *encoder,
                        lt_batch_document *document, const char *text) {
    const size_t before = batch->tokens.count;
    const XXH128_hash_t hash = XXH3_128bits(text, document->bytes);
    LT_CHECK(lt_encode(encoder, text, document->bytes, &batch->tokens));
    LT_CHECK(lt_token_list_reserve(&batch->tokens, 1));
    batch->tokens.id[batch->tokens.count++] = lt_tokenizer_end_of_text(plan->tokenizer);
    document->high = hash.high64;
    document->low = hash.low64;
    document->spool.tokens = (uint32_t)(batch->tokens.count - before);
    document->spool.split = split_of(hash.low64, plan->options->validation_fraction);
    return LT_OK;
}

/* Little-endian, in place: no token is written before it was read. */
static void pack(lt_token_list *tokens, int token_bytes) {
    unsigned char *to = (unsigned char *)tokens->id;
    for (size_t i = 0; i < tokens->count; i++) {
        const uint32_t id = (uint32_t)tokens->id[i];
        *to++ = (unsigned char)id;
        *to++ = (unsigned char)(id >> 8);
        if (token_bytes == 2) continue;
        *to++ = (unsigned char)(id >> 16);
        *to++ = (unsigned char)(id >> 24);
    }
}

lt_status lt_batch_encode(lt_batch *batch, const lt_prepare_plan *plan, lt_encoder *encoder) {
    const int64_t replaced = lt_encoder_replaced(encoder);
    const char *text = batch->text;
    for (int64_t i = 0; i < batch->count; i++) {
        LT_CHECK(encode(batch, plan, encoder, &batch->documents[i], text));
        text += batch->documents[i].bytes;
    }
    batch->replaced = lt_encoder_replaced(encoder) - replaced;
    pack(&batch->tokens, plan->token_bytes);
    return LT_OK;
}

lt_status lt_batch_encode_long(lt_batch *batch, const lt_prepare_plan *plan, lt_encoder *encoder,
                               const lt_document *document) {
    const int64_t replaced = lt_encoder_replaced(encoder);
    LT_CHECK(add_entry(batch, document));
    LT_CHECK(encode(batch, plan, encoder, &batch->documents[0], document->text));
    batch->replaced = lt_encoder_replaced(encoder) - replaced;
    pack(&batch->tokens, plan->token_bytes);
    return LT_OK;
}
