/* Loss spikes: a loss far above those of the steps before it. Local. */
#ifndef LT_TRAINER_SPIKE_H
#define LT_TRAINER_SPIKE_H

#include <stdbool.h>
#include <stdint.h>

/* Running mean and variance of the loss over about the last 50 steps. Begins as all zeros, also on a resume.
 */
typedef struct lt_spike_watch {
    double mean, variance;
    int64_t steps;
    bool inside; /* a spike */
} lt_spike_watch;

/* Takes the loss of a step, in nats and finite. True at the first step of a spike: the loss is more than 6
 * standard deviations above the mean, after 50 steps at least. A spike ends when the loss is back within 3.
 * What lies beyond 6 counts as 6, so that a spike hardly moves what it is measured against. `excess`: by how
 * many deviations. */
bool lt_spike_begins(lt_spike_watch *watch, double loss, double *excess);

#endif
