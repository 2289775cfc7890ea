/* A Hugging Face tokenizer.json with a BPE model. What is read: added_tokens, normalizer, pre_tokenizer,
 * decoder (as far as it must agree), model. What cannot be honoured is refused by its name; post_processor
 * adds special tokens, which this program does not want; truncation and padding are not for training text.
 */
#include "data/tokenizers/bpe.h"

#include <inttypes.h>
#include <jansson.h>
#include <stdlib.h>
#include <string.h>

static const char *text_of(const json_t *object, const char *key) {
    const char *text = json_string_value(json_object_get(object, key));
    return text == NULL ? "" : text;
}

static bool is_set(const json_t *object, const char *key) {
    return json_is_true(json_object_get(object, key));
}

static lt_status unsupported(const char *part, const char *name) {
    return lt_fail(LT_BAD_INPUT, "its %s '%s' is not supported", part, name);
}

/* Calls `read` for the part, or for each of a Sequence, whose list is called `list`. */
static lt_status each_of(lt_bpe *bpe, const json_t *part, const char *list,
                         lt_status (*read)(lt_bpe *bpe, const json_t *part, const char *type)) {
    if (part == NULL || json_is_null(part)) return LT_OK;
    const char *type = text_of(part, "type");
    if (strcmp(type, "Sequence") != 0) return read(bpe, part, type);
    size_t index;
    json_t *member;
    json_array_foreach(json_object_get(part, list), index, member) LT_CHECK(each_of(bpe, member, list, read));
    return LT_OK;
}

/* ---- normalizers ---- */

static lt_status add_normalizer(lt_normalizers *all, lt_normalizer_kind kind, const char *what,
                                const char *with) {
    if (all->count == LT_MAX_NORMALIZERS)
        return lt_fail(LT_BAD_INPUT, "it has more than %d normalizers in a row", LT_MAX_NORMALIZERS);
    lt_normalizer *normalizer = &all->at[all->count++];
    *normalizer = (lt_normalizer){.kind = kind, .what = strdup(what), .with = strdup(with)};
    if (normalizer->what == NULL || normalizer->with == NULL)
        return lt_fail(LT_IO, "no memory for its normalizers");
    return LT_OK;
}

static lt_status read_normalizer(lt_bpe *bpe, const json_t *part, const char *type) {
    static const struct {
        const char *name;
        lt_normalizer_kind kind;
    } forms[] = {{"NFC", LT_NFC}, {"NFD", LT_NFD}, {"NFKC", LT_NFKC}, {"NFKD", LT_NFKD}};
    for (size_t i = 0; i < sizeof forms / sizeof *forms; i++)
        if (strcmp(type, forms[i].name) == 0) return add_normalizer(&bpe->normalizers, forms[i].kind, "", "");
    if (strcmp(type, "Prepend") == 0)
        return add_normalizer(&bpe->normalizers, LT_PREPEND, "", text_of(part, "prepend"));
    if (strcmp(type, "Replace") == 0) {
        const char *what = text_of(json_object_get(part, "pattern"), "String");
        if (*what == '\0') return unsupported("normalizer", "Replace with a regular expression");
        return add_normalizer(&bpe->normalizers, LT_REPLACE, what, text_of(part, "content"));
    }
    return unsupported("normalizer", type);
}

/* ---- pre-tokenizers ---- */

static lt_status read_split(lt_bpe *bpe, const json_t *part) {
    const json_t *pattern = json_object_get(part, "pattern");
    const char *regex = text_of(pattern, "Regex"), *literal = text_of(pattern, "String");
    static const char *const behaviours[] = {[LT_ISOLATED] = "Isolated",
                                             [LT_REMOVED] = "Removed",
                                             [LT_MERGED_WITH_PREVIOUS] = "MergedWithPrevious",
                                             [LT_MERGED_WITH_NEXT] = "MergedWithNext",
                                             [LT_CONTIGUOUS] = "Contiguous"};
    enum { BEHAVIOURS = sizeof behaviours / sizeof *behaviours };
    const char *name = text_of(part, "behavior");
    int behaviour = 0;
    while (behaviour < BEHAVIOURS && strcmp(name, behaviours[behaviour]) != 0) behaviour++;
    if (behaviour == BEHAVIOURS) return unsupported("pre-tokenizer Split with behavior", name);
    if (*regex == '\0' && *literal == '\0')
        return lt_fail(LT_BAD_INPUT, "its pre-tokenizer Split has no pattern");
    return lt_splitters_add(&bpe->splitters, *regex == '\0' ? literal : regex, *regex == '\0',
                            (lt_split_behaviour)behaviour, is_set(part, "invert"));
}

/* Whether Metaspace, pre-tokenizer or decoder, puts a mark before a text; *once: not behind added tokens. */
static lt_status read_prepend_scheme(const json_t *part, bool *prefix, bool *once) {
    const char *scheme = text_of(part, "prepend_scheme");
    if (*scheme == '\0')
        scheme = json_is_false(json_object_get(part, "add_prefix_space")) ? "never" : "always";
    *once = strcmp(scheme, "first") == 0;
    *prefix = *once || strcmp(scheme, "always") == 0;
    if (!*prefix && strcmp(scheme, "never") != 0) return unsupported("Metaspace with prepend_scheme", scheme);
    const char *mark = text_of(part, "replacement");
    return strcmp(mark, LT_SPACE_MARK) == 0 ? LT_OK : unsupported("Metaspace with replacement", mark);
}

static lt_status read_metaspace(lt_bpe *bpe, const json_t *part) {
    if (bpe->splitters.count > 0 || bpe->metaspace.count > 0)
        return unsupported("order of pre-tokenizers, one before", "Metaspace");
    LT_CHECK(read_prepend_scheme(part, &bpe->prefix_space, &bpe->prefix_once));
    LT_CHECK(add_normalizer(&bpe->metaspace, LT_REPLACE, " ", LT_SPACE_MARK));
    if (json_is_false(json_object_get(part, "split"))) return LT_OK;
    return lt_splitters_add(&bpe->splitters, LT_SPACE_MARK, true, LT_MERGED_WITH_NEXT, false);
}

static lt_status read_pre_tokenizer(lt_bpe *bpe, const json_t *part, const char *type) {
    if (bpe->byte_level) return unsupported("order of pre-tokenizers, one behind ByteLevel:", type);
    if (strcmp(type, "Split") == 0) return read_split(bpe, part);
    if (strcmp(type, "Digits") == 0)
        return lt_splitters_add(&bpe->splitters, is_set(part, "individual_digits") ? "\\p{N}" : "\\p{N}+",
                                false, LT_ISOLATED, false);
    if (strcmp(type, "Metaspace") == 0) return read_metaspace(bpe, part);
    if (strcmp(type, "ByteLevel") != 0) return unsupported("pre-tokenizer", type);
    if (bpe->metaspace.count > 0) return unsupported("pre-tokenizer behind Metaspace:", type);
    bpe->byte_level = true;
    bpe->prefix_space = is_set(part, "add_prefix_space");
    if (bpe->prefix_space && bpe->splitters.count > 0)
        return unsupported("pre-tokenizer ByteLevel with add_prefix_space behind others:", type);
    if (json_is_false(json_object_get(part, "use_regex"))) return LT_OK;
    return lt_splitters_add(&bpe->splitters, lt_byte_level_pattern, false, LT_ISOLATED, false);
}

/* ---- model ---- */

static lt_status read_merge(lt_bpe *bpe, const json_t *merge) {
    const char *text = json_string_value(merge);
    if (text != NULL) {
        const char *space = strchr(text, ' ');
        if (space != NULL && strchr(space + 1, ' ') == NULL)
            return lt_bpe_add_merge(bpe, text, (size_t)(space - text), space + 1, strlen(space + 1));
    } else if (json_array_size(merge) == 2) {
        const json_t *left = json_array_get(merge, 0), *right = json_array_get(merge, 1);
        if (json_is_string(left) && json_is_string(right))
            return lt_bpe_add_merge(bpe, json_string_value(left), json_string_length(left),
                                    json_string_value(right), json_string_length(right));
    }
    return lt_fail(LT_BAD_INPUT, "merge %zu is not two tokens", bpe->merges.count);
}

static lt_status check_model(const json_t *model) {
    if (!json_is_object(model))
        return lt_fail(
            LT_BAD_INPUT,
            "it has no `model`; with a vocabulary alone, as GPT-2's encoder.json is, goes a file of "
            "merges: {vocab: encoder.json, merges: vocab.bpe}");
    const char *type = text_of(model, "type");
    if (*type != '\0' && strcmp(type, "BPE") != 0)
        return lt_fail(LT_BAD_INPUT,
                       "its model is '%s'; expected BPE (a Unigram model is read from its SentencePiece "
                       ".model)",
                       type);
    if (!json_is_array(json_object_get(model, "merges")))
        return lt_fail(LT_BAD_INPUT, "its model has no `merges`");
    if (json_number_value(json_object_get(model, "dropout")) > 0)
        return unsupported("model option", "dropout");
    static const char *const affixes[] = {"continuing_subword_prefix", "end_of_word_suffix"};
    for (int i = 0; i < 2; i++)
        if (*text_of(model, affixes[i]) != '\0') return unsupported("model option", affixes[i]);
    return LT_OK;
}

static lt_status read_model(lt_bpe *bpe, const json_t *model) {
    LT_CHECK(check_model(model));
    LT_CHECK(lt_bpe_read_vocabulary(bpe, json_object_get(model, "vocab")));
    size_t index;
    json_t *merge;
    json_array_foreach(json_object_get(model, "merges"), index, merge) LT_CHECK(read_merge(bpe, merge));
    bpe->ignore_merges = is_set(model, "ignore_merges");
    bpe->byte_fallback = is_set(model, "byte_fallback");
    bpe->fuse_unknown = is_set(model, "fuse_unk");
    const char *unknown = json_string_value(json_object_get(model, "unk_token"));
    bpe->unknown = unknown == NULL ? -1 : lt_vocabulary_find(&bpe->vocabulary, unknown, strlen(unknown));
    if (unknown != NULL && bpe->unknown < 0)
        return lt_fail(LT_BAD_INPUT, "its unknown token '%s' is not in the vocabulary", unknown);
    return LT_OK;
}

/* ---- added tokens ---- */

/* The reference gives an added token the id that its text has, or the next one behind the vocabulary,
 * whatever the file says. */
static lt_status check_added_id(lt_bpe *bpe, const char *text, size_t bytes, json_int_t id) {
    const int32_t known = lt_vocabulary_find(&bpe->vocabulary, text, bytes);
    if (known >= 0 && known != id)
        return lt_fail(LT_BAD_INPUT,
                       "its added token '%s' has id %" JSON_INTEGER_FORMAT
                       ", but its vocabulary says %" PRId32,
                       text, id, known);
    if (known >= 0) return LT_OK;
    const int32_t before = lt_vocabulary_find(&bpe->added_texts, text, bytes);
    const json_int_t expected = before >= 0 ? before : (json_int_t)bpe->vocabulary.count + bpe->beyond++;
    if (id == expected) return LT_OK;
    return lt_fail(LT_BAD_INPUT,
                   "its added token '%s' has id %" JSON_INTEGER_FORMAT ", expected %" JSON_INTEGER_FORMAT
                   ": those that are not among the %zu tokens of its vocabulary count on from there",
                   text, id, expected, bpe->vocabulary.count);
}

static lt_status add_token(lt_bpe *bpe, const json_t *token) {
    const char *text = text_of(token, "content");
    const json_int_t id = json_integer_value(json_object_get(token, "id"));
    size_t bytes = strlen(text);
    if (bytes == 0 || !json_is_integer(json_object_get(token, "id")) || id < 0 || id >= LT_MAX_TOKENS)
        return lt_fail(LT_BAD_INPUT, "its added token '%s' lacks content or id", text);
    if (is_set(token, "single_word")) return unsupported("added token with single_word", text);
    LT_CHECK(check_added_id(bpe, text, bytes, id));
    LT_CHECK(lt_vocabulary_add(&bpe->added_texts, text, bytes, (int32_t)id));
    if (is_set(token, "special")) LT_CHECK(lt_vocabulary_add(&bpe->special, text, bytes, (int32_t)id));
    const bool normalized = is_set(token, "normalized");
    lt_normalize_space space = {0};
    lt_status status = normalized ? lt_normalize(&bpe->normalizers, &space, &text, &bytes) : LT_OK;
    if (status == LT_OK)
        status = lt_added_put(normalized ? &bpe->added_normalized : &bpe->added, text, bytes, (int32_t)id,
                              is_set(token, "lstrip"), is_set(token, "rstrip"));
    lt_normalize_space_free(&space);
    return status;
}

/* ---- decoder ---- */

/* Decoding follows from the rest; a decoder that says something else is refused. */
static lt_status check_decoder(lt_bpe *bpe, const json_t *part, const char *type) {
    static const char *const marks[] = {"Replace", "ByteFallback", "Fuse", "Strip", "Metaspace"};
    if (bpe->byte_level && strcmp(type, "ByteLevel") == 0) return LT_OK;
    for (size_t i = 0; i < sizeof marks / sizeof *marks && !bpe->byte_level; i++)
        if (strcmp(type, marks[i]) == 0) {
            bool prefix = strcmp(type, "Strip") == 0, once;
            if (strcmp(type, "Metaspace") == 0) LT_CHECK(read_prepend_scheme(part, &prefix, &once));
            if (prefix) bpe->base.leading_space = LT_DROP_ONE_SPACE;
            return LT_OK;
        }
    return unsupported("decoder", type);
}

static lt_status read_parts(lt_bpe *bpe, const json_t *root) {
    LT_CHECK(read_model(bpe, json_object_get(root, "model")));
    LT_CHECK(each_of(bpe, json_object_get(root, "normalizer"), "normalizers", read_normalizer));
    LT_CHECK(each_of(bpe, json_object_get(root, "pre_tokenizer"), "pretokenizers", read_pre_tokenizer));
    size_t index;
    json_t *token;
    json_array_foreach(json_object_get(root, "added_tokens"), index, token) LT_CHECK(add_token(bpe, token));
    return each_of(bpe, json_object_get(root, "decoder"), "decoders", check_decoder);
}

lt_status lt_bpe_read_json(lt_bpe *bpe, const lt_blob *file) {
    json_t *root = NULL;
    lt_status status = lt_bpe_parse(file, &root);
    if (status == LT_OK) status = read_parts(bpe, root);
    json_decref(root);
    return status;
}
