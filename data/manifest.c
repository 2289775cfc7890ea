#include "data/manifest.h"

#include "comm/interrupt.h"
#include "data/files.h"
#include "data/reader.h"

#include <dirent.h>
#include <errno.h>
#include <inttypes.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <xxhash.h>

enum { BLOCK_BYTES = 1 << 20, START_BYTES = 256 };

static bool join(char path[PATH_MAX], const char *folder, const char *name) {
    return snprintf(path, PATH_MAX, "%s/%s", folder, name) < PATH_MAX;
}

/* Prepare writes the format first, so that a damaged manifest is known for what it was. */
bool lt_manifest_recognise(const char *folder) {
    char path[PATH_MAX], start[START_BYTES];
    FILE *file = join(path, folder, LT_MANIFEST_NAME) ? fopen(path, "re") : NULL;
    if (file == NULL) return false;
    const size_t got = fread(start, 1, sizeof start - 1, file);
    start[got] = '\0';
    fclose(file);
    return strstr(start, LT_MANIFEST_FORMAT) != NULL;
}

bool lt_manifest_unfinished(const char *folder) {
    char path[PATH_MAX];
    struct stat info;
    return join(path, folder, LT_PREPARE_WORK) && stat(path, &info) == 0 && S_ISDIR(info.st_mode) &&
           !lt_manifest_recognise(folder);
}

static lt_status damaged(const char *folder, const char *key, const char *why) {
    return lt_fail(LT_BAD_INPUT,
                   "%s: '%s/" LT_MANIFEST_NAME "' is damaged: %s; copy or prepare the folder again", key,
                   folder, why);
}

static lt_status load(const char *folder, const char *key, json_t **json) {
    char path[PATH_MAX];
    json_error_t error;
    if (!join(path, folder, LT_MANIFEST_NAME)) return damaged(folder, key, "its path is too long");
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

static int64_t number_of(const json_t *entry, const char *key) {
    const json_t *value = json_object_get(entry, key);
    return json_is_integer(value) ? json_integer_value(value) : -1;
}

static bool read_shard(const json_t *entry, lt_manifest_shard *shard) {
    shard->name = json_string_value(json_object_get(entry, "file"));
    shard->checksum = json_string_value(json_object_get(entry, "xxh3_128"));
    shard->tokens = number_of(entry, "tokens");
    shard->documents = number_of(entry, "documents");
    shard->bytes = number_of(entry, "bytes");
    return shard->name != NULL && strchr(shard->name, '/') == NULL && shard->checksum != NULL &&
           shard->tokens >= 0 && shard->documents >= 0 && shard->bytes >= 0;
}

static lt_status check_size(const char *folder, const char *key, const lt_manifest_shard *shard) {
    char path[PATH_MAX];
    struct stat info;
    if (!join(path, folder, shard->name)) return damaged(folder, key, "a shard's path is too long");
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

/* ---- inspect ---- */

/* What was found in a shard. */
typedef struct contents {
    XXH128_hash_t checksum;
    int64_t ends; /* end-of-text ids */
    int64_t outside;
} contents;

static void count_ids(const unsigned char *block, size_t bytes, int token_bytes, uint32_t end_of_text,
                      int64_t vocabulary, contents *found) {
    for (size_t i = 0; i + (size_t)token_bytes <= bytes; i += (size_t)token_bytes) {
        uint32_t id = block[i] | (uint32_t)block[i + 1] << 8;
        if (token_bytes == 4) id |= (uint32_t)block[i + 2] << 16 | (uint32_t)block[i + 3] << 24;
        found->ends += id == end_of_text;
        found->outside += id >= vocabulary;
    }
}

static lt_status read_contents(lt_files *files, unsigned char *block, const json_t *tokenizer,
                               int token_bytes, contents *found) {
    XXH3_state_t *state = XXH3_createState();
    if (state == NULL) return lt_fail(LT_IO, "inspect: no memory for a checksum");
    XXH3_128bits_reset(state);
    lt_status status = LT_OK;
    for (int64_t at = 0; at < lt_files_bytes(files, 0) && status == LT_OK; at += BLOCK_BYTES) {
        const int64_t left = lt_files_bytes(files, 0) - at;
        const size_t size = left < BLOCK_BYTES ? (size_t)left : BLOCK_BYTES;
        status = lt_interrupt_check("verifying shards");
        if (status == LT_OK) status = lt_files_read(files, 0, at, block, size);
        XXH3_128bits_update(state, block, size);
        const size_t head = at == 0 ? LT_SHARD_HEADER_BYTES : 0;
        count_ids(block + head, size - head, token_bytes, (uint32_t)number_of(tokenizer, "end_of_text"),
                  number_of(tokenizer, "vocabulary"), found);
    }
    found->checksum = XXH3_128bits_digest(state);
    XXH3_freeState(state);
    return status;
}

static lt_status verify_contents(const lt_manifest *manifest, const lt_manifest_shard *shard,
                                 const char *path, lt_files *files, unsigned char *block) {
    lt_shard_header header;
    contents found = {.ends = 0};
    char checksum[33];
    LT_CHECK(lt_shard_check(files, 0, &header));
    LT_CHECK(read_contents(files, block, json_object_get(manifest->json, "tokenizer"), header.token_bytes,
                           &found));
    snprintf(checksum, sizeof checksum, "%016" PRIx64 "%016" PRIx64, found.checksum.high64,
             found.checksum.low64);
    if (header.tokens != shard->tokens)
        return lt_fail(LT_FAILED,
                       "inspect: '%s' holds %" PRId64 " tokens, " LT_MANIFEST_NAME " says %" PRId64, path,
                       header.tokens, shard->tokens);
    if (strcmp(checksum, shard->checksum) != 0)
        return lt_fail(LT_FAILED,
                       "inspect: '%s' is damaged: its checksum is %s, " LT_MANIFEST_NAME
                       " says %s; copy it again",
                       path, checksum, shard->checksum);
    if (found.ends < shard->documents)
        return lt_fail(LT_FAILED,
                       "inspect: '%s' holds %" PRId64 " ends of documents, " LT_MANIFEST_NAME
                       " says %" PRId64,
                       path, found.ends, shard->documents);
    if (found.outside > 0)
        return lt_fail(LT_FAILED, "inspect: '%s' holds %" PRId64 " ids outside the tokenizer's vocabulary",
                       path, found.outside);
    return LT_OK;
}

static lt_status verify_shard(const char *folder, const lt_manifest *manifest, const lt_manifest_shard *shard,
                              unsigned char *block) {
    char path[PATH_MAX];
    lt_source source = {0};
    lt_files *files = NULL;
    lt_status status = LT_OK;
    if (!join(path, folder, shard->name)) return damaged(folder, "inspect", "a shard's path is too long");
    LT_CHECK_DONE(status, lt_source_single(path, "inspect", &source));
    LT_CHECK_DONE(status, lt_files_open(&source, "inspect", &files));
    LT_CHECK_DONE(status, verify_contents(manifest, shard, path, files, block));
done:
    lt_files_close(files);
    lt_source_destroy(&source);
    return status;
}

/* The first bad shard does not hide those after it. */
static lt_status print_shards(const char *folder, const lt_manifest *manifest, bool verify, FILE *out) {
    lt_status result = LT_OK;
    int64_t bad = 0;
    unsigned char *block = malloc(BLOCK_BYTES);
    if (block == NULL) return lt_fail(LT_IO, "inspect: no memory for %d bytes", BLOCK_BYTES);
    for (int64_t i = 0; i < manifest->count; i++) {
        const lt_manifest_shard *shard = &manifest->shards[i];
        const lt_status status = verify ? verify_shard(folder, manifest, shard, block) : LT_OK;
        fprintf(out, "%s: %" PRId64 " tokens, %" PRId64 " documents, %" PRId64 " bytes%s\n", shard->name,
                shard->tokens, shard->documents, shard->bytes, verify && status == LT_OK ? ", verified" : "");
        if (status == LT_OK) continue;
        fprintf(out, "bad: %s\n", lt_error_message());
        result = status;
        if (status == LT_STOPPED) break;
        bad++;
    }
    free(block);
    if (bad == 0) return result;
    return lt_fail(result, "%s: %" PRId64 " of %" PRId64 " shards are bad, the last one: %s", folder, bad,
                   manifest->count, lt_error_message());
}

static void print_head(const char *folder, const lt_manifest *manifest, FILE *out) {
    const json_t *tokenizer = json_object_get(manifest->json, "tokenizer");
    const json_t *totals = json_object_get(manifest->json, "totals");
    const char *split = json_string_value(json_object_get(manifest->json, "split"));
    const char *name = json_string_value(json_object_get(tokenizer, "name"));
    const char *hash = json_string_value(json_object_get(tokenizer, "hash"));
    fprintf(out, "folder:       %s\n", folder);
    fprintf(out, "format:       prepared token shards, %s split\n", split == NULL ? "unknown" : split);
    fprintf(out, "tokenizer:    %s, vocabulary %" PRId64 ", end of text %" PRId64 ", hash %s\n",
            name == NULL ? "unknown" : name, number_of(tokenizer, "vocabulary"),
            number_of(tokenizer, "end_of_text"), hash == NULL ? "unknown" : hash);
    fprintf(out, "tokens:       %" PRId64 "\n", number_of(totals, "tokens"));
    fprintf(out, "documents:    %" PRId64 "\n", number_of(totals, "documents"));
    fprintf(out, "shards:       %" PRId64 "\n", manifest->count);
}

static lt_status inspect_one(const char *folder, bool verify, FILE *out) {
    lt_manifest manifest;
    LT_CHECK(lt_manifest_read(folder, "inspect", &manifest));
    print_head(folder, &manifest, out);
    lt_status status = print_shards(folder, &manifest, verify, out);
    lt_manifest_free(&manifest);
    if (status == LT_OK && (fflush(out) != 0 || ferror(out)))
        status = lt_fail(LT_IO, "inspect: cannot write the report: %s", strerror(errno));
    return status;
}

lt_status lt_manifest_inspect(const char *folder, bool verify, FILE *out) {
    char validation[PATH_MAX];
    LT_CHECK(inspect_one(folder, verify, out));
    if (!join(validation, folder, LT_PREPARE_VALIDATION) || !lt_manifest_recognise(validation)) return LT_OK;
    fprintf(out, "\n");
    return inspect_one(validation, verify, out);
}
