/* GPT-2's two files (github.com/openai/gpt-2): encoder.json, an object of token: id, and vocab.bpe, a line
 * "#version: 0.2" and then a merge a line, "left right". Also what they have in common with a tokenizer.json.
 */
#include "data/tokenizers/bpe.h"

#include <inttypes.h>
#include <jansson.h>
#include <stdlib.h>
#include <string.h>

/* U+10FFFE is no character: it stands for NUL in keys, which jansson does not take. */
#define NUL_STAND_IN "\xf4\x8f\xbf\xbe"
enum { NUL_STAND_IN_BYTES = 4 };

/* Puts it for each "\u0000" of the JSON text; *count of them. */
static lt_status hide_nuls(const lt_blob *file, char *out, size_t *bytes, int64_t *count) {
    size_t written = 0;
    *count = 0;
    for (size_t i = 0; i < file->bytes; i++) {
        const char *at = file->data + i;
        const size_t left = file->bytes - i;
        if (left >= NUL_STAND_IN_BYTES && memcmp(at, NUL_STAND_IN, NUL_STAND_IN_BYTES) == 0)
            return lt_fail(LT_BAD_INPUT, "it holds U+10FFFE at byte %zu, which is not supported", i);
        if (left >= 6 && memcmp(at, "\\u0000", 6) == 0) {
            memcpy(out + written, NUL_STAND_IN, NUL_STAND_IN_BYTES);
            written += NUL_STAND_IN_BYTES;
            i += 5;
            (*count)++;
        } else {
            out[written++] = *at;
            if (*at == '\\' && left > 1)
                out[written++] = file->data[++i]; /* an escaped backslash is no escape */
        }
    }
    *bytes = written;
    return LT_OK;
}

lt_status lt_bpe_parse(const lt_blob *file, json_t **root) {
    char *text = malloc(file->bytes + 1);
    if (text == NULL) return lt_fail(LT_IO, "no memory to read it");
    size_t bytes = 0;
    int64_t nuls;
    lt_status status = hide_nuls(file, text, &bytes, &nuls);
    json_error_t error;
    if (status == LT_OK) {
        *root = json_loadb(text, bytes, JSON_REJECT_DUPLICATES, &error);
        if (*root == NULL)
            status = lt_fail(LT_BAD_INPUT, "it is not JSON: line %d, column %d: %s", error.line, error.column,
                             error.text);
        else if (!json_is_object(*root))
            status = lt_fail(LT_BAD_INPUT, "it is not a JSON object");
    }
    free(text);
    return status;
}

/* A key as it was written: with its NULs. `out` holds `bytes`. */
static size_t restore_nuls(const char *key, size_t bytes, char *out) {
    size_t written = 0;
    for (size_t i = 0; i < bytes;) {
        const bool nul =
            bytes - i >= NUL_STAND_IN_BYTES && memcmp(key + i, NUL_STAND_IN, NUL_STAND_IN_BYTES) == 0;
        out[written++] = nul ? '\0' : key[i];
        i += nul ? NUL_STAND_IN_BYTES : 1;
    }
    return written;
}

static lt_status add_token(lt_bpe *bpe, const char *key, const json_t *value, char *buffer, size_t room) {
    const size_t length = strlen(key);
    const json_int_t id = json_is_integer(value) ? json_integer_value(value) : -1;
    if (length > room) return lt_fail(LT_BAD_INPUT, "its vocabulary holds a token of %zu bytes", length);
    if (id < 0 || id >= LT_MAX_TOKENS)
        return lt_fail(LT_BAD_INPUT,
                       "its vocabulary gives token '%s' no id; expected an integer from 0 to %d", key,
                       LT_MAX_TOKENS - 1);
    return lt_vocabulary_add(&bpe->vocabulary, buffer, restore_nuls(key, length, buffer), (int32_t)id);
}

lt_status lt_bpe_read_vocabulary(lt_bpe *bpe, const json_t *object) {
    if (!json_is_object(object) || json_object_size(object) == 0)
        return lt_fail(LT_BAD_INPUT, "its vocabulary is empty or not an object of token: id");
    char *buffer = malloc(LT_TOKEN_BYTES);
    if (buffer == NULL) return lt_fail(LT_IO, "no memory for its vocabulary");
    lt_status status = LT_OK;
    const char *key;
    json_t *value;
    json_object_foreach((json_t *)object, key, value) {
        status = add_token(bpe, key, value, buffer, LT_TOKEN_BYTES);
        if (status != LT_OK) break;
    }
    free(buffer);
    return status;
}

lt_status lt_bpe_add_merge(lt_bpe *bpe, const char *left, size_t left_bytes, const char *right,
                           size_t right_bytes) {
    const size_t bytes = left_bytes + right_bytes;
    char *joined = malloc(bytes + 1);
    if (joined == NULL) return lt_fail(LT_IO, "no memory for its merges");
    memcpy(joined, left, left_bytes);
    memcpy(joined + left_bytes, right, right_bytes);
    const lt_merge merge = {.left = lt_vocabulary_find(&bpe->vocabulary, left, left_bytes),
                            .right = lt_vocabulary_find(&bpe->vocabulary, right, right_bytes),
                            .rank = bpe->ranks++,
                            .result = lt_vocabulary_find(&bpe->vocabulary, joined, bytes)};
    free(joined);
    if (merge.left < 0 || merge.right < 0 || merge.result < 0)
        return lt_fail(LT_BAD_INPUT, "its merge '%.*s %.*s' joins or makes a token that the vocabulary lacks",
                       (int)left_bytes, left, (int)right_bytes, right);
    return lt_merges_add(&bpe->merges, merge);
}

static lt_status read_merges(lt_bpe *bpe, const lt_blob *file) {
    const char *end = file->data + file->bytes;
    int64_t line = 1;
    for (const char *at = file->data; at < end; line++) {
        const char *stop = memchr(at, '\n', (size_t)(end - at));
        const char *next = stop == NULL ? end : stop + 1;
        if (stop == NULL) stop = end;
        if (stop > at && stop[-1] == '\r') stop--;
        const char *space = memchr(at, ' ', (size_t)(stop - at));
        if (line == 1 && stop - at >= 8 && memcmp(at, "#version", 8) == 0) {
            at = next;
            continue;
        }
        if (stop > at) {
            const bool pair = space != NULL && space > at && space + 1 < stop &&
                              memchr(space + 1, ' ', (size_t)(stop - space - 1)) == NULL;
            if (!pair)
                return lt_fail(LT_BAD_INPUT,
                               "line %" PRId64 " is no merge: expected two tokens and a space between them",
                               line);
            if (lt_bpe_add_merge(bpe, at, (size_t)(space - at), space + 1, (size_t)(stop - space - 1)) !=
                LT_OK)
                return lt_fail(LT_BAD_INPUT, "line %" PRId64 ": %s", line, lt_error_message());
        }
        at = next;
    }
    if (bpe->merges.count == 0) return lt_fail(LT_BAD_INPUT, "it holds no merges");
    return LT_OK;
}

lt_status lt_bpe_read_pair(lt_bpe *bpe, const lt_blob *vocabulary, const lt_blob *merges) {
    json_t *root = NULL;
    lt_status status = lt_bpe_parse(vocabulary, &root);
    if (status == LT_OK) status = lt_bpe_read_vocabulary(bpe, root);
    json_decref(root);
    LT_CHECK(status);
    status = read_merges(bpe, merges);
    if (status != LT_OK) return lt_fail(status, "'%s': %s", merges->path, lt_error_message());
    bpe->byte_level = true;
    bpe->unknown = -1;
    return lt_splitters_add(&bpe->splitters, lt_byte_level_pattern, false, LT_ISOLATED, false);
}
