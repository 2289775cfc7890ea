/* Which widths of tensor parallelism fit a model and its ranks. */
#include "trainer/config.h"

#include <inttypes.h>
#include <stdio.h>

/* What of model or ranks `width` does not fit, as text; false if it fits. */
static bool misfits(const lt_config *config, int64_t ranks, int64_t width, char *reason, size_t size) {
    const int64_t heads = config->model.num_heads, key_heads = config->model.num_kv_heads;
    const int64_t intermediate = config->model.intermediate_size;
    if (ranks % width != 0)
        snprintf(reason, size, "a divisor of the number of ranks %" PRId64, ranks);
    else if (heads % width != 0)
        snprintf(reason, size, "a divisor of model.num_heads %" PRId64, heads);
    else if (intermediate % width != 0)
        snprintf(reason, size, "a divisor of model.intermediate_size %" PRId64, intermediate);
    else if (key_heads % width != 0 && width % key_heads != 0)
        snprintf(reason, size, "a divisor or a multiple of model.num_kv_heads %" PRId64, key_heads);
    else
        return false;
    return true;
}

lt_status lt_config_check_width(const lt_config *config, int64_t ranks) {
    char reason[128], other[128], fits[256] = "";
    size_t used = 0;
    if (!misfits(config, ranks, config->parallel.tensor, reason, sizeof reason)) return LT_OK;
    for (int64_t width = 1; width <= ranks; width++)
        if (used < sizeof fits && !misfits(config, ranks, width, other, sizeof other))
            used +=
                (size_t)snprintf(fits + used, sizeof fits - used, "%s%" PRId64, used > 0 ? ", " : "", width);
    return lt_fail(LT_BAD_INPUT,
                   "parallel.tensor: found %" PRId64 ", expected %s; widths that fit this model and %" PRId64
                   " rank%s: %s",
                   config->parallel.tensor, reason, ranks, ranks == 1 ? "" : "s", fits);
}
