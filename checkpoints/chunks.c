#include "checkpoints/chunks.h"

#include "checkpoints/fletcher32.h"

static const int64_t TARGET_BYTES = 1 << 20;
/* HDF5 finds the address of chunk n of a dataset by walking over the n before it: huge tensors get larger
 * chunks. */
static const int64_t MOST_CHUNKS = 1024;
/* HDF5 ends at 4 GiB; a reader holds one chunk. */
static const int64_t MOST_BYTES = 1 << 30;

lt_chunking lt_chunking_of(const lt_parameter *parameter) {
    lt_chunking c = {.rows = parameter->shape[0],
                     .row_elements = parameter->dimensions == 2 ? parameter->shape[1] : 1};
    int64_t row_bytes = c.row_elements * (int64_t)sizeof(float);
    int64_t target = c.rows * row_bytes / MOST_CHUNKS;
    if (target < TARGET_BYTES) target = TARGET_BYTES;
    int64_t most_rows = target / row_bytes;
    if (most_rows < 1) most_rows = 1;
    if (most_rows > c.rows) most_rows = c.rows;
    c.chunks = (c.rows + most_rows - 1) / most_rows;
    c.chunk_rows = (c.rows + c.chunks - 1) / c.chunks;
    c.chunks = (c.rows + c.chunk_rows - 1) / c.chunk_rows;
    c.chunk_bytes = c.chunk_rows * row_bytes;
    return c;
}

lt_status lt_chunks_count(const lt_registry *registry, int64_t *chunks, int64_t *largest_bytes) {
    *chunks = 0;
    *largest_bytes = 0;
    for (int i = 0; i < registry->count; i++) {
        const lt_parameter *p = &registry->parameters[i];
        int64_t row = p->dimensions == 2 ? p->shape[1] : 1;
        if (p->shape[0] < 1 || row < 1 || row > MOST_BYTES / (int64_t)sizeof(float) ||
            p->shape[0] > INT64_MAX / 64 / row)
            return lt_fail(LT_BAD_INPUT,
                           "checkpoint: parameter %s has shape [%lld, %lld], whose rows do not fit a chunk "
                           "of %lld bytes",
                           p->name, (long long)p->shape[0], (long long)row, (long long)MOST_BYTES);
        lt_chunking c = lt_chunking_of(p);
        *chunks += c.chunks * LT_TENSOR_KINDS;
        if (c.chunk_bytes > *largest_bytes) *largest_bytes = c.chunk_bytes;
    }
    return LT_OK;
}
