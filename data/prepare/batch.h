/* Some documents in a row, which one thread turns into tokens. Internal to data/prepare. Local. */
#ifndef LT_DATA_PREPARE_BATCH_H
#define LT_DATA_PREPARE_BATCH_H

#include "data/prepare/plan.h"
#include "data/prepare/spool.h"

typedef struct lt_batch_document {
    lt_spool_document spool;
    uint64_t high, low; /* of the text's hash */
    size_t bytes;
} lt_batch_document;

typedef struct lt_batch {
    struct lt_batch *next;
    void *reading; /* where it belongs */
    int64_t number, part;
    bool known; /* its part is spooled already */
    bool last;  /* of its piece */
    char *text; /* malloc'ed [capacity]: of the documents, one after another */
    size_t bytes, capacity;
    lt_batch_document *documents; /* malloc'ed [document_capacity] */
    int64_t count, document_capacity;
    lt_token_list tokens; /* once encoded: packed, token_bytes each */
    int64_t text_bytes, empty, replaced;
} lt_batch;

/* Makes it empty; keeps its memory, unless that is of a long document. */
void lt_batch_reset(lt_batch *batch);
void lt_batch_free(lt_batch *batch);

/* Takes a copy of the document. */
lt_status lt_batch_add(lt_batch *batch, const lt_document *document);

/* Encodes the documents, each with an end of text. */
lt_status lt_batch_encode(lt_batch *batch, const lt_prepare_plan *plan, lt_encoder *encoder);

/* Adds and encodes, without a copy, the only document of the batch. */
lt_status lt_batch_encode_long(lt_batch *batch, const lt_prepare_plan *plan, lt_encoder *encoder,
                               const lt_document *document);

#endif
