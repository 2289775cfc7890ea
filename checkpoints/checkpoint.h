/* HDF5 checkpoints: `DIR/step_00001000.h5`, complete or absent (contracts.md, "Checkpoint").
 *
 * Writing: rank 0 lays the file out with the serial HDF5 library (chunked, Fletcher32, allocated early, never
 * filled), asks each chunk's offset and closes it; every rank then writes its share of the chunks with pwrite,
 * checksums included, and fsyncs; all agree; rank 0 renames and fsyncs the folder. No rank stages more than one
 * chunk. Reading goes through HDF5, which checks every checksum; a file is opened first in a child process with
 * limits on memory and time, since HDF5 1.10 crashes or hangs on some damaged files.
 *
 * Where tensors live (host, device, cut by tensor parallelism) is the caller's: it is asked for pieces.
 */
#ifndef LT_CHECKPOINTS_CHECKPOINT_H
#define LT_CHECKPOINTS_CHECKPOINT_H

#include "comm/grid.h"
#include "model/registry.h"

#include <stdio.h>

enum { LT_CHECKPOINT_FORMAT = 1, LT_CHECKPOINT_MAX_SOURCES = 64 };

/* What a tensor of the file is to the model: /params, /optimizer/m, /optimizer/v. */
typedef enum lt_tensor_kind { LT_TENSOR_PARAMETER, LT_TENSOR_FIRST_MOMENT, LT_TENSOR_SECOND_MOMENT } lt_tensor_kind;

/* Moves elements [first, first + count) of a parameter (registry order, row-major) between the model and `values`.
 * get: model to values (saving); put: values to model (loading). Returns a status like any function. */
typedef struct lt_tensor_access {
    void *context;
    lt_status (*get)(void *context, lt_tensor_kind kind, const lt_parameter *parameter, int64_t first, int64_t count,
                     float *values);
    lt_status (*put)(void *context, lt_tensor_kind kind, const lt_parameter *parameter, int64_t first, int64_t count,
                     const float *values);
} lt_tensor_access;

/* Who made the file, and what its bits depend on. Strings owned by the struct. */
typedef struct lt_provenance {
    char version[64], commit[64];
    char instruction_set[64], blas_kernel[64];
    char mpi[128], hosts[512];
    int64_t ranks, threads;
} lt_provenance;

/* Everything in a checkpoint but the tensors. */
typedef struct lt_checkpoint_header {
    int64_t format_version;
    int64_t step, tokens;
    char *config; /* the resolved config as YAML; malloc'ed by lt_checkpoint_read_header(), freed by _free() */
    lt_provenance provenance;
    int sources;                                       /* of data.train */
    int64_t samples_consumed[LT_CHECKPOINT_MAX_SOURCES]; /* `/data`: by source */
} lt_checkpoint_header;

void lt_checkpoint_header_free(lt_checkpoint_header *header);

/* Writes `DIR/step_%08d.h5` with all tensors of `registry`. Collective; the same status on every rank. LT_IO with
 * the operation, the file and the system's reason; then nothing is left under the final name. */
lt_status lt_checkpoint_save(const lt_grid *grid, const char *directory, const lt_checkpoint_header *header,
                             const lt_registry *registry, const lt_tensor_access *access);

/* Reads the header after probing the file in a child process. Local. LT_BAD_INPUT with what is wrong: not HDF5,
 * truncated, of a newer format, hostile (the child died or ran out of time or memory). */
lt_status lt_checkpoint_read_header(const char *path, lt_checkpoint_header *header);

/* Checks that the file holds exactly the tensors of `registry` in their shapes, then hands every element to
 * `access->put`. `with_optimizer` false: parameters only (eval, generate, --init-from). Local: each rank reads for
 * itself. LT_BAD_INPUT: a tensor missing, of another shape, or failing its checksum. */
lt_status lt_checkpoint_load(const char *path, const lt_registry *registry, bool with_optimizer,
                             const lt_tensor_access *access);

/* Reads every byte of every dataset and checks that checksums, names, shapes and config agree. Local. LT_BAD_INPUT
 * with the first thing found wrong. */
lt_status lt_checkpoint_verify(const char *path);

/* Prints what a person wants to know of a checkpoint: step, tokens, provenance, tensors with shapes and sizes. */
lt_status lt_checkpoint_inspect(const char *path, bool verify, FILE *out);

/* Whether `path` starts like an HDF5 file. */
bool lt_checkpoint_recognise(const char *path);

#endif
