/* The learning rate of a step (contracts.md, `schedule.*`). */
#ifndef LT_TRAINER_SCHEDULE_H
#define LT_TRAINER_SCHEDULE_H

#include "trainer/config.h"

/* The rate of update s = 1, 2, ...: warm-up lr*s/warmup; cosine from warmup to decay_steps, then flat at the
 * minimum; wsd: flat, then linear to the minimum over the last decay_steps before train.steps; constant. */
double lt_learning_rate(const lt_config *config, int64_t step);

#endif
