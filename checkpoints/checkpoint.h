/* HDF5 checkpoints: `DIR/step_00001000.h5`, complete or absent (contracts.md, "Checkpoint").
 *
 * Writing: before the first step rank 0 lays the file out once, in memory, with the serial HDF5 library in a
 * forked child (chunked, Fletcher32, allocated early). A save puts its numbers into that structure and writes
 * it; every rank then writes its share of the chunks with pwrite, checksums included, and fsyncs; all agree;
 * rank 0 renames and fsyncs the folder. HDF5 has no part in it. No rank stages more than one
 * chunk, or a copy of its share where the model is to change meanwhile (checkpoints/save.h has a save in
 * parts).
 *
 * Reading: HDF5 1.10 crashes or hangs on some damaged files, so it never opens a file in this process. A
 * forked child with limits on memory and time walks the structure and answers with the header and the offset
 * of every chunk; the chunks are then read, and their checksums checked, here. checkpoints/FORMAT.md
 * documents the file.
 *
 * Where tensors live (host, device, cut by tensor parallelism) is the caller's: it is asked for pieces.
 */
#ifndef LT_CHECKPOINTS_CHECKPOINT_H
#define LT_CHECKPOINTS_CHECKPOINT_H

#include "comm/grid.h"
#include "model/registry.h"

#include <stdio.h>

enum {
    LT_CHECKPOINT_FORMAT = 1,
    LT_CHECKPOINT_MAX_SOURCES = 64,
    LT_CHECKPOINT_MAX_CONFIG =
        60000, /* bytes of config text: an HDF5 attribute under a checksum ends at 64 KiB */
};

/* What a tensor of the file is to the model: /params, /optimizer/m, /optimizer/v. */
typedef enum lt_tensor_kind {
    LT_TENSOR_PARAMETER,
    LT_TENSOR_FIRST_MOMENT,
    LT_TENSOR_SECOND_MOMENT
} lt_tensor_kind;

/* Moves elements [first, first + count) of a parameter (registry order, row-major) between the model and
 * `values`. Both return a status like any function.
 *
 * get, saving: model to `values` [count] on the world rank `writer`; NULL on the others. All ranks are asked
 * for the same pieces in the same order, also after a failure of one of them, so it may gather a piece from
 * ranks that hold parts of it. put, loading: `values` to what the model here holds of the elements. Local.
 *
 * Pieces are runs of whole rows where this program wrote the file; a file written elsewhere may come in parts
 * of rows.
 */
typedef struct lt_tensor_access {
    void *context;
    lt_status (*get)(void *context, lt_tensor_kind kind, const lt_parameter *parameter, int64_t first,
                     int64_t count, int writer, float *values);
    lt_status (*put)(void *context, lt_tensor_kind kind, const lt_parameter *parameter, int64_t first,
                     int64_t count, const float *values);
    /* Saving: the world rank that writes the piece that begins with element `first`, of any kind; all ranks
     * give the same answer. NULL: the pieces are shared out evenly. */
    int (*writer)(void *context, const lt_parameter *parameter, int64_t first);
    /* Loading: whether anything of the elements is wanted here; what nobody needs is not read. NULL: all. */
    bool (*needs)(void *context, lt_tensor_kind kind, const lt_parameter *parameter, int64_t first,
                  int64_t count);
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
    char
        *config; /* the resolved config as YAML; malloc'ed by lt_checkpoint_read_header(), freed by _free() */
    char tokenizer_hash[33];        /* lt_tokenizer_hash() of the config's data.tokenizer; empty: not known */
    char data_hash[33];             /* of the files of data.train (data/identity.h); empty: not known */
    int64_t data_files, data_bytes; /* how many, and together */
    lt_provenance provenance;
    int sources;                                         /* of data.train */
    int64_t samples_consumed[LT_CHECKPOINT_MAX_SOURCES]; /* `/data`: by source */
} lt_checkpoint_header;

void lt_checkpoint_header_free(lt_checkpoint_header *header);

/* The structure of the checkpoints of one run. */
typedef struct lt_layout lt_layout;

/* Lays out checkpoints with the config, data, provenance and sources of `header` and the tensors of
 * `registry`. It forks: call it before the large memory is taken. Local: rank 0. LT_IO: no memory;
 * LT_BAD_INPUT: a config text that no attribute can hold. */
lt_status lt_layout_create(const lt_checkpoint_header *header, const lt_registry *registry,
                           lt_layout **layout);
void lt_layout_free(lt_layout *layout);

/* Writes `DIR/step_%08d.h5` with all tensors of `registry`; of the header the step, tokens and samples are
 * read, the rest is the layout's. A file of that name is replaced at once, by the rename. Collective, with
 * the same step and registry on every rank; `layout` on rank 0, NULL elsewhere; the same status on every
 * rank. LT_IO with the operation, the file and the system's reason; then what was under the final name before
 * is there still, or, where only the folder's fsync failed, the new file, complete. One save at a time in a
 * process. SIGXFSZ must be ignored for a file size limit to be an error. */
lt_status lt_checkpoint_save(const lt_grid *grid, lt_layout *layout, const char *directory,
                             const lt_checkpoint_header *header, const lt_registry *registry,
                             const lt_tensor_access *access);

/* Reads the header. Local. LT_BAD_INPUT with what is wrong: not HDF5, truncated, of a newer format, hostile
 * (the child died or ran out of processor time or memory). LT_IO: the system failed to read or to start the
 * child. On failure there is nothing to free. */
lt_status lt_checkpoint_read_header(const char *path, lt_checkpoint_header *header);

/* Checks that the file holds exactly the tensors of `registry` in their shapes, then hands every element to
 * `access->put`. `with_optimizer` false: parameters only (eval, generate, --init-from). Local: each rank
 * reads for itself. LT_BAD_INPUT: a tensor missing, of another shape, or failing its checksum. */
lt_status lt_checkpoint_load(const char *path, const lt_registry *registry, bool with_optimizer,
                             const lt_tensor_access *access);

/* Reads every byte of every tensor and checks all checksums, that there are parameters, and that moments, if
 * any, have the parameters' names and shapes. Whether the config describes these tensors is known to who can
 * read it: load with its registry. Local. LT_BAD_INPUT with the first thing found wrong. */
lt_status lt_checkpoint_verify(const char *path);

/* Prints what a person wants to know of a checkpoint: step, tokens, provenance, config, tensors with shapes
 * and sizes; with `verify`, after lt_checkpoint_verify(), also that the checksums are right. */
lt_status lt_checkpoint_inspect(const char *path, bool verify, FILE *out);

/* Whether `path` starts like an HDF5 file. */
bool lt_checkpoint_recognise(const char *path);

#endif
