/* Reads a SentencePiece model's protocol buffer, and checks it. */
#include "data/tokenizers/sentencepiece_model.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

bool lt_span_is(lt_span span, const char *text) {
    return span.bytes == strlen(text) && memcmp(span.data, text, span.bytes) == 0;
}

/* ---- the wire format ---- */

enum { VARINT, EIGHT_BYTES, LENGTH, FOUR_BYTES = 5 };
#define FIELD(number, wire) ((number) << 3 | (wire))

typedef struct field {
    uint64_t tag; /* FIELD() */
    uint64_t value;
    lt_span bytes; /* of LENGTH */
} field;

static bool take_varint(lt_span *in, uint64_t *value) {
    *value = 0;
    for (unsigned shift = 0; shift < 64 && in->bytes > 0; shift += 7) {
        const unsigned char byte = (unsigned char)*in->data;
        in->data++, in->bytes--;
        *value |= (uint64_t)(byte & 0x7f) << shift;
        if (byte < 0x80) return true;
    }
    return false;
}

static bool take_bytes(lt_span *in, uint64_t count, lt_span *out) {
    if (count > in->bytes) return false;
    *out = (lt_span){in->data, (size_t)count};
    in->data += count;
    in->bytes -= (size_t)count;
    return true;
}

/* The next field; false: the buffer is broken. */
static bool take_field(lt_span *in, field *f) {
    *f = (field){0};
    if (!take_varint(in, &f->tag)) return false;
    switch (f->tag & 7) {
    case VARINT:
        return take_varint(in, &f->value);
    case LENGTH:
        return take_varint(in, &f->value) && take_bytes(in, f->value, &f->bytes);
    case EIGHT_BYTES:
        return take_bytes(in, 8, &f->bytes);
    case FOUR_BYTES:
        return take_bytes(in, 4, &f->bytes);
    default:
        return false;
    }
}

/* ---- messages: what is not known is skipped, the last of several values holds, as protocol buffers say ----
 */

static bool read_piece(lt_spm_model *model, lt_span in) {
    lt_spm_piece *piece = &model->piece[model->pieces++];
    *piece = (lt_spm_piece){.type = LT_SPM_NORMAL};
    for (field f; in.bytes > 0;) {
        if (!take_field(&in, &f)) return false;
        if (f.tag == FIELD(1, LENGTH)) piece->text = f.bytes;
        if (f.tag == FIELD(3, VARINT) && f.value >= LT_SPM_NORMAL && f.value <= LT_SPM_BYTE)
            piece->type = (lt_spm_piece_type)f.value;
    }
    return true;
}

static bool read_trainer(lt_spm_model *model, lt_span in) {
    for (field f; in.bytes > 0;) {
        if (!take_field(&in, &f)) return false;
        if (f.tag == FIELD(3, VARINT) && f.value >= LT_SPM_UNIGRAM && f.value <= LT_SPM_CHAR)
            model->type = (lt_spm_type)f.value;
        if (f.tag == FIELD(24, VARINT)) model->space_as_suffix = f.value != 0;
        if (f.tag == FIELD(44, LENGTH)) model->unknown_surface = f.bytes;
        if (f.tag == FIELD(47, LENGTH)) model->end_piece = f.bytes;
    }
    return true;
}

static bool read_normalizer(lt_spm_model *model, lt_span in) {
    for (field f; in.bytes > 0;) {
        if (!take_field(&in, &f)) return false;
        if (f.tag == FIELD(2, LENGTH)) model->charsmap = f.bytes;
        if (f.tag == FIELD(3, VARINT)) model->dummy_prefix = f.value != 0;
        if (f.tag == FIELD(4, VARINT)) model->remove_extra = f.value != 0;
        if (f.tag == FIELD(5, VARINT)) model->escape_spaces = f.value != 0;
    }
    return true;
}

static bool read_denormalizer(lt_spm_model *model, lt_span in) {
    for (field f; in.bytes > 0;) {
        if (!take_field(&in, &f)) return false;
        if (f.tag == FIELD(2, LENGTH)) model->back_charsmap = f.bytes;
    }
    return true;
}

static lt_status read_model(lt_spm_model *model, lt_span in, bool *good) {
    *good = true;
    while (in.bytes > 0 && *good) {
        field f;
        *good = take_field(&in, &f);
        if (!*good) return LT_OK;
        if (f.tag == FIELD(1, LENGTH) && model->pieces == model->capacity) {
            model->capacity = 2 * model->capacity + 1024;
            lt_spm_piece *grown = reallocarray(model->piece, model->capacity, sizeof *grown);
            if (grown == NULL) return lt_fail(LT_IO, "no memory for a tokenizer's vocabulary");
            model->piece = grown;
        }
        if (f.tag == FIELD(1, LENGTH)) *good = read_piece(model, f.bytes);
        if (f.tag == FIELD(2, LENGTH)) *good = read_trainer(model, f.bytes);
        if (f.tag == FIELD(3, LENGTH)) *good = read_normalizer(model, f.bytes);
        if (f.tag == FIELD(5, LENGTH)) *good = read_denormalizer(model, f.bytes);
        model->trained |= f.tag == FIELD(2, LENGTH);
        model->normalised |= f.tag == FIELD(3, LENGTH);
    }
    return LT_OK;
}

/* ---- the normaliser's rules: a double array (Darts) of units, and the texts that its leaves point at ----
 */

enum {
    MOST_RULES = 32,    /* that begin with one another: the library's array of results */
    MOST_DEPTH = 256,   /* bytes of what a rule replaces */
    LONGEST_TEXT = 4096 /* of what it puts there; Unicode's longest has 33 bytes */
};

typedef struct rules {
    lt_span units, texts;
    size_t count;        /* of units */
    unsigned char *seen; /* [count] of a node: 0, ON_PATH or 1 + the most leaves on a path from it */
} rules;
enum { ON_PATH = 255 };

static uint32_t little_endian(const char *at) {
    const unsigned char *byte = (const unsigned char *)at;
    return (uint32_t)byte[0] | (uint32_t)byte[1] << 8 | (uint32_t)byte[2] << 16 | (uint32_t)byte[3] << 24;
}

static uint32_t unit_at(const rules *r, size_t index) {
    return little_endian(r->units.data + 4 * index);
}

static bool good_leaf(const rules *r, uint32_t unit) {
    const size_t value = unit & 0x7fffffff;
    if (value >= r->texts.bytes) return false;
    const size_t left = r->texts.bytes - value;
    return strnlen(r->texts.data + value, left < LONGEST_TEXT ? left : LONGEST_TEXT) < LONGEST_TEXT;
}

/* Whether all that a text can reach from `node` lies in the array. */
static bool good_node(const rules *r, size_t node, int depth) {
    if (r->seen[node] != 0) return r->seen[node] != ON_PATH;
    if (depth > MOST_DEPTH) return false;
    r->seen[node] = ON_PATH;
    const uint32_t unit = unit_at(r, node);
    const size_t base = node ^ (size_t)(unit >> 10) << ((unit & 1U << 9) >> 6);
    if ((base | 0xff) >= r->count) return false;
    const bool leaf = (unit & 1U << 8) != 0;
    if (leaf && !good_leaf(r, unit_at(r, base))) return false;
    int most = 0;
    for (size_t byte = 0; byte < 256; byte++) {
        const size_t child = base ^ byte;
        if ((unit_at(r, child) & 0x800000ff) != byte) continue;
        if (!good_node(r, child, depth + 1)) return false;
        if (r->seen[child] - 1 > most) most = r->seen[child] - 1;
    }
    r->seen[node] = (unsigned char)(1 + most + leaf);
    return most + leaf <= MOST_RULES;
}

static lt_status check_charsmap(lt_span map, bool *good) {
    rules r = {0};
    *good = map.bytes == 0;
    if (*good || map.bytes < 4) return LT_OK;
    const uint32_t bytes = little_endian(map.data);
    map.data += 4, map.bytes -= 4;
    if (!take_bytes(&map, bytes, &r.units)) return LT_OK;
    r.texts = map;
    r.count = r.units.bytes / 4;
    if (r.count == 0) return LT_OK;
    r.seen = calloc(r.count, 1);
    if (r.seen == NULL) return lt_fail(LT_IO, "no memory to check a tokenizer");
    *good = good_node(&r, 0, 0);
    free(r.seen);
    return LT_OK;
}

/* ---- the pieces ---- */

enum {
    MOST_NESTED = 64
}; /* user-defined pieces that begin with one another: the library's array of results */

static int compare(const void *left, const void *right) {
    const lt_span *a = left, *b = right;
    const size_t common = a->bytes < b->bytes ? a->bytes : b->bytes;
    const int order = memcmp(a->data, b->data, common);
    return order != 0 ? order : (a->bytes > b->bytes) - (a->bytes < b->bytes);
}

/* In order, what a piece begins with comes before it. */
static bool nest_too_deep(const lt_span *sorted, size_t count) {
    lt_span open[MOST_NESTED + 1];
    size_t depth = 0;
    for (size_t i = 0; i < count; i++) {
        while (depth > 0 && (open[depth - 1].bytes > sorted[i].bytes ||
                             memcmp(open[depth - 1].data, sorted[i].data, open[depth - 1].bytes) != 0))
            depth--;
        if (depth == MOST_NESTED) return true;
        open[depth++] = sorted[i];
    }
    return false;
}

static lt_status check_pieces(const lt_spm_model *model, bool *good) {
    lt_span *defined = malloc(model->pieces * sizeof *defined);
    if (defined == NULL) return lt_fail(LT_IO, "no memory to check a tokenizer");
    size_t count = 0;
    *good = true;
    for (size_t i = 0; i < model->pieces; i++) {
        const lt_span text = model->piece[i].text;
        /* The library takes NUL for the end. */
        *good &= text.bytes > 0 && memchr(text.data, '\0', text.bytes) == NULL;
        if (model->piece[i].type == LT_SPM_USER_DEFINED) defined[count++] = text;
    }
    if (*good && count > 0) {
        qsort(defined, count, sizeof *defined, compare);
        *good = !nest_too_deep(defined, count);
    }
    free(defined);
    return LT_OK;
}

/* ---- all of it ---- */

static lt_status damaged(const lt_blob *file, const char *key, const char *what) {
    return lt_fail(LT_BAD_INPUT,
                   "%s: '%s' is no SentencePiece model, or is damaged: %s; expected the .model file that "
                   "SentencePiece's training wrote, fetch it anew",
                   key, file->path, what);
}

lt_status lt_spm_model_read(lt_spm_model *model, const lt_blob *file, const char *key) {
    *model = (lt_spm_model){
        .type = LT_SPM_UNIGRAM,
        .end_piece = {"</s>", 4},
        .unknown_surface = {" \xe2\x81\x87 ", 5},
        .dummy_prefix = true,
        .remove_extra = true,
        .escape_spaces = true,
    };
    bool good;
    LT_CHECK(read_model(model, (lt_span){file->data, file->bytes}, &good));
    if (!good) return damaged(file, key, "the protocol buffer is broken or truncated");
    if (model->pieces == 0 || !model->trained || !model->normalised)
        return damaged(file, key, "it lacks pieces, or the trainer_spec or normalizer_spec behind them");
    if (model->end_piece.bytes == 0) model->end_piece = (lt_span){"</s>", 4};
    LT_CHECK(check_pieces(model, &good));
    if (!good)
        return damaged(
            file, key,
            "a piece is empty or holds a NUL, or more than 64 of those that users defined begin with "
            "one another");
    LT_CHECK(check_charsmap(model->charsmap, &good));
    if (!good) return damaged(file, key, "its rules of normalisation are broken");
    if (model->back_charsmap.bytes > 0)
        return lt_fail(LT_BAD_INPUT,
                       "%s: '%s' has rules of denormalisation (denormalizer_spec), which are not supported; "
                       "expected a model without them",
                       key, file->path);
    return LT_OK;
}

void lt_spm_model_free(lt_spm_model *model) {
    free(model->piece);
    *model = (lt_spm_model){0};
}
