/* What a kind of tokenizer gives data/tokenizers/tokenizer.c: encoding of valid UTF-8, and a table of the
 * text of each id, which is all that turning ids back into text needs. Internal to data/tokenizers/. A new
 * kind is a file with an lt_tokenizer_kind and a line in lt_tokenizer_open().
 */
#ifndef LT_DATA_TOKENIZERS_KIND_H
#define LT_DATA_TOKENIZERS_KIND_H

#include "data/tokenizer.h"

/* U+2581 stands for a space in the pieces of SentencePiece and its kin. */
#define LT_SPACE_MARK "\xe2\x96\x81"
enum { LT_SPACE_MARK_BYTES = 3 };

/* What is left out at the beginning of a text that is put together from pieces: nothing, the space that the
 * first one begins with, or one of each until there is text. */
typedef enum lt_leading_space { LT_KEEP_SPACES, LT_DROP_ONE_SPACE, LT_DROP_ALL_SPACES } lt_leading_space;

/* A file's whole contents. */
typedef struct lt_blob {
    char *data; /* malloc'ed, a NUL behind the end */
    size_t bytes;
    const char *path;
} lt_blob;

typedef struct lt_tokenizer_kind lt_tokenizer_kind;

/* A kind's own struct begins with this and lies in memory that is zero at first. */
struct lt_tokenizer {
    const lt_tokenizer_kind *kind;
    const char *name; /* what lt_tokenizer_name() says */
    int64_t vocabulary;
    int32_t end_of_text; /* -1: none */
    lt_leading_space leading_space;
    char hash[33];
    /* The text of id i is text[place[i]..place[i + 1]): bytes, not always whole characters; empty for special
     * tokens and for ids that no token has. */
    size_t *place; /* malloc'ed [vocabulary + 1] */
    char *text;    /* malloc'ed [place[vocabulary]] */
    bool *literal; /* malloc'ed [vocabulary]: leading_space is not for this id; NULL: it is for all */
};

struct lt_encoder {
    const lt_tokenizer *tokenizer;
    int64_t replaced;
    char *valid; /* malloc'ed [capacity]: the text with its replacements */
    size_t capacity;
};

struct lt_tokenizer_kind {
    size_t tokenizer_bytes, encoder_bytes; /* of the kind's own structs */
    bool any_bytes;                        /* encode() takes and text holds what is not UTF-8 */

    /* Reads the tokenizer from its `count` files, which are gone after the call, and fills in name,
     * vocabulary and what follows, but the hash. close() comes also after an open that failed. */
    lt_status (*open)(lt_tokenizer *tokenizer, const lt_blob *files, int count, const char *key);
    void (*close)(lt_tokenizer *tokenizer);

    /* lt_encode() of text that is UTF-8, or anything where any_bytes says so. */
    lt_status (*encode)(lt_encoder *encoder, const char *text, size_t bytes, lt_token_list *tokens);
    void (*encoder_done)(lt_encoder *encoder); /* frees what encode() keeps; NULL: nothing */
};

extern const lt_tokenizer_kind lt_bytes_kind, lt_sentencepiece_kind, lt_bpe_kind;

/* Builds the table of texts: the text of ids 0, 1, 2... in this order, `bytes` may be 0. LT_IO: no memory. */
typedef struct lt_piece_table {
    size_t *place;
    char *text;
    size_t count, place_capacity, bytes, text_capacity;
} lt_piece_table;

lt_status lt_piece_table_add(lt_piece_table *table, const char *text, size_t bytes);

/* Hands the table over to the tokenizer, whose vocabulary it becomes. */
lt_status lt_piece_table_finish(lt_piece_table *table, lt_tokenizer *tokenizer);
void lt_piece_table_free(lt_piece_table *table);

#endif
