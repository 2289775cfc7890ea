#define _GNU_SOURCE

#include "checkpoints/save.h"

#include "checkpoints/chunks.h"
#include "checkpoints/fletcher32.h"
#include "checkpoints/layout.h"
#include "checkpoints/system.h"
#include "comm/watchdog.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* One save: the file that is being written, where its chunks lie, and memory of one chunk or of all of this
 * rank's. */
struct lt_save {
    const lt_grid *grid;
    lt_layout *layout;
    const lt_registry *registry;
    lt_tensor_access access;
    lt_checkpoint_header header;
    char directory[LT_PATH_BYTES], partial[LT_PATH_BYTES], final[LT_PATH_BYTES];
    int64_t chunks, largest_bytes;
    int64_t *addresses;      /* of all chunks */
    unsigned char *buffer;   /* of one chunk */
    unsigned char *snapshot; /* this rank's chunks in a row, each with room for its checksum; NULL: none */
    size_t snapshot_bytes;
    int file;
    bool published;                 /* there is no partial file any more */
    off_t written_from, written_to; /* handed to the disk / written */
    _Atomic int64_t written;        /* bytes */
};

/* A chunk of a tensor. */
typedef struct chunk {
    lt_tensor_kind kind;
    const lt_parameter *parameter;
    lt_chunking cut;
    int64_t index;  /* in the tensor */
    int64_t number; /* in the file */
    int writer;     /* the rank that writes it */
    size_t place;   /* in the snapshot of that rank */
} chunk;

static size_t stored_bytes(const chunk *c) {
    return (size_t)c->cut.chunk_bytes + LT_FLETCHER32_BYTES;
}

static bool is_own(const lt_save *s, const chunk *c) {
    return c->writer == s->grid->rank;
}

/* Lets the disk work while the next chunks are gathered, so that the fsync at the end is short: every WINDOW
 * bytes their writing is started. Advice only: an error comes back from fsync. */
static void start_writeback(lt_save *s) {
    static const off_t WINDOW = 32 << 20;
    if (s->written_to - s->written_from < WINDOW) return;
    sync_file_range(s->file, s->written_from, s->written_to - s->written_from, SYNC_FILE_RANGE_WRITE);
    s->written_from = s->written_to;
}

/* Fetches a chunk from the model, to `bytes` on its writer. */
static lt_status fetch(const lt_save *s, const chunk *c, unsigned char *bytes) {
    const int64_t first_row = c->index * c->cut.chunk_rows;
    const int64_t left = c->cut.rows - first_row, rows = left < c->cut.chunk_rows ? left : c->cut.chunk_rows;
    const int64_t count = rows * c->cut.row_elements;
    const size_t used = (size_t)count * sizeof(float);
    if (is_own(s, c))
        memset(bytes + used, 0, (size_t)c->cut.chunk_bytes - used);
    else
        bytes = NULL;
    return s->access.get(s->access.context, c->kind, c->parameter, first_row * c->cut.row_elements, count,
                         c->writer, (float *)(void *)bytes);
}

static lt_status store(lt_save *s, const chunk *c, unsigned char *bytes) {
    const size_t size = (size_t)c->cut.chunk_bytes;
    const off_t address = (off_t)s->addresses[c->number];
    lt_fletcher32_store(bytes, size, bytes + size);
    LT_CHECK(lt_write_at(s->file, s->partial, bytes, stored_bytes(c), address));
    if (s->written_to == 0) s->written_from = address;
    s->written_to = address + (off_t)stored_bytes(c);
    atomic_fetch_add_explicit(&s->written, (int64_t)stored_bytes(c), memory_order_relaxed);
    start_writeback(s);
    return LT_OK;
}

/* What is done with each chunk; `status` is that of the ones before. A rank that failed still fetches: others
 * may need what it holds. */
typedef lt_status visit(lt_save *s, const chunk *c, lt_status status);

static lt_status fetch_and_store(lt_save *s, const chunk *c, lt_status status) {
    lt_watchdog_tick("writing a checkpoint", s->header.step);
    const lt_status fetched = fetch(s, c, s->buffer);
    LT_CHECK(status);
    LT_CHECK(fetched);
    return is_own(s, c) ? store(s, c, s->buffer) : LT_OK;
}

static lt_status fetch_into_snapshot(lt_save *s, const chunk *c, lt_status status) {
    lt_watchdog_alive();
    const lt_status fetched = fetch(s, c, s->snapshot + c->place);
    return status != LT_OK ? status : fetched;
}

static lt_status store_from_snapshot(lt_save *s, const chunk *c, lt_status status) {
    LT_CHECK(status);
    return is_own(s, c) ? store(s, c, s->snapshot + c->place) : LT_OK;
}

static lt_status add_up(lt_save *s, const chunk *c, lt_status status) {
    if (is_own(s, c)) s->snapshot_bytes += stored_bytes(c);
    return status;
}

/* Goes over all chunks. */
static lt_status for_each_chunk(lt_save *s, lt_status status, visit *visit_one) {
    chunk c = {.number = 0};
    for (int kind = 0; kind < LT_TENSOR_KINDS; kind++) {
        for (int i = 0; i < s->registry->count; i++) {
            c.kind = (lt_tensor_kind)kind;
            c.parameter = &s->registry->parameters[i];
            c.cut = lt_chunking_of(c.parameter);
            const int64_t elements = c.cut.chunk_rows * c.cut.row_elements;
            for (c.index = 0; c.index < c.cut.chunks; c.index++, c.number++) {
                c.writer = s->access.writer == NULL
                               ? (int)(c.number * s->grid->ranks / s->chunks)
                               : s->access.writer(s->access.context, c.parameter, c.index * elements);
                status = visit_one(s, &c, status);
                if (is_own(s, &c)) c.place += stored_bytes(&c);
            }
        }
    }
    return status;
}

size_t lt_save_snapshot_bytes(const lt_grid *grid, const lt_registry *registry,
                              const lt_tensor_access *access) {
    lt_save s = {.grid = grid, .registry = registry, .access = *access};
    if (lt_chunks_count(registry, &s.chunks, &s.largest_bytes) == LT_OK) for_each_chunk(&s, LT_OK, add_up);
    return s.snapshot_bytes;
}

/* ---- the parts ---- */

static lt_status prepare(lt_save *s, const char *directory) {
    char name[64];
    LT_CHECK(lt_join_path(s->directory, sizeof s->directory, directory, ""));
    snprintf(name, sizeof name, "step_%08lld.h5", (long long)s->header.step);
    LT_CHECK(lt_join_path(s->final, sizeof s->final, directory, name));
    snprintf(name, sizeof name, "step_%08lld.h5.partial", (long long)s->header.step);
    LT_CHECK(lt_join_path(s->partial, sizeof s->partial, directory, name));
    LT_CHECK(lt_chunks_count(s->registry, &s->chunks, &s->largest_bytes));
    s->addresses = calloc((size_t)s->chunks, sizeof *s->addresses);
    s->buffer = malloc((size_t)s->largest_bytes + LT_FLETCHER32_BYTES);
    if (!s->addresses || !s->buffer)
        return lt_fail(LT_IO, "%s: no memory for a chunk of %lld bytes", s->final,
                       (long long)s->largest_bytes);
    return LT_OK;
}

lt_status lt_save_begin(const lt_grid *grid, lt_layout *layout, const char *directory,
                        const lt_checkpoint_header *header, const lt_registry *registry,
                        const lt_tensor_access *access, void *snapshot, lt_save **save) {
    lt_save *s = calloc(1, sizeof *s);
    *save = NULL;
    lt_status status = s == NULL ? lt_fail(LT_IO, "%s: no memory for a save", directory) : LT_OK;
    if (status == LT_OK) {
        *s = (lt_save){.grid = grid,
                       .layout = layout,
                       .registry = registry,
                       .access = *access,
                       .header = *header,
                       .snapshot = snapshot,
                       .file = -1};
        status = prepare(s, directory);
    }
    LT_CHECK_DONE(status, lt_grid_share_status(grid, status, NULL));
    assert(s != NULL);
    if (grid->rank == 0)
        memcpy(s->addresses, lt_layout_addresses(layout), (size_t)s->chunks * sizeof *s->addresses);
    LT_CHECK_DONE(status, lt_grid_broadcast(grid, s->addresses, (size_t)s->chunks * sizeof *s->addresses, 0));
    if (snapshot != NULL)
        LT_CHECK_DONE(status,
                      lt_grid_share_status(grid, for_each_chunk(s, LT_OK, fetch_into_snapshot), NULL));
    *save = s;
    return LT_OK;
done:
    lt_save_end(s);
    return status;
}

/* The ranks' files are one: whoever comes first creates it, and what each writes is its own. */
lt_status lt_save_write(lt_save *s) {
    s->written_from = s->written_to = 0;
    lt_watchdog_file(s->partial);
    s->file = open(s->partial, O_WRONLY | O_CREAT | O_CLOEXEC, 0666);
    lt_status status = s->file < 0 ? lt_system_failure("create", s->partial) : LT_OK;
    if (status == LT_OK && s->grid->rank == 0)
        status = lt_layout_write(s->layout, s->file, s->partial, &s->header);
    status = for_each_chunk(s, status, s->snapshot != NULL ? store_from_snapshot : fetch_and_store);
    if (status == LT_OK && fsync(s->file) != 0) status = lt_system_failure("sync", s->partial);
    if (s->file >= 0 && close(s->file) != 0 && status == LT_OK)
        status = lt_system_failure("close", s->partial);
    s->file = -1;
    return status;
}

int64_t lt_save_written(const lt_save *s) {
    return atomic_load_explicit(&s->written, memory_order_relaxed);
}

lt_status lt_save_publish(lt_save *s) {
    if (rename(s->partial, s->final) != 0) return lt_system_failure("rename into place", s->partial);
    LT_CHECK(lt_sync_directory(s->directory));
    s->published = true;
    return LT_OK;
}

void lt_save_end(lt_save *s) {
    if (s == NULL) return;
    lt_watchdog_file(NULL);
    if (s->grid->rank == 0 && s->partial[0] != '\0' && !s->published) unlink(s->partial);
    free(s->buffer);
    free(s->addresses);
    free(s);
}

lt_status lt_checkpoint_save(const lt_grid *grid, lt_layout *layout, const char *directory,
                             const lt_checkpoint_header *header, const lt_registry *registry,
                             const lt_tensor_access *access) {
    lt_save *save;
    LT_CHECK(lt_save_begin(grid, layout, directory, header, registry, access, NULL, &save));
    lt_status status = lt_grid_share_status(grid, lt_save_write(save), NULL);
    if (status == LT_OK)
        status = lt_grid_share_status(grid, grid->rank == 0 ? lt_save_publish(save) : LT_OK, NULL);
    lt_save_end(save);
    return status;
}
