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
    const lt_tensor_access *access;
    lt_checkpoint_header header;
    char directory[LT_PATH_BYTES], partial[LT_PATH_BYTES], final[LT_PATH_BYTES];
    int64_t chunks, largest_bytes;
    int64_t *addresses;      /* -1: a chunk of another data rank */
    unsigned char *buffer;   /* of one chunk */
    unsigned char *snapshot; /* this rank's chunks in a row, each with room for its checksum; NULL: none */
    int file;
    bool published;                 /* there is no partial file any more */
    off_t written_from, written_to; /* handed to the disk / written */
    _Atomic int64_t written;        /* bytes */
};

/* A chunk of a tensor, and what this rank has to do with it. */
typedef struct chunk {
    lt_tensor_kind kind;
    const lt_parameter *parameter;
    lt_chunking cut;
    int64_t index;   /* in the tensor */
    int64_t address; /* in the file; -1: another tensor rank writes it */
} chunk;

static size_t stored_bytes(const chunk *c) {
    return (size_t)c->cut.chunk_bytes + LT_FLETCHER32_BYTES;
}

/* Lets the disk work while the next chunks are gathered, so that the fsync at the end is short: every WINDOW
 * bytes their writing is started. Advice only: an error comes back from fsync. */
static void start_writeback(lt_save *s) {
    static const off_t WINDOW = 32 << 20;
    if (s->written_to - s->written_from < WINDOW) return;
    sync_file_range(s->file, s->written_from, s->written_to - s->written_from, SYNC_FILE_RANGE_WRITE);
    s->written_from = s->written_to;
}

/* Fetches a chunk from the model; all tensor ranks of a data rank do. */
static lt_status fetch(const lt_save *s, const chunk *c, unsigned char *bytes) {
    const int64_t first_row = c->index * c->cut.chunk_rows;
    const int64_t left = c->cut.rows - first_row, rows = left < c->cut.chunk_rows ? left : c->cut.chunk_rows;
    const int64_t count = rows * c->cut.row_elements;
    const size_t used = (size_t)count * sizeof(float);
    memset(bytes + used, 0, (size_t)c->cut.chunk_bytes - used);
    return s->access->get(s->access->context, c->kind, c->parameter, first_row * c->cut.row_elements, count,
                          (float *)(void *)bytes);
}

static lt_status store(lt_save *s, const chunk *c, unsigned char *bytes) {
    const size_t size = (size_t)c->cut.chunk_bytes;
    lt_fletcher32_store(bytes, size, bytes + size);
    LT_CHECK(lt_write_at(s->file, s->partial, bytes, stored_bytes(c), (off_t)c->address));
    if (s->written_to == 0) s->written_from = (off_t)c->address;
    s->written_to = (off_t)c->address + (off_t)stored_bytes(c);
    atomic_fetch_add_explicit(&s->written, (int64_t)stored_bytes(c), memory_order_relaxed);
    start_writeback(s);
    return LT_OK;
}

static lt_status fetch_and_store(lt_save *s, const chunk *c, size_t place) {
    (void)place;
    lt_watchdog_tick("writing a checkpoint", s->header.step);
    LT_CHECK(fetch(s, c, s->buffer));
    return c->address < 0 ? LT_OK : store(s, c, s->buffer);
}

static lt_status fetch_into_snapshot(lt_save *s, const chunk *c, size_t place) {
    return fetch(s, c, c->address < 0 ? s->buffer : s->snapshot + place);
}

static lt_status store_from_snapshot(lt_save *s, const chunk *c, size_t place) {
    return c->address < 0 ? LT_OK : store(s, c, s->snapshot + place);
}

/* Goes over this rank's chunks; `place` is where in a snapshot one lies. The tensor ranks of one data rank
 * walk over the same chunks, since a piece may have to be gathered from all of them, and take turns in
 * writing; for the same reason a failed one walks on. */
static lt_status for_each_chunk(lt_save *s, lt_status status,
                                lt_status (*visit)(lt_save *s, const chunk *c, size_t place)) {
    const lt_grid *grid = s->grid;
    int64_t number = 0;
    size_t place = 0;
    for (int kind = 0; kind < LT_TENSOR_KINDS; kind++) {
        for (int i = 0; i < s->registry->count; i++) {
            const lt_parameter *parameter = &s->registry->parameters[i];
            chunk c = {
                .kind = (lt_tensor_kind)kind, .parameter = parameter, .cut = lt_chunking_of(parameter)};
            for (c.index = 0; c.index < c.cut.chunks; c.index++, number++) {
                if (s->addresses[number] < 0) continue;
                if (status != LT_OK && grid->tensor_ranks == 1) return status;
                const bool mine = number % grid->tensor_ranks == grid->tensor_rank;
                c.address = mine && status == LT_OK ? s->addresses[number] : -1;
                const lt_status now = visit(s, &c, place);
                if (status == LT_OK) status = now;
                if (mine) place += stored_bytes(&c);
            }
        }
    }
    return status;
}

/* Finds this data rank's chunks: clears the address of every other one, where `addresses` is not NULL.
 * Returns what those take that this rank writes. */
static size_t take_share(const lt_grid *grid, const lt_registry *registry, const lt_tensor_access *access,
                         int64_t *addresses) {
    int64_t first, end, number = 0;
    size_t bytes = 0;
    lt_chunks_share(registry, grid->data_rank, grid->data_ranks, &first, &end);
    for (int kind = 0; kind < LT_TENSOR_KINDS; kind++)
        for (int i = 0; i < registry->count; i++) {
            const lt_parameter *parameter = &registry->parameters[i];
            const chunk c = {.cut = lt_chunking_of(parameter)};
            const int64_t elements = c.cut.chunk_rows * c.cut.row_elements;
            for (int64_t k = 0; k < c.cut.chunks; k++, number++) {
                const bool own = access->writer == NULL ? number >= first && number < end
                                                        : access->writer(access->context, parameter,
                                                                         k * elements) == grid->data_rank;
                if (!own && addresses != NULL) addresses[number] = -1;
                if (own && number % grid->tensor_ranks == grid->tensor_rank) bytes += stored_bytes(&c);
            }
        }
    return bytes;
}

size_t lt_save_snapshot_bytes(const lt_grid *grid, const lt_registry *registry,
                              const lt_tensor_access *access) {
    return take_share(grid, registry, access, NULL);
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
                       .access = access,
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
    take_share(grid, registry, access, s->addresses);
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
