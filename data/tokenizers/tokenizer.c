/* Opening a tokenizer of whatever kind, and what all kinds share. */
#include "data/tokenizers/kind.h"
#include "data/tokenizers/utf8.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <xxhash.h>

enum { FILE_BYTES = 1 << 28 }; /* no tokenizer comes near */

/* ---- files ---- */

static lt_status read_whole(int descriptor, const char *key, lt_blob *blob) {
    struct stat info;
    if (fstat(descriptor, &info) != 0)
        return lt_fail(LT_IO, "%s: cannot read '%s': %s", key, blob->path, strerror(errno));
    if (!S_ISREG(info.st_mode))
        return lt_fail(LT_BAD_INPUT, "%s: '%s' is not a regular file", key, blob->path);
    if (info.st_size == 0 || info.st_size > FILE_BYTES)
        return lt_fail(LT_BAD_INPUT,
                       "%s: '%s' has %" PRId64
                       " bytes, which no tokenizer has; expected a SentencePiece .model, "
                       "a tokenizer.json, or GPT-2's encoder.json and vocab.bpe",
                       key, blob->path, (int64_t)info.st_size);
    const size_t size = (size_t)info.st_size;
    blob->data = malloc(size + 1);
    if (blob->data == NULL) return lt_fail(LT_IO, "%s: no memory to read '%s'", key, blob->path);
    while (blob->bytes < size) {
        const ssize_t got = read(descriptor, blob->data + blob->bytes, size - blob->bytes);
        if (got < 0 && errno == EINTR) continue;
        if (got <= 0)
            return lt_fail(LT_IO, "%s: cannot read '%s': %s", key, blob->path,
                           got < 0 ? strerror(errno) : "it shrank meanwhile");
        blob->bytes += (size_t)got;
    }
    blob->data[size] = '\0';
    return LT_OK;
}

static lt_status read_file(const char *path, const char *key, lt_blob *blob) {
    *blob = (lt_blob){.path = path};
    const int descriptor = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
    if (descriptor < 0) return lt_fail(LT_BAD_INPUT, "%s: cannot read '%s': %s", key, path, strerror(errno));
    const lt_status status = read_whole(descriptor, key, blob);
    close(descriptor);
    return status;
}

/* ---- names ---- */

typedef struct names {
    char first[PATH_MAX], second[PATH_MAX];
    int count;
} names;

static bool join(char out[PATH_MAX], const char *folder, const char *name) {
    return snprintf(out, PATH_MAX, "%s/%s", folder, name) < PATH_MAX && access(out, R_OK) == 0;
}

/* The files of a folder, as tools save tokenizers. */
static lt_status find_in_folder(const char *folder, const char *key, names *files) {
    static const char *const singles[] = {"tokenizer.json", "tokenizer.model"};
    static const char *const pairs[][2] = {{"encoder.json", "vocab.bpe"}, {"vocab.json", "merges.txt"}};
    files->count = 1;
    for (int i = 0; i < 2; i++)
        if (join(files->first, folder, singles[i])) return LT_OK;
    files->count = 2;
    for (int i = 0; i < 2; i++)
        if (join(files->first, folder, pairs[i][0]) && join(files->second, folder, pairs[i][1])) return LT_OK;
    return lt_fail(
        LT_BAD_INPUT,
        "%s: folder '%s' holds no tokenizer; expected tokenizer.json, tokenizer.model, encoder.json and "
        "vocab.bpe, or vocab.json and merges.txt",
        key, folder);
}

static lt_status find_files(const char *name, const char *key, names *files) {
    struct stat info;
    const bool there = stat(name, &info) == 0;
    if (there && S_ISDIR(info.st_mode)) return find_in_folder(name, key, files);
    const char *comma = there ? NULL : strchr(name, ',');
    const size_t length = comma == NULL ? strlen(name) : (size_t)(comma - name);
    if (length >= PATH_MAX || (comma != NULL && strlen(comma + 1) >= PATH_MAX))
        return lt_fail(LT_BAD_INPUT, "%s: the name of the tokenizer's file is too long", key);
    memcpy(files->first, name, length);
    files->first[length] = '\0';
    if (comma != NULL) snprintf(files->second, PATH_MAX, "%s", comma + 1);
    files->count = comma == NULL ? 1 : 2;
    return LT_OK;
}

static bool ends_with(const char *text, const char *ending) {
    const size_t length = strlen(text), size = strlen(ending);
    return length >= size && strcmp(text + length - size, ending) == 0;
}

bool lt_tokenizer_recognise(const char *path) {
    struct stat info;
    names files;
    if (stat(path, &info) != 0) return strchr(path, ',') != NULL;
    if (S_ISDIR(info.st_mode)) return find_in_folder(path, "", &files) == LT_OK;
    return ends_with(path, ".model") || ends_with(path, "tokenizer.json");
}

/* ---- open ---- */

/* JSON is BPE's; a SentencePiece model is a protocol buffer that begins with its first piece (field 1). */
static lt_status recognise(const lt_blob *files, int count, const char *key, const lt_tokenizer_kind **kind) {
    const char *start = files[0].data + strspn(files[0].data, " \t\r\n");
    *kind = count == 2 || *start == '{' ? &lt_bpe_kind
            : files[0].data[0] == '\n'  ? &lt_sentencepiece_kind
                                        : NULL;
    if (*kind != NULL) return LT_OK;
    return lt_fail(
        LT_BAD_INPUT,
        "%s: '%s' is no tokenizer that is known: neither JSON nor a SentencePiece model; expected a "
        "SentencePiece .model, a tokenizer.json, or {vocab: encoder.json, merges: vocab.bpe}",
        key, files[0].path);
}

static lt_status hash_files(lt_tokenizer *tokenizer, const lt_blob *files, int count) {
    XXH3_state_t *state = XXH3_createState();
    if (state == NULL) return lt_fail(LT_IO, "no memory to hash a tokenizer");
    XXH3_128bits_reset(state);
    for (int i = 0; i < count; i++) {
        const uint64_t bytes = files[i].bytes; /* where one file ends and the next begins counts */
        XXH3_128bits_update(state, &bytes, sizeof bytes);
        XXH3_128bits_update(state, files[i].data, files[i].bytes);
    }
    const XXH128_hash_t hash = XXH3_128bits_digest(state);
    XXH3_freeState(state);
    snprintf(tokenizer->hash, sizeof tokenizer->hash, "%016" PRIx64 "%016" PRIx64, hash.high64, hash.low64);
    return LT_OK;
}

static lt_status open_kind(const lt_tokenizer_kind *kind, const lt_blob *files, int count, const char *key,
                           lt_tokenizer **out) {
    lt_tokenizer *tokenizer = calloc(1, kind->tokenizer_bytes);
    if (tokenizer == NULL) return lt_fail(LT_IO, "%s: no memory for a tokenizer", key);
    tokenizer->kind = kind;
    tokenizer->end_of_text = -1;
    lt_status status = kind->open(tokenizer, files, count, key);
    if (status == LT_OK) status = hash_files(tokenizer, files, count);
    if (status == LT_OK)
        *out = tokenizer;
    else
        lt_tokenizer_close(tokenizer);
    return status;
}

lt_status lt_tokenizer_open(const char *name, const char *key, lt_tokenizer **out) {
    *out = NULL;
    if (strcmp(name, "bytes") == 0) return open_kind(&lt_bytes_kind, NULL, 0, key, out);
    names files = {.count = 0};
    lt_blob blobs[2] = {{0}};
    const lt_tokenizer_kind *kind;
    lt_status status = LT_OK;
    LT_CHECK_DONE(status, find_files(name, key, &files));
    LT_CHECK_DONE(status, read_file(files.first, key, &blobs[0]));
    if (files.count == 2) LT_CHECK_DONE(status, read_file(files.second, key, &blobs[1]));
    LT_CHECK_DONE(status, recognise(blobs, files.count, key, &kind));
    LT_CHECK_DONE(status, open_kind(kind, blobs, files.count, key, out));
done:
    free(blobs[0].data);
    free(blobs[1].data);
    return status;
}

void lt_tokenizer_close(lt_tokenizer *tokenizer) {
    if (tokenizer == NULL) return;
    if (tokenizer->kind->close != NULL) tokenizer->kind->close(tokenizer);
    free(tokenizer->place);
    free(tokenizer->text);
    free(tokenizer->literal);
    free(tokenizer);
}

const char *lt_tokenizer_name(const lt_tokenizer *tokenizer) {
    return tokenizer->name;
}

int64_t lt_tokenizer_vocabulary(const lt_tokenizer *tokenizer) {
    return tokenizer->vocabulary;
}

int32_t lt_tokenizer_end_of_text(const lt_tokenizer *tokenizer) {
    return tokenizer->end_of_text;
}

const char *lt_tokenizer_hash(const lt_tokenizer *tokenizer) {
    return tokenizer->hash;
}

/* ---- encode ---- */

lt_status lt_token_list_reserve(lt_token_list *tokens, size_t more) {
    if (tokens->capacity - tokens->count >= more) return LT_OK;
    size_t capacity = tokens->count + more;
    if (capacity < 2 * tokens->capacity) capacity = 2 * tokens->capacity;
    int32_t *grown = reallocarray(tokens->id, capacity, sizeof *grown);
    if (grown == NULL) return lt_fail(LT_IO, "no memory for %zu tokens", capacity);
    tokens->id = grown;
    tokens->capacity = capacity;
    return LT_OK;
}

lt_status lt_encoder_create(const lt_tokenizer *tokenizer, lt_encoder **out) {
    *out = calloc(1, tokenizer->kind->encoder_bytes);
    if (*out == NULL) return lt_fail(LT_IO, "no memory to encode text");
    (*out)->tokenizer = tokenizer;
    return LT_OK;
}

void lt_encoder_destroy(lt_encoder *encoder) {
    if (encoder == NULL) return;
    if (encoder->tokenizer->kind->encoder_done != NULL) encoder->tokenizer->kind->encoder_done(encoder);
    free(encoder->valid);
    free(encoder);
}

int64_t lt_encoder_replaced(const lt_encoder *encoder) {
    return encoder->replaced;
}

lt_status lt_encode(lt_encoder *encoder, const char *text, size_t bytes, lt_token_list *tokens) {
    const lt_tokenizer_kind *kind = encoder->tokenizer->kind;
    if (kind->any_bytes || lt_utf8_valid(text, bytes) == bytes)
        return kind->encode(encoder, text, bytes, tokens);
    if (encoder->capacity / LT_REPLACEMENT_BYTES < bytes) {
        char *grown = realloc(encoder->valid, LT_REPLACEMENT_BYTES * bytes);
        if (grown == NULL) return lt_fail(LT_IO, "no memory for a text of %zu bytes", bytes);
        encoder->valid = grown;
        encoder->capacity = LT_REPLACEMENT_BYTES * bytes;
    }
    const size_t valid = lt_utf8_replace(text, bytes, encoder->valid, &encoder->replaced);
    return kind->encode(encoder, encoder->valid, valid, tokens);
}
