#include "data/prepare/plan.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

/* ---- what decides the result ---- */

json_t *lt_json_name(const char *name) {
    json_t *whole = json_string(name);
    if (whole != NULL) return whole;
    char *escaped = malloc(4 * strlen(name) + 1), *to = escaped;
    if (escaped == NULL) return NULL;
    for (const unsigned char *at = (const unsigned char *)name; *at != '\0'; at++)
        to += *at < 0x80 ? sprintf(to, "%c", *at) : sprintf(to, "\\x%02X", *at);
    whole = json_string(escaped);
    free(escaped);
    return whole;
}

static json_t *describe_tokenizer(const lt_tokenizer *tokenizer) {
    return json_pack("{s:s, s:s, s:I, s:I}", "name", lt_tokenizer_name(tokenizer), "hash",
                     lt_tokenizer_hash(tokenizer), "vocabulary",
                     (json_int_t)lt_tokenizer_vocabulary(tokenizer), "end_of_text",
                     (json_int_t)lt_tokenizer_end_of_text(tokenizer));
}

static json_t *describe_filter(const lt_document_filter *filter) {
    json_t *set = json_object();
    if (filter->min_int_score >= 0)
        json_object_set_new(set, "min_int_score", json_integer(filter->min_int_score));
    if (filter->language != NULL) json_object_set_new(set, "language", json_string(filter->language));
    if (filter->min_chars >= 0) json_object_set_new(set, "min_chars", json_integer(filter->min_chars));
    if (filter->max_chars >= 0) json_object_set_new(set, "max_chars", json_integer(filter->max_chars));
    return set;
}

static json_t *describe_settings(const lt_prepare_options *options) {
    const lt_documents_options *documents = &options->documents;
    return json_pack("{s:I, s:f, s:s, s:s, s:s?, s:o}", "shard_tokens", (json_int_t)options->shard_tokens,
                     "validation_fraction", options->validation_fraction, "dedup",
                     options->dedup ? "exact" : "none", "text_key",
                     documents->text_key == NULL ? "text" : documents->text_key, "separator",
                     documents->separator, "filter", describe_filter(documents->filter));
}

static json_t *describe_inputs(const lt_files *files) {
    json_t *list = json_array();
    for (int64_t i = 0; i < lt_files_count(files); i++)
        json_array_append_new(list, json_pack("{s:o, s:I}", "file", lt_json_name(lt_files_path(files, i)),
                                              "bytes", (json_int_t)lt_files_bytes(files, i)));
    return list;
}

/* When the files were last changed, so that half a folder is not gone on with after an edit. */
static json_t *describe_times(const lt_files *files) {
    json_t *list = json_array();
    for (int64_t i = 0; i < lt_files_count(files); i++) {
        struct stat info = {0};
        stat(lt_files_path(files, i), &info);
        json_array_append_new(list, json_integer((json_int_t)info.st_mtim.tv_sec * 1000000000 +
                                                 (json_int_t)info.st_mtim.tv_nsec));
    }
    return list;
}

static lt_status describe(lt_prepare_plan *plan) {
    plan->about = json_pack("{s:o, s:o, s:o}", "tokenizer", describe_tokenizer(plan->tokenizer), "settings",
                            describe_settings(plan->options), "inputs", describe_inputs(plan->files));
    plan->begun = json_copy(plan->about);
    if (plan->about == NULL || plan->begun == NULL ||
        json_object_set_new(plan->begun, "piece_bytes", json_integer(plan->options->piece_bytes)) != 0 ||
        json_object_set_new(plan->begun, "modified", describe_times(plan->files)) != 0)
        return lt_fail(LT_IO, "no memory to describe the inputs, or an option is no UTF-8");
    return LT_OK;
}

/* ---- comparing ---- */

/* A value as messages show it. */
static void print_value(const json_t *value, char *text, size_t size) {
    char *dumped = value == NULL ? NULL : json_dumps(value, JSON_ENCODE_ANY | JSON_COMPACT);
    snprintf(text, size, "%s", dumped == NULL ? "nothing" : dumped);
    free(dumped);
}

static lt_status differs(const char *folder, const char *what, const json_t *there, const json_t *now) {
    char before[256], after[256];
    print_value(there, before, sizeof before);
    print_value(now, after, sizeof after);
    return lt_fail(LT_BAD_INPUT,
                   "--output: '%s' was prepared with other settings or inputs: %s was %s and is %s now; give "
                   "the same again, another folder, or --overwrite to start anew",
                   folder, what, before, after);
}

static lt_status compare_objects(const char *folder, const char *name, const json_t *there,
                                 const json_t *now) {
    const char *key;
    json_t *value;
    char what[128];
    json_object_foreach((json_t *)now, key, value) {
        const json_t *other = json_object_get(there, key);
        snprintf(what, sizeof what, "%s %s", name, key);
        if (!json_equal(other, value)) return differs(folder, what, other, value);
    }
    return LT_OK;
}

static lt_status compare_inputs(const char *folder, const json_t *there, const json_t *now) {
    char what[64];
    if (json_array_size(there) != json_array_size(now)) {
        json_t *before = json_integer((json_int_t)json_array_size(there));
        json_t *after = json_integer((json_int_t)json_array_size(now));
        const lt_status status = differs(folder, "the number of input files", before, after);
        json_decref(before);
        json_decref(after);
        return status;
    }
    for (size_t i = 0; i < json_array_size(now); i++) {
        snprintf(what, sizeof what, "input file %zu", i + 1);
        if (!json_equal(json_array_get(there, i), json_array_get(now, i)))
            return differs(folder, what, json_array_get(there, i), json_array_get(now, i));
    }
    return LT_OK;
}

/* That the contents of a file may have changed. */
static lt_status compare_times(const char *folder, const json_t *there, const json_t *now) {
    const json_t *before = json_object_get(there, "modified"), *after = json_object_get(now, "modified");
    for (size_t i = 0; i < json_array_size(after); i++) {
        if (json_equal(json_array_get(before, i), json_array_get(after, i))) continue;
        const json_t *input = json_array_get(json_object_get(now, "inputs"), i);
        return lt_fail(
            LT_BAD_INPUT,
            "--output: '%s' is half done, and its input '%s' was modified since it was begun; start "
            "anew with --overwrite",
            folder, json_string_value(json_object_get(input, "file")));
    }
    return LT_OK;
}

lt_status lt_prepare_plan_compare(const char *folder, const json_t *there, const json_t *now) {
    LT_CHECK(compare_objects(folder, "tokenizer", json_object_get(there, "tokenizer"),
                             json_object_get(now, "tokenizer")));
    LT_CHECK(compare_objects(folder, "setting", json_object_get(there, "settings"),
                             json_object_get(now, "settings")));
    LT_CHECK(compare_inputs(folder, json_object_get(there, "inputs"), json_object_get(now, "inputs")));
    const json_t *piece_bytes = json_object_get(now, "piece_bytes");
    if (!json_equal(json_object_get(there, "piece_bytes"), piece_bytes) && piece_bytes != NULL)
        return differs(folder, "--piece-bytes", json_object_get(there, "piece_bytes"), piece_bytes);
    return compare_times(folder, there, now);
}

/* ---- pieces ---- */

static lt_status add_piece(lt_prepare_plan *plan, const lt_prepare_piece *piece) {
    if (plan->piece_count == plan->piece_capacity) {
        const int64_t capacity = plan->piece_capacity == 0 ? 64 : 2 * plan->piece_capacity;
        lt_prepare_piece *grown = reallocarray(plan->pieces, (size_t)capacity, sizeof *grown);
        if (grown == NULL) return lt_fail(LT_IO, "no memory for the pieces of the input");
        plan->pieces = grown;
        plan->piece_capacity = capacity;
    }
    plan->pieces[plan->piece_count++] = *piece;
    return LT_OK;
}

static lt_status add_pieces(lt_prepare_plan *plan, int64_t file, const lt_document_borders *borders) {
    const int64_t count = borders->count - 1, bytes = lt_files_bytes(plan->files, file);
    for (int64_t i = 0; i < count; i++)
        LT_CHECK(
            add_piece(plan, &(lt_prepare_piece){file, borders->at[i], borders->at[i + 1], bytes / count}));
    return LT_OK;
}

/* A file that cannot be opened and may be skipped is one piece, which is found to be bad again. */
static lt_status cut_file(lt_prepare_plan *plan, int64_t file, lt_document_borders *borders) {
    const lt_prepare_options *options = plan->options;
    const lt_status status =
        lt_documents_cut(plan->files, file, &options->documents, options->piece_bytes, borders);
    if (status == LT_BAD_INPUT && options->skip_bad)
        return add_piece(plan, &(lt_prepare_piece){file, 0, 0, lt_files_bytes(plan->files, file)});
    LT_CHECK(status);
    return add_pieces(plan, file, borders);
}

static lt_status open_tokenizer(lt_prepare_plan *plan) {
    const char *name = plan->options->tokenizer;
    LT_CHECK(lt_tokenizer_open(name, "--tokenizer", &plan->tokenizer));
    plan->token_bytes = lt_tokenizer_vocabulary(plan->tokenizer) <= 65536 ? 2 : 4;
    if (lt_tokenizer_end_of_text(plan->tokenizer) >= 0) return LT_OK;
    return lt_fail(
        LT_BAD_INPUT,
        "--tokenizer: '%s' (%s) has no end-of-text token, which ends every document of a shard; use "
        "a tokenizer that has one",
        name, lt_tokenizer_name(plan->tokenizer));
}

lt_status lt_prepare_plan_open(const lt_prepare_options *options, lt_prepare_plan *plan) {
    lt_source source;
    lt_document_borders borders = {0};
    *plan = (lt_prepare_plan){.options = options};
    LT_CHECK(open_tokenizer(plan));
    lt_status status = lt_source_expand(options->inputs, options->input_count, "--input", &source);
    if (status == LT_OK) status = lt_files_open(&source, "--input", &plan->files);
    lt_source_destroy(&source);
    LT_CHECK(status);
    for (int64_t i = 0; i < lt_files_count(plan->files) && status == LT_OK; i++)
        status = cut_file(plan, i, &borders);
    free(borders.at);
    LT_CHECK(status);
    return describe(plan);
}

void lt_prepare_plan_close(lt_prepare_plan *plan) {
    json_decref(plan->about);
    json_decref(plan->begun);
    free(plan->pieces);
    lt_files_close(plan->files);
    lt_tokenizer_close(plan->tokenizer);
}
