/* Several datasets with weights as one endless order (contracts.md, "Order"): a pattern of LT_MIXTURE_PERIOD
 * items, repeated for ever, says which source item g takes; the items of one source are that source's own
 * endless order, with epochs of its own. The weights are rounded to whole items of a period by largest
 * remainders, so any LT_MIXTURE_PERIOD neighbouring items hold every source within one item of its weight;
 * within the period each source stays less than one item off its share at any place (Tijdeman's order). The
 * source of an item, and which of that source's items it is, take O(1) time; nothing to save but the items
 * consumed by source.
 *
 * Local: nothing here knows other ranks. Reading is thread-safe.
 */
#ifndef LT_DATA_MIXTURE_H
#define LT_DATA_MIXTURE_H

#include "data/dataset.h"

enum { LT_MIXTURE_PERIOD = 1000, LT_MIXTURE_SOURCES = 64 };

typedef struct lt_mixture {
    int sources;
    lt_dataset *dataset[LT_MIXTURE_SOURCES]; /* opened and closed by the caller */
    lt_shuffle shuffle;                      /* of source 0; source i has the seed i further on */

    int32_t count[LT_MIXTURE_SOURCES];   /* items of a period, together LT_MIXTURE_PERIOD */
    uint8_t source[LT_MIXTURE_PERIOD];   /* of each place in a period */
    uint16_t before[LT_MIXTURE_PERIOD];  /* items of that source at earlier places */
    int64_t shifted[LT_MIXTURE_SOURCES]; /* added to what the pattern alone would have consumed: not 0 where
                                            the weights changed under way; together 0 */
} lt_mixture;

/* Fills the pattern for `sources` weights (NULL: one source), with nothing consumed. LT_BAD_INPUT, which
 * begins with `key`: a weight that gets no item of a period. */
lt_status lt_mixture_plan(lt_mixture *mixture, const double *weights, int sources, const char *key);

/* Goes on after `consumed` [sources] items, each source where it was, whatever pattern led there. Returns the
 * next item of the mixture: the sum. */
int64_t lt_mixture_resume(lt_mixture *mixture, const int64_t *consumed);

/* The source of item `item`, and which item of that source it is. */
int lt_mixture_locate(const lt_mixture *mixture, int64_t item, int64_t *own);

/* How many items of `source` lie before item `item`. */
int64_t lt_mixture_consumed(const lt_mixture *mixture, int source, int64_t item);

/* Copies item `item` to `tokens` [T + 1], and says its source and its epoch there. lt_dataset_read_item() has
 * the statuses. */
lt_status lt_mixture_read(const lt_mixture *mixture, int64_t item, int32_t *tokens, int *source,
                          int64_t *epoch);

/* The epoch, from 0, of the last item of `source` before item `item`; 0 where there is none. Where the
 * samples of the source are not known it reads that item to `scratch` [T + 1]. */
lt_status lt_mixture_epoch(const lt_mixture *mixture, int source, int64_t item, int32_t *scratch,
                           int64_t *epoch);

/* lt_dataset_stop() for all sources. */
void lt_mixture_stop(const lt_mixture *mixture, bool stop);

#endif
