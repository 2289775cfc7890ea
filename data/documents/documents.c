/* Which format a file of documents has. */
#include "data/documents/filter.h"

#include <stdlib.h>
#include <string.h>
#include <strings.h>

static const struct {
    const char *text;
    const lt_document_kind *kind;
} endings[] = {
    {".jsonl", &lt_jsonl_documents},     {".ndjson", &lt_jsonl_documents}, {".json", &lt_jsonl_documents},
    {".txt", &lt_plain_documents},       {".text", &lt_plain_documents},   {".md", &lt_plain_documents},
    {".parquet", &lt_parquet_documents},
};

/* Whether the first `*length` bytes of `path` end so; takes the ending off. */
static bool ends_with(const char *path, size_t *length, const char *ending) {
    const size_t size = strlen(ending);
    if (*length < size || strncasecmp(path + *length - size, ending, size) != 0) return false;
    *length -= size;
    return true;
}

/* NULL: of no known format. */
static const lt_document_kind *find_kind(const char *path, lt_compression *compression) {
    size_t length = strlen(path);
    *compression = ends_with(path, &length, ".gz")    ? LT_GZIP
                   : ends_with(path, &length, ".zst") ? LT_ZSTD
                                                      : LT_UNCOMPRESSED;
    for (size_t i = 0; i < sizeof endings / sizeof *endings; i++)
        if (ends_with(path, &length, endings[i].text)) return endings[i].kind;
    return NULL;
}

bool lt_documents_recognise(const char *path) {
    lt_compression compression;
    const lt_document_kind *kind = find_kind(path, &compression);
    return kind == &lt_jsonl_documents || kind == &lt_parquet_documents ||
           (kind != NULL && compression != LT_UNCOMPRESSED);
}

const char *lt_documents_unit(const char *path) {
    lt_compression compression;
    const lt_document_kind *kind = find_kind(path, &compression);
    return kind == NULL ? NULL : kind->unit;
}

lt_status lt_documents_open(lt_files *files, int64_t file, const lt_documents_options *options,
                            lt_documents **out) {
    const char *key = lt_files_key(files), *path = lt_files_path(files, file);
    static const lt_document_filter all = {-1, NULL, -1, -1};
    *out = NULL;
    lt_compression compression;
    const lt_document_kind *kind = find_kind(path, &compression);
    if (kind == NULL)
        return lt_fail(LT_BAD_INPUT,
                       "%s: '%s' is no file of documents by its name; expected .parquet, or .jsonl, .ndjson, "
                       ".json, .txt, .text or .md, perhaps with .gz or .zst behind it",
                       key, path);
    lt_documents *documents = calloc(1, kind->bytes);
    if (documents == NULL) return lt_fail(LT_IO, "%s: no memory to read '%s'", key, path);
    documents->kind = kind;
    documents->files = files;
    documents->file = file;
    documents->compression = compression;
    documents->options = *options;
    if (options->text_key == NULL) documents->options.text_key = "text";
    if (options->separator != NULL && *options->separator == '\0') documents->options.separator = NULL;
    if (options->filter == NULL) documents->options.filter = &all;
    if (options->limit_bytes == 0) documents->options.limit_bytes = LT_DOCUMENT_BYTES;
    const lt_status status = kind->open(documents);
    if (status == LT_OK)
        *out = documents;
    else
        lt_documents_close(documents);
    return status;
}

lt_status lt_documents_next(lt_documents *documents, lt_document *document, bool *found) {
    return documents->kind->next(documents, document, found);
}

void lt_documents_close(lt_documents *documents) {
    if (documents == NULL) return;
    documents->kind->close(documents);
    free(documents);
}

lt_status lt_document_borders_add(lt_document_borders *borders, int64_t at) {
    if (borders->count == borders->capacity) {
        const int64_t capacity = borders->capacity == 0 ? 16 : 2 * borders->capacity;
        int64_t *grown = reallocarray(borders->at, (size_t)capacity, sizeof *grown);
        if (grown == NULL) return lt_fail(LT_IO, "no memory for the pieces of a file");
        borders->at = grown;
        borders->capacity = capacity;
    }
    borders->at[borders->count++] = at;
    return LT_OK;
}

lt_status lt_documents_cut(lt_files *files, int64_t file, const lt_documents_options *options, int64_t bytes,
                           lt_document_borders *borders) {
    lt_documents *documents;
    lt_status status = LT_OK;
    borders->count = 0;
    LT_CHECK(lt_documents_open(files, file, options, &documents));
    if (documents->kind->cut != NULL && documents->compression == LT_UNCOMPRESSED)
        status = documents->kind->cut(documents, bytes, borders);
    lt_documents_close(documents);
    LT_CHECK(status);
    if (borders->count > 2) return LT_OK;
    borders->count = 0; /* one piece */
    LT_CHECK(lt_document_borders_add(borders, 0));
    return lt_document_borders_add(borders, 0);
}

bool lt_documents_lack_keys(const lt_documents_options *options, const lt_documents_seen *seen,
                            int64_t without_key) {
    const lt_document_filter *filter = options->filter;
    const bool scores = filter != NULL && filter->min_int_score >= 0 && !seen->score;
    const bool languages = filter != NULL && filter->language != NULL && !seen->language;
    return (seen->text && (scores || languages)) || (!seen->key && without_key > 0);
}
