#include "data/mixture.h"

#include <string.h>

_Static_assert(LT_MIXTURE_SOURCES <= UINT8_MAX && LT_MIXTURE_PERIOD <= UINT16_MAX, "entries are too small");

/* Whole items by largest remainders, the earlier source first where two are equal. Less than one each is left
 * over, so one more for some is enough. */
static void round_weights(const double *weights, int sources, int32_t *count) {
    double exact[LT_MIXTURE_SOURCES], largest = 0, total = 0;
    for (int i = 0; i < sources; i++)
        if (weights[i] > largest) largest = weights[i];
    for (int i = 0; i < sources; i++) total += weights[i] / largest; /* no sum overflows */
    int32_t left = LT_MIXTURE_PERIOD;
    for (int i = 0; i < sources; i++) {
        exact[i] = weights[i] / largest / total * LT_MIXTURE_PERIOD;
        count[i] = (int32_t)exact[i];
        left -= count[i];
    }
    for (; left > 0; left--) {
        int best = 0;
        for (int i = 1; i < sources; i++)
            if (exact[i] - count[i] > exact[best] - count[best]) best = i;
        count[best]++;
    }
}

/* Tijdeman's order (The chairman assignment problem, 1980): of the sources that have fallen 1/(2n - 2) or
 * more behind, the one that would soonest be 1 - 1/(2n - 2) behind. No source is then ever further from its
 * share than that. In units of 1/((2n - 2) LT_MIXTURE_PERIOD). */
static void arrange(lt_mixture *mixture) {
    const int64_t parts = 2 * (int64_t)mixture->sources - 2, period = LT_MIXTURE_PERIOD;
    int64_t taken[LT_MIXTURE_SOURCES] = {0};
    for (int64_t place = 0; place < period; place++) {
        bool found = false; /* one always is: together the sources are one item behind */
        int chosen = 0;
        int64_t least = 0; /* what the chosen source still has until then */
        for (int i = 0; i < mixture->sources; i++) {
            const int64_t behind = parts * (mixture->count[i] * (place + 1) - period * taken[i]);
            const int64_t left = (parts - 1) * period - behind;
            if (behind < period) continue;
            if (found && left * mixture->count[chosen] >= least * mixture->count[i]) continue;
            found = true;
            chosen = i;
            least = left;
        }
        mixture->source[place] = (uint8_t)chosen;
        mixture->before[place] = (uint16_t)taken[chosen]++;
    }
}

lt_status lt_mixture_plan(lt_mixture *mixture, const double *weights, int sources, const char *key) {
    mixture->sources = sources;
    memset(mixture->shifted, 0, sizeof mixture->shifted);
    if (sources == 1) return LT_OK; /* every item is its: no pattern is looked at */
    round_weights(weights, sources, mixture->count);
    double total = 0;
    for (int i = 0; i < sources; i++) total += weights[i];
    for (int i = 0; i < sources; i++)
        if (mixture->count[i] == 0)
            return lt_fail(LT_BAD_INPUT,
                           "%s: weight %g of source %d is %g of all %d together (%g), expected at least 1 of "
                           "%d samples; raise it or leave the source out",
                           key, weights[i], i + 1, weights[i] / total, sources, total, LT_MIXTURE_PERIOD);
    arrange(mixture);
    return LT_OK;
}

/* What the pattern gives `source` of its first `item` items. */
static int64_t count_before(const lt_mixture *mixture, int source, int64_t item) {
    int64_t count = item / LT_MIXTURE_PERIOD * mixture->count[source];
    for (int64_t place = item % LT_MIXTURE_PERIOD - 1; place >= 0; place--)
        if (mixture->source[place] == source) return count + mixture->before[place] + 1;
    return count;
}

int64_t lt_mixture_resume(lt_mixture *mixture, const int64_t *consumed) {
    int64_t item = 0;
    for (int i = 0; i < mixture->sources; i++) item += consumed[i];
    if (mixture->sources == 1) return item;
    for (int i = 0; i < mixture->sources; i++)
        mixture->shifted[i] = consumed[i] - count_before(mixture, i, item);
    return item;
}

int lt_mixture_locate(const lt_mixture *mixture, int64_t item, int64_t *own) {
    *own = item;
    if (mixture->sources == 1) return 0;
    const int64_t place = item % LT_MIXTURE_PERIOD;
    const int source = mixture->source[place];
    *own =
        mixture->shifted[source] + item / LT_MIXTURE_PERIOD * mixture->count[source] + mixture->before[place];
    return source;
}

int64_t lt_mixture_consumed(const lt_mixture *mixture, int source, int64_t item) {
    if (mixture->sources == 1) return item;
    return mixture->shifted[source] + count_before(mixture, source, item);
}

static lt_shuffle shuffle_of(const lt_mixture *mixture, int source) {
    return (lt_shuffle){mixture->shuffle.shuffle, mixture->shuffle.seed + (uint64_t)source};
}

lt_status lt_mixture_read(const lt_mixture *mixture, int64_t item, int32_t *tokens, int *source,
                          int64_t *epoch) {
    int64_t own;
    *source = lt_mixture_locate(mixture, item, &own);
    const lt_shuffle shuffle = shuffle_of(mixture, *source);
    return lt_dataset_read_item(mixture->dataset[*source], &shuffle, own, tokens, epoch);
}

lt_status lt_mixture_epoch(const lt_mixture *mixture, int source, int64_t item, int32_t *scratch,
                           int64_t *epoch) {
    const int64_t consumed = lt_mixture_consumed(mixture, source, item);
    const int64_t samples = lt_dataset_samples(mixture->dataset[source]);
    *epoch = consumed > 0 && samples > 0 ? (consumed - 1) / samples : 0;
    if (consumed == 0 || samples > 0) return LT_OK;
    const lt_shuffle shuffle = shuffle_of(mixture, source);
    return lt_dataset_read_item(mixture->dataset[source], &shuffle, consumed - 1, scratch, epoch);
}

void lt_mixture_stop(const lt_mixture *mixture, bool stop) {
    for (int i = 0; i < mixture->sources; i++) lt_dataset_stop(mixture->dataset[i], stop);
}
