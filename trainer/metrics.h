/* `log.dir/metrics.jsonl`: one JSON object a line (contracts.md, "Metrics"). Rank 0 only; local. */
#ifndef LT_TRAINER_METRICS_H
#define LT_TRAINER_METRICS_H

#include "comm/status.h"

#include <stdint.h>

/* What diagnostic steps add: means over layers and heads, and per layer. Arrays of `layers` values, owned by
 * the caller; NULL arrays are left out. */
typedef struct lt_metrics_diagnostics {
    double sparsity;   /* share of visible weights that are exactly 0 */
    double sink;       /* mean weight on the first visible token, rows with more than one visible key */
    double sink_heads; /* share of heads whose sink is over 0.3 */
    double mass;       /* mean sum of a row's weights */
    double tau_mean;
    double live_tiles; /* share of visited tiles with a weight above 0 */
    int64_t layers;
    const double *layer_sparsity, *layer_sink, *layer_mass, *layer_tau;
} lt_metrics_diagnostics;

/* Where one source of data.train stands after the step. */
typedef struct lt_metrics_source {
    int64_t epoch;     /* from 0: of the last sample taken from it */
    int64_t tokens;    /* taken from it so far */
    int64_t documents; /* document tokens among the inputs of this step's global batch; -1: there is none */
} lt_metrics_source;

typedef struct lt_metrics_step {
    int64_t step, tokens;
    double loss, learning_rate, gradient_norm;
    double step_ms, tokens_per_s, tokens_per_s_per_rank;
    double data_wait_ms;
    double comm_ms, comm_wait_ms; /* while exchanges with other ranks were under way; of it, what computing
                                     waited for; all three maxima over ranks */
    int64_t slowest_rank;
    double slowest_excess_ms; /* a step over the median rank */
    double flops_utilisation;
    int source_count;
    const lt_metrics_source *sources;          /* one: its epoch and documents; several: the least epoch, all
                                                  documents,          and an array */
    const lt_metrics_diagnostics *diagnostics; /* NULL on other steps */
} lt_metrics_step;

typedef struct lt_metrics lt_metrics;

/* Opens DIRECTORY/metrics.jsonl for appending after dropping every line past `last_step` and a last line that
 * is torn or no JSON object, by writing aside and renaming. Lines further up that cannot be read stay, with a
 * warning. `last_step` 0 empties a file of an older run. The folder exists (lt_folder_prepare). LT_BAD_INPUT:
 * it cannot be written, or the file is none; LT_IO: it cannot be read or written aside. */
lt_status lt_metrics_open(const char *directory, int64_t last_step, lt_metrics **metrics);

/* The lines of validation losses of `last_step` that the file holds from before. */
int64_t lt_metrics_validations(const lt_metrics *metrics);

/* Whether DIRECTORY/metrics.jsonl is a regular file or absent; changes nothing. LT_BAD_INPUT. */
lt_status lt_metrics_check(const char *directory);

/* Append one line, with a single write. Numbers have 9 significant digits; what is not finite becomes null.
 * LT_IO with the system's reason; the file then ends with the line before. `name` NULL: the one unnamed
 * validation set. */
lt_status lt_metrics_write_step(lt_metrics *metrics, const lt_metrics_step *values);
lt_status lt_metrics_write_validation(lt_metrics *metrics, int64_t step, const char *name, double loss);

/* fsync: before a checkpoint is published. A line that could not be appended is tried once more first:
 * without it no checkpoint of its step may be published, and the run that goes on from an older one writes it
 * anew. */
lt_status lt_metrics_sync(lt_metrics *metrics);

/* Closes and frees; NULL is fine. */
void lt_metrics_close(lt_metrics *metrics);

#endif
