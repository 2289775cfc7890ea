#include "trainer/run.h"

#include "comm/log.h"
#include "comm/topology.h"
#include "trainer/setup.h"
#include "trainer/tensors.h"
#include "trainer/version.h"

#include <stdlib.h>
#include <string.h>

static double mib(double bytes) {
    return bytes / 0x1p20;
}

static void describe_model(const lt_run *run) {
    const lt_model_shape *shape = &run->model_options.shape;
    const int64_t held = lt_model_registry(run->model)->elements;
    char a_rank[48] = "";
    if (run->grid.tensor_ranks > 1) snprintf(a_rank, sizeof a_rank, ", %.2fM a rank", 1e-6 * (double)held);
    lt_log_info("model      %lld layers, hidden %lld, %lld heads (%lld key heads) of %lld, ffn %lld, "
                "vocabulary %lld, "
                "%s head; %.2fM parameters%s",
                (long long)shape->layers, (long long)shape->hidden, (long long)shape->heads,
                (long long)shape->key_heads, (long long)lt_head_size(shape), (long long)shape->intermediate,
                (long long)shape->vocabulary, shape->tied ? "tied" : "untied",
                1e-6 * (double)run->registry.elements, a_rank);
    if (shape->attention == LT_ATTENTION_LAZY)
        lt_log_info("attention  lazy (Elastic-Softmax), distance bias over %lld tokens, tau from %g%s",
                    (long long)shape->bias_length, shape->tau_init,
                    run->config.data.document_mask ? ", documents apart" : "");
    else
        lt_log_info("attention  softmax%s", run->config.data.document_mask ? ", documents apart" : "");
}

/* "1234 tokens in 2 files, 51 samples of 24, 9 tokens at ends never read", as far as it is known. */
static void describe_dataset(const lt_run *run, const lt_dataset *dataset, char *text, size_t size) {
    const long long files = lt_dataset_files(dataset), unread = lt_dataset_unread(dataset);
    const char *plural = files == 1 ? "" : "s";
    if (lt_dataset_samples(dataset) < 0) {
        snprintf(text, size, "%lld file%s, tokens and samples are counted on the way", files, plural);
        return;
    }
    const int used = snprintf(text, size, "%lld tokens in %lld file%s, %lld samples of %lld",
                              (long long)lt_dataset_tokens(dataset), files, plural,
                              (long long)lt_dataset_samples(dataset), (long long)run->config.data.seq_len);
    if (unread > 0) snprintf(text + used, size - (size_t)used, ", %lld tokens at ends never read", unread);
}

/* How long the epochs of source `source` are. */
static void describe_epoch(const lt_run *run, int source, char *text, size_t size) {
    const lt_mixture *mixture = &run->mixture;
    const int64_t samples = lt_dataset_samples(mixture->dataset[source]);
    double share = 1;
    if (mixture->sources > 1) share = mixture->count[source] / (double)LT_MIXTURE_PERIOD;
    text[0] = '\0';
    if (samples > 0)
        snprintf(text, size, ", an epoch %.1f steps",
                 (double)samples / share / (double)run->config.train.global_batch);
}

static void describe_data(const lt_run *run) {
    const lt_config *config = &run->config;
    const lt_mixture *mixture = &run->mixture;
    const long long batch = config->train.global_batch, tokens = batch * config->data.seq_len;
    char found[256], epoch[64];
    if (mixture->sources == 1) {
        describe_dataset(run, mixture->dataset[0], found, sizeof found);
        describe_epoch(run, 0, epoch, sizeof epoch);
        lt_log_info("data       %s; a step takes %lld sequences (%lld tokens)%s", found, batch, tokens,
                    epoch);
        return;
    }
    lt_log_info("data       %d sources; a step takes %lld sequences (%lld tokens)", mixture->sources, batch,
                tokens);
    for (int i = 0; i < mixture->sources; i++) {
        describe_dataset(run, mixture->dataset[i], found, sizeof found);
        describe_epoch(run, i, epoch, sizeof epoch);
        lt_log_info("source %-3d %s: weight %g, %d of %d samples%s; %s", i + 1,
                    config->data.train.item[i].path, config->data.train.item[i].weight, mixture->count[i],
                    LT_MIXTURE_PERIOD, epoch, found);
    }
}

static void describe_validation(const lt_run *run) {
    const lt_config *config = &run->config;
    const int64_t evaluated = config->train.eval_batches * config->train.global_batch;
    for (int i = 0; i < run->validation_sets; i++) {
        const int64_t samples = lt_dataset_samples(run->validation[i].dataset);
        const char *name = run->validation[i].name == NULL ? "" : run->validation[i].name;
        const char *colon = run->validation[i].name == NULL ? "" : ": ";
        if (samples < 0)
            lt_log_info("validation %s%sup to %lld samples every %lld steps", name, colon,
                        (long long)evaluated, (long long)config->train.eval_every);
        else
            lt_log_info("validation %s%s%lld samples, the first %lld of them every %lld steps", name, colon,
                        (long long)samples, (long long)(samples < evaluated ? samples : evaluated),
                        (long long)config->train.eval_every);
    }
}

static void describe_work(const lt_run *run) {
    const lt_config *config = &run->config;
    describe_data(run);
    describe_validation(run);
    lt_log_info("steps      %lld of micro-batches of %lld: %lld a step in %lld lanes, %lld a rank",
                (long long)config->train.steps, (long long)config->train.micro_batch,
                (long long)run->micro_batches, (long long)config->parallel.lanes,
                (long long)run->own_batches);
}

static void describe_memory(const lt_run *run) {
    const lt_memory_plan plan = lt_model_plan(&run->model_options, run->device);
    const double batches =
        (double)(run->config.train.micro_batch * (run->config.data.seq_len + 1)) * 4 * 3 * 5;
    const lt_reducer_options reducer = lt_run_reducer_options(run);
    const double exchange = (double)lt_reducer_bytes(&run->grid, &reducer) + (double)lt_tensors_bytes(run);
    const double total = (double)plan.parameters + (double)plan.optimizer + (double)plan.gradients +
                         (double)plan.activations + (double)plan.scratch + exchange + batches +
                         (double)run->snapshot_bytes;
    char snapshot[48] = "", share[48] = "", again[32] = "";
    if (run->model_options.recompute != LT_RECOMPUTE_NONE)
        snprintf(again, sizeof again, " (recompute %s)", run->config.train.recompute);
    if (run->zero != NULL) snprintf(share, sizeof share, " (1 of %d shares)", run->model_options.shares);
    if (run->snapshot_bytes > 0)
        snprintf(snapshot, sizeof snapshot, ", checkpoint's copy %.1f", mib((double)run->snapshot_bytes));
    lt_log_info("memory     %.1f MiB a rank: parameters %.1f, optimizer %.1f%s, gradients %.1f (%d buffer%s "
                "for %lld lane%s), "
                "activations %.1f%s, scratch %.1f, communication %.1f, batches %.1f%s",
                mib(total), mib((double)plan.parameters), mib((double)plan.optimizer), share,
                mib((double)plan.gradients), run->model_options.gradient_buffers,
                run->model_options.gradient_buffers == 1 ? "" : "s", (long long)run->own_lanes,
                run->own_lanes == 1 ? "" : "s", mib((double)plan.activations), again,
                mib((double)plan.scratch), mib(exchange), mib(batches), snapshot);
}

/* What binds ranks to cores, and what is wrong with it. A cluster of many kinds of hosts is not told whole.
 */
static void describe_places(const lt_run *run, const lt_place *places) {
    enum { LINES = 8 };
    const int ranks = run->grid.ranks;
    char text[1024];
    for (int next = 0, lines = 0; lt_topology_line(places, ranks, &next, text, sizeof text); lines++) {
        if (lines == LINES) {
            lt_log_info("bindings   of rank %d on %s and others: not shown", next, places[next].host);
            break;
        }
        lt_log_info("bindings   %s", text);
    }
}

static void warn_of_places(const lt_run *run, const lt_place *places) {
    char text[1024];
    if (lt_topology_oversubscribed(places, run->grid.ranks, text, sizeof text))
        lt_log_warning(
            "more threads than cores: %s; lower train.threads, start fewer ranks a host, or let the "
            "launcher bind each to more cores",
            text);
    if (lt_topology_tensor_crosses(places, run->grid.ranks, run->grid.tensor_ranks, text, sizeof text))
        lt_log_warning("a tensor group crosses hosts, whose network then carries every layer: %s; let "
                       "parallel.tensor divide the ranks of a host",
                       text);
}

static void describe_run(const lt_run *run, const lt_place *places) {
    const lt_grid *grid = &run->grid;
    lt_log_info("lazytrain %s (%s)", lt_version(), lt_commit());
    lt_log_info("grid       %d rank%s on %d host%s (%s), data %d x tensor %d; backend %s, %s", grid->ranks,
                grid->ranks == 1 ? "" : "s", grid->hosts, grid->hosts == 1 ? "" : "s", run->provenance.hosts,
                grid->data_ranks, grid->tensor_ranks, run->network_text, grid->library);
    describe_places(run, places);
    lt_log_info("device     %s", run->device_text);
    describe_model(run);
    describe_work(run);
    describe_memory(run);
    lt_log_info("folder     %s, a checkpoint every %lld steps; metrics in %s/metrics.jsonl",
                run->config.checkpoint.dir, (long long)run->config.checkpoint.every, run->config.log.dir);
    if (run->resumed_from[0] != '\0')
        lt_log_info("resume     %s: step %lld, %lld tokens", run->resumed_from, (long long)run->step,
                    (long long)run->tokens);
    else if (run->arguments.init_from != NULL)
        lt_log_info("weights    from %s", run->arguments.init_from);
    warn_of_places(run, places);
}

lt_status lt_run_banner(lt_run *run) {
    lt_place *places = malloc(sizeof *places * (size_t)run->grid.ranks);
    lt_status status =
        places != NULL ? LT_OK : lt_fail(LT_IO, "no memory for the places of %d ranks", run->grid.ranks);
    status = lt_run_share(run, status);
    if (status == LT_OK) status = lt_topology_gather(&run->grid, run->device->threads, places);
    if (status == LT_OK && run->grid.rank == 0) describe_run(run, places);
    free(places);
    return status;
}
