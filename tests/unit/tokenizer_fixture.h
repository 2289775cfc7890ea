/* Small SentencePiece models for tests, written as their protocol buffer says. */
#ifndef LT_TESTS_TOKENIZER_FIXTURE_H
#define LT_TESTS_TOKENIZER_FIXTURE_H

#include <stdint.h>
#include <string.h>

/* Types of pieces and of models. */
enum { PIECE_NORMAL = 1, PIECE_UNKNOWN, PIECE_CONTROL, PIECE_USER, PIECE_UNUSED, PIECE_BYTE };
enum { MODEL_UNIGRAM = 1, MODEL_BPE, MODEL_WORD, MODEL_CHAR };

typedef struct message {
    unsigned char data[16384];
    size_t bytes;
} message;

static inline void put_varint(message *m, uint64_t value) {
    for (; value >= 0x80; value >>= 7) m->data[m->bytes++] = (unsigned char)(value | 0x80);
    m->data[m->bytes++] = (unsigned char)value;
}

static inline void put_number(message *m, unsigned field, uint64_t value) {
    put_varint(m, field << 3);
    put_varint(m, value);
}

static inline void put_bytes(message *m, unsigned field, const void *data, size_t bytes) {
    put_varint(m, field << 3 | 2);
    put_varint(m, bytes);
    memcpy(m->data + m->bytes, data, bytes);
    m->bytes += bytes;
}

static inline void put_piece(message *m, const char *text, int type, float score) {
    message piece = {.bytes = 0};
    put_bytes(&piece, 1, text, strlen(text));
    put_varint(&piece, 2 << 3 | 5);
    memcpy(piece.data + piece.bytes, &score, sizeof score);
    piece.bytes += sizeof score;
    if (type != PIECE_NORMAL) put_number(&piece, 3, (uint64_t)type);
    put_bytes(m, 1, piece.data, piece.bytes);
}

/* What stands behind the pieces. `charsmap` may have no bytes. */
static inline void put_specs(message *m, int type, bool dummy_prefix, bool remove_extra, const void *charsmap,
                             size_t charsmap_bytes) {
    message spec = {.bytes = 0};
    put_number(&spec, 3, (uint64_t)type);
    put_bytes(m, 2, spec.data, spec.bytes);
    spec.bytes = 0;
    if (charsmap_bytes > 0) put_bytes(&spec, 2, charsmap, charsmap_bytes);
    put_number(&spec, 3, dummy_prefix);
    put_number(&spec, 4, remove_extra);
    put_bytes(m, 3, spec.data, spec.bytes);
}

/* A rule that makes "A" an "a": a Darts double array of three blocks, and the text. */
enum { CHARSMAP_UNITS = 768, CHARSMAP_BYTES = 4 + 4 * CHARSMAP_UNITS + 2 };

static inline void make_charsmap(unsigned char map[CHARSMAP_BYTES]) {
    static const uint32_t size = 4 * CHARSMAP_UNITS;
    uint32_t unit[CHARSMAP_UNITS];
    for (int i = 0; i < CHARSMAP_UNITS; i++) unit[i] = 0x800000ff; /* nobody's label */
    unit[0] = 256 << 10;
    unit[256 ^ 'A'] = (uint32_t)(256 ^ 'A' ^ 512) << 10 | 1 << 8 | 'A';
    unit[512] = 0x80000000; /* the text at 0 */
    memcpy(map, &size, sizeof size);
    memcpy(map + 4, unit, sizeof unit);
    memcpy(map + 4 + sizeof unit, "a", 2);
}

/* Merges: l+a, o+w, low, ▁+low. Ids: 0 <unk>, 1 <s>, 2 </s>, 3 ▁low, 4 low, 5 ow, 6 ▁, 7 l, 8 o, 9 w, 10 e,
 * 11 a. */
static inline void put_pieces(message *m) {
    static const char *const normal[] = {
        "\xe2\x96\x81low", "low", "ow", "\xe2\x96\x81", "l", "o", "w", "e", "a"};
    put_piece(m, "<unk>", PIECE_UNKNOWN, 0);
    put_piece(m, "<s>", PIECE_CONTROL, 0);
    put_piece(m, "</s>", PIECE_CONTROL, 0);
    for (int i = 0; i < 9; i++) put_piece(m, normal[i], PIECE_NORMAL, i < 3 ? -3 + (float)i : -10);
}

#endif
