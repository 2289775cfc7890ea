/* What a checkpoint file holds, as its structure says: the header, and where the chunks of each tensor lie.
 */
#ifndef LT_CHECKPOINTS_STORED_H
#define LT_CHECKPOINTS_STORED_H

#include "checkpoints/checkpoint.h"
#include "checkpoints/chunks.h"

#include <sys/types.h>

typedef struct lt_stored_tensor {
    lt_tensor_kind kind;
    char name[sizeof((lt_parameter *)0)->name];
    int dimensions;
    int64_t shape[2], chunk[2],
        grid[2];        /* grid: chunks along each dimension; second entries 1 for a vector */
    int64_t *addresses; /* [grid[0] * grid[1]], row-major; NULL where there is a problem */
    char problem[160];  /* why the data cannot be read; empty: they can */
} lt_stored_tensor;

typedef struct lt_stored {
    lt_checkpoint_header header;
    bool newer; /* of a format that this program does not know: nothing else is filled */
    int tensors;
    lt_stored_tensor *tensor;
} lt_stored;

/* Path of the group that holds tensors of `kind`. */
const char *lt_stored_group(lt_tensor_kind kind);

/* Walks the file in a child process. Local. LT_BAD_INPUT, LT_IO; `newer` tells a file of a newer format
 * (LT_BAD_INPUT) from a damaged one. On failure nothing needs to be freed. */
lt_status lt_stored_open(const char *path, lt_stored *stored);
void lt_stored_free(lt_stored *stored);

/* What lt_checkpoint_verify() does with the opened file. */
lt_status lt_stored_verify(const char *path, const lt_stored *stored);

/* Text `[a, b]` of a tensor's shape into `text`. */
void lt_stored_shape_text(int dimensions, const int64_t shape[2], char text[64]);

/* Reads the chunks of a tensor one after the other, checks their checksums and hands runs of elements in the
 * order of the file to `take` (NULL: checks only). `wanted` (NULL: all) says which runs are read at all. Only
 * bytes of the tensor are handed out, never padding. `buffer` has lt_stored_buffer_bytes(). */
typedef struct lt_stored_reader {
    const char *path;
    int file;
    unsigned char *buffer;
    void *context;
    lt_status (*take)(void *context, const lt_stored_tensor *tensor, int64_t first, int64_t count,
                      const float *values);
    bool (*wanted)(void *context, const lt_stored_tensor *tensor, int64_t first, int64_t count);
} lt_stored_reader;

lt_status lt_stored_read(const lt_stored_reader *reader, const lt_stored_tensor *tensor);
size_t lt_stored_buffer_bytes(const lt_stored *stored);

#endif
