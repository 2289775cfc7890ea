/* SentencePiece models (BPE, unigram, word, character), by libsentencepiece.
 *
 * Memory of a document while it is encoded is the library's, 130 bytes a byte: 13 GB for 100 MB under
 * unigram. Under BPE a long text is encoded in parts, with the same ids, and takes a few MB beside its ids
 * (0.35 GB for 100 MB of English, text and ids included): it is cut where no merge can cross, between an
 * ASCII letter and a space that a letter follows; without such a place it takes what unigram takes. The cut
 * is exact where
 *
 *   - the normaliser has no rules, so that it copies characters one by one, and only marks spaces (U+2581);
 *   - no piece holds a letter before a mark, or a plain space, so that neither a merge nor a user-defined
 *     piece reaches over the cut; merges on one side then have the order that they have in the whole text;
 *   - the mark is a piece, so that unknown characters on both sides are not one unknown token;
 *   - no piece is UNUSED: those are split as the last merge into them was made, wherever in the text;
 *   - the space that was cut at comes back as the dummy prefix of the next part, or stays if there is none.
 */
#include "comm/plugin.h"
#include "data/plugins/sentencepiece.h"
#include "data/tokenizers/sentencepiece_model.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { PART_BYTES = 1 << 14 };

typedef struct sentencepiece {
    lt_tokenizer base;
    const lt_sentencepiece_table *library;
    void *model;
    bool cut_texts, dummy_prefix;
} sentencepiece;

/* ---- pieces to texts ---- */

/* The byte of "<0xNN>", which the library has made sure of. */
static lt_status add_byte(lt_piece_table *table, lt_span name) {
    char digits[3] = "";
    if (name.bytes == strlen("<0xNN>")) memcpy(digits, name.data + 3, 2);
    return lt_piece_table_add(table, &(char){(char)strtoul(digits, NULL, 16)}, 1);
}

/* Every mark of a space becomes one; `buffer` holds the piece. */
static lt_status add_marked(lt_piece_table *table, lt_span piece, char *buffer) {
    size_t bytes = 0;
    for (size_t i = 0; i < piece.bytes;) {
        const bool mark = piece.bytes - i >= LT_SPACE_MARK_BYTES &&
                          memcmp(piece.data + i, LT_SPACE_MARK, LT_SPACE_MARK_BYTES) == 0;
        buffer[bytes++] = mark ? ' ' : piece.data[i];
        i += mark ? LT_SPACE_MARK_BYTES : 1;
    }
    return lt_piece_table_add(table, buffer, bytes);
}

static lt_status add_piece(lt_piece_table *table, const lt_spm_model *model, lt_spm_piece piece,
                           char *buffer) {
    switch (piece.type) {
    case LT_SPM_CONTROL:
        return lt_piece_table_add(table, "", 0);
    case LT_SPM_UNKNOWN:
        return lt_piece_table_add(table, model->unknown_surface.data, model->unknown_surface.bytes);
    case LT_SPM_BYTE:
        return add_byte(table, piece.text);
    default:
        return add_marked(table, piece.text, buffer);
    }
}

static bool begins_with_mark(lt_spm_piece piece) {
    return piece.type != LT_SPM_UNKNOWN && piece.type != LT_SPM_BYTE &&
           piece.text.bytes >= LT_SPACE_MARK_BYTES &&
           memcmp(piece.text.data, LT_SPACE_MARK, LT_SPACE_MARK_BYTES) == 0;
}

static lt_status fill_table(lt_tokenizer *tokenizer, const lt_spm_model *model) {
    size_t longest = 1;
    for (size_t i = 0; i < model->pieces; i++)
        if (model->piece[i].text.bytes > longest) longest = model->piece[i].text.bytes;
    lt_piece_table table = {0};
    char *buffer = malloc(longest);
    tokenizer->literal = calloc(model->pieces + 1, sizeof *tokenizer->literal);
    lt_status status = buffer == NULL || tokenizer->literal == NULL
                           ? lt_fail(LT_IO, "no memory for a tokenizer's vocabulary")
                           : LT_OK;
    for (size_t i = 0; i < model->pieces && status == LT_OK; i++) {
        tokenizer->literal[i] = !begins_with_mark(model->piece[i]);
        status = add_piece(&table, model, model->piece[i], buffer);
    }
    if (status == LT_OK) status = lt_piece_table_finish(&table, tokenizer);
    lt_piece_table_free(&table);
    free(buffer);
    return status;
}

/* The end of a text as the library names it, which must be a control piece; else the name that others use. */
static int32_t find_end_of_text(const lt_spm_model *model) {
    int32_t other = -1;
    for (size_t i = 0; i < model->pieces; i++) {
        const lt_spm_piece *piece = &model->piece[i];
        const lt_span end = model->end_piece;
        if (piece->type == LT_SPM_CONTROL && piece->text.bytes == end.bytes &&
            memcmp(piece->text.data, end.data, end.bytes) == 0)
            return (int32_t)i;
        if (lt_span_is(piece->text, "<|endoftext|>")) other = (int32_t)i;
    }
    return other;
}

/* ---- open ---- */

static bool letter(char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');
}

static bool holds_letter_and_space(lt_span piece) {
    for (size_t i = 0; i + 1 < piece.bytes; i++) {
        const size_t left = piece.bytes - i - 1;
        if (letter(piece.data[i]) && left >= LT_SPACE_MARK_BYTES &&
            memcmp(piece.data + i + 1, LT_SPACE_MARK, LT_SPACE_MARK_BYTES) == 0)
            return true;
    }
    return memchr(piece.data, ' ', piece.bytes) != NULL;
}

/* Whether texts may be cut, as told above. */
static bool can_cut(const lt_spm_model *model) {
    if (model->type != LT_SPM_BPE || model->charsmap.bytes > 0 || !model->escape_spaces ||
        model->space_as_suffix || (!model->dummy_prefix && model->remove_extra))
        return false;
    bool mark_is_piece = false;
    for (size_t i = 0; i < model->pieces; i++) {
        const lt_spm_piece *piece = &model->piece[i];
        if (piece->type == LT_SPM_UNUSED) return false;
        if (piece->type != LT_SPM_NORMAL && piece->type != LT_SPM_USER_DEFINED) continue;
        if (holds_letter_and_space(piece->text)) return false;
        mark_is_piece |= lt_span_is(piece->text, LT_SPACE_MARK);
    }
    return mark_is_piece;
}

static lt_status load(sentencepiece *self, const lt_blob *file, const char *key) {
    char text[512];
    const void *library;
    snprintf(text, sizeof text, "%s: '%s'", key, file->path);
    LT_CHECK(lt_plugin_open("sentencepiece", text, &library));
    self->library = library;
    self->model = self->library->load(file->data, file->bytes, text, sizeof text);
    if (self->model != NULL) return LT_OK;
    return lt_fail(
        LT_BAD_INPUT,
        "%s: '%s' is no SentencePiece model, or is damaged: the library says '%s'; expected the .model "
        "file that SentencePiece's training wrote, fetch it anew",
        key, file->path, text);
}

static lt_status sentencepiece_open(lt_tokenizer *tokenizer, const lt_blob *files, int count,
                                    const char *key) {
    static const char *const names[] = {[LT_SPM_UNIGRAM] = "SentencePiece unigram",
                                        [LT_SPM_BPE] = "SentencePiece BPE",
                                        [LT_SPM_WORD] = "SentencePiece word",
                                        [LT_SPM_CHAR] = "SentencePiece character"};
    (void)count;
    sentencepiece *self = (sentencepiece *)tokenizer;
    lt_spm_model model;
    lt_status status = LT_OK;
    LT_CHECK_DONE(status, lt_spm_model_read(&model, &files[0], key));
    LT_CHECK_DONE(status, load(self, &files[0], key));
    LT_CHECK_DONE(status, fill_table(tokenizer, &model));
    tokenizer->name = names[model.type];
    tokenizer->end_of_text = find_end_of_text(&model);
    tokenizer->leading_space = model.remove_extra   ? LT_DROP_ALL_SPACES
                               : model.dummy_prefix ? LT_DROP_ONE_SPACE
                                                    : LT_KEEP_SPACES;
    self->dummy_prefix = model.dummy_prefix;
    self->cut_texts = can_cut(&model);
done:
    lt_spm_model_free(&model);
    return status;
}

static void sentencepiece_close(lt_tokenizer *tokenizer) {
    sentencepiece *self = (sentencepiece *)tokenizer;
    if (self->model != NULL) self->library->unload(self->model);
}

/* ---- encode ---- */

/* Where the first part of the text ends: at a space between letters, or at the end. */
static size_t part_end(const sentencepiece *self, const char *text, size_t bytes) {
    if (!self->cut_texts) return bytes;
    for (size_t at = PART_BYTES; at + 1 < bytes; at++)
        if (text[at] == ' ' && letter(text[at - 1]) && letter(text[at + 1])) return at;
    return bytes;
}

static bool take_ids(void *context, const int32_t *ids, size_t count) {
    lt_token_list *tokens = context;
    if (lt_token_list_reserve(tokens, count) != LT_OK) return false;
    if (count > 0) memcpy(tokens->id + tokens->count, ids, count * sizeof *ids);
    tokens->count += count;
    return true;
}

static lt_status sentencepiece_encode(lt_encoder *encoder, const char *text, size_t bytes,
                                      lt_token_list *tokens) {
    const sentencepiece *self = (const sentencepiece *)encoder->tokenizer;
    for (size_t at = 0; at < bytes;) {
        char error[512];
        const size_t part = part_end(self, text + at, bytes - at);
        if (!self->library->encode(self->model, text + at, part, take_ids, tokens, error, sizeof error)) {
            if (error[0] == '\0') return LT_IO; /* told by take_ids() */
            return lt_fail(LT_FAILED, "SentencePiece cannot encode a text of %zu bytes: %s", bytes, error);
        }
        at += part;
        if (at < bytes && self->dummy_prefix) at++; /* the prefix is this space */
    }
    return LT_OK;
}

const lt_tokenizer_kind lt_sentencepiece_kind = {
    .tokenizer_bytes = sizeof(sentencepiece),
    .encoder_bytes = sizeof(lt_encoder),
    .open = sentencepiece_open,
    .close = sentencepiece_close,
    .encode = sentencepiece_encode,
};
