/* Checkpoints that are written while steps go on (checkpoint.async). A save begins with a copy of this rank's
 * share of the tensors; a thread writes it; when the threads of all ranks are done, rank 0's publishes the
 * file. The loop learns that all are done by the agreement that ends every step, so that no rank waits for
 * another's disk.
 *
 * A failure is said and tried once more from the same copy; the second one is returned. */
#ifndef LT_TRAINER_BACKGROUND_H
#define LT_TRAINER_BACKGROUND_H

#include "trainer/run.h"

/* Takes the memory, and frees it after the last save is finished. LT_IO: there is none. Local. */
lt_status lt_background_create(lt_run *run);
void lt_background_free(lt_run *run);

/* Begins a save of run->step after finishing one that is under way. Collective. */
lt_status lt_background_start(lt_run *run);

/* Whether this rank's thread is at work. Local. */
bool lt_background_busy(const lt_run *run);

/* Goes on to what follows; harmless where no save is under way. To be called by all ranks once none is busy.
 * Collective. */
lt_status lt_background_advance(lt_run *run);

/* Waits until no save is under way. Collective. */
lt_status lt_background_finish(lt_run *run);

/* The step of the save under way, -1: none. The same on all ranks. Local. */
int64_t lt_background_step(const lt_run *run);

#endif
