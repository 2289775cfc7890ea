#include "data/documents/tokens.h"

#include "data/printed.h"

#include <inttypes.h>
#include <stdlib.h>

lt_status lt_token_count_open(const lt_tokenizer *tokenizer, lt_token_count *count) {
    *count = (lt_token_count){.tokenizer = tokenizer};
    LT_CHECK(lt_encoder_create(tokenizer, &count->encoder));
    return lt_detokenizer_create(tokenizer, &count->detokenizer);
}

void lt_token_count_close(lt_token_count *count) {
    lt_encoder_destroy(count->encoder);
    lt_detokenizer_destroy(count->detokenizer);
    free(count->list.id);
}

lt_status lt_token_count_add(lt_token_count *count, const lt_document *document) {
    count->list.count = 0;
    LT_CHECK(lt_encode(count->encoder, document->text, document->bytes, &count->list));
    for (size_t i = 0; i < count->list.count; i++) {
        const int32_t id = count->list.id[i];
        if (count->tokens++ == 0) count->least = count->greatest = id;
        if (id < count->least) count->least = id;
        if (id > count->greatest) count->greatest = id;
    }
    count->documents++;
    count->bytes += (int64_t)document->bytes;
    return LT_OK;
}

lt_status lt_token_count_show(const lt_token_count *count, const char *label, FILE *out) {
    const char *text;
    size_t bytes;
    fprintf(out, "%s ids:", label);
    for (size_t i = 0; i < count->list.count; i++) fprintf(out, " %" PRId32, count->list.id[i]);
    fprintf(out, "\n%s: \"", label);
    for (size_t i = 0; i < count->list.count; i++) {
        LT_CHECK(lt_detokenize(count->detokenizer, count->list.id[i], &text, &bytes));
        lt_print_escaped(text, bytes, out);
    }
    LT_CHECK(lt_detokenize_end(count->detokenizer, &text, &bytes));
    lt_print_escaped(text, bytes, out);
    fprintf(out, "\"\n");
    return LT_OK;
}

void lt_token_count_print(const lt_token_count *count, FILE *out) {
    const int32_t end_of_text = lt_tokenizer_end_of_text(count->tokenizer);
    fprintf(out, "tokenizer:    %s, vocabulary %" PRId64 ", hash %s\n", lt_tokenizer_name(count->tokenizer),
            lt_tokenizer_vocabulary(count->tokenizer), lt_tokenizer_hash(count->tokenizer));
    fprintf(out, "tokens:       %" PRId64, count->tokens);
    if (end_of_text >= 0)
        fprintf(out, ", and %" PRId64 " ends of text (id %" PRId32 ")", count->documents, end_of_text);
    fprintf(out, "\nreplaced:     %" PRId64 " sequences that were not UTF-8\n",
            lt_encoder_replaced(count->encoder));
    if (count->tokens == 0) return;
    fprintf(out, "ids:          %" PRId32 " to %" PRId32 "\n", count->least, count->greatest);
    fprintf(out, "mean:         %.1f tokens a document, %.3f bytes a token\n",
            (double)count->tokens / (double)count->documents, (double)count->bytes / (double)count->tokens);
}
