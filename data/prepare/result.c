#include "data/prepare/result.h"

#include "comm/log.h"
#include "data/manifest.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

static lt_status no_memory(void) {
    return lt_fail(LT_IO, "no memory for " LT_MANIFEST_NAME);
}

static int64_t bad_files(const lt_survey *survey) {
    int64_t count = 0;
    for (int64_t i = 0; i < lt_files_count(survey->plan->files); i++) count += survey->bad[i] != NULL;
    return count;
}

/* What became of the input, both splits together. */
static json_t *describe_counts(const lt_survey *survey) {
    const lt_document_drops *dropped = &survey->dropped;
    return json_pack("{s:I, s:I, s:I, s:I, s:{s:I, s:I}, s:{s:I, s:I, s:I, s:I}, s:I, s:I}", "documents_read",
                     (json_int_t)survey->read, "text_bytes", (json_int_t)survey->text_bytes, "empty",
                     (json_int_t)survey->empty, "duplicates", (json_int_t)survey->duplicates, "skipped",
                     "without_key", (json_int_t)survey->without_key, "null", (json_int_t)survey->null,
                     "filtered", "min_int_score", (json_int_t)dropped->int_score, "language",
                     (json_int_t)dropped->language, "min_chars", (json_int_t)dropped->min_chars, "max_chars",
                     (json_int_t)dropped->max_chars, "replaced", (json_int_t)survey->replaced, "bad_files",
                     (json_int_t)bad_files(survey));
}

static json_t *describe_bad_files(const lt_survey *survey) {
    json_t *list = json_array();
    for (int64_t i = 0; i < lt_files_count(survey->plan->files); i++)
        if (survey->bad[i] != NULL)
            json_array_append_new(list, json_pack("{s:o, s:o}", "file",
                                                  lt_json_name(lt_files_path(survey->plan->files, i)),
                                                  "reason", lt_json_name(survey->bad[i])));
    return list;
}

static lt_status read_entries(const lt_survey *survey, int split, json_t *list) {
    for (int64_t i = 0; i < lt_shards_count(survey, split); i++) {
        char name[LT_SHARD_NAME_BYTES], path[PATH_MAX];
        json_error_t error;
        lt_shards_entry_name(split, i, name);
        LT_CHECK(lt_aside_join(path, survey->folder->work, name));
        json_t *entry = json_load_file(path, 0, &error);
        if (entry == NULL) return lt_fail(LT_IO, "cannot read '%s': %s", path, error.text);
        if (json_array_append_new(list, entry) != 0) return no_memory();
    }
    return LT_OK;
}

static json_t *describe_split(const lt_survey *survey, int split) {
    const json_t *about = survey->plan->about;
    return json_pack("{s:s, s:i, s:s, s:O, s:O, s:i, s:{s:I, s:I, s:I}, s:o, s:O, s:o, s:[]}", "format",
                     LT_MANIFEST_FORMAT, "version", LT_MANIFEST_VERSION, "split", lt_split_names[split],
                     "tokenizer", json_object_get(about, "tokenizer"), "settings",
                     json_object_get(about, "settings"), "token_bytes", survey->plan->token_bytes, "totals",
                     "tokens", (json_int_t)survey->tokens[split], "documents",
                     (json_int_t)survey->documents[split], "shards",
                     (json_int_t)lt_shards_count(survey, split), "counts", describe_counts(survey), "inputs",
                     json_object_get(about, "inputs"), "bad_files", describe_bad_files(survey), "shards");
}

static lt_status write_manifest(const lt_survey *survey, int split, const char *folder) {
    json_t *manifest = describe_split(survey, split);
    if (manifest == NULL) return no_memory();
    lt_status status = read_entries(survey, split, json_object_get(manifest, "shards"));
    char *text = status == LT_OK ? json_dumps(manifest, JSON_INDENT(1)) : NULL;
    json_decref(manifest);
    if (status == LT_OK && text == NULL) status = no_memory();
    if (status == LT_OK)
        status = lt_aside_write(survey->folder->work, folder, LT_MANIFEST_NAME, text, strlen(text));
    free(text);
    return status;
}

lt_status lt_result_write(const lt_survey *survey) {
    const lt_prepare_folder *folder = survey->folder;
    if (survey->plan->options->validation_fraction > 0 && !lt_manifest_recognise(folder->split_path)) {
        LT_CHECK(write_manifest(survey, LT_VALIDATION, folder->split_work));
        LT_CHECK(lt_prepare_folder_place_validation(folder));
    }
    LT_CHECK(lt_aside_sync_folder(folder->path));
    LT_CHECK(write_manifest(survey, LT_TRAIN, folder->path));
    return lt_aside_sync_folder(folder->path);
}

void lt_result_report(const lt_survey *survey) {
    const lt_document_drops *dropped = &survey->dropped;
    const int64_t filtered = dropped->int_score + dropped->language + dropped->min_chars + dropped->max_chars;
    lt_log_info("read %" PRId64 " documents of %" PRId64 " files; left out: %" PRId64
                " by the filter, %" PRId64 " duplicates, %" PRId64 " rows without text, %" PRId64
                " bad files; %" PRId64 " ill-formed UTF-8 sequences replaced",
                survey->read, lt_files_count(survey->plan->files), filtered, survey->duplicates,
                survey->without_key + survey->null, bad_files(survey), survey->replaced);
    for (int split = 0; split < LT_SPLITS; split++) {
        if (split == LT_VALIDATION && survey->plan->options->validation_fraction <= 0) break;
        lt_log_info("%s: %" PRId64 " tokens, %" PRId64 " documents, %" PRId64 " shards in %s",
                    lt_split_names[split], survey->tokens[split], survey->documents[split],
                    lt_shards_count(survey, split),
                    split == LT_TRAIN ? survey->folder->path : survey->folder->split_path);
        if (survey->documents[split] == 0)
            lt_log_warning("the %s split holds no document: nothing can be trained on it",
                           lt_split_names[split]);
    }
}
