#include "trainer/schedule.h"

#include <math.h>
#include <string.h>

static const double pi = 3.14159265358979323846;

double lt_learning_rate(const lt_config *config, int64_t step) {
    double peak = config->optimizer.lr, ratio = config->schedule.min_lr_ratio;
    int64_t warmup = config->schedule.warmup_steps, decay = config->schedule.decay_steps;
    if (step < warmup) return peak * (double)step / (double)warmup;
    if (strcmp(config->schedule.kind, "cosine") == 0) {
        if (step == warmup) return peak; /* also where the decay ends with the warm-up */
        if (step >= decay) return peak * ratio;
        double progress = (double)(step - warmup) / (double)(decay - warmup);
        return peak * (ratio + (1 - ratio) * 0.5 * (1 + cos(pi * progress)));
    }
    if (strcmp(config->schedule.kind, "wsd") == 0) {
        int64_t start = config->train.steps - decay; /* the last step at the peak */
        if (step <= start) return peak;
        if (step >= config->train.steps) return peak * ratio;
        return peak * (1 - (1 - ratio) * (double)(step - start) / (double)decay);
    }
    return peak;
}
