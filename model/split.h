/* Where the elements of a parameter lie under tensor parallelism.
 *
 * `held` is a parameter of a cut registry (lt_registry_create_cut()), `whole` the one of the same number in
 * the registry of the whole model. `held->parts` different parts of the whole are dealt to the tensor ranks
 * in order; where there are fewer parts than ranks, neighbouring ranks hold the same one. A part is a run of
 * rows or of columns. The last part of a vocabulary may go on past the whole's end: that padding belongs to
 * no piece. Pure functions; all local.
 */
#ifndef LT_MODEL_SPLIT_H
#define LT_MODEL_SPLIT_H

#include "model/registry.h"

/* The part that tensor rank `rank` of `ranks` holds, and the first rank that holds a part. */
static inline int lt_split_part(const lt_parameter *held, int rank, int ranks) {
    return rank * held->parts / ranks;
}

static inline int lt_split_holder(const lt_parameter *held, int part, int ranks) {
    return part * (ranks / held->parts);
}

/* What a part has of elements [first, first + count) of the whole, which may begin and end inside a row. */
typedef struct lt_split_piece {
    const lt_parameter *whole, *held;
    int part;
    int64_t first, count;
} lt_split_piece;

/* The elements of `held`, counted from its first, that lie in the piece: one run, in the order that they have
 * in the whole; may be empty. */
lt_span lt_split_run(const lt_split_piece *piece);

/* Lays that run, values `run`, where it belongs in `values` [count] of the piece; other values stay. */
void lt_split_lay(const lt_split_piece *piece, const float *run, float *values);

/* The way back: takes the run out of `values`. */
void lt_split_take(const lt_split_piece *piece, const float *values, float *run);

#endif
