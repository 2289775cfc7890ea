#include "trainer/spike.h"

#include <math.h>

static const double DECAY = 0.98; /* of the weight of a loss, a step */
static const double BEGINS = 6, ENDS = 3;
static const int64_t WARMUP = 50;
static const double LEAST =
    1e-3; /* of the mean: a deviation; a loss that hardly varies makes no spikes of noise */

bool lt_spike_begins(lt_spike_watch *watch, double loss, double *excess) {
    const double deviation = fmax(sqrt(watch->variance), LEAST * fabs(watch->mean));
    const bool warm = watch->steps >= WARMUP;
    const bool was_inside = watch->inside;
    *excess = deviation > 0 ? (loss - watch->mean) / deviation : 0;
    if (warm) watch->inside = *excess > (was_inside ? ENDS : BEGINS);

    /* While there are few losses their plain mean: the weight of a new one is 1/n until that falls to 1 -
     * DECAY. */
    watch->steps++;
    const double weight = fmax(1.0 / (double)watch->steps, 1 - DECAY);
    const double difference = (warm ? fmin(loss, watch->mean + BEGINS * deviation) : loss) - watch->mean;
    watch->mean += weight * difference;
    watch->variance = (1 - weight) * (watch->variance + weight * difference * difference);
    return watch->inside && !was_inside;
}
