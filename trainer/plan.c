#include "trainer/setup.h"

#include "comm/reduce.h"

#include "trainer/background.h"
#include "trainer/memory.h"
#include "trainer/tensors.h"
#include "trainer/zero.h"

#include <stdlib.h>
#include <string.h>

/* How many ranks could run `lanes` lanes: 1, 2, 4, ... data ranks of `width` each, as text. */
static void list_ranks(int64_t lanes, int width, char *text, size_t size) {
    size_t used = 0;
    text[0] = '\0';
    for (int64_t ranks = 1; ranks <= lanes && used < size; ranks *= 2)
        used += (size_t)snprintf(text + used, size - used, "%s%lld", ranks > 1 ? ", " : "",
                                 (long long)(ranks * width));
}

/* What config and grid mean together. */
lt_status lt_run_divide_work(lt_run *run) {
    const lt_config *config = &run->config;
    const int64_t lanes = config->parallel.lanes, ranks = run->grid.data_ranks;
    run->micro_batches = config->train.global_batch / config->train.micro_batch;
    run->own_lanes = lanes / ranks;
    run->own_batches = run->micro_batches / ranks;
    run->first_batch = run->grid.data_rank * run->own_batches;
    if (lanes % ranks != 0) {
        char choices[128];
        list_ranks(lanes, run->grid.tensor_ranks, choices, sizeof choices);
        return lt_fail(
            LT_BAD_INPUT,
            "%s: %lld data ranks cannot share parallel.lanes %lld (of %lld micro-batches) evenly; start %s "
            "ranks, or choose train.global_batch and train.micro_batch with more lanes",
            run->arguments.config_path, (long long)ranks, (long long)lanes, (long long)run->micro_batches,
            choices);
    }
    return LT_OK;
}

static int log2_of(int64_t power_of_two) {
    int log = 0;
    while (power_of_two > 1) power_of_two /= 2, log++;
    return log;
}

static lt_recompute recompute_of(const lt_config *config) {
    if (strcmp(config->train.recompute, "full") == 0) return LT_RECOMPUTE_FULL;
    return strcmp(config->train.recompute, "attention") == 0 ? LT_RECOMPUTE_ATTENTION : LT_RECOMPUTE_NONE;
}

void lt_run_fill_model_options(lt_run *run) {
    run->model_options = (lt_model_options){
        .shape = lt_config_model_shape(&run->config),
        .sequence_length = run->config.data.seq_len,
        .micro_batch = run->config.train.micro_batch,
        .recompute = recompute_of(&run->config),
        .training = true,
        .gradient_buffers = 1 + log2_of(run->own_lanes),
        .loss_slots = run->own_batches * run->config.train.micro_batch,
        .group = run->grid.tensor_ranks > 1 ? &run->group : NULL,
    };
    if (run->config.parallel.zero > 0) {
        run->model_options.share = lt_reduce_share(&run->grid);
        run->model_options.shares = run->grid.data_ranks;
    }
}

/* About what the copy of this rank's share of a checkpoint takes, on the host. */
static double snapshot_bytes(const lt_run *run, const lt_memory_plan *plan) {
    return run->config.checkpoint.async ? 3 * (double)plan->parameters / run->grid.data_ranks : 0;
}

/* Bytes that a model of these options needs. Far beyond any machine a plan's sizes would overflow: there an
 * estimate does, the MLP's kept activations. */
static double needed_bytes(const lt_run *run, const lt_model_options *options) {
    const double kept = 8.0 * (double)options->micro_batch * (double)options->sequence_length *
                        (double)options->shape.layers *
                        (double)(options->shape.intermediate + options->shape.hidden);
    if (kept > 0x1p56) return kept;
    const lt_memory_plan plan = lt_model_plan(options, run->device);
    return (double)plan.parameters + (double)plan.optimizer + (double)plan.gradients +
           (double)plan.activations + (double)plan.scratch +
           (run->device->in_host_memory ? snapshot_bytes(run, &plan) : 0);
}

/* Halves `*size`, which is a field of `options`, until the model fits; false if one is still too many. */
static bool fits_with_less(const lt_run *run, lt_model_options *options, int64_t *size, double available) {
    while (needed_bytes(run, options) > available) {
        if (*size <= 1) return false;
        *size /= 2;
    }
    return true;
}

/* What would fit: recomputation, a smaller micro-batch, then shorter samples, then fewer layers too. */
static void advise(const lt_run *run, double available, char *advice, size_t size) {
    const lt_model_options *options = &run->model_options;
    lt_model_options less = *options;
    less.recompute = LT_RECOMPUTE_FULL;
    if (needed_bytes(run, &less) <= available) {
        snprintf(advice, size, "train.recompute: full would fit");
        return;
    }
    less.recompute = options->recompute;
    if (fits_with_less(run, &less, &less.micro_batch, available)) {
        snprintf(advice, size, "train.micro_batch: %lld would fit", (long long)less.micro_batch);
        return;
    }
    if (fits_with_less(run, &less, &less.sequence_length, available)) {
        snprintf(advice, size, "train.micro_batch: 1 with data.seq_len: %lld would fit",
                 (long long)less.sequence_length);
        return;
    }
    less.sequence_length = options->sequence_length;
    if (fits_with_less(run, &less, &less.shape.layers, available))
        snprintf(advice, size, "train.micro_batch: 1 with model.num_layers: %lld would fit",
                 (long long)less.shape.layers);
    else
        snprintf(advice, size, "choose a smaller model%s",
                 run->device->in_host_memory ? " or fewer ranks a host" : "");
}

/* Refuses a model on a GPU whose host has no room for what is copied there. */
static lt_status check_host(const lt_run *run) {
    const lt_memory_plan plan = lt_model_plan(&run->model_options, run->device);
    const bool staged = run->staged && run->grid.data_ranks > 1;
    const double available = lt_memory_available("") / run->grid.local_ranks,
                 needed = snapshot_bytes(run, &plan) + (staged ? (double)plan.parameters : 0);
    if (available == 0 || needed <= available) return LT_OK; /* a host may not say */
    return lt_fail(
        LT_BAD_INPUT,
        "%s: beside its GPU a rank needs %.1f GiB of the host's memory for copies%s and %.1f GiB are free; "
        "start fewer ranks a host%s",
        run->arguments.config_path, needed / 0x1p30, staged ? " and exchanges" : "", available / 0x1p30,
        run->config.checkpoint.async ? ", or set checkpoint.async: false" : "");
}

/* Refuses a model that does not fit the memory where it is computed. */
lt_status lt_run_check_memory(lt_run *run) {
    const bool host = run->device->in_host_memory;
    const double available = host ? lt_memory_available("") / run->grid.local_ranks : run->device_bytes;
    const double needed = needed_bytes(run, &run->model_options);
    if ((host && available == 0) || needed <= available) { /* a host may not say */
        run->checkpoint_bytes = 3 * (int64_t)sizeof(float) * run->registry.elements +
                                (1 << 20); /* weights, two moments, some metrics */
        return host ? LT_OK : check_host(run);
    }
    char advice[160];
    advise(run, available, advice, sizeof advice);
    return lt_fail(LT_BAD_INPUT, "%s: this model needs %.1f GiB a rank and %.1f GiB are free%s; %s",
                   run->arguments.config_path, needed / 0x1p30, available / 0x1p30, host ? "" : " on the GPU",
                   advice);
}

lt_reducer_options lt_run_reducer_options(const lt_run *run) {
    const bool fast = strcmp(run->config.parallel.reduction, "fast") == 0;
    return (lt_reducer_options){.reduction = fast ? LT_REDUCTION_FAST : LT_REDUCTION_TREE,
                                .count = lt_model_registry(run->model)->elements,
                                .cuts = run->zero != NULL ? lt_zero_cuts(run) : NULL,
                                .device = run->network.on_main_thread ? run->network : (lt_comm_device){0}};
}

/* Everything that a step works in, sized once. */
lt_status lt_run_allocate(lt_run *run) {
    const lt_model_options *options = &run->model_options;
    const int64_t layers = options->shape.layers, statistics = layers * options->shape.heads * LT_STATISTICS;
    const int64_t evaluated = run->config.train.eval_batches * run->config.train.global_batch;
    const int64_t batch = 3 * options->micro_batch * options->sequence_length; /* inputs, targets, starts */
    run->tensor_memory = malloc(lt_tensors_bytes(run) + 1);
    run->step_workspace = malloc(sizeof(double) * (size_t)lt_step_workspace(run->model, options->loss_slots));
    run->evaluation_sums = malloc(sizeof(double) * (size_t)(evaluated + 1));
    run->evaluation_memory = malloc(sizeof(int32_t) * (size_t)batch);
    run->evaluation_sample = malloc(sizeof(int32_t) * (size_t)(options->sequence_length + 1));
    run->diagnostic_memory = malloc(sizeof(int32_t) * (size_t)batch);
    run->statistics = malloc(sizeof(double) * (size_t)statistics);
    run->taus = malloc(sizeof(double) * (size_t)options->shape.heads);
    run->layer_means = malloc(sizeof(double) * (size_t)(4 * layers));
    if (run->tensor_memory == NULL || run->step_workspace == NULL || run->evaluation_sums == NULL ||
        run->evaluation_memory == NULL || run->evaluation_sample == NULL || run->diagnostic_memory == NULL ||
        run->statistics == NULL || run->taus == NULL || run->layer_means == NULL)
        return lt_fail(LT_IO, "no memory for the buffers of a training step");
    return run->config.checkpoint.async ? lt_background_create(run) : LT_OK;
}
