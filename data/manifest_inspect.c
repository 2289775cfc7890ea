/* What `lazytrain inspect` says of a prepared folder. */
#include "comm/interrupt.h"
#include "data/files.h"
#include "data/manifest.h"
#include "data/reader.h"

#include <errno.h>
#include <inttypes.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <xxhash.h>

enum { BLOCK_BYTES = 1 << 20 };

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
        count_ids(block + head, size - head, token_bytes,
                  (uint32_t)lt_manifest_number(tokenizer, "end_of_text"),
                  lt_manifest_number(tokenizer, "vocabulary"), found);
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
    if (!lt_manifest_join(path, folder, shard->name))
        return lt_fail(LT_BAD_INPUT, "inspect: the path of '%s/%s' is too long", folder, shard->name);
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
            name == NULL ? "unknown" : name, lt_manifest_number(tokenizer, "vocabulary"),
            lt_manifest_number(tokenizer, "end_of_text"), hash == NULL ? "unknown" : hash);
    fprintf(out, "tokens:       %" PRId64 "\n", lt_manifest_number(totals, "tokens"));
    fprintf(out, "documents:    %" PRId64 "\n", lt_manifest_number(totals, "documents"));
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
    if (!lt_manifest_join(validation, folder, LT_PREPARE_VALIDATION) || !lt_manifest_recognise(validation))
        return LT_OK;
    fprintf(out, "\n");
    return inspect_one(validation, verify, out);
}
