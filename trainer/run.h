/* A training run: everything that the parts of `lazytrain train` share. trainer/setup.c makes it,
 * trainer/train.c drives it. Functions here are collective unless they say otherwise. */
#ifndef LT_TRAINER_RUN_H
#define LT_TRAINER_RUN_H

#include "checkpoints/checkpoint.h"
#include "comm/device.h"
#include "comm/grid.h"
#include "comm/reducer.h"
#include "data/loader.h"
#include "model/step.h"
#include "trainer/arguments.h"
#include "trainer/config.h"
#include "trainer/interval.h"
#include "trainer/metrics.h"
#include "trainer/signals.h"

#include <limits.h>

/* One validation set: neighbouring sources of one name. */
typedef struct lt_validation_set {
    char *name; /* owned; NULL: the only one, unnamed */
    lt_dataset *dataset;
} lt_validation_set;

typedef struct lt_background lt_background;
typedef struct lt_zero lt_zero;

/* Host memory that exchanges of a GPU's arrays go through: trainer/staging.h. */
typedef struct lt_staging {
    float *flat;  /* as the flat arrays of the model */
    void *packed; /* as they lie on the GPU */
    void *sums;   /* float32 */
    size_t packed_bytes, sums_bytes;
} lt_staging;

typedef struct lt_run {
    lt_grid grid;
    lt_train_arguments arguments;
    lt_config config;
    char *config_text;       /* resolved YAML, as checkpoints keep it */
    lt_tokenizer *tokenizer; /* of data.tokenizer; NULL: none */
    lt_provenance provenance;
    lt_layout *layout; /* of checkpoints; rank 0; else NULL */

    lt_device *device;
    double peak_gflops;                   /* of this rank: what utilisation is against; 0: not known */
    char device_text[512];                /* for the banner */
    const struct lt_cuda_functions *cuda; /* of the plugin, where it was opened; else NULL */
    lt_comm_device network; /* where the device's elements lie, and what carries them; trainer/network.h */
    bool staged;            /* it can carry nothing on the device, so that all goes by way of the host */
    char network_text[320]; /* for the banner */
    lt_registry registry;   /* of the whole model, as checkpoints have it */
    lt_tensor_group group;  /* trainer/group.h */
    lt_model_options model_options;
    lt_model *model;
    lt_zero *zero;       /* trainer/zero.h; NULL: every rank has all moments */
    lt_reducer *reducer; /* of gradients, over data ranks */
    lt_staging staging;

    lt_mixture mixture; /* of data.train: its datasets are this run's */
    lt_data_identity identity;
    lt_loader *loader;
    int validation_sets;
    lt_validation_set validation[LT_MAX_SOURCES];

    int64_t micro_batches;                       /* M, of the global batch */
    int64_t own_lanes, own_batches, first_batch; /* of this rank: lanes, micro-batches, number of the first */

    char resumed_from[PATH_MAX];          /* checkpoint; empty: a fresh run */
    int64_t first_step;                   /* the first one that this run computes */
    int64_t step;                         /* updates done */
    int64_t samples, tokens;              /* consumed by them */
    int64_t consumed[LT_MIXTURE_SOURCES]; /* samples of each source when the run went on */
    bool folder_locked;                   /* rank 0 */
    size_t made_log, made_folder;         /* of log.dir, checkpoint.dir: for lt_folder_unmake(); rank 0 */
    bool opened;                          /* lt_run_open() succeeded */
    bool owes_validation;                 /* of `step`: the run before was stopped in it */
    bool error_shared;                    /* the last error is known to all ranks */
    lt_metrics *metrics;                  /* rank 0; else NULL */

    int64_t checkpoint_bytes; /* about, of a file */
    size_t snapshot_bytes;
    void *snapshot;            /* checkpoint.async: this rank's share of a checkpoint; else NULL */
    lt_background *background; /* trainer/background.h; NULL where snapshot is */

    lt_interval interval; /* of the steps since the last logged one */
    float *tensor_memory; /* trainer/tensors.h */
    double *step_workspace;
    double *evaluation_sums;                        /* one a sample */
    int32_t *evaluation_memory, *evaluation_sample; /* a micro-batch; a sample */
    lt_tokens diagnostic_tokens; /* a copy of the global batch's first micro-batch; on diagnostic steps, data
                                    rank 0 */
    int32_t *diagnostic_memory;
    double *statistics;  /* [layers, heads, LT_STATISTICS] */
    double *taus;        /* [heads], of a layer */
    double *layer_means; /* [4, layers] */
} lt_run;

/* Makes a run ready for its first step: config shared, data opened, memory checked, folder taken, checkpoint
 * chosen and loaded. Nothing outside is touched before everything that can be refused has been checked. */
lt_status lt_run_open(lt_run *run);
void lt_run_close(lt_run *run);

/* Prints what a person wants to see before the first step. Rank 0 prints; collective for what it gathers. */
lt_status lt_run_banner(lt_run *run);

/* Lays checkpoints out, for lt_run_save(). Local, rank 0; before the model takes its memory. */
lt_status lt_run_plan_saves(lt_run *run);

/* Grants the watchdog's patience (beyond train.stall_timeout_s) for reading or writing a checkpoint, a slow
 * disk's 20 MB/s assumed. lt_watchdog_grant(0) ends it. Local. */
void lt_run_grant_transfer(const lt_run *run);

/* LT_IO, and a line that says so: some rank's device has failed, and nothing can be saved any more. */
lt_status lt_run_check_device(lt_run *run);

/* Writes the checkpoint of run->step, after one that is under way: metrics first, then the file, then old
 * ones go. A failure is tried once more. */
lt_status lt_run_save(lt_run *run);

/* What a checkpoint of run->step holds beside the tensors (strings stay the run's), and where its tensors
 * come from and go to. Local. */
void lt_run_header(const lt_run *run, lt_checkpoint_header *header);
lt_tensor_access lt_run_tensors(lt_run *run);

/* Whether step `step` is followed by a validation. Local. */
bool lt_run_validation_is_due(const lt_run *run, int64_t step);

/* Mean loss over each validation set, to log and metrics. Where some rank's `wants_to_stop(context)` becomes
 * true it is left in the middle: nothing is written and `stopped` is true on all ranks; the run that goes on
 * from the checkpoint of this step finds that it owes the validation. */
lt_status lt_run_validate(lt_run *run, bool (*wants_to_stop)(void *context), void *context, bool *stopped);

/* Means over layers and heads of the attention statistics of run->diagnostic_tokens with the present weights.
 * Arrays of `diagnostics` live until the next call. Collective on the tensor group of data rank 0. */
lt_status lt_run_diagnose(lt_run *run, lt_metrics_diagnostics *diagnostics);

/* The path of checkpoint `step` in the run's folder. Local. */
void lt_run_checkpoint_path(const lt_run *run, int64_t step, char *path, size_t size);

/* Where the model keeps tensors of a checkpoint's kind. Local. */
static inline lt_array lt_array_of(lt_tensor_kind kind) {
    switch (kind) {
    case LT_TENSOR_FIRST_MOMENT:
        return LT_ARRAY_FIRST_MOMENT;
    case LT_TENSOR_SECOND_MOMENT:
        return LT_ARRAY_SECOND_MOMENT;
    default:
        return LT_ARRAY_PARAMETERS;
    }
}

/* Seconds on a clock that only goes forward. Local. */
double lt_now_s(void);

/* Counts the time since `began` as one in which this rank waited for an exchange. Local. */
static inline void lt_run_waited(lt_run *run, double began) {
    const double ms = 1e3 * (lt_now_s() - began);
    run->interval.comm_wait_ms += ms;
    run->interval.comm_ms += ms;
}

/* Makes a status that one rank alone may have the same on all ranks, message included. An error that passed
 * through here is known to all ranks; any other one is this rank's alone, and the top must abort for it. */
lt_status lt_run_share(lt_run *run, lt_status mine);

#endif
