#ifndef LT_TRAINER_TRAIN_H
#define LT_TRAINER_TRAIN_H

#include "trainer/run.h"

/* Trains from run->first_step to train.steps, validating, logging and saving on the way. LT_OK: all steps are
 * done; LT_STOPPED: saved after a request to stop; LT_FAILED: the loss is not finite or a shard holds a bad
 * token; LT_IO. Collective. */
lt_status lt_train(lt_run *run);

#endif
