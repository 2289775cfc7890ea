/* A BPE tokenizer: what a file says (data/tokenizers/bpe_open.c, bpe_json.c, bpe_pair.c fill this in) and
 * what encoding needs (data/tokenizers/bpe.c). Internal to data/tokenizers/. Local.
 *
 * Of a byte-level one the vocabulary is kept in the files' own alphabet, in which each byte is one printable
 * character (GPT-2's bytes_to_unicode).
 */
#ifndef LT_DATA_TOKENIZERS_BPE_H
#define LT_DATA_TOKENIZERS_BPE_H

#include "data/tokenizers/added.h"
#include "data/tokenizers/kind.h"
#include "data/tokenizers/normalize.h"
#include "data/tokenizers/split.h"
#include "data/tokenizers/vocabulary.h"

/* The longest token of a vocabulary, as the file writes it. */
enum { LT_TOKEN_BYTES = 4096 };

typedef struct lt_bpe {
    lt_tokenizer base;
    lt_vocabulary vocabulary;
    lt_merges merges;
    int32_t ranks;                    /* merges read so far */
    lt_added added, added_normalized; /* found before and after normalization */
    lt_vocabulary added_texts;        /* all added tokens; those that are special have text in `special` */
    lt_vocabulary special;
    int32_t beyond; /* added tokens that the vocabulary lacks, so far */
    lt_normalizers normalizers;
    lt_normalizers metaspace; /* empty, or U+2581 for spaces, done to what lies between added tokens */
    lt_splitters splitters;
    bool byte_level;      /* else a symbol is a character */
    bool prefix_space;    /* a text that does not begin with a space gets one ... */
    bool prefix_once;     /* ... but not behind an added token */
    bool ignore_merges;   /* a word that is a token is that token */
    bool byte_fallback;   /* a character without a token becomes tokens <0xNN> */
    bool fuse_unknown;    /* neighbouring unknown symbols become one */
    int32_t unknown;      /* -1: unknown symbols are dropped, as the reference does */
    int32_t of_byte[256]; /* the token of each byte (byte_level, or <0xNN>), or -1 */
} lt_bpe;

/* The character that stands for a byte: its UTF-8 to `out` [2], whose length is returned. */
size_t lt_byte_character(unsigned char byte, char *out);

/* The open and close of lt_bpe_kind. */
lt_status lt_bpe_open(lt_tokenizer *tokenizer, const lt_blob *files, int count, const char *key);
void lt_bpe_close(lt_tokenizer *tokenizer);

/* Messages of these two say what is wrong, not in which file. */
lt_status lt_bpe_read_json(lt_bpe *bpe, const lt_blob *file);
lt_status lt_bpe_read_pair(lt_bpe *bpe, const lt_blob *vocabulary, const lt_blob *merges);

/* Shared by the two: an object of token: id, and one merge of two tokens that are in the vocabulary. */
struct json_t;
lt_status lt_bpe_parse(const lt_blob *file, struct json_t **root);
lt_status lt_bpe_read_vocabulary(lt_bpe *bpe, const struct json_t *object);
lt_status lt_bpe_add_merge(lt_bpe *bpe, const char *left, size_t left_bytes, const char *right,
                           size_t right_bytes);

#endif
