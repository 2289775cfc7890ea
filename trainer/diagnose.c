#include "trainer/run.h"

#include "comm/tensor.h"
#include "comm/watchdog.h"

#include <string.h>

/* A head whose mean weight on the first visible token is above this is a sink ("When Attention Sink
 * Emerges"). */
static const double SINK_THRESHOLD = 0.3;

static double ratio(double part, double whole) {
    return whole > 0 ? part / whole : 0;
}

/* The tau of all heads of a layer, to run->taus. */
static lt_status gather_taus(lt_run *run, int64_t layer) {
    char name[96];
    float tau[1024];
    snprintf(name, sizeof name, "model.layers.%lld.attn.tau", (long long)layer);
    const lt_parameter *held = lt_registry_find(lt_model_registry(run->model), name);
    double *own = run->taus + run->grid.tensor_rank * held->count;
    for (int64_t first = 0, count; first < held->count; first += count) {
        count = held->count - first < 1024 ? held->count - first : 1024;
        LT_CHECK(lt_model_get(run->model, LT_ARRAY_PARAMETERS, held, first, count, tau));
        for (int64_t head = 0; head < count; head++) own[first + head] = (double)tau[head];
    }
    return lt_tensor_all_gather_doubles(&run->grid, run->taus, held->count);
}

lt_status lt_run_diagnose(lt_run *run, lt_metrics_diagnostics *diagnostics) {
    const lt_model_shape *shape = &run->model_options.shape;
    const int64_t layers = shape->layers, heads = shape->heads;
    lt_watchdog_tick("diagnostics", run->step);
    memset(run->statistics, 0, sizeof(double) * (size_t)(layers * heads * LT_STATISTICS));
    LT_CHECK(lt_model_statistics(run->model, &run->diagnostic_tokens, run->statistics));

    double *by_layer = run->layer_means; /* sparsity, sink, mass, tau: `layers` values each */
    memset(by_layer, 0, sizeof(double) * (size_t)(4 * layers));
    double tiles = 0, live_tiles = 0, sink_heads = 0;
    for (int64_t layer = 0; layer < layers; layer++) {
        for (int64_t head = 0; head < heads; head++) {
            const double *s = run->statistics + (layer * heads + head) * LT_STATISTICS;
            const double sink = ratio(s[LT_STAT_SINK], s[LT_STAT_SINK_ROWS]);
            by_layer[layer] += ratio(s[LT_STAT_ZEROS], s[LT_STAT_VISIBLE]) / (double)heads;
            by_layer[layers + layer] += sink / (double)heads;
            by_layer[2 * layers + layer] += ratio(s[LT_STAT_MASS], s[LT_STAT_ROWS]) / (double)heads;
            sink_heads += sink > SINK_THRESHOLD;
            tiles += s[LT_STAT_TILES];
            live_tiles += s[LT_STAT_LIVE_TILES];
        }
        if (shape->attention != LT_ATTENTION_LAZY) continue;
        LT_CHECK(gather_taus(run, layer));
        for (int64_t head = 0; head < heads; head++)
            by_layer[3 * layers + layer] += run->taus[head] / (double)heads;
    }
    *diagnostics = (lt_metrics_diagnostics){.sink_heads = sink_heads / (double)(layers * heads),
                                            .live_tiles = ratio(live_tiles, tiles),
                                            .layers = layers,
                                            .layer_sparsity = by_layer,
                                            .layer_sink = by_layer + layers,
                                            .layer_mass = by_layer + 2 * layers,
                                            .layer_tau = by_layer + 3 * layers};
    for (int64_t layer = 0; layer < layers; layer++) {
        diagnostics->sparsity += by_layer[layer] / (double)layers;
        diagnostics->sink += by_layer[layers + layer] / (double)layers;
        diagnostics->mass += by_layer[2 * layers + layer] / (double)layers;
        diagnostics->tau_mean += by_layer[3 * layers + layer] / (double)layers;
    }
    return LT_OK;
}
