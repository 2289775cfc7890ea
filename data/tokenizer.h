/* Tokenizers: text to token ids and back, exactly as the reference implementations do it, behind one
 * interface, a file a kind:
 *
 *   data/tokenizers/bytes.c           `bytes`: id = byte, LT_BYTES_END_OF_DOCUMENT ends a document
 *   data/tokenizers/sentencepiece.c   SentencePiece `.model` (BPE, unigram), by libsentencepiece
 *   data/tokenizers/bpe.c             BPE of a Hugging Face tokenizer.json, or of GPT-2's encoder.json and
 *                                     vocab.bpe
 *
 * A tokenizer is opened once and then only read: any number of threads may use one, each through an encoder
 * or a detokenizer of its own. No special token is added to a text: whoever writes documents puts
 * lt_tokenizer_end_of_text() behind each.
 *
 * Text that is not UTF-8 (all kinds but bytes, which passes everything through): each maximal part of an
 * ill-formed sequence becomes one U+FFFD, as Unicode (3.9, "U+FFFD Substitution of Maximal Subparts") and
 * Python's errors="replace" have it, and is counted.
 *
 * Memory of a document of 100 MB, beside the text and its ids: BPE none to speak of, or the normalized text;
 * one word of 100 MB 4.4 GB. SentencePiece: data/tokenizers/sentencepiece.c.
 *
 * Local: nothing here knows other ranks.
 */
#ifndef LT_DATA_TOKENIZER_H
#define LT_DATA_TOKENIZER_H

#include "comm/status.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

/* The ids of the bytes tokenizer: 0..255 are the bytes, then the end of a document. */
enum { LT_BYTES_END_OF_DOCUMENT = 256, LT_BYTES_VOCABULARY = 257 };

typedef struct lt_tokenizer lt_tokenizer;
typedef struct lt_encoder lt_encoder;
typedef struct lt_detokenizer lt_detokenizer;

/* `name`: "bytes"; a SentencePiece .model; a tokenizer.json or a folder with one; "VOCAB,MERGES", GPT-2's two
 * files. What a file is, its contents say. `key` opens messages ("data.tokenizer"). LT_BAD_INPUT: missing,
 * damaged, empty, of an unknown kind, or with a feature that is not supported (named). The caller closes it.
 */
lt_status lt_tokenizer_open(const char *name, const char *key, lt_tokenizer **tokenizer);
void lt_tokenizer_close(lt_tokenizer *tokenizer);

/* Whether a path is a tokenizer's by its name: *.model, *tokenizer.json, VOCAB,MERGES, or a folder that holds
 * the files of one. */
bool lt_tokenizer_recognise(const char *path);

/* Prints what a person wants to know of the tokenizer `name`: kind, hash, vocabulary, end of text, longest
 * token, bytes that are no token. The statuses of lt_tokenizer_open(); LT_IO: `out` cannot be written. */
lt_status lt_tokenizer_inspect(const char *name, FILE *out);

const char *lt_tokenizer_name(const lt_tokenizer *tokenizer);    /* "SentencePiece BPE" */
int64_t lt_tokenizer_vocabulary(const lt_tokenizer *tokenizer);  /* the greatest id + 1 */
int32_t lt_tokenizer_end_of_text(const lt_tokenizer *tokenizer); /* -1: it has none */

/* 32 hexadecimal digits: XXH3-128 of the tokenizer's kind and files, the same wherever they lie. */
const char *lt_tokenizer_hash(const lt_tokenizer *tokenizer);

/* A growing array of ids; {0} is empty. The caller frees `id`. */
typedef struct lt_token_list {
    int32_t *id; /* malloc'ed [capacity] */
    size_t count, capacity;
} lt_token_list;

/* Makes room for `more` ids behind those that are there. LT_IO: no memory. */
lt_status lt_token_list_reserve(lt_token_list *tokens, size_t more);

/* An encoder belongs to one thread; the tokenizer outlives it. LT_IO: no memory. */
lt_status lt_encoder_create(const lt_tokenizer *tokenizer, lt_encoder **encoder);
void lt_encoder_destroy(lt_encoder *encoder);

/* Appends the ids of one document of `bytes` bytes, which may hold NULs and any other byte. LT_IO: no memory;
 * LT_FAILED: the library that does it failed. */
lt_status lt_encode(lt_encoder *encoder, const char *text, size_t bytes, lt_token_list *tokens);

/* How many ill-formed sequences were replaced so far. */
int64_t lt_encoder_replaced(const lt_encoder *encoder);

/* A detokenizer turns ids to text one by one, for one text; it belongs to one thread; the tokenizer outlives
 * it. */
lt_status lt_detokenizer_create(const lt_tokenizer *tokenizer, lt_detokenizer **detokenizer);
void lt_detokenizer_destroy(lt_detokenizer *detokenizer);

/* The text that `id` completes, valid until the next call: whole characters alone, so perhaps none. Special
 * tokens are left out (SentencePiece's control pieces, tokens marked special in a tokenizer.json), and so is
 * the space that a tokenizer puts before a text. What is not UTF-8 becomes U+FFFD by the rule above, but
 * stays as it is under the bytes tokenizer. LT_BAD_INPUT: no such id; LT_IO: no memory. */
lt_status lt_detokenize(lt_detokenizer *detokenizer, int32_t id, const char **text, size_t *bytes);

/* What is left when no id follows: nothing, or U+FFFD for a character that was not finished. The detokenizer
 * is then as new. */
lt_status lt_detokenize_end(lt_detokenizer *detokenizer, const char **text, size_t *bytes);

#endif
