#include "trainer/setup.h"

#include "checkpoints/folder.h"
#include "comm/watchdog.h"
#include "trainer/background.h"
#include "trainer/device.h"
#include "trainer/group.h"
#include "trainer/network.h"
#include "trainer/staging.h"
#include "trainer/version.h"
#include "trainer/zero.h"

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

/* ---- config ---- */

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

static lt_status split_ranks(lt_run *run) {
    LT_CHECK(lt_run_share(run, lt_config_check_width(&run->config, run->grid.ranks)));
    LT_CHECK(lt_grid_split(&run->grid, (int)run->config.parallel.tensor));
    lt_run_fill_group(run);
    return LT_OK;
}

/* Rank 0 opened the tokenizer with the config; the others do, and must find the same. `hash` is rank 0's. */
static lt_status open_tokenizer(lt_run *run, const char *hash) {
    const char *name = run->config.data.tokenizer;
    if (name == NULL || run->tokenizer != NULL) return LT_OK;
    LT_CHECK(lt_tokenizer_open(name, "data.tokenizer", &run->tokenizer));
    if (strcmp(hash, lt_tokenizer_hash(run->tokenizer)) == 0) return LT_OK;
    return lt_fail(
        LT_BAD_INPUT,
        "data.tokenizer: '%s' is another file on rank %d (hash %s) than on rank 0 (hash %s); give all "
        "hosts the same",
        name, run->grid.rank, lt_tokenizer_hash(run->tokenizer), hash);
}

static lt_status share_tokenizer(lt_run *run) {
    char hash[sizeof run->config.tokenizer_hash];
    memcpy(hash, run->config.tokenizer_hash, sizeof hash);
    LT_CHECK(lt_grid_broadcast(&run->grid, hash, sizeof hash, 0));
    return lt_run_share(run, open_tokenizer(run, hash));
}

/* ---- data ---- */

static lt_status open_sources(const lt_run *run, const lt_config_sources *sources, int first, int count,
                              const char *key, lt_dataset **dataset) {
    const char *patterns[LT_MAX_SOURCES];
    for (int i = 0; i < count; i++) patterns[i] = sources->item[first + i].path;
    const struct lt_config_data *data = &run->config.data;
    const lt_document_filter filter = {data->filter.min_int_score, data->filter.language,
                                       data->filter.min_chars, data->filter.max_chars};
    const lt_raw_options raw = {
        .tokenizer = run->tokenizer,
        .documents = {.text_key = data->text_key, .separator = data->separator, .filter = &filter},
        .document_token = (int32_t)data->document_token,
        .document_token_first = strcmp(data->document_token_position, "first") == 0,
        .cache_folder = data->cache_dir,
        .cache_bytes = data->cache_bytes,
        .sharers = (data->train.item[0].weight > 0 ? data->train.count : 1) + data->validation.count};
    return lt_dataset_open(
        &(lt_dataset_options){.patterns = patterns,
                              .pattern_count = count,
                              .key = key,
                              .tokenizer = run->config.data.tokenizer,
                              .raw = run->tokenizer == NULL ? NULL : &raw,
                              .sequence_length = run->config.data.seq_len,
                              .vocabulary = run->config.model.vocab_size,
                              .check_share = run->grid.rank,
                              .check_shares = sources == &run->config.data.train ? run->grid.ranks : 0},
        dataset);
}

static bool same_name(const char *a, const char *b) {
    return (a == NULL) == (b == NULL) && (a == NULL || strcmp(a, b) == 0);
}

_Static_assert((int)LT_MAX_SOURCES <= LT_MIXTURE_SOURCES &&
                   (int)LT_MIXTURE_SOURCES <= LT_CHECKPOINT_MAX_SOURCES,
               "every source of a config fits a mixture and a checkpoint");

/* Entries with weights are sources; without, all are one. */
static lt_status open_training(lt_run *run) {
    const lt_config_sources *train = &run->config.data.train;
    const bool weighted = train->item[0].weight > 0;
    const int sources = weighted ? train->count : 1;
    double weights[LT_MAX_SOURCES];
    for (int i = 0; i < train->count; i++) weights[i] = train->item[i].weight;
    LT_CHECK(lt_mixture_plan(&run->mixture, weights, sources, "data.train"));
    for (int i = 0; i < sources; i++)
        LT_CHECK(
            open_sources(run, train, i, weighted ? 1 : train->count, "data.train", &run->mixture.dataset[i]));
    return lt_data_identify(run->mixture.dataset, sources, &run->identity);
}

static lt_status open_validation(lt_run *run) {
    const lt_config_sources *validation = &run->config.data.validation;
    for (int first = 0, count; first < validation->count; first += count) {
        lt_validation_set *set = &run->validation[run->validation_sets];
        const char *name = validation->item[first].name;
        for (count = 1; first + count < validation->count; count++)
            if (!same_name(validation->item[first + count].name, name)) break;
        set->name = name == NULL ? NULL : strdup(name); /* run->config may be read anew */
        if (name != NULL && set->name == NULL)
            return lt_fail(LT_IO, "no memory for the name of a validation set");
        LT_CHECK(open_sources(run, validation, first, count, "data.validation", &set->dataset));
        run->validation_sets++;
        for (int i = 0; i < run->mixture.sources; i++)
            LT_CHECK(lt_data_check_apart(run->mixture.dataset[i], set->dataset));
    }
    return LT_OK;
}

static lt_status open_data(lt_run *run) {
    LT_CHECK(open_training(run));
    return open_validation(run);
}

/* Each rank finds its own samples by their numbers, which must mean the same to all. */
static lt_status compare_data(lt_run *run) {
    const lt_data_identity *own = &run->identity;
    lt_data_identity first = *own;
    LT_CHECK(lt_grid_broadcast(&run->grid, &first, sizeof first, 0));
    lt_status status = LT_OK;
    if (strcmp(own->hash, first.hash) != 0)
        status =
            lt_fail(LT_BAD_INPUT,
                    "data.train: rank %d on %s finds %lld files of %lld bytes, rank 0 %lld files of %lld "
                    "bytes%s; every host needs the same files under these paths",
                    run->grid.rank, run->grid.host, (long long)own->files, (long long)own->bytes,
                    (long long)first.files, (long long)first.bytes,
                    own->files == first.files && own->bytes == first.bytes ? " by other names" : "");
    return lt_run_share(run, status);
}

/* What rank 0 found out, to all. */
static lt_status share_position(lt_run *run) {
    LT_CHECK(lt_grid_broadcast(&run->grid, run->resumed_from, sizeof run->resumed_from, 0));
    int64_t position[2] = {run->step, run->tokens};
    LT_CHECK(lt_grid_broadcast(&run->grid, position, sizeof position, 0));
    LT_CHECK(lt_grid_broadcast(&run->grid, run->consumed, sizeof run->consumed, 0));
    run->step = position[0];
    run->tokens = position[1];
    run->samples = lt_mixture_resume(&run->mixture, run->consumed);
    run->first_step = run->step + 1;
    return LT_OK;
}

/* ---- model ---- */

/* Weights from the checkpoint, from another run's, or drawn. */
static lt_status fill_model(lt_run *run) {
    const lt_tensor_access access = lt_run_tensors(run);
    lt_watchdog_tick("loading the checkpoint", run->step);
    if (run->resumed_from[0] != '\0')
        return lt_checkpoint_load(run->resumed_from, &run->registry, true, &access);
    LT_CHECK(lt_model_initialise(run->model, (uint64_t)run->config.train.seed));
    if (run->arguments.init_from == NULL) return LT_OK;
    return lt_checkpoint_load(run->arguments.init_from, &run->registry, false, &access);
}

static lt_status start_loader(lt_run *run) {
    const lt_config *config = &run->config;
    enum { QUEUE_DEPTH = 4 };
    run->mixture.shuffle = (lt_shuffle){config->data.shuffle, (uint64_t)config->data.seed};
    return lt_loader_start(
        &(lt_loader_options){.mixture = &run->mixture,
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

static lt_status make_model(lt_run *run) {
    LT_CHECK(lt_model_create(&run->model_options, run->device, &run->model));
    LT_CHECK(lt_zero_create(run));
    LT_CHECK(lt_run_allocate(run));
    LT_CHECK(lt_run_stage_allocate(run));
    LT_CHECK(fill_model(run));
    if (run->first_step <= run->config.train.steps) LT_CHECK(start_loader(run));
    return LT_OK;
}

lt_status lt_run_open(lt_run *run) {
    const bool first = run->grid.rank == 0;
    LT_CHECK(lt_config_init(&run->config));
    LT_CHECK(lt_watchdog_start(&run->grid, run->config.train.stall_timeout_s)); /* the default */
    lt_watchdog_tick("reading the config", 0);
    LT_CHECK(lt_run_share(run, first ? lt_run_read_config(run) : LT_OK));
    LT_CHECK(share_config(run));
    LT_CHECK(share_tokenizer(run));
    LT_CHECK(split_ranks(run));
    lt_watchdog_stop();
    LT_CHECK(lt_watchdog_start(&run->grid, run->config.train.stall_timeout_s));
    lt_watchdog_tick("opening data", 0);
    const lt_status divided = lt_run_divide_work(run); /* lanes may still follow a checkpoint */
    LT_CHECK(lt_run_share(run, first && !lt_run_may_resume(run) ? divided : LT_OK));
    LT_CHECK(lt_run_share(run, open_data(run)));
    LT_CHECK(compare_data(run));
    LT_CHECK(lt_run_open_device(run));
    LT_CHECK(lt_run_open_network(run));
    lt_run_fill_model_options(run);
    LT_CHECK(lt_run_share(run, lt_registry_create(&run->model_options.shape, &run->registry)));
    LT_CHECK(lt_run_share(run, lt_run_check_memory(run)));
    lt_watchdog_tick("choosing a checkpoint", 0);
    lt_run_grant_transfer(run);
    LT_CHECK(lt_run_share(run, first ? lt_run_take_folder(run) : LT_OK));
    LT_CHECK(share_config(run));
    LT_CHECK(share_position(run));
    LT_CHECK(lt_run_share(run, lt_run_divide_work(run)));
    lt_run_fill_model_options(run);
    LT_CHECK(lt_provenance_fill(&run->grid, run->device, &run->provenance));
    LT_CHECK(lt_run_share(run, first ? lt_run_plan_saves(run) : LT_OK));
    LT_CHECK(lt_run_share(run, make_model(run)));
    const lt_reducer_options reducer = lt_run_reducer_options(run);
    LT_CHECK(lt_run_share(run, lt_reducer_open(&run->grid, &reducer, &run->reducer)));
    /* The first file that is left behind: everything that needs memory has it. */
    LT_CHECK(
        lt_run_share(run, first ? lt_metrics_open(run->config.log.dir, run->step, &run->metrics) : LT_OK));
    if (first)
        run->owes_validation = lt_run_validation_is_due(run, run->step) &&
                               lt_metrics_validations(run->metrics) < run->validation_sets;
    LT_CHECK(lt_grid_broadcast(&run->grid, &run->owes_validation, sizeof run->owes_validation, 0));
    run->opened = true;
    return LT_OK;
}

void lt_run_close(lt_run *run) {
    lt_loader_stop(run->loader);
    lt_metrics_close(run->metrics);
    lt_reducer_close(run->reducer);
    lt_model_destroy(run->model);
    lt_run_stage_free(run);
    lt_run_close_network(run);
    if (run->device != NULL) run->device->ops->destroy(run->device);
    for (int i = 0; i < run->mixture.sources; i++) lt_dataset_close(run->mixture.dataset[i]);
    for (int i = 0; i < run->validation_sets; i++) {
        lt_dataset_close(run->validation[i].dataset);
        free(run->validation[i].name);
    }
    if (run->folder_locked) lt_folder_unlock(run->config.checkpoint.dir);
    lt_layout_free(run->layout);
    if (!run->opened) {
        lt_folder_unmake(run->config.checkpoint.dir, run->made_folder);
        lt_folder_unmake(run->config.log.dir, run->made_log);
    }
    free(run->tensor_memory);
    free(run->step_workspace);
    free(run->evaluation_sums);
    free(run->evaluation_memory);
    free(run->evaluation_sample);
    free(run->diagnostic_memory);
    free(run->statistics);
    free(run->taus);
    free(run->layer_means);
    lt_background_free(run);
    lt_zero_free(run);
    lt_registry_destroy(&run->registry);
    free(run->config_text);
    lt_tokenizer_close(run->tokenizer);
    lt_config_free(&run->config);
}
