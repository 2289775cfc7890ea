/* What a person sees while a run goes on: one line that is renewed on a terminal, plain lines elsewhere.
 * Local. */
#ifndef LT_TRAINER_PROGRESS_H
#define LT_TRAINER_PROGRESS_H

#include <stdbool.h>
#include <stdint.h>

typedef struct lt_progress {
    int64_t step, steps;
    double loss, tokens_per_s, learning_rate, gradient_norm;
    double seconds_a_step; /* of the last steps, for the time left */
} lt_progress;

/* Whether a person watches: stderr is a terminal, or belongs to a local mpirun whose stderr is one. */
bool lt_progress_on_terminal(void);

/* Prints or renews the line. `logged`: this step is a logged one, which a file gets a line of. */
void lt_progress_show(const lt_progress *progress, bool on_terminal, bool logged);

#endif
