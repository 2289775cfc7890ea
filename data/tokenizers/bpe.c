/* BPE: added tokens are cut out, the rest is normalized and cut into words, and within each word the pairs
 * are merged. What common words become is kept in a table.
 */
#include "data/tokenizers/bpe.h"
#include "data/tokenizers/merge.h"
#include "data/tokenizers/utf8.h"

#include <stdlib.h>
#include <string.h>
#include <xxhash.h>

/* What a short word becomes: the last one that fell into each place. 64 bytes an entry, so one line of cache.
 */
enum { CACHED_BYTES = 22, CACHED_IDS = 10, CACHE_ENTRIES = 1 << 15 };

typedef struct cached_word {
    uint8_t bytes, ids; /* bytes 0: empty */
    char word[CACHED_BYTES];
    int32_t id[CACHED_IDS];
} cached_word;

typedef struct bpe_encoder {
    lt_encoder base;
    lt_token_list *tokens; /* of the call that runs */
    lt_split_space split;
    lt_merge_space merge;
    lt_normalize_space normalize, metaspace;
    bool begun;     /* something of the text is encoded */
    char *prefixed; /* malloc'ed [prefixed_capacity]: a text and a space before it */
    size_t prefixed_capacity;
    cached_word *cache; /* malloc'ed [CACHE_ENTRIES] */
} bpe_encoder;

static const lt_bpe *bpe_of(const bpe_encoder *encoder) {
    return (const lt_bpe *)encoder->base.tokenizer;
}

/* Symbols that are put one after another, unknown ones a step behind, as the reference does it. */
typedef struct symbols {
    const lt_bpe *bpe;
    int32_t *id;
    size_t count;
    bool unknown; /* one is waiting */
} symbols;

static void put_known(symbols *all, int32_t id) {
    if (all->unknown) all->id[all->count++] = all->bpe->unknown;
    all->unknown = false;
    all->id[all->count++] = id;
}

static void put_unknown(symbols *all) {
    if (all->bpe->unknown < 0) return;
    if (all->unknown && !all->bpe->fuse_unknown) all->id[all->count++] = all->bpe->unknown;
    all->unknown = true;
}

static bool put_fallback(symbols *all, const char *text, size_t bytes) {
    for (size_t i = 0; i < bytes; i++)
        if (all->bpe->of_byte[(unsigned char)text[i]] < 0) return false;
    for (size_t i = 0; i < bytes; i++) all->id[all->count++] = all->bpe->of_byte[(unsigned char)text[i]];
    return true;
}

/* The symbols that a word begins as; `id` holds bytes + 1. */
static size_t begin_word(const lt_bpe *bpe, const char *text, size_t bytes, int32_t *id) {
    symbols all = {.bpe = bpe, .id = id};
    for (size_t at = 0, length = 1; at < bytes; at += length) {
        int32_t symbol;
        if (bpe->byte_level) {
            symbol = bpe->of_byte[(unsigned char)text[at]];
        } else {
            lt_utf8_next(text + at, bytes - at, &length);
            symbol = lt_vocabulary_find(&bpe->vocabulary, text + at, length);
            if (symbol < 0 && bpe->byte_fallback && put_fallback(&all, text + at, length)) continue;
        }
        if (symbol >= 0)
            put_known(&all, symbol);
        else
            put_unknown(&all);
    }
    if (all.unknown) all.id[all.count++] = bpe->unknown;
    return all.count;
}

/* The id of a word that is a token, or -1. */
static int32_t find_word(const lt_bpe *bpe, const char *text, size_t bytes) {
    char buffer[LT_TOKEN_BYTES + 2];
    if (!bpe->byte_level) return lt_vocabulary_find(&bpe->vocabulary, text, bytes);
    size_t written = 0;
    for (size_t i = 0; i < bytes && written <= LT_TOKEN_BYTES; i++)
        written += lt_byte_character((unsigned char)text[i], buffer + written);
    return lt_vocabulary_find(&bpe->vocabulary, buffer, written);
}

static lt_status encode_word(bpe_encoder *encoder, const char *text, size_t bytes, size_t *count) {
    const lt_bpe *bpe = bpe_of(encoder);
    LT_CHECK(lt_token_list_reserve(encoder->tokens, bytes + 1));
    int32_t *id = encoder->tokens->id + encoder->tokens->count;
    const int32_t whole = bpe->ignore_merges ? find_word(bpe, text, bytes) : -1;
    if (whole >= 0) {
        id[0] = whole;
        *count = 1;
    } else {
        *count = begin_word(bpe, text, bytes, id);
        if (bpe->merges.count > 0) LT_CHECK(lt_merge_word(&bpe->merges, &encoder->merge, id, count));
    }
    encoder->tokens->count += *count;
    return LT_OK;
}

static lt_status encode_cached(void *context, const char *text, size_t bytes) {
    bpe_encoder *encoder = context;
    size_t count;
    if (bytes > CACHED_BYTES) return encode_word(encoder, text, bytes, &count);
    cached_word *entry = &encoder->cache[XXH3_64bits(text, bytes) % CACHE_ENTRIES];
    if (entry->bytes == bytes && memcmp(entry->word, text, bytes) == 0) {
        LT_CHECK(lt_token_list_reserve(encoder->tokens, CACHED_IDS));
        memcpy(encoder->tokens->id + encoder->tokens->count, entry->id, sizeof entry->id);
        encoder->tokens->count += entry->ids;
        return LT_OK;
    }
    LT_CHECK(encode_word(encoder, text, bytes, &count));
    if (count > CACHED_IDS) return LT_OK;
    entry->bytes = (uint8_t)bytes;
    entry->ids = (uint8_t)count;
    memcpy(entry->word, text, bytes);
    memcpy(entry->id, encoder->tokens->id + encoder->tokens->count - count, count * sizeof *entry->id);
    return LT_OK;
}

static lt_status put_prefix(bpe_encoder *encoder, const char **text, size_t *bytes) {
    if (encoder->prefixed_capacity < *bytes + 1) {
        char *grown = realloc(encoder->prefixed, *bytes + 1);
        if (grown == NULL) return lt_fail(LT_IO, "no memory for a text of %zu bytes", *bytes);
        encoder->prefixed = grown;
        encoder->prefixed_capacity = *bytes + 1;
    }
    encoder->prefixed[0] = ' ';
    memcpy(encoder->prefixed + 1, *text, *bytes);
    *text = encoder->prefixed;
    *bytes += 1;
    return LT_OK;
}

static bool lacks_prefix(const bpe_encoder *encoder, const char *text, size_t bytes) {
    const lt_bpe *bpe = bpe_of(encoder);
    const bool marked = bpe->metaspace.count > 0 && bytes >= LT_SPACE_MARK_BYTES &&
                        memcmp(text, LT_SPACE_MARK, LT_SPACE_MARK_BYTES) == 0;
    return bpe->prefix_space && !(bpe->prefix_once && encoder->begun) && text[0] != ' ' && !marked;
}

/* Text without added tokens. */
static lt_status encode_plain(bpe_encoder *encoder, const char *text, size_t bytes) {
    const lt_bpe *bpe = bpe_of(encoder);
    if (bytes == 0) return LT_OK;
    if (lacks_prefix(encoder, text, bytes)) LT_CHECK(put_prefix(encoder, &text, &bytes));
    encoder->begun = true;
    LT_CHECK(lt_normalize(&bpe->metaspace, &encoder->metaspace, &text, &bytes));
    return lt_split(&bpe->splitters, &encoder->split, text, bytes, encode_cached, encoder);
}

static lt_status encode_normalized(bpe_encoder *encoder, const char *text, size_t bytes);

/* Cuts the text at added tokens; `rest` encodes what lies between. A token that takes the spaces behind it
 * does not keep the next token from being found in them: the reference gives both. */
static lt_status encode_around(bpe_encoder *encoder, const lt_added *added, const char *text, size_t bytes,
                               lt_status (*rest)(bpe_encoder *encoder, const char *text, size_t bytes)) {
    size_t taken = 0, from = 0;
    for (lt_added_match match; lt_added_find(added, text, bytes, from, taken, &match); taken = match.end) {
        if (match.begin > taken) LT_CHECK(rest(encoder, text + taken, match.begin - taken));
        LT_CHECK(lt_token_list_reserve(encoder->tokens, 1));
        encoder->tokens->id[encoder->tokens->count++] = match.id;
        encoder->begun = true;
        from = match.next;
    }
    return rest(encoder, text + taken, bytes - taken);
}

static lt_status encode_normalized(bpe_encoder *encoder, const char *text, size_t bytes) {
    const lt_bpe *bpe = bpe_of(encoder);
    LT_CHECK(lt_normalize(&bpe->normalizers, &encoder->normalize, &text, &bytes));
    return encode_around(encoder, &bpe->added_normalized, text, bytes, encode_plain);
}

static lt_status prepare(bpe_encoder *encoder) {
    if (encoder->cache != NULL) return LT_OK;
    LT_CHECK(lt_split_space_create(&bpe_of(encoder)->splitters, &encoder->split));
    encoder->cache = calloc(CACHE_ENTRIES, sizeof *encoder->cache);
    return encoder->cache != NULL ? LT_OK : lt_fail(LT_IO, "no memory to encode text");
}

static lt_status bpe_encode(lt_encoder *base, const char *text, size_t bytes, lt_token_list *tokens) {
    bpe_encoder *encoder = (bpe_encoder *)base;
    LT_CHECK(prepare(encoder));
    encoder->tokens = tokens;
    encoder->begun = false;
    return encode_around(encoder, &bpe_of(encoder)->added, text, bytes, encode_normalized);
}

static void bpe_encoder_done(lt_encoder *base) {
    bpe_encoder *encoder = (bpe_encoder *)base;
    lt_split_space_free(&encoder->split);
    lt_merge_space_free(&encoder->merge);
    lt_normalize_space_free(&encoder->normalize);
    lt_normalize_space_free(&encoder->metaspace);
    free(encoder->prefixed);
    free(encoder->cache);
}

const lt_tokenizer_kind lt_bpe_kind = {
    .tokenizer_bytes = sizeof(lt_bpe),
    .encoder_bytes = sizeof(bpe_encoder),
    .open = lt_bpe_open,
    .close = lt_bpe_close,
    .encode = bpe_encode,
    .encoder_done = bpe_encoder_done,
};
