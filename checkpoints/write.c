#define _GNU_SOURCE

#include "checkpoints/checkpoint.h"

#include "checkpoints/chunks.h"
#include "checkpoints/fletcher32.h"
#include "checkpoints/layout.h"
#include "checkpoints/system.h"
#include "comm/watchdog.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* One save: the file that is being written, where its chunks lie, and this rank's buffer of one chunk. */
typedef struct save {
    const lt_grid *grid;
    const lt_registry *registry;
    const lt_tensor_access *access;
    char partial[LT_PATH_BYTES], final[LT_PATH_BYTES];
    int64_t step;
    int64_t chunks, largest_bytes;
    int64_t *addresses;
    float *buffer;
    int file;
    off_t written_from, written_to; /* handed to the disk / written */
} save;

static lt_status prepare(save *s, const char *directory) {
    char name[64];
    snprintf(name, sizeof name, "step_%08lld.h5", (long long)s->step);
    LT_CHECK(lt_join_path(s->final, sizeof s->final, directory, name));
    snprintf(name, sizeof name, "step_%08lld.h5.partial", (long long)s->step);
    LT_CHECK(lt_join_path(s->partial, sizeof s->partial, directory, name));
    LT_CHECK(lt_chunks_count(s->registry, &s->chunks, &s->largest_bytes));
    s->addresses = calloc((size_t)s->chunks, sizeof *s->addresses);
    s->buffer = malloc((size_t)s->largest_bytes + LT_FLETCHER32_BYTES);
    if (!s->addresses || !s->buffer)
        return lt_fail(LT_IO, "%s: no memory for a chunk of %lld bytes", s->final,
                       (long long)s->largest_bytes);
    return LT_OK;
}

/* Lets the disk work while the next chunks are gathered and keeps what is unwritten small, so that the fsync
 * at the end is short: every WINDOW bytes their writing is started, and the window before must be done.
 * Advice only: an error comes back from fsync. */
static void start_writeback(save *s) {
    static const off_t WINDOW = 32 << 20;
    if (s->written_to - s->written_from < WINDOW) return;
    sync_file_range(s->file, s->written_from, s->written_to - s->written_from, SYNC_FILE_RANGE_WRITE);
    if (s->written_from >= WINDOW)
        sync_file_range(s->file, s->written_from - WINDOW, WINDOW,
                        SYNC_FILE_RANGE_WAIT_BEFORE | SYNC_FILE_RANGE_WRITE | SYNC_FILE_RANGE_WAIT_AFTER);
    s->written_from = s->written_to;
}

/* Fetches chunk k of a tensor; `address` < 0: takes part in the fetching only (another tensor rank writes
 * it). */
static lt_status write_chunk(save *s, lt_tensor_kind kind, const lt_parameter *parameter,
                             const lt_chunking *c, int64_t k, int64_t address) {
    int64_t first_row = k * c->chunk_rows, rows = c->rows - first_row;
    if (rows > c->chunk_rows) rows = c->chunk_rows;
    int64_t count = rows * c->row_elements;
    LT_CHECK(
        s->access->get(s->access->context, kind, parameter, first_row * c->row_elements, count, s->buffer));
    if (address < 0) return LT_OK;
    unsigned char *bytes = (unsigned char *)s->buffer;
    size_t used = (size_t)count * sizeof(float), full = (size_t)c->chunk_bytes;
    memset(bytes + used, 0, full - used);
    lt_fletcher32_store(bytes, full, bytes + full);
    LT_CHECK(lt_write_at(s->file, s->partial, bytes, full + LT_FLETCHER32_BYTES, (off_t)address));
    if (s->written_to == 0) s->written_from = (off_t)address;
    s->written_to = (off_t)address + (off_t)full + LT_FLETCHER32_BYTES;
    start_writeback(s);
    return LT_OK;
}

/* Writes this rank's chunks. The tensor ranks of one data rank walk over the same chunks, since a piece may
 * have to be gathered from all of them, and take turns in writing; for the same reason a failed one walks on.
 */
static lt_status write_share(save *s, lt_status status) {
    const lt_grid *grid = s->grid;
    int64_t first, end, number = 0;
    lt_chunks_share(s->registry, grid->data_rank, grid->data_ranks, &first, &end);
    for (int kind = 0; kind < LT_TENSOR_KINDS; kind++) {
        for (int i = 0; i < s->registry->count; i++) {
            const lt_parameter *parameter = &s->registry->parameters[i];
            lt_chunking c = lt_chunking_of(parameter);
            for (int64_t k = 0; k < c.chunks; k++, number++) {
                if (number < first || number >= end) continue;
                if (status != LT_OK && grid->tensor_ranks == 1) return status;
                bool mine = number % grid->tensor_ranks == grid->tensor_rank && status == LT_OK;
                lt_status now =
                    write_chunk(s, (lt_tensor_kind)kind, parameter, &c, k, mine ? s->addresses[number] : -1);
                if (status == LT_OK) status = now;
                lt_watchdog_tick("writing a checkpoint", s->step);
            }
        }
    }
    return status;
}

static lt_status open_write_sync(save *s) {
    s->file = open(s->partial, O_WRONLY | O_CLOEXEC);
    lt_status status = s->file < 0 ? lt_system_failure("open", s->partial) : LT_OK;
    status = write_share(s, status);
    if (status == LT_OK && fsync(s->file) != 0) status = lt_system_failure("sync", s->partial);
    if (s->file >= 0 && close(s->file) != 0 && status == LT_OK)
        status = lt_system_failure("close", s->partial);
    return status;
}

/* The structure was written by rank 0 before the chunks: its fsync covers it on every host. */
static lt_status publish(const save *s, const char *directory) {
    if (rename(s->partial, s->final) != 0) return lt_system_failure("rename into place", s->partial);
    return lt_sync_directory(directory);
}

/* The structure is as long as the file will be. */
static lt_status begin(const save *s, lt_layout *layout, const lt_checkpoint_header *header) {
    memcpy(s->addresses, lt_layout_addresses(layout), (size_t)s->chunks * sizeof *s->addresses);
    return lt_layout_write(layout, s->partial, header);
}

lt_status lt_checkpoint_save(const lt_grid *grid, lt_layout *layout, const char *directory,
                             const lt_checkpoint_header *header, const lt_registry *registry,
                             const lt_tensor_access *access) {
    save s = {.grid = grid, .registry = registry, .access = access, .step = header->step, .file = -1};
    bool speaks = grid->rank == 0;
    lt_status status = lt_grid_share_status(grid, prepare(&s, directory), NULL);
    if (status != LT_OK) goto done;

    LT_CHECK_DONE(status, lt_grid_share_status(grid, speaks ? begin(&s, layout, header) : LT_OK, NULL));
    LT_CHECK_DONE(status, lt_grid_broadcast(grid, s.addresses, (size_t)s.chunks * sizeof *s.addresses, 0));
    LT_CHECK_DONE(status, lt_grid_share_status(grid, open_write_sync(&s), NULL));
    LT_CHECK_DONE(status, lt_grid_share_status(grid, speaks ? publish(&s, directory) : LT_OK, NULL));
done:
    /* Before the rename this removes the partial file, after it there is none. */
    if (status != LT_OK && speaks && s.partial[0]) unlink(s.partial);
    free(s.buffer);
    free(s.addresses);
    return status;
}
