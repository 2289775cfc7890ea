#include "trainer/zero.h"

#include "comm/reduce.h"

#include <stdlib.h>

struct lt_zero {
    int shares;
    int64_t *cuts; /* [shares + 1] */
    int *ranks;    /* [shares]: the data rank that has it */
};

lt_status lt_zero_create(lt_run *run) {
    const int shares = run->grid.data_ranks;
    if (run->config.parallel.zero == 0 || shares == 1) return LT_OK;
    lt_zero *zero = run->zero = calloc(1, sizeof *zero);
    if (zero == NULL) return lt_fail(LT_IO, "no memory for the shares of the optimiser");
    zero->shares = shares;
    zero->cuts = calloc((size_t)shares + 1, sizeof *zero->cuts);
    zero->ranks = calloc((size_t)shares, sizeof *zero->ranks);
    if (zero->cuts == NULL || zero->ranks == NULL)
        return lt_fail(LT_IO, "no memory for the shares of %d ranks", shares);
    lt_grid other = run->grid;
    for (int i = 0; i <= shares; i++)
        zero->cuts[i] = lt_registry_cut(lt_model_registry(run->model), i, shares);
    for (other.data_rank = 0; other.data_rank < shares; other.data_rank++)
        zero->ranks[lt_reduce_share(&other)] = other.data_rank;
    return LT_OK;
}

void lt_zero_free(lt_run *run) {
    lt_zero *zero = run->zero;
    if (zero == NULL) return;
    free(zero->ranks);
    free(zero->cuts);
    free(zero);
}

const int64_t *lt_zero_cuts(const lt_run *run) {
    return run->zero->cuts;
}

/* The last share that begins at or before the element has it, as those of the same cut before are empty. */
int lt_zero_holder(const lt_run *run, int64_t element, int64_t *end) {
    const lt_zero *zero = run->zero;
    int low = 0, high = zero->shares;
    while (high - low > 1) {
        const int middle = (low + high) / 2;
        if (zero->cuts[middle] <= element)
            low = middle;
        else
            high = middle;
    }
    *end = zero->cuts[low + 1];
    return zero->ranks[low];
}

bool lt_zero_holds(const lt_run *run, int64_t first, int64_t end) {
    const int own = run->model_options.share;
    return first < run->zero->cuts[own + 1] && end > run->zero->cuts[own];
}
