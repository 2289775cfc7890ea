/* How a tensor is cut into the chunks of a checkpoint: whole rows of the first dimension, about 1 MiB, as
 * even as the rows allow. A function of the parameter's shape alone, so that every rank knows all chunks
 * without asking.
 */
#ifndef LT_CHECKPOINTS_CHUNKS_H
#define LT_CHECKPOINTS_CHUNKS_H

#include "model/registry.h"

enum { LT_TENSOR_KINDS = 3 }; /* parameters and both moments, in the order of lt_tensor_kind */

typedef struct lt_chunking {
    int64_t rows;         /* of the tensor */
    int64_t row_elements; /* 1 where the tensor has one dimension */
    int64_t chunk_rows;   /* of every chunk; the last one is padded with zero rows */
    int64_t chunks;
    int64_t chunk_bytes; /* without the checksum behind it */
} lt_chunking;

lt_chunking lt_chunking_of(const lt_parameter *parameter);

/* The chunks of the whole file, numbered by kind, then parameter, then row: their number, and the bytes of
 * the largest. LT_BAD_INPUT names a parameter whose rows do not fit a chunk. Local. */
lt_status lt_chunks_count(const lt_registry *registry, int64_t *chunks, int64_t *largest_bytes);

#endif
