#include "trainer/setup.h"

#include "comm/reduce.h"

#include "model/cuda/cuda.h"
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

lt_reduction lt_run_reduction(const lt_run *run) {
    const bool mpi_on_gpus = run->network.on_main_thread && run->network.network == NULL;
    return strcmp(run->config.parallel.reduction, "fast") == 0 && !mpi_on_gpus ? LT_REDUCTION_FAST
                                                                               : LT_REDUCTION_TREE;
}

/* `cuts`: anything where the optimiser is shared out, and before the reducer is opened; else NULL. */
static lt_reducer_options reducer_options(const lt_run *run, int64_t elements, const int64_t *cuts) {
    return (lt_reducer_options){.reduction = lt_run_reduction(run),
                                .count = elements,
                                .cuts = cuts,
                                .device = run->network.on_main_thread ? run->network : (lt_comm_device){0}};
}

lt_reducer_options lt_run_reducer_options(const lt_run *run) {
    return reducer_options(run, lt_model_registry(run->model)->elements,
                           run->zero != NULL ? lt_zero_cuts(run) : NULL);
}

static double reducer_bytes(const lt_run *run, const lt_memory_plan *plan) {
    const lt_reducer_options options =
        reducer_options(run, plan->elements, run->config.parallel.zero > 0 ? &plan->elements : NULL);
    return (double)lt_reducer_bytes(&run->grid, &options);
}

/* Bytes that a model of these options needs where it is computed. Far beyond any machine a plan's sizes would
 * overflow: there an estimate does, the MLP's kept activations. */
static double needed_bytes(const lt_run *run, const lt_model_options *options) {
    const double kept = 8.0 * (double)options->micro_batch * (double)options->sequence_length *
                        (double)options->shape.layers *
                        (double)(options->shape.intermediate + options->shape.hidden);
    if (kept > 0x1p56) return kept;
    const lt_memory_plan plan = lt_model_plan(options, run->device);
    return (double)plan.parameters + (double)plan.optimizer + (double)plan.gradients +
           (double)plan.activations + (double)plan.scratch + (run->staged ? 0 : reducer_bytes(run, &plan)) +
           (run->device->in_host_memory ? snapshot_bytes(run, &plan) : 0);
}

/* Halves `*size`, which is a field of `options`, until the model fits; false if one is still too many.
 * Micro-batches go on dividing what they divided. */
static bool fits_with_less(const lt_run *run, lt_model_options *options, int64_t *size, double available) {
    const int64_t whole = size == &options->micro_batch ? *size : 0;
    while (needed_bytes(run, options) > available) {
        if (*size <= 1) return false;
        *size /= 2;
        while (whole % *size != 0) --*size;
    }
    return true;
}

/* What would fit: recomputation, a smaller micro-batch, both, then shorter samples, then fewer layers. */
static bool find_what_fits(const lt_run *run, double available, lt_model_options *less) {
    const lt_model_options *options = &run->model_options;
    *less = *options;
    for (; less->recompute < LT_RECOMPUTE_FULL;) {
        less->recompute++;
        if (needed_bytes(run, less) <= available) return true;
    }
    *less = *options;
    if (fits_with_less(run, less, &less->micro_batch, available)) return true;
    *less = *options;
    less->recompute = LT_RECOMPUTE_FULL;
    if (fits_with_less(run, less, &less->micro_batch, available)) return true;
    less->recompute = options->recompute;
    if (fits_with_less(run, less, &less->sequence_length, available)) return true;
    less->sequence_length = options->sequence_length;
    return fits_with_less(run, less, &less->shape.layers, available);
}

/* Names the settings in which `less` differs from the run's. More micro-batches may mean more lanes, each
 * doubling of which takes another buffer of gradients, where the config does not say how many. */
static void name_settings(const lt_run *run, const lt_model_options *less, char *text, size_t size) {
    const lt_model_options *options = &run->model_options;
    const int64_t lanes = run->config.parallel.lanes;
    const bool less_rows = less->micro_batch != options->micro_batch;
    size_t used = 0;
    const struct {
        bool differs;
        const char *key;
        int64_t value;
    } settings[] = {
        {less_rows, "train.micro_batch", less->micro_batch},
        {less_rows && lanes < LT_USUAL_LANES, "parallel.lanes", lanes},
        {less->sequence_length != options->sequence_length, "data.seq_len", less->sequence_length},
        {less->shape.layers != options->shape.layers, "model.num_layers", less->shape.layers}};
    if (less->recompute != options->recompute)
        used += (size_t)snprintf(text, size, "train.recompute: %s",
                                 less->recompute == LT_RECOMPUTE_FULL ? "full" : "attention");
    for (size_t i = 0; i < sizeof settings / sizeof *settings; i++)
        if (settings[i].differs)
            used += (size_t)snprintf(text + used, size - used, "%s%s: %lld", used > 0 ? ", " : "",
                                     settings[i].key, (long long)settings[i].value);
    snprintf(text + used, size - used, " would fit");
}

/* "12.3 MiB" */
typedef struct amount {
    char text[32];
} amount;

static amount amount_of(double bytes) {
    static const char *const units[] = {"KiB", "MiB", "GiB"};
    int unit = 0;
    for (bytes /= 1024; bytes >= 1024 && unit < 2; bytes /= 1024) unit++;
    amount result;
    snprintf(result.text, sizeof result.text, "%.1f %s", bytes, units[unit]);
    return result;
}

/* Refuses a model on a GPU whose host has no room for what is copied there. */
static lt_status check_host(const lt_run *run) {
    const lt_memory_plan plan = lt_model_plan(&run->model_options, run->device);
    const bool staged = run->staged && run->grid.data_ranks > 1;
    const double available = lt_memory_available("") / run->grid.local_ranks,
                 needed = snapshot_bytes(run, &plan) +
                          (staged ? (double)plan.parameters + reducer_bytes(run, &plan) : 0);
    if (available == 0 || needed <= available) return LT_OK; /* a host may not say */
    return lt_fail(LT_BAD_INPUT,
                   "%s: beside its GPU a rank needs %s of the host's memory for copies%s and %s are free: %s "
                   "are missing; start fewer ranks a host%s",
                   run->arguments.config_path, amount_of(needed).text, staged ? " and exchanges" : "",
                   amount_of(available).text, amount_of(needed - available).text,
                   run->config.checkpoint.async ? ", or set checkpoint.async: false" : "");
}

/* What this rank may take of the memory where it computes: of a GPU, what its network has left, but for a
 * part of the whole that is the driver's and the libraries', for kernels that they load when they are first
 * called. 0: a host may not say. */
static lt_status find_available(const lt_run *run, double *available) {
    lt_cuda_description description;
    *available = lt_memory_available("") / run->grid.local_ranks;
    if (run->device->in_host_memory) return LT_OK;
    LT_CHECK(run->cuda->device_describe(run->device, &description));
    const size_t kept_back = description.memory / 256;
    *available = description.available > kept_back ? (double)(description.available - kept_back) : 0;
    return LT_OK;
}

/* Refuses a model that does not fit the memory where it is computed. */
lt_status lt_run_check_memory(lt_run *run) {
    const bool host = run->device->in_host_memory;
    const double needed = needed_bytes(run, &run->model_options);
    double available;
    LT_CHECK(find_available(run, &available));
    if ((host && available == 0) || needed <= available) {
        run->checkpoint_bytes = 3 * (int64_t)sizeof(float) * run->registry.elements +
                                (1 << 20); /* weights, two moments, some metrics */
        return host ? LT_OK : check_host(run);
    }
    lt_model_options less;
    char advice[160];
    if (find_what_fits(run, available, &less))
        name_settings(run, &less, advice, sizeof advice);
    else
        snprintf(advice, sizeof advice, "choose a smaller model%s", host ? " or fewer ranks a host" : "");
    return lt_fail(LT_BAD_INPUT, "%s: this model needs %s a rank and %s are free%s: %s are missing; %s",
                   run->arguments.config_path, amount_of(needed).text, amount_of(available).text,
                   host ? "" : " on the GPU", amount_of(needed - available).text, advice);
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
