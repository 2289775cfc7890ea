/* What a tokenizer makes of documents, for `lazytrain inspect`. */
#ifndef LT_DATA_DOCUMENTS_TOKENS_H
#define LT_DATA_DOCUMENTS_TOKENS_H

#include "data/documents.h"

typedef struct lt_token_count {
    const lt_tokenizer *tokenizer;
    lt_encoder *encoder;
    lt_detokenizer *detokenizer;
    lt_token_list list; /* of the last document */
    int64_t documents, bytes, tokens;
    int32_t least, greatest; /* ids */
} lt_token_count;

/* The caller closes it, also after an error. */
lt_status lt_token_count_open(const lt_tokenizer *tokenizer, lt_token_count *count);
void lt_token_count_close(lt_token_count *count);

lt_status lt_token_count_add(lt_token_count *count, const lt_document *document);

/* Of the last document: its ids, in a line that begins with `label`, and the text that they are turned back
 * to, in another. */
lt_status lt_token_count_show(const lt_token_count *count, const char *label, FILE *out);

void lt_token_count_print(const lt_token_count *count, FILE *out);

#endif
