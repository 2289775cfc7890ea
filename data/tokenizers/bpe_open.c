/* Opening a BPE tokenizer: what follows from its files, and the text of each id. */
#include "data/tokenizers/bpe.h"
#include "data/tokenizers/utf8.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

size_t lt_byte_character(unsigned char byte, char *out) {
    /* Printable Latin-1 stands for itself, the other 68 bytes in order for U+0100 and on. */
    unsigned code = byte;
    if (byte <= ' ')
        code = 256U + byte;
    else if (byte >= 127 && byte <= 160)
        code = 256U + 33U + byte - 127U;
    else if (byte == 173)
        code = 256U + 33U + 34U;
    if (code < 0x80) {
        out[0] = (char)code;
        return 1;
    }
    out[0] = (char)(0xc0 | code >> 6);
    out[1] = (char)(0x80 | (code & 0x3f));
    return 2;
}

static void find_bytes(lt_bpe *bpe) {
    for (int byte = 0; byte < 256; byte++) {
        char text[8];
        const size_t bytes = bpe->byte_level ? lt_byte_character((unsigned char)byte, text)
                                             : (size_t)snprintf(text, sizeof text, "<0x%02X>", byte);
        bpe->of_byte[byte] = lt_vocabulary_find(&bpe->vocabulary, text, bytes);
    }
}

/* Whether a word of marks and then of other characters ends where the next mark stands, because no token goes
 * over that border. Then the text need not be merged as one. */
static bool ends_at_marks(const lt_bpe *bpe) {
    if (bpe->byte_level || bpe->splitters.count == LT_MAX_SPLITTERS ||
        lt_vocabulary_find(&bpe->vocabulary, LT_SPACE_MARK, LT_SPACE_MARK_BYTES) < 0)
        return false;
    for (size_t i = 0; i < bpe->vocabulary.count; i++) {
        const lt_token_text *token = &bpe->vocabulary.token[i];
        const char *text = bpe->vocabulary.text + token->place;
        bool other = false;
        for (size_t at = 0; at < token->bytes;) {
            const bool mark = token->bytes - at >= LT_SPACE_MARK_BYTES &&
                              memcmp(text + at, LT_SPACE_MARK, LT_SPACE_MARK_BYTES) == 0;
            if (mark && other) return false;
            other |= !mark;
            at += mark ? LT_SPACE_MARK_BYTES : 1;
        }
    }
    return true;
}

/* The bytes that a token stands for, to `out` [bytes]. */
static size_t token_bytes(const lt_bpe *bpe, const int16_t *byte_of, const char *text, size_t bytes,
                          char *out) {
    size_t written = 0, length;
    if (!bpe->byte_level) {
        unsigned value;
        if (bpe->byte_fallback && bytes == 6 && sscanf(text, "<0x%2X>", &value) == 1) {
            out[0] = (char)value;
            return 1;
        }
        for (size_t at = 0; at < bytes;) {
            const bool mark = bytes - at >= LT_SPACE_MARK_BYTES &&
                              memcmp(text + at, LT_SPACE_MARK, LT_SPACE_MARK_BYTES) == 0;
            out[written++] = mark ? ' ' : text[at];
            at += mark ? LT_SPACE_MARK_BYTES : 1;
        }
        return written;
    }
    for (size_t at = 0; at < bytes; at += length) {
        const unsigned char *character = (const unsigned char *)text + at;
        int code = -1; /* one in which some byte is written */
        if (lt_utf8_next(text + at, bytes - at, &length) == LT_UTF8_CHARACTER && length <= 2)
            code = length == 1 ? character[0] : (character[0] & 0x1f) << 6 | (character[1] & 0x3f);
        if (code < 0 || code >= 512 || byte_of[code] < 0) { /* not of the alphabet: as it is */
            memcpy(out, text, bytes);
            return bytes;
        }
        out[written++] = (char)byte_of[code];
    }
    return written;
}

/* ---- ids to text ---- */

typedef struct id_text {
    const char *text; /* NULL: no token has this id */
    size_t bytes;
    bool added, special;
} id_text;

static lt_status list_ids(const lt_bpe *bpe, id_text *list) {
    const lt_vocabulary *all[] = {&bpe->vocabulary, &bpe->added_texts, &bpe->special};
    for (int k = 0; k < 3; k++)
        for (size_t i = 0; i < all[k]->count; i++) {
            const lt_token_text *token = &all[k]->token[i];
            id_text *entry = &list[token->id];
            const char *text = all[k]->text + token->place;
            if (entry->text != NULL &&
                (entry->bytes != token->bytes || memcmp(entry->text, text, token->bytes) != 0))
                return lt_fail(LT_BAD_INPUT, "id %" PRId32 " belongs to two tokens, '%.*s' and '%.*s'",
                               token->id, (int)entry->bytes, entry->text, (int)token->bytes, text);
            *entry = (id_text){text, token->bytes, entry->added || k == 1, k == 2};
        }
    return LT_OK;
}

static lt_status fill_pieces(lt_bpe *bpe, const id_text *list, int64_t count) {
    int16_t byte_of[512];
    memset(byte_of, 0xff, sizeof byte_of);
    for (int byte = 0; byte < 256; byte++) {
        char text[2];
        const size_t bytes = lt_byte_character((unsigned char)byte, text);
        byte_of[bytes == 1 ? text[0] : (text[0] & 0x1f) << 6 | (text[1] & 0x3f)] = (int16_t)byte;
    }
    lt_piece_table table = {0};
    char *buffer = malloc(bpe->vocabulary.text_bytes + bpe->added_texts.text_bytes + 1);
    lt_status status = buffer == NULL ? lt_fail(LT_IO, "no memory for its vocabulary") : LT_OK;
    for (int64_t id = 0; id < count && status == LT_OK; id++) {
        const id_text *entry = &list[id];
        if (entry->text == NULL || entry->special)
            status = lt_piece_table_add(&table, "", 0);
        else if (entry->added)
            status = lt_piece_table_add(&table, entry->text, entry->bytes);
        else
            status = lt_piece_table_add(&table, buffer,
                                        token_bytes(bpe, byte_of, entry->text, entry->bytes, buffer));
    }
    if (status == LT_OK) status = lt_piece_table_finish(&table, &bpe->base);
    lt_piece_table_free(&table);
    free(buffer);
    return status;
}

static int32_t greatest_id(const lt_vocabulary *vocabulary, int32_t greatest) {
    for (size_t i = 0; i < vocabulary->count; i++)
        if (vocabulary->token[i].id > greatest) greatest = vocabulary->token[i].id;
    return greatest;
}

static lt_status build_pieces(lt_bpe *bpe) {
    const int64_t count = greatest_id(&bpe->added_texts, greatest_id(&bpe->vocabulary, -1)) + 1;
    id_text *list = calloc((size_t)count + 1, sizeof *list);
    if (list == NULL) return lt_fail(LT_IO, "no memory for its vocabulary");
    lt_status status = list_ids(bpe, list);
    if (status == LT_OK) status = fill_pieces(bpe, list, count);
    free(list);
    return status;
}

/* The names that published tokenizers give the end of a text. */
static int32_t find_end_of_text(const lt_bpe *bpe) {
    static const char *const names[] = {"<|endoftext|>", "<|end_of_text|>", "</s>",
                                        "<eos>",         "<|im_end|>",      "<｜end▁of▁sentence｜>"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        int32_t id = lt_vocabulary_find(&bpe->added_texts, names[i], strlen(names[i]));
        if (id < 0) id = lt_vocabulary_find(&bpe->vocabulary, names[i], strlen(names[i]));
        if (id >= 0) return id;
    }
    return -1;
}

static lt_status read_files(lt_bpe *bpe, const lt_blob *files, int count) {
    LT_CHECK(count == 2 ? lt_bpe_read_pair(bpe, &files[0], &files[1]) : lt_bpe_read_json(bpe, &files[0]));
    find_bytes(bpe);
    if (ends_at_marks(bpe)) LT_CHECK(lt_splitters_add_marks(&bpe->splitters));
    LT_CHECK(build_pieces(bpe));
    bpe->base.end_of_text = find_end_of_text(bpe);
    bpe->base.name = bpe->byte_level ? "byte-level BPE" : "BPE";
    return LT_OK;
}

lt_status lt_bpe_open(lt_tokenizer *tokenizer, const lt_blob *files, int count, const char *key) {
    const lt_status status = read_files((lt_bpe *)tokenizer, files, count);
    return status == LT_OK ? LT_OK : lt_fail(status, "%s: '%s': %s", key, files[0].path, lt_error_message());
}

void lt_bpe_close(lt_tokenizer *tokenizer) {
    lt_bpe *bpe = (lt_bpe *)tokenizer;
    lt_vocabulary_free(&bpe->vocabulary);
    lt_vocabulary_free(&bpe->added_texts);
    lt_vocabulary_free(&bpe->special);
    free(bpe->merges.slot);
    lt_added_free(&bpe->added);
    lt_added_free(&bpe->added_normalized);
    lt_normalizers_free(&bpe->normalizers);
    lt_normalizers_free(&bpe->metaspace);
    lt_splitters_free(&bpe->splitters);
}
