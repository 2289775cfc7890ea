#include "data/manifest.h"

#include <dirent.h>
#include <errno.h>
#include <inttypes.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

enum { START_BYTES = 256 };

bool lt_manifest_join(char path[PATH_MAX], const char *folder, const char *name) {
    return snprintf(path, PATH_MAX, "%s/%s", folder, name) < PATH_MAX;
}

/* Prepare writes the format first, so that a damaged manifest is known for what it was. */
bool lt_manifest_recognise(const char *folder) {
    char path[PATH_MAX], start[START_BYTES];
    FILE *file = lt_manifest_join(path, folder, LT_MANIFEST_NAME) ? fopen(path, "re") : NULL;
    if (file == NULL) return false;
    const size_t got = fread(start, 1, sizeof start - 1, file);
    start[got] = '\0';
    fclose(file);
    return strstr(start, LT_MANIFEST_FORMAT) != NULL;
}

bool lt_manifest_unfinished(const char *folder) {
    char path[PATH_MAX];
    struct stat info;
    return lt_manifest_join(path, folder, LT_PREPARE_WORK) && stat(path, &info) == 0 &&
           S_ISDIR(info.st_mode) && !lt_manifest_recognise(folder);
}

static lt_status damaged(const char *folder, const char *key, const char *why) {
    return lt_fail(LT_BAD_INPUT,
                   "%s: '%s/" LT_MANIFEST_NAME "' is damaged: %s; copy or prepare the folder again", key,
                   folder, why);
}

static lt_status load(const char *folder, const char *key, json_t **json) {
    char path[PATH_MAX];
    json_error_t error;
    if (!lt_manifest_join(path, folder, LT_MANIFEST_NAME))
        return damaged(folder, key, "its path is too long");
    *json = json_load_file(path, 0, &error);
    if (*json == NULL) return damaged(folder, key, error.text);
    const char *format = json_string_value(json_object_get(*json, "format"));
    const json_t *version = json_object_get(*json, "version");
    if (format == NULL || strcmp(format, LT_MANIFEST_FORMAT) != 0 || !json_is_integer(version))
        return damaged(folder, key, "it has no format and version");
    if (json_integer_value(version) <= LT_MANIFEST_VERSION) return LT_OK;
    return lt_fail(LT_BAD_INPUT,
                   "%s: '%s' has version %" JSON_INTEGER_FORMAT
                   ", this program reads up to %d; use a newer one",
                   key, path, json_integer_value(version), LT_MANIFEST_VERSION);
}

int64_t lt_manifest_number(const json_t *entry, const char *key) {
    const json_t *value = json_object_get(entry, key);
    return json_is_integer(value) ? json_integer_value(value) : -1;
}

static bool read_shard(const json_t *entry, lt_manifest_shard *shard) {
    shard->name = json_string_value(json_object_get(entry, "file"));
    shard->checksum = json_string_value(json_object_get(entry, "xxh3_128"));
    shard->tokens = lt_manifest_number(entry, "tokens");
    shard->documents = lt_manifest_number(entry, "documents");
    shard->bytes = lt_manifest_number(entry, "bytes");
    return shard->name != NULL && strchr(shard->name, '/') == NULL && shard->checksum != NULL &&
           shard->tokens >= 0 && shard->documents >= 0 && shard->bytes >= 0;
}

static lt_status check_size(const char *folder, const char *key, const lt_manifest_shard *shard) {
    char path[PATH_MAX];
    struct stat info;
    if (!lt_manifest_join(path, folder, shard->name))
        return damaged(folder, key, "a shard's path is too long");
    if (stat(path, &info) != 0)
        return lt_fail(LT_BAD_INPUT,
                       "%s: '%s' is listed in the folder's " LT_MANIFEST_NAME ": %s; copy it again", key,
                       path, strerror(errno));
    if (info.st_size == shard->bytes) return LT_OK;
    return lt_fail(LT_BAD_INPUT,
                   "%s: '%s' has %" PRId64 " bytes, " LT_MANIFEST_NAME " says %" PRId64 "; copy it again",
                   key, path, (int64_t)info.st_size, shard->bytes);
}

static int compare_names(const void *left, const void *right) {
    return strcmp(((const lt_manifest_shard *)left)->name, ((const lt_manifest_shard *)right)->name);
}

/* A shard that is not listed was made by somebody else. */
static lt_status check_others(const char *folder, const char *key, const lt_manifest *manifest) {
    const size_t bytes = (size_t)manifest->count * sizeof *manifest->shards;
    lt_manifest_shard *sorted = malloc(bytes + 1);
    DIR *stream = opendir(folder);
    lt_status status = LT_OK;
    if (sorted == NULL || stream == NULL)
        status = lt_fail(LT_IO, "%s: cannot read folder '%s': %s", key, folder, strerror(errno));
    if (status == LT_OK && bytes > 0) {
        memcpy(sorted, manifest->shards, bytes);
        qsort(sorted, (size_t)manifest->count, sizeof *sorted, compare_names);
    }
    const struct dirent *entry;
    while (status == LT_OK && (entry = readdir(stream)) != NULL) {
        const lt_manifest_shard named = {.name = entry->d_name};
        const size_t length = strlen(entry->d_name);
        if (length < 4 || strcmp(entry->d_name + length - 4, ".bin") != 0) continue;
        if (bsearch(&named, sorted, (size_t)manifest->count, sizeof *sorted, compare_names) == NULL)
            status =
                lt_fail(LT_BAD_INPUT,
                        "%s: '%s/%s' is not listed in the folder's " LT_MANIFEST_NAME "; remove one of them",
                        key, folder, entry->d_name);
    }
    if (stream != NULL) closedir(stream);
    free(sorted);
    return status;
}

static lt_status read_shards(const char *folder, const char *key, lt_manifest *manifest) {
    const json_t *list = json_object_get(manifest->json, "shards");
    if (!json_is_array(list)) return damaged(folder, key, "it lists no shards");
    manifest->count = (int64_t)json_array_size(list);
    manifest->shards = calloc((size_t)manifest->count + 1, sizeof *manifest->shards);
    if (manifest->shards == NULL) return lt_fail(LT_IO, "%s: no memory for the shards of '%s'", key, folder);
    for (int64_t i = 0; i < manifest->count; i++) {
        if (!read_shard(json_array_get(list, (size_t)i), &manifest->shards[i]))
            return damaged(folder, key, "a shard lacks its file, tokens, documents, bytes or xxh3_128");
        LT_CHECK(check_size(folder, key, &manifest->shards[i]));
    }
    return check_others(folder, key, manifest);
}

lt_status lt_manifest_read(const char *folder, const char *key, lt_manifest *manifest) {
    *manifest = (lt_manifest){0};
    lt_status status = load(folder, key, &manifest->json);
    if (status == LT_OK) status = read_shards(folder, key, manifest);
    if (status != LT_OK) lt_manifest_free(manifest);
    return status;
}

void lt_manifest_free(lt_manifest *manifest) {
    json_decref(manifest->json);
    free(manifest->shards);
    *manifest = (lt_manifest){0};
}
