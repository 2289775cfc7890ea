#include "trainer/run.h"

#include "checkpoints/folder.h"
#include "comm/log.h"
#include "comm/watchdog.h"
#include "trainer/version.h"

#include <stdlib.h>
#include <string.h>
#include <time.h>

double lt_now_s(void) {
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return (double)time.tv_sec + 1e-9 * (double)time.tv_nsec;
}

lt_status lt_run_share(lt_run *run, lt_status mine) {
    const lt_status status = lt_grid_share_status(&run->grid, mine, NULL);
    run->error_shared = status != LT_OK;
    return status;
}

void lt_run_checkpoint_path(const lt_run *run, int64_t step, char *path, size_t size) {
    snprintf(path, size, "%s/step_%08lld.h5", run->config.checkpoint.dir, (long long)step);
}

/* ---- config
 * ------------------------------------------------------------------------------------------------------ */

/* Reads run->config anew; it stays what it was after an error. */
static lt_status load_config(lt_run *run, const char *kept) {
    lt_config config;
    LT_CHECK(lt_config_load(run->arguments.config_path,
                            &(lt_config_overrides){run->arguments.overrides, run->arguments.override_count},
                            kept, &config));
    lt_config_free(&run->config);
    run->config = config;
    return LT_OK;
}

static bool resumes_by_name(const lt_run *run) {
    return strcmp(run->arguments.resume, "auto") != 0 && strcmp(run->arguments.resume, "none") != 0;
}

/* Whether there may be a checkpoint to go on from: what is unset in the config then follows it. */
static bool may_resume(const lt_run *run) {
    if (strcmp(run->arguments.resume, "none") == 0) return false;
    return resumes_by_name(run) || lt_folder_holds_run(run->config.checkpoint.dir);
}

static lt_status read_config(lt_run *run) {
    LT_CHECK(load_config(run, lt_config_kept_later));
    return may_resume(run) ? LT_OK : load_config(run, NULL);
}

/* Rank 0's config becomes everybody's, as text. */
static lt_status share_config(lt_run *run) {
    const bool first = run->grid.rank == 0;
    free(run->config_text);
    run->config_text = first ? lt_config_print(&run->config) : NULL;
    int64_t size = run->config_text == NULL ? 0 : (int64_t)strlen(run->config_text) + 1;
    LT_CHECK(lt_grid_broadcast(&run->grid, &size, sizeof size, 0));
    if (!first && size > 0) run->config_text = malloc((size_t)size);
    LT_CHECK(
        lt_run_share(run, run->config_text == NULL ? lt_fail(LT_IO, "no memory for the config") : LT_OK));
    LT_CHECK(lt_grid_broadcast(&run->grid, run->config_text, (size_t)size, 0));
    if (first) return lt_run_share(run, LT_OK);
    lt_config_free(&run->config);
    return lt_run_share(run, lt_config_parse(run->config_text, "resolved config", &run->config));
}

/* Which of 1, 2, 4, ... ranks could run `lanes` lanes, as text. */
static void list_ranks(int64_t lanes, char *text, size_t size) {
    size_t used = 0;
    text[0] = '\0';
    for (int64_t ranks = 1; ranks <= lanes && used < size; ranks *= 2)
        used += (size_t)snprintf(text + used, size - used, "%s%lld", ranks > 1 ? ", " : "", (long long)ranks);
}

/* What config and grid mean together. */
static lt_status divide_work(lt_run *run) {
    const lt_config *config = &run->config;
    const int64_t lanes = config->parallel.lanes, ranks = run->grid.data_ranks;
    run->micro_batches = config->train.global_batch / config->train.micro_batch;
    run->own_lanes = lanes / ranks;
    run->own_batches = run->micro_batches / ranks;
    run->first_batch = run->grid.data_rank * run->own_batches;
    if (lanes % ranks != 0) {
        char choices[128];
        list_ranks(lanes, choices, sizeof choices);
        return lt_fail(
            LT_BAD_INPUT,
            "%s: %lld data ranks cannot share parallel.lanes %lld (of %lld micro-batches) evenly; start %s "
            "ranks, or choose train.global_batch and train.micro_batch with more lanes",
            run->arguments.config_path, (long long)ranks, (long long)lanes, (long long)run->micro_batches,
            choices);
    }
    return LT_OK;
}

/* ---- data
 * -------------------------------------------------------------------------------------------------------- */

static lt_status open_sources(const lt_run *run, const lt_config_sources *sources, int first, int count,
                              const char *key, lt_dataset **dataset) {
    const char *patterns[LT_MAX_SOURCES];
    for (int i = 0; i < count; i++) patterns[i] = sources->item[first + i].path;
    return lt_dataset_open(&(lt_dataset_options){.patterns = patterns,
                                                 .pattern_count = count,
                                                 .key = key,
                                                 .tokenizer = run->config.data.tokenizer,
                                                 .sequence_length = run->config.data.seq_len,
                                                 .vocabulary = run->config.model.vocab_size},
                           dataset);
}

static bool same_name(const char *a, const char *b) {
    return (a == NULL) == (b == NULL) && (a == NULL || strcmp(a, b) == 0);
}

static lt_status open_data(lt_run *run) {
    const lt_config_sources *train = &run->config.data.train, *validation = &run->config.data.validation;
    LT_CHECK(open_sources(run, train, 0, train->count, "data.train", &run->dataset));
    for (int first = 0, count; first < validation->count; first += count) {
        lt_validation_set *set = &run->validation[run->validation_sets];
        set->name = validation->item[first].name;
        for (count = 1; first + count < validation->count; count++)
            if (!same_name(validation->item[first + count].name, set->name)) break;
        LT_CHECK(open_sources(run, validation, first, count, "data.validation", &set->dataset));
        run->validation_sets++;
    }
    return LT_OK;
}

/* ---- device and memory
 * ------------------------------------------------------------------------------------------- */

static lt_status open_device(lt_run *run) {
    const int64_t wanted = run->config.train.threads;
    LT_CHECK(lt_cpu_device_create(wanted > 0 ? (int)wanted : run->grid.cores, &run->device));
    return LT_OK;
}

static int log2_of(int64_t power_of_two) {
    int log = 0;
    while (power_of_two > 1) power_of_two /= 2, log++;
    return log;
}

static void fill_model_options(lt_run *run) {
    run->model_options = (lt_model_options){
        .shape = lt_config_model_shape(&run->config),
        .sequence_length = run->config.data.seq_len,
        .micro_batch = run->config.train.micro_batch,
        .training = true,
        .gradient_buffers = 1 + log2_of(run->own_lanes),
        .loss_slots = run->own_batches * run->config.train.micro_batch,
    };
}

/* Bytes that the system can still give, or 0 where it does not say. */
static double available_bytes(void) {
    FILE *file = fopen("/proc/meminfo", "r");
    if (file == NULL) return 0;
    char line[128];
    long long kib = 0;
    while (fgets(line, sizeof line, file) != NULL && sscanf(line, "MemAvailable: %lld kB", &kib) != 1)
        kib = 0;
    fclose(file);
    return (double)kib * 1024;
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
           (double)plan.activations + (double)plan.scratch;
}

/* Halves `*size`, which is a field of `options`, until the model fits; false if one is still too many. */
static bool fits_with_less(const lt_run *run, lt_model_options *options, int64_t *size, double available) {
    while (needed_bytes(run, options) > available) {
        if (*size <= 1) return false;
        *size /= 2;
    }
    return true;
}

/* Refuses a model that does not fit, saying what would: a smaller micro-batch, then shorter samples, then
 * fewer layers too. */
static lt_status check_memory(const lt_run *run) {
    const double available = available_bytes() / run->grid.local_ranks;
    const double needed = needed_bytes(run, &run->model_options);
    if (available == 0 || needed <= available) return LT_OK;
    lt_model_options less = run->model_options;
    char advice[160] = "choose a smaller model or fewer ranks a host";
    if (fits_with_less(run, &less, &less.micro_batch, available))
        snprintf(advice, sizeof advice, "train.micro_batch: %lld would fit", (long long)less.micro_batch);
    else if (fits_with_less(run, &less, &less.sequence_length, available))
        snprintf(advice, sizeof advice, "train.micro_batch: 1 with data.seq_len: %lld would fit",
                 (long long)less.sequence_length);
    else if (less.sequence_length = run->model_options.sequence_length,
             fits_with_less(run, &less, &less.shape.layers, available))
        snprintf(advice, sizeof advice, "train.micro_batch: 1 with model.num_layers: %lld would fit",
                 (long long)less.shape.layers);
    return lt_fail(LT_BAD_INPUT, "%s: this model needs %.1f GiB a rank and %.1f GiB are free; %s",
                   run->arguments.config_path, needed / 0x1p30, available / 0x1p30, advice);
}

/* ---- folder and resume (rank 0)
 * ---------------------------------------------------------------------------------- */

/* Bytes of one checkpoint and some metrics. */
static int64_t checkpoint_bytes(const lt_run *run) {
    const lt_memory_plan plan = lt_model_plan(&run->model_options, run->device);
    return (int64_t)(plan.parameters + plan.optimizer) + (1 << 20);
}

static lt_status discard(void *context, lt_tensor_kind kind, const lt_parameter *parameter, int64_t first,
                         int64_t count, const float *values) {
    (void)context, (void)kind, (void)parameter, (void)first, (void)count, (void)values;
    return LT_OK;
}

/* Whether all that the run wants of a checkpoint is there, whole and in the model's shapes. */
static lt_status check_contents(const lt_run *run, const char *path, bool resumes) {
    lt_registry registry;
    LT_CHECK(lt_registry_create(&run->model_options.shape, &registry));
    const lt_status status =
        lt_checkpoint_load(path, &registry, resumes, &(lt_tensor_access){.put = discard});
    lt_registry_destroy(&registry);
    return status;
}

static void warn_of_other_bits(const lt_run *run, const lt_provenance *saved, const char *changed) {
    if (strcmp(saved->instruction_set, run->device->instruction_set) != 0 ||
        strcmp(saved->blas_kernel, run->device->blas_kernel) != 0 || strcmp(saved->commit, lt_commit()) != 0)
        lt_log_warning(
            "%s was written by commit %s with instruction set %s and BLAS kernel %s; this is commit %s with "
            "%s and %s: the run goes on, but not bit by bit as it would have there",
            run->resumed_from, saved->commit, saved->instruction_set, saved->blas_kernel, lt_commit(),
            run->device->instruction_set, run->device->blas_kernel);
    if (changed[0] != '\0')
        lt_log_warning("changed since %s, which changes bits: %s", run->resumed_from, changed);
}

/* Settles config and counters of a run that goes on from the checkpoint of this header. */
static lt_status adopt_header(lt_run *run, const lt_checkpoint_header *header) {
    lt_config saved;
    LT_CHECK(lt_config_parse(header->config, run->resumed_from, &saved));
    lt_status status = load_config(run, header->step > 0 ? header->config : NULL);
    if (status == LT_OK) {
        char changed[512];
        status = lt_config_check_resume(&saved, header->step, &run->config, run->arguments.allowed,
                                        run->arguments.allowed_count, changed, sizeof changed);
        if (status == LT_OK) warn_of_other_bits(run, &header->provenance, changed);
    }
    lt_config_free(&saved);
    run->step = header->step;
    run->tokens = header->tokens;
    for (int source = 0; source < header->sources; source++) run->samples += header->samples_consumed[source];
    return status;
}

static lt_status adopt_checkpoint(lt_run *run) {
    lt_checkpoint_header header;
    LT_CHECK(lt_checkpoint_read_header(run->resumed_from, &header));
    const lt_status status = adopt_header(run, &header);
    lt_checkpoint_header_free(&header);
    LT_CHECK(status);
    return divide_work(run);
}

/* Files that the command line names are judged before the folder is touched. --init-from is ignored where
 * there is a run to go on with. */
static lt_status judge_named_files(lt_run *run) {
    const lt_train_arguments *arguments = &run->arguments;
    if (resumes_by_name(run)) {
        snprintf(run->resumed_from, sizeof run->resumed_from, "%s", arguments->resume);
        LT_CHECK(lt_checkpoint_verify(arguments->resume));
        LT_CHECK(adopt_checkpoint(run));
        return check_contents(run, arguments->resume, true);
    }
    if (arguments->init_from == NULL || may_resume(run)) return LT_OK;
    return check_contents(run, arguments->init_from, false);
}

/* Both folders are looked at before anything in one of them goes. */
static lt_status prepare_folders(lt_run *run) {
    const char *folder = run->config.checkpoint.dir, *log = run->config.log.dir;
    if (strcmp(log, folder) != 0) LT_CHECK(lt_folder_prepare("log.dir", log, 1 << 20, &run->made_log));
    LT_CHECK(lt_folder_prepare("checkpoint.dir", folder, checkpoint_bytes(run), &run->made_folder));
    return lt_metrics_check(log);
}

/* The newest checkpoint of the folder, or none. */
static lt_status find_checkpoint(lt_run *run) {
    const char *folder = run->config.checkpoint.dir;
    if (strcmp(run->arguments.resume, "auto") == 0) {
        LT_CHECK(lt_folder_latest(folder, run->resumed_from, sizeof run->resumed_from));
        return run->resumed_from[0] != '\0' ? adopt_checkpoint(run) : load_config(run, NULL);
    }
    if (!lt_folder_holds_run(folder) || run->arguments.overwrite) return LT_OK;
    return lt_fail(
        LT_BAD_INPUT,
        "%s holds a run, which --resume none would replace; add --overwrite to delete it, or choose "
        "another checkpoint.dir",
        folder);
}

static lt_status take_folder(lt_run *run) {
    if (strlen(run->config_text) > LT_CHECKPOINT_MAX_CONFIG)
        return lt_fail(
            LT_BAD_INPUT,
            "%s: the resolved config has %zu bytes, expected at most %d, which a checkpoint can hold; name "
            "data by globs or folders",
            run->arguments.config_path, strlen(run->config_text), LT_CHECKPOINT_MAX_CONFIG);
    LT_CHECK(judge_named_files(run));
    LT_CHECK(prepare_folders(run));
    LT_CHECK(lt_folder_lock(run->config.checkpoint.dir));
    run->folder_locked = true;
    if (resumes_by_name(run)) return lt_folder_supersede(run->config.checkpoint.dir, run->step);
    LT_CHECK(find_checkpoint(run));
    return run->arguments.overwrite ? lt_folder_clear(run->config.checkpoint.dir) : LT_OK;
}

/* What rank 0 found out, to all. */
static lt_status share_position(lt_run *run) {
    LT_CHECK(lt_grid_broadcast(&run->grid, run->resumed_from, sizeof run->resumed_from, 0));
    int64_t position[3] = {run->step, run->samples, run->tokens};
    LT_CHECK(lt_grid_broadcast(&run->grid, position, sizeof position, 0));
    run->step = position[0];
    run->samples = position[1];
    run->tokens = position[2];
    run->first_step = run->step + 1;
    return LT_OK;
}

/* ---- model
 * ------------------------------------------------------------------------------------------------------- */

static lt_status put_tensor(void *context, lt_tensor_kind kind, const lt_parameter *parameter, int64_t first,
                            int64_t count, const float *values) {
    return lt_model_put(context, lt_array_of(kind), parameter, first, count, values);
}

/* Weights from the checkpoint, from another run's, or drawn. */
static lt_status fill_model(lt_run *run) {
    const lt_registry *registry = lt_model_registry(run->model);
    const lt_tensor_access access = {.context = run->model, .put = put_tensor};
    lt_watchdog_tick("loading the checkpoint", run->step);
    if (run->resumed_from[0] != '\0') return lt_checkpoint_load(run->resumed_from, registry, true, &access);
    LT_CHECK(lt_model_initialise(run->model, (uint64_t)run->config.train.seed));
    if (run->arguments.init_from == NULL) return LT_OK;
    return lt_checkpoint_load(run->arguments.init_from, registry, false, &access);
}

static lt_status start_loader(lt_run *run) {
    const lt_config *config = &run->config;
    enum { QUEUE_DEPTH = 4 };
    return lt_loader_start(
        &(lt_loader_options){.dataset = run->dataset,
                             .order = {.samples = lt_dataset_samples(run->dataset),
                                       .seed = (uint64_t)config->data.seed,
                                       .shuffle = config->data.shuffle},
                             .sequence_length = config->data.seq_len,
                             .global_batch = config->train.global_batch,
                             .micro_batch = config->train.micro_batch,
                             .first_micro_batch = run->first_batch,
                             .micro_batches = run->own_batches,
                             .first_step = run->first_step,
                             .last_step = config->train.steps,
                             .first_item = run->samples,
                             .queue_depth = QUEUE_DEPTH,
                             .document_mask = config->data.document_mask,
                             .document_token = config->data.document_token,
                             .document_token_first =
                                 strcmp(config->data.document_token_position, "first") == 0},
        &run->loader);
}

/* Everything that a step works in, sized once. */
static lt_status allocate_workspace(lt_run *run) {
    const lt_model_options *options = &run->model_options;
    const int64_t scratch = lt_reduce_scratch(&run->grid, lt_model_registry(run->model)->elements);
    const int64_t layers = options->shape.layers, statistics = layers * options->shape.heads * LT_STATISTICS;
    const int64_t evaluated = run->config.train.eval_batches * run->config.train.global_batch;
    const int64_t batch = 3 * options->micro_batch * options->sequence_length; /* inputs, targets, starts */
    run->reduce_scratch = malloc(sizeof(float) * (size_t)(scratch + 1));
    run->step_workspace = malloc(sizeof(double) * (size_t)lt_step_workspace(run->model, options->loss_slots));
    run->evaluation_sums = malloc(sizeof(double) * (size_t)(evaluated + 1));
    run->evaluation_memory = malloc(sizeof(int32_t) * (size_t)batch);
    run->evaluation_sample = malloc(sizeof(int32_t) * (size_t)(options->sequence_length + 1));
    run->diagnostic_memory = malloc(sizeof(int32_t) * (size_t)batch);
    run->statistics = malloc(sizeof(double) * (size_t)statistics);
    run->layer_means = malloc(sizeof(double) * (size_t)(4 * layers));
    if (run->reduce_scratch == NULL || run->step_workspace == NULL || run->evaluation_sums == NULL ||
        run->evaluation_memory == NULL || run->evaluation_sample == NULL || run->diagnostic_memory == NULL ||
        run->statistics == NULL || run->layer_means == NULL)
        return lt_fail(LT_IO, "no memory for the buffers of a training step");
    return LT_OK;
}

static lt_status make_model(lt_run *run) {
    LT_CHECK(lt_model_create(&run->model_options, run->device, &run->model));
    LT_CHECK(fill_model(run));
    LT_CHECK(allocate_workspace(run));
    if (run->first_step <= run->config.train.steps) LT_CHECK(start_loader(run));
    if (run->grid.rank == 0) LT_CHECK(lt_metrics_open(run->config.log.dir, run->step, &run->metrics));
    return LT_OK;
}

lt_status lt_run_open(lt_run *run) {
    const bool first = run->grid.rank == 0;
    LT_CHECK(lt_config_init(&run->config));
    LT_CHECK(lt_watchdog_start(&run->grid, run->config.train.stall_timeout_s)); /* the default */
    lt_watchdog_tick("reading the config", 0);
    LT_CHECK(lt_run_share(run, first ? read_config(run) : LT_OK));
    LT_CHECK(share_config(run));
    lt_watchdog_stop();
    LT_CHECK(lt_watchdog_start(&run->grid, run->config.train.stall_timeout_s));
    lt_watchdog_tick("opening data", 0);
    const lt_status divided = divide_work(run); /* lanes may still follow a checkpoint */
    LT_CHECK(lt_run_share(run, first && !may_resume(run) ? divided : LT_OK));
    LT_CHECK(lt_run_share(run, open_data(run)));
    LT_CHECK(lt_run_share(run, open_device(run)));
    fill_model_options(run);
    LT_CHECK(lt_run_share(run, check_memory(run)));
    lt_watchdog_tick("choosing a checkpoint", 0);
    LT_CHECK(lt_run_share(run, first ? take_folder(run) : LT_OK));
    LT_CHECK(share_config(run));
    LT_CHECK(share_position(run));
    LT_CHECK(lt_run_share(run, divide_work(run)));
    fill_model_options(run);
    LT_CHECK(lt_provenance_fill(&run->grid, run->device, &run->provenance));
    LT_CHECK(lt_run_share(run, first ? lt_run_plan_saves(run) : LT_OK));
    run->peak_gflops = lt_cpu_device_measure_gflops(run->device);
    LT_CHECK(lt_run_share(run, make_model(run)));
    run->opened = true;
    return LT_OK;
}

void lt_run_close(lt_run *run) {
    lt_loader_stop(run->loader);
    lt_metrics_close(run->metrics);
    lt_model_destroy(run->model);
    if (run->device != NULL) run->device->ops->destroy(run->device);
    lt_dataset_close(run->dataset);
    for (int i = 0; i < run->validation_sets; i++) lt_dataset_close(run->validation[i].dataset);
    if (run->folder_locked) lt_folder_unlock(run->config.checkpoint.dir);
    lt_layout_free(run->layout);
    if (!run->opened) {
        lt_folder_unmake(run->config.checkpoint.dir, run->made_folder);
        lt_folder_unmake(run->config.log.dir, run->made_log);
    }
    free(run->reduce_scratch);
    free(run->step_workspace);
    free(run->evaluation_sums);
    free(run->evaluation_memory);
    free(run->evaluation_sample);
    free(run->diagnostic_memory);
    free(run->statistics);
    free(run->layer_means);
    free(run->config_text);
    lt_config_free(&run->config);
}
