/* The parts of lt_run_open() that are files of their own. */
#ifndef LT_TRAINER_SETUP_H
#define LT_TRAINER_SETUP_H

#include "trainer/run.h"

/* ---- trainer/resume.c: what the config and the folder say to go on from. Local, rank 0. ---- */

/* Reads run->config. Where there may be a checkpoint, what is unset waits for it: lt_run_take_folder()
 * settles it. */
lt_status lt_run_read_config(lt_run *run);

/* Whether there may be a checkpoint to go on from. */
bool lt_run_may_resume(const lt_run *run);

/* Judges the files that the command line names, makes and locks the folders, chooses the checkpoint and
 * settles config and counters by it. Nothing of an earlier run goes before all that can be refused was looked
 * at. */
lt_status lt_run_take_folder(lt_run *run);

/* ---- trainer/plan.c: who works at what, in which memory. Local. ---- */

/* What config and grid mean together: lanes and micro-batches of this rank. LT_BAD_INPUT: they do not divide.
 */
lt_status lt_run_divide_work(lt_run *run);

void lt_run_fill_model_options(lt_run *run);

/* Refuses a model that does not fit, saying how much is missing and what would fit. The network is open: on a
 * GPU it has taken its part. Fills run->checkpoint_bytes. */
lt_status lt_run_check_memory(lt_run *run);

/* Everything that steps, validation and saves work in, sized once. LT_IO: no memory. */
lt_status lt_run_allocate(lt_run *run);

/* What sums gradients, once there is a network: parallel.reduction, but the tree where MPI carries what lies
 * on GPUs, since its own sums read the host's memory alone. */
lt_reduction lt_run_reduction(const lt_run *run);

/* How gradients are summed over data ranks, once there is a model. */
lt_reducer_options lt_run_reducer_options(const lt_run *run);

#endif
