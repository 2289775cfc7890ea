#include "checkpoints/stored.h"

#include "checkpoints/fletcher32.h"
#include "checkpoints/probe.h"
#include "checkpoints/system.h"
#include "comm/interrupt.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

const char *lt_stored_group(lt_tensor_kind kind) {
    static const char *const GROUPS[LT_TENSOR_KINDS] = {"/params", "/optimizer/m", "/optimizer/v"};
    return GROUPS[kind];
}

void lt_stored_shape_text(int dimensions, const int64_t shape[2], char text[64]) {
    if (dimensions == 1)
        snprintf(text, 64, "[%lld]", (long long)shape[0]);
    else
        snprintf(text, 64, "[%lld, %lld]", (long long)shape[0], (long long)shape[1]);
}

void lt_stored_free(lt_stored *stored) {
    for (int i = 0; i < stored->tensors; i++) free(stored->tensor[i].addresses);
    free(stored->tensor);
    lt_checkpoint_header_free(&stored->header);
    *stored = (lt_stored){0};
}

/* ---- the child's answer
 * -----------------------------------------------------------------------------------------
 *
 * HDF5 may have led the child astray: nothing in its answer is believed. */

/* Above any model's; it bounds the time that matching names takes. */
enum { MOST_TENSORS = 1 << 16 };

static bool is_text(const char *text, size_t size) {
    return memchr(text, 0, size) != NULL;
}

static bool is_header(const lt_checkpoint_header *header) {
    const lt_provenance *p = &header->provenance;
    bool right =
        header->format_version >= 1 && header->format_version <= LT_CHECKPOINT_FORMAT && header->step >= 0 &&
        header->tokens >= 0 && p->ranks >= 0 && p->threads >= 0 && header->sources >= 0 &&
        header->sources <= LT_CHECKPOINT_MAX_SOURCES && header->data_files >= 0 && header->data_bytes >= 0 &&
        is_text(header->tokenizer_hash, sizeof header->tokenizer_hash) &&
        is_text(header->data_hash, sizeof header->data_hash) && is_text(p->version, sizeof p->version) &&
        is_text(p->commit, sizeof p->commit) && is_text(p->instruction_set, sizeof p->instruction_set) &&
        is_text(p->blas_kernel, sizeof p->blas_kernel) && is_text(p->mpi, sizeof p->mpi) &&
        is_text(p->hosts, sizeof p->hosts);
    for (int i = 0; right && i < header->sources; i++) right = header->samples_consumed[i] >= 0;
    return right;
}

static bool is_described(const lt_stored_tensor *t) {
    return (int)t->kind >= 0 && (int)t->kind < LT_TENSOR_KINDS && is_text(t->name, sizeof t->name) &&
           t->name[0] != 0 && is_text(t->problem, sizeof t->problem) &&
           (t->dimensions == 1 || t->dimensions == 2) && t->shape[0] >= 1 && t->shape[1] >= 1 &&
           (t->dimensions == 2 || t->shape[1] == 1);
}

/* Whether the chunks make up the tensor and together take no more than `room`, from which they are taken. */
static bool is_stored(const lt_stored_tensor *t, int64_t *room) {
    int64_t most = *room / (int64_t)sizeof(float), elements = 1, chunks = 1;
    for (int d = 0; d < 2; d++) {
        const int64_t chunk = t->chunk[d], grid = t->grid[d];
        if (chunk < 1 || chunk > most || grid < 1 || grid > most / chunk) return false;
        most /= chunk * grid;
        elements *= chunk * grid;
        chunks *= grid;
        if (grid != t->shape[d] / chunk + (t->shape[d] % chunk != 0)) return false;
        if (t->dimensions == 1 && d == 1 && chunk != 1) return false;
    }
    *room -= elements * (int64_t)sizeof(float);
    if (chunks > *room / LT_FLETCHER32_BYTES) return false;
    *room -= chunks * LT_FLETCHER32_BYTES;
    return true;
}

static bool take_header(lt_pack *answer, lt_checkpoint_header *header) {
    int64_t length;
    lt_pack_take(answer, header, sizeof *header);
    lt_pack_take(answer, &length, sizeof length);
    header->config = NULL;
    if (answer->failed || !is_header(header) || length < 0 || (size_t)length > answer->used - answer->taken)
        return false;
    header->config = calloc((size_t)length + 1, 1);
    if (header->config) lt_pack_take(answer, header->config, (size_t)length);
    return header->config != NULL;
}

static bool take_addresses(lt_pack *answer, lt_stored_tensor *t, int64_t file_bytes) {
    const int64_t stored = t->chunk[0] * t->chunk[1] * (int64_t)sizeof(float) + LT_FLETCHER32_BYTES;
    const int64_t chunks = t->grid[0] * t->grid[1];
    const size_t bytes = (size_t)chunks * sizeof *t->addresses;
    if (bytes > answer->used - answer->taken) return false;
    t->addresses = malloc(bytes);
    if (!t->addresses) return false;
    lt_pack_take(answer, t->addresses, bytes);
    for (int64_t i = 0; i < chunks; i++)
        if (t->addresses[i] < 1 || t->addresses[i] > file_bytes - stored) return false;
    return true;
}

/* `room`: of the file's bytes, what the tensors before left over. */
static bool take_tensor(lt_pack *answer, int64_t file_bytes, int64_t *room, lt_stored *stored) {
    if (stored->tensors == MOST_TENSORS) return false;
    lt_stored_tensor *grown = realloc(stored->tensor, (size_t)(stored->tensors + 1) * sizeof *grown);
    if (!grown) return false;
    stored->tensor = grown;
    lt_stored_tensor *t = &grown[stored->tensors];
    lt_pack_take(answer, t, sizeof *t);
    t->addresses = NULL;
    stored->tensors++;
    if (answer->failed || !is_described(t)) return false;
    return t->problem[0] || (is_stored(t, room) && take_addresses(answer, t, file_bytes));
}

static bool take_all(lt_pack *answer, int64_t file_bytes, lt_stored *stored) {
    unsigned char more;
    int64_t room = file_bytes;
    if (!take_header(answer, &stored->header)) return false;
    while (lt_pack_take(answer, &more, 1), more)
        if (!take_tensor(answer, file_bytes, &room, stored)) return false;
    return !answer->failed && answer->taken == answer->used;
}

lt_status lt_stored_open(const char *path, lt_stored *stored) {
    lt_pack answer = {0};
    struct stat about;
    *stored = (lt_stored){0};
    lt_status status = lt_probe(path, &answer, &stored->newer);
    if (status == LT_OK && stat(path, &about) != 0) status = lt_system_failure("look at", path);
    errno = 0;
    if (status == LT_OK && !take_all(&answer, (int64_t)about.st_size, stored)) {
        status = errno == ENOMEM
                     ? lt_fail(LT_IO, "%s: no memory for the table of its chunks", path)
                     : lt_fail(LT_BAD_INPUT, "%s: its structure makes no sense: the file is damaged", path);
        lt_stored_free(stored);
    }
    lt_pack_free(&answer);
    return status;
}

/* ---- chunks
 * ----------------------------------------------------------------------------------------------------- */

static size_t chunk_bytes(const lt_stored_tensor *t) {
    return (size_t)(t->chunk[0] * t->chunk[1]) * sizeof(float);
}

size_t lt_stored_buffer_bytes(const lt_stored *stored) {
    size_t most = 0;
    for (int i = 0; i < stored->tensors; i++) {
        const lt_stored_tensor *t = &stored->tensor[i];
        if (!t->problem[0] && chunk_bytes(t) > most) most = chunk_bytes(t);
    }
    return most + LT_FLETCHER32_BYTES;
}

static lt_status read_chunk(const lt_stored_reader *reader, const lt_stored_tensor *t, int64_t address) {
    size_t size = chunk_bytes(t) + LT_FLETCHER32_BYTES;
    for (size_t got = 0; got < size;) {
        ssize_t n = pread(reader->file, reader->buffer + got, size - got, (off_t)(address + (int64_t)got));
        if (n < 0 && errno == EINTR) continue;
        if (n < 0) return lt_system_failure("read", reader->path);
        if (n == 0)
            return lt_fail(LT_BAD_INPUT, "%s: %s/%s ends too early: the file is truncated", reader->path,
                           lt_stored_group(t->kind), t->name);
        got += (size_t)n;
    }
    unsigned char sum[LT_FLETCHER32_BYTES];
    lt_fletcher32_store(reader->buffer, chunk_bytes(t), sum);
    if (memcmp(sum, reader->buffer + chunk_bytes(t), sizeof sum) == 0) return LT_OK;
    return lt_fail(LT_BAD_INPUT,
                   "%s: %s/%s is damaged: the %zu bytes at offset %lld do not have their checksum: use "
                   "another checkpoint",
                   reader->path, lt_stored_group(t->kind), t->name, chunk_bytes(t), (long long)address);
}

/* The elements of chunk (row, column) as runs: one run where the chunk spans whole rows, else one a row. */
static lt_status take_chunk(const lt_stored_reader *reader, const lt_stored_tensor *t, int64_t row,
                            int64_t column) {
    int64_t first_row = row * t->chunk[0], first_column = column * t->chunk[1];
    int64_t rows = t->shape[0] - first_row, columns = t->shape[1] - first_column;
    if (rows > t->chunk[0]) rows = t->chunk[0];
    if (columns > t->chunk[1]) columns = t->chunk[1];
    bool whole = columns == t->shape[1] && columns == t->chunk[1];
    if (reader->wanted) {
        /* Part of a row may be asked for as the whole of it. */
        if (!reader->wanted(reader->context, t, first_row * t->shape[1], rows * t->shape[1])) return LT_OK;
    }
    LT_CHECK(lt_interrupt_check("reading a checkpoint"));
    LT_CHECK(read_chunk(reader, t, t->addresses[row * t->grid[1] + column]));
    if (!reader->take) return LT_OK;
    const float *values = (const float *)(const void *)reader->buffer;
    if (whole) return reader->take(reader->context, t, first_row * t->shape[1], rows * columns, values);
    for (int64_t r = 0; r < rows; r++)
        LT_CHECK(reader->take(reader->context, t, (first_row + r) * t->shape[1] + first_column, columns,
                              values + r * t->chunk[1]));
    return LT_OK;
}

lt_status lt_stored_read(const lt_stored_reader *reader, const lt_stored_tensor *tensor) {
    for (int64_t row = 0; row < tensor->grid[0]; row++)
        for (int64_t column = 0; column < tensor->grid[1]; column++)
            LT_CHECK(take_chunk(reader, tensor, row, column));
    return LT_OK;
}
