#include "data/prepare/spool.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static const uint64_t magic = 0x31306c6f6f707374; /* "tspool01" */

void lt_spool_name(int64_t piece, int64_t part, char name[LT_SPOOL_NAME_BYTES]) {
    snprintf(name, LT_SPOOL_NAME_BYTES, "spool_%06" PRId64 "_%04" PRId64, piece, part);
}

/* ---- writing ---- */

lt_status lt_spool_create(lt_spool_writer *spool, const char *work, int64_t piece, int64_t part,
                          int token_bytes, bool hashes) {
    char name[LT_SPOOL_NAME_BYTES];
    memset(spool, 0, sizeof *spool);
    spool->header.magic = magic;
    spool->header.token_bytes = token_bytes;
    spool->header.tokens_at = sizeof spool->header;
    spool->capacity = 1 << 10;
    lt_spool_name(piece, part, name);
    LT_CHECK(lt_aside_open(&spool->file, work, work, name));
    spool->documents = calloc((size_t)spool->capacity, sizeof *spool->documents);
    if (hashes) spool->hashes = calloc((size_t)spool->capacity, sizeof *spool->hashes);
    if (spool->documents == NULL || (hashes && spool->hashes == NULL))
        return lt_fail(LT_IO, "no memory for the documents of '%s'", spool->file.path);
    return lt_aside_append(&spool->file, &spool->header, sizeof spool->header);
}

static lt_status grow(lt_spool_writer *spool) {
    const size_t capacity = 2 * (size_t)spool->capacity;
    lt_spool_document *documents = reallocarray(spool->documents, capacity, sizeof *documents);
    if (documents != NULL) spool->documents = documents;
    lt_spool_hash *hashes =
        spool->hashes == NULL ? NULL : reallocarray(spool->hashes, capacity, sizeof *hashes);
    if (hashes != NULL) spool->hashes = hashes;
    if (documents == NULL || (spool->hashes != NULL && hashes == NULL))
        return lt_fail(LT_IO, "no memory for the %zu documents of '%s'", capacity, spool->file.path);
    spool->capacity = (int64_t)capacity;
    return LT_OK;
}

lt_status lt_spool_add(lt_spool_writer *spool, const lt_spool_document *document, uint64_t high,
                       uint64_t low) {
    if (spool->count == spool->capacity) LT_CHECK(grow(spool));
    if (spool->hashes != NULL)
        spool->hashes[spool->count] = (lt_spool_hash){high, low, (uint32_t)spool->count, 0};
    spool->documents[spool->count++] = *document;
    spool->header.documents[document->split]++;
    spool->header.tokens[document->split] += document->tokens;
    return LT_OK;
}

lt_status lt_spool_tokens(lt_spool_writer *spool, const void *packed, size_t bytes) {
    return lt_aside_append(&spool->file, packed, bytes);
}

static int compare_hashes(const void *left, const void *right) {
    const lt_spool_hash *l = left, *r = right;
    if (l->high != r->high) return l->high < r->high ? -1 : 1;
    if (l->low != r->low) return l->low < r->low ? -1 : 1;
    return l->document < r->document ? -1 : l->document > r->document;
}

static lt_status append_hashes(lt_spool_writer *spool) {
    lt_spool_header *header = &spool->header;
    qsort(spool->hashes, (size_t)spool->count, sizeof *spool->hashes, compare_hashes);
    for (int64_t i = 0; i < spool->count; i++)
        header->prefix[(spool->hashes[i].high >> (64 - LT_SPOOL_PREFIX_BITS)) + 1]++;
    for (int i = 0; i < LT_SPOOL_PREFIXES; i++) header->prefix[i + 1] += header->prefix[i];
    return lt_aside_append(&spool->file, spool->hashes, (size_t)spool->count * sizeof *spool->hashes);
}

static lt_status finish(lt_spool_writer *spool) {
    static const char zeros[8];
    lt_spool_header *header = &spool->header;
    const int64_t tokens = header->tokens[LT_TRAIN] + header->tokens[LT_VALIDATION];
    const int64_t end = header->tokens_at + tokens * header->token_bytes;
    header->documents_at = (end + 7) / 8 * 8;
    header->hashes_at = header->documents_at + spool->count * (int64_t)sizeof *spool->documents;
    LT_CHECK(lt_aside_append(&spool->file, zeros, (size_t)(header->documents_at - end)));
    LT_CHECK(
        lt_aside_append(&spool->file, spool->documents, (size_t)spool->count * sizeof *spool->documents));
    if (spool->hashes != NULL) LT_CHECK(append_hashes(spool));
    return lt_aside_put(&spool->file, 0, header, sizeof *header);
}

static void release(lt_spool_writer *spool) {
    free(spool->documents);
    free(spool->hashes);
    spool->documents = NULL;
    spool->hashes = NULL;
}

lt_status lt_spool_commit(lt_spool_writer *spool) {
    lt_status status = finish(spool);
    if (status == LT_OK)
        status = lt_aside_commit(&spool->file);
    else
        lt_aside_abandon(&spool->file);
    release(spool);
    return status;
}

void lt_spool_abandon(lt_spool_writer *spool) {
    lt_aside_abandon(&spool->file);
    release(spool);
}

/* ---- reading ---- */

lt_status lt_spool_read(const lt_spool *spool, int64_t offset, void *data, size_t bytes) {
    char *at = data;
    while (bytes > 0) {
        const ssize_t got = pread(spool->descriptor, at, bytes, offset);
        if (got < 0 && errno == EINTR) continue;
        if (got == 0) errno = EIO; /* it ends too early */
        if (got <= 0) return lt_aside_failed("read", spool->path);
        at += got;
        bytes -= (size_t)got;
        offset += got;
    }
    return LT_OK;
}

lt_status lt_spool_open(lt_spool *spool, const char *work, int64_t piece, int64_t part) {
    char name[LT_SPOOL_NAME_BYTES];
    spool->descriptor = -1;
    spool->documents = NULL;
    lt_spool_name(piece, part, name);
    LT_CHECK(lt_aside_join(spool->path, work, name));
    spool->descriptor = open(spool->path, O_RDONLY | O_CLOEXEC);
    if (spool->descriptor < 0) return lt_aside_failed("open", spool->path);
    LT_CHECK(lt_spool_read(spool, 0, &spool->header, sizeof spool->header));
    if (spool->header.magic == magic) return LT_OK;
    return lt_fail(LT_IO, "'%s' is damaged; start anew with --overwrite", spool->path);
}

int64_t lt_spool_count(const lt_spool *spool) {
    return spool->header.documents[LT_TRAIN] + spool->header.documents[LT_VALIDATION];
}

lt_status lt_spool_load(lt_spool *spool) {
    const size_t bytes = (size_t)lt_spool_count(spool) * sizeof *spool->documents;
    spool->documents = malloc(bytes + 1);
    if (spool->documents == NULL) return lt_fail(LT_IO, "no memory for the documents of '%s'", spool->path);
    return lt_spool_read(spool, spool->header.documents_at, spool->documents, bytes);
}

void lt_spool_close(lt_spool *spool) {
    if (spool->descriptor >= 0) close(spool->descriptor);
    spool->descriptor = -1;
    free(spool->documents);
    spool->documents = NULL;
}
