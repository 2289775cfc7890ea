/* The tensor-parallel group of a run's model (model/tensor_group.h), filled from comm/. */
#ifndef LT_TRAINER_GROUP_H
#define LT_TRAINER_GROUP_H

#include "trainer/run.h"

/* Fills run->group, once the grid is split: the group counts what it waits as run->interval's. Local. */
void lt_run_fill_group(lt_run *run);

#endif
