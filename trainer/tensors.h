/* Where the tensors of a checkpoint lie among the ranks, and how their elements get from and to there: the
 * access of a run (lt_run_tensors()) that checkpoints ask for pieces of whole tensors.
 *
 * A tensor rank holds its part of every parameter (model/split.h), all data ranks the same; moments lie with
 * the data rank in whose share of the flat array they are (trainer/zero.h), without shares with all. A piece
 * is asked for on the rank that writes it, most often one that holds its beginning. What it lacks, the ranks
 * of its own tensor group send, or, of moments in other shares, those of the data rank there.
 */
#ifndef LT_TRAINER_TENSORS_H
#define LT_TRAINER_TENSORS_H

#include "trainer/run.h"

/* Bytes of run->tensor_memory, in which elements travel. Local. */
size_t lt_tensors_bytes(const lt_run *run);

#endif
