/* A SentencePiece .model file (sentencepiece_model.proto, a protocol buffer) as far as it must be known
 * beside the library: the pieces and their kinds, and how text is normalised. Also makes sure of what the
 * library believes unseen and reads out of bounds where it is false. Internal to data/tokenizers/.
 */
#ifndef LT_DATA_TOKENIZERS_SENTENCEPIECE_MODEL_H
#define LT_DATA_TOKENIZERS_SENTENCEPIECE_MODEL_H

#include "data/tokenizers/kind.h"

/* Part of the file; not terminated. */
typedef struct lt_span {
    const char *data;
    size_t bytes;
} lt_span;

typedef enum lt_spm_piece_type {
    LT_SPM_NORMAL = 1,
    LT_SPM_UNKNOWN,
    LT_SPM_CONTROL,
    LT_SPM_USER_DEFINED,
    LT_SPM_UNUSED,
    LT_SPM_BYTE,
} lt_spm_piece_type;

typedef enum lt_spm_type { LT_SPM_UNIGRAM = 1, LT_SPM_BPE, LT_SPM_WORD, LT_SPM_CHAR } lt_spm_type;

typedef struct lt_spm_piece {
    lt_span text;
    lt_spm_piece_type type;
} lt_spm_piece;

typedef struct lt_spm_model {
    lt_spm_piece *piece; /* malloc'ed [pieces]; the id is the index */
    size_t pieces, capacity;
    bool trained, normalised; /* it has these parts */
    lt_spm_type type;
    lt_span end_piece, unknown_surface;
    bool space_as_suffix;                           /* the dummy space goes behind the text */
    bool dummy_prefix, remove_extra, escape_spaces; /* of the normaliser */
    lt_span charsmap, back_charsmap;                /* rules of the normaliser and the denormaliser */
} lt_spm_model;

/* Reads it; the spans point into the file. LT_BAD_INPUT: damaged, or something else. Free it in any case. */
lt_status lt_spm_model_read(lt_spm_model *model, const lt_blob *file, const char *key);
void lt_spm_model_free(lt_spm_model *model);

bool lt_span_is(lt_span span, const char *text);

#endif
