#include "trainer/train.h"

#include "comm/log.h"
#include "comm/reduce.h"
#include "comm/watchdog.h"
#include "trainer/background.h"
#include "trainer/progress.h"
#include "trainer/schedule.h"
#include "trainer/spike.h"
#include "trainer/staging.h"
#include "trainer/zero.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

/* What the loop keeps between steps. */
typedef struct training {
    lt_run *run;
    lt_exchange exchange;
    lt_step_options options;
    lt_batch batch;
    double started; /* of the process's training, for train.max_minutes */
    bool agreement_begun;
    int64_t batches;      /* micro-batches of the step that this rank has asked for */
    lt_request own;       /* the gravest request of this rank */
    lt_status own_status; /* the error behind it */
    char own_message[LT_ERROR_MESSAGE_BYTES];
    lt_request agreed; /* by all ranks */
    int agreed_rank;   /* the lowest one that brought it */
    bool all_idle;     /* no rank wants anything or writes a checkpoint */
    const char *cause; /* of this rank's wish to stop: a signal's name or a key; NULL: it has none */
    int64_t skips;     /* updates dropped in a row */
    double documents[LT_MIXTURE_SOURCES]; /* document tokens in this rank's part of the step, by source */
    int64_t epochs[LT_MIXTURE_SOURCES];   /* of the last sample of each source that this rank has seen */
    lt_spike_watch spikes;
    bool on_terminal;
} training;

/* ---- what a step needs from outside (lt_exchange) ---- */

/* What is wrong with a raw file was bad input before the first step, and is a failure after it. */
static bool is_late_input(const lt_run *run, lt_status failure) {
    return failure == LT_BAD_INPUT && run->step >= run->first_step;
}

/* An error of this rank alone: kept, and told to the others at the next boundary. */
static void remember_failure(training *t, lt_status status) {
    if (t->own_status != LT_OK) return;
    const bool late_input = is_late_input(t->run, status);
    t->own_status = late_input ? LT_FAILED : status;
    t->own = status == LT_IO || late_input ? LT_REQUEST_SAVE_AND_FAIL : LT_REQUEST_FAIL;
    snprintf(t->own_message, sizeof t->own_message, "%s", lt_error_message());
}

static bool is_diagnostic_step(const training *t, int64_t step) {
    const int64_t every = t->run->config.log.diagnostics_every;
    return every > 0 && (step % every == 0 || step == t->run->config.train.steps);
}

/* Diagnostics look at the first micro-batch of the global batch once the update is done. */
static void keep_for_diagnostics(training *t) {
    lt_run *run = t->run;
    if (run->grid.data_rank != 0 || t->batch.micro_batch_index != 0 || !is_diagnostic_step(t, t->batch.step))
        return;
    const int64_t rows = run->config.train.micro_batch, tokens = rows * run->config.data.seq_len;
    int32_t *inputs = run->diagnostic_memory, *targets = inputs + tokens, *starts = targets + tokens;
    memcpy(inputs, t->batch.inputs, sizeof(int32_t) * (size_t)tokens);
    memcpy(targets, t->batch.targets, sizeof(int32_t) * (size_t)tokens);
    if (t->batch.document_starts != NULL)
        memcpy(starts, t->batch.document_starts, sizeof(int32_t) * (size_t)tokens);
    run->diagnostic_tokens = (lt_tokens){.rows = rows,
                                         .inputs = inputs,
                                         .targets = targets,
                                         .document_starts = t->batch.document_starts == NULL ? NULL : starts};
}

/* The gravest request of this rank now: of a failure, a signal or the clock. */
static lt_request own_request(training *t) {
    const double limit_s = 60 * t->run->config.train.max_minutes;
    const char *name;
    const lt_request signalled = lt_signals_take(&name);
    if (signalled > t->own) {
        t->own = signalled;
        if (signalled == LT_REQUEST_STOP) t->cause = name;
    }
    if (limit_s > 0 && lt_now_s() - t->started > limit_s && t->own < LT_REQUEST_STOP) {
        t->own = LT_REQUEST_STOP;
        t->cause = "train.max_minutes";
    }
    if (t->own == LT_REQUEST_NONE && lt_background_busy(t->run)) return LT_REQUEST_PATIENCE;
    return t->own;
}

static lt_status take_batch(training *t, lt_tokens *tokens) {
    *tokens = (lt_tokens){0};
    if (t->own_status != LT_OK) return LT_OK;
    lt_watchdog_tick("reading data", t->options.update.step);
    const double begin = lt_now_s();
    while (!lt_loader_wait(t->run->loader, 100))
        if (own_request(t) >= LT_REQUEST_STOP) return LT_OK; /* the step is dropped, so its data can wait */
    const lt_status status = lt_loader_next(t->run->loader, &t->batch);
    t->run->interval.data_wait_ms += 1e3 * (lt_now_s() - begin);
    lt_watchdog_tick("forward and backward", t->options.update.step);
    if (status != LT_OK) {
        remember_failure(t, status);
        return LT_OK;
    }
    for (int i = 0; i < t->run->mixture.sources; i++) t->documents[i] += (double)t->batch.documents[i];
    memcpy(t->epochs, t->batch.epochs, sizeof t->epochs);
    keep_for_diagnostics(t);
    *tokens = (lt_tokens){.rows = t->run->config.train.micro_batch,
                          .inputs = t->batch.inputs,
                          .targets = t->batch.targets,
                          .document_starts = t->batch.document_starts};
    return LT_OK;
}

/* A tensor group has a micro-batch where all its ranks have it. The final agreement is under way while the
 * last one is computed. */
static lt_status next_batch(void *context, bool last, lt_tokens *tokens) {
    training *t = context;
    lt_verdict verdict;
    t->batches++;
    LT_CHECK(take_batch(t, tokens));
    LT_CHECK(lt_tensor_agree(&t->run->grid, tokens->rows == 0 ? 1 : 0, &verdict));
    if (verdict.code != 0) tokens->rows = 0;
    if (!last) return LT_OK;
    t->agreement_begun = true;
    return lt_grid_agree_begin(&t->run->grid, (int)own_request(t));
}

static void take_verdict(training *t, const lt_verdict *verdict) {
    if (verdict->code <= (int)t->agreed || verdict->code == LT_REQUEST_PATIENCE) return;
    t->agreed = (lt_request)verdict->code;
    t->agreed_rank = verdict->rank;
}

/* Before a micro-batch the answer is one micro-batch old, so that no rank waits for another; the final one is
 * of what the ranks knew when they had their last micro-batch in hand. */
static lt_status should_drop(void *context, bool last, bool *drop) {
    training *t = context;
    lt_grid *grid = &t->run->grid;
    if (t->agreement_begun) {
        lt_verdict verdict;
        t->agreement_begun = false;
        lt_watchdog_tick(last ? "agreement before the exchange" : "agreement before a micro-batch",
                         t->options.update.step);
        const double begin = lt_now_s();
        LT_CHECK(lt_grid_agree_end(grid, &verdict));
        if (last) lt_run_waited(t->run, begin);
        take_verdict(t, &verdict);
        t->all_idle = verdict.code == LT_REQUEST_NONE;
        lt_watchdog_tick("forward and backward", t->options.update.step);
    }
    const bool next_is_last = t->batches == t->options.lanes * t->options.batches_per_lane - 1;
    if (!last && !next_is_last && t->agreed < LT_REQUEST_STOP) {
        LT_CHECK(lt_grid_agree_begin(grid, (int)own_request(t)));
        t->agreement_begun = true;
    }
    *drop = t->agreed >= LT_REQUEST_STOP;
    return LT_OK;
}

static lt_status reduce_begin(void *context, lt_mem gradients, int64_t first, int64_t count) {
    const training *t = context;
    return lt_run_stage_reduce_begin(t->run, gradients, first, count);
}

static lt_status reduce_end(void *context) {
    training *t = context;
    lt_reducer_times times;
    lt_watchdog_tick("gradient reduction", t->options.update.step);
    LT_CHECK(lt_run_stage_reduce_end(t->run, lt_model_gradients(t->run->model), &times));
    t->run->interval.comm_wait_ms += times.waited_ms;
    t->run->interval.comm_ms += fmax(times.busy_ms, times.waited_ms);
    return LT_OK;
}

static lt_status reduce_doubles(void *context, double *values, int64_t count) {
    training *t = context;
    return lt_reduce_doubles(&t->run->grid, values, (int)count);
}

static lt_status gather_parameters(void *context, lt_mem parameters) {
    training *t = context;
    lt_watchdog_tick("gathering the updated weights", t->options.update.step);
    const double begin = lt_now_s();
    LT_CHECK(lt_run_stage_gather_parameters(t->run, parameters));
    lt_run_waited(t->run, begin);
    return LT_OK;
}

/* ---- metrics ---- */

/* Fills `sources` [LT_MIXTURE_SOURCES] for the metrics. The ranks together have seen all samples, in an order
 * in which epochs only rise. */
static lt_status describe_sources(training *t, lt_metrics_source *sources, lt_metrics_step *metrics) {
    lt_run *run = t->run;
    const lt_mixture *mixture = &run->mixture;
    const bool known = run->config.data.document_token >= 0;
    double documents[LT_MIXTURE_SOURCES];
    memcpy(documents, t->documents, sizeof documents);
    if (known) LT_CHECK(lt_reduce_doubles(&run->grid, documents, mixture->sources));
    metrics->source_count = mixture->sources;
    metrics->sources = sources;
    for (int i = 0; i < mixture->sources; i++) {
        lt_verdict last;
        LT_CHECK(lt_grid_agree(&run->grid, (int)t->epochs[i], &last));
        sources[i] = (lt_metrics_source){.epoch = last.code,
                                         .tokens = lt_mixture_consumed(mixture, i, run->samples) *
                                                   run->config.data.seq_len,
                                         .documents = known ? (int64_t)documents[i] : -1};
    }
    return LT_OK;
}

/* The line of metrics and the line on the screen of the step that was just done. */
static lt_status report(training *t, const lt_step_result *result) {
    lt_run *run = t->run;
    const bool logged = run->step % run->config.log.every == 0 || run->step == run->config.train.steps ||
                        is_diagnostic_step(t, run->step) || run->step == 1;
    if (!logged) return LT_OK;
    lt_metrics_step metrics = {.step = run->step,
                               .tokens = run->tokens,
                               .loss = result->loss,
                               .learning_rate = t->options.update.learning_rate,
                               .gradient_norm = result->gradient_norm};
    const double tokens = (double)(run->config.train.global_batch * run->config.data.seq_len);
    const double flops =
        tokens * lt_model_flops_per_token(&run->model_options.shape, run->config.data.seq_len);
    LT_CHECK(lt_interval_gather(&t->run->interval, &run->grid, run->peak_gflops, tokens, flops, &metrics));
    lt_metrics_source sources[LT_MIXTURE_SOURCES];
    LT_CHECK(describe_sources(t, sources, &metrics));
    lt_status status = LT_OK;
    lt_metrics_diagnostics diagnostics = {0};
    if (run->grid.data_rank == 0 && is_diagnostic_step(t, run->step)) {
        status = lt_run_diagnose(run, &diagnostics);
        metrics.diagnostics = &diagnostics;
    }
    if (run->grid.rank == 0) {
        if (status == LT_OK) status = lt_metrics_write_step(run->metrics, &metrics);
        lt_progress_show(&(lt_progress){.step = run->step,
                                        .steps = run->config.train.steps,
                                        .loss = result->loss,
                                        .tokens_per_s = metrics.tokens_per_s,
                                        .learning_rate = metrics.learning_rate,
                                        .gradient_norm = result->gradient_norm,
                                        .seconds_a_step = 1e-3 * metrics.step_ms},
                         t->on_terminal, true);
        if (status == LT_OK && metrics.diagnostics != NULL)
            lt_log_info("step %lld: %.1f%% of attention weights are exactly 0, sink %.3f, mass %.3f, tau "
                        "%.3f, %.1f%% "
                        "of tiles live",
                        (long long)run->step, 100 * diagnostics.sparsity, diagnostics.sink, diagnostics.mass,
                        diagnostics.tau_mean, 100 * diagnostics.live_tiles);
    }
    lt_interval_begin(&t->run->interval);
    return lt_run_share(run, status);
}

/* ---- the loop ---- */

static void describe_step(training *t, int64_t step) {
    const lt_config *config = &t->run->config;
    const double rate = lt_learning_rate(config, step);
    t->options.update = (lt_update){
        .step = step,
        .learning_rate = rate,
        .lazy_learning_rate = rate * config->optimizer.lazy_lr_multiplier,
        .freeze_lazy = config->optimizer.freeze_lazy_after >= 0 && step > config->optimizer.freeze_lazy_after,
        .beta1 = config->optimizer.betas[0],
        .beta2 = config->optimizer.betas[1],
        .epsilon = config->optimizer.eps,
        .weight_decay = config->optimizer.weight_decay,
    };
}

/* Saves the weights before an error that all ranks know ends the run; the error stays what is told. */
static lt_status save_before(lt_run *run, lt_status failure) {
    char message[LT_ERROR_MESSAGE_BYTES];
    snprintf(message, sizeof message, "%s", lt_error_message());
    LT_CHECK(lt_run_check_device(run));
    lt_log_info("reading or writing failed: saving step %lld and leaving", (long long)run->step);
    if (lt_run_save(run) != LT_OK) lt_log_warning("the state is not saved: %s", lt_error_message());
    return lt_run_share(run, lt_fail(failure, "%s", message));
}

static lt_status save_and_fail(lt_run *run, lt_status failure) {
    if (!run->error_shared) return failure;
    if (is_late_input(run, failure)) return save_before(run, LT_FAILED);
    return failure == LT_IO ? save_before(run, failure) : failure;
}

/* Says why the run stops. The signal may have come to this rank after the agreement, or never. */
static lt_status tell_cause(training *t) {
    const lt_run *run = t->run;
    char where[40] = "";
    if (run->grid.rank > 0) snprintf(where, sizeof where, " (noticed on rank %d)", run->grid.rank);
    own_request(t);
    lt_status told = LT_OK;
    if (t->cause != NULL)
        told =
            lt_fail(LT_STOPPED, "%s: saving step %lld and leaving%s", t->cause, (long long)run->step, where);
    told = lt_grid_share_status(&run->grid, told, NULL);
    if (told != LT_STOPPED) return told;
    lt_log_info("%s", lt_error_message());
    return LT_OK;
}

/* Leaves after the ranks agreed to: saves where weights are worth saving, says why. */
static lt_status leave(training *t) {
    lt_run *run = t->run;
    if (t->agreed == LT_REQUEST_STOP) {
        LT_CHECK(tell_cause(t));
        LT_CHECK(lt_background_step(run) == run->step ? lt_background_finish(run) : lt_run_save(run));
        return LT_STOPPED;
    }
    const bool mine = run->grid.rank == t->agreed_rank;
    const lt_status status = lt_run_share(run, mine ? lt_fail(t->own_status, "%s", t->own_message) : LT_OK);
    return t->agreed == LT_REQUEST_SAVE_AND_FAIL ? save_before(run, status) : status;
}

/* A loss or gradient that is not finite: the update is dropped, and perhaps the run goes on. */
static lt_status handle_nonfinite(training *t, const lt_step_result *result) {
    lt_run *run = t->run;
    lt_verdict source; /* the first rank whose own loss is not finite */
    LT_CHECK(lt_grid_agree(&run->grid, isfinite(result->own_loss_sum) ? 0 : 1, &source));
    char where[160];
    if (source.code != 0)
        snprintf(where, sizeof where, "first on rank %d", source.rank);
    else
        snprintf(where, sizeof where, "no rank's loss alone");
    const char *parameter = result->first_nonfinite == NULL ? "none" : result->first_nonfinite->name;
    t->skips++;
    if (strcmp(run->config.train.nonfinite, "skip") == 0 && t->skips <= run->config.train.max_skips) {
        lt_log_warning(
            "step %lld: loss %g (%s), first gradient that is not finite: %s; update dropped (%lld in a row, "
            "train.max_skips %lld)",
            (long long)run->step + 1, result->loss, where, parameter, (long long)t->skips,
            (long long)run->config.train.max_skips);
        return LT_OK;
    }
    return lt_fail(
        LT_FAILED,
        "step %lld: loss %g (%s), gradient norm %g, first gradient that is not finite: %s; weights are those "
        "of step %lld; lower optimizer.lr, or %s",
        (long long)run->step + 1, result->loss, where, result->gradient_norm, parameter, (long long)run->step,
        t->skips > 1 ? "raise train.max_skips" : "set train.nonfinite: skip");
}

static void note_spike(training *t, const lt_step_result *result) {
    const double mean = t->spikes.mean;
    double excess;
    if (lt_spike_begins(&t->spikes, result->loss, &excess))
        lt_log_warning(
            "step %lld: loss spike: %.4f, %.1f standard deviations above the mean %.4f of the steps "
            "before; gradient norm %.3f, lr %.2e",
            (long long)t->run->step + 1, result->loss, excess, mean, result->gradient_norm,
            t->options.update.learning_rate);
}

static bool wants_to_stop(void *context) {
    return own_request(context) >= LT_REQUEST_STOP;
}

static lt_status validate(training *t, bool *leaving) {
    LT_CHECK(save_and_fail(t->run, lt_run_validate(t->run, wants_to_stop, t, leaving)));
    if (*leaving) t->agreed = LT_REQUEST_STOP;
    lt_interval_begin(&t->run->interval);
    return LT_OK;
}

/* After an update: report, validate, save. */
static lt_status follow_up(training *t, const lt_step_result *result, bool *leaving) {
    lt_run *run = t->run;
    const lt_config *config = &run->config;
    const bool last = run->step == config->train.steps;
    LT_CHECK(save_and_fail(run, report(t, result)));
    if (lt_run_validation_is_due(run, run->step)) LT_CHECK(validate(t, leaving));
    if (*leaving) return LT_OK;
    if (t->all_idle) LT_CHECK(lt_background_advance(run));
    const bool asked = t->agreed == LT_REQUEST_SAVE;
    if (asked) t->agreed = t->own = LT_REQUEST_NONE;
    if (asked || last || (config->checkpoint.every > 0 && run->step % config->checkpoint.every == 0)) {
        LT_CHECK(config->checkpoint.async && !last ? lt_background_start(run) : lt_run_save(run));
        lt_interval_begin(&t->run->interval);
    }
    return LT_OK;
}

static lt_status train_step(training *t, bool *leaving) {
    lt_run *run = t->run;
    lt_step_result result;
    describe_step(t, run->step + 1);
    memset(t->documents, 0, sizeof t->documents);
    t->batches = 0;
    LT_CHECK(lt_step_run(run->model, &t->options, &t->exchange, &result));
    if (result.outcome == LT_STEP_DROPPED) {
        *leaving = true;
        return LT_OK;
    }
    if (result.outcome == LT_STEP_NONFINITE) {
        LT_CHECK(lt_run_share(run, handle_nonfinite(t, &result)));
    } else {
        t->skips = 0;
        note_spike(t, &result);
    }
    lt_watchdog_grant(0);
    run->step++;
    run->samples += run->config.train.global_batch;
    run->tokens += run->config.train.global_batch * run->config.data.seq_len;
    t->run->interval.steps++;
    return follow_up(t, &result, leaving);
}

/* A save under way is worth finishing where all ranks know why the run ends. */
static lt_status finish_save(lt_run *run, lt_status status) {
    if (status == LT_OK || !run->error_shared || lt_background_step(run) < 0) return status;
    char message[LT_ERROR_MESSAGE_BYTES];
    snprintf(message, sizeof message, "%s", lt_error_message());
    if (lt_background_finish(run) != LT_OK) lt_log_warning("%s", lt_error_message());
    run->error_shared = true;
    return lt_fail(status, "%s", message);
}

/* Seconds since this process was started, launcher excluded; 0 where the system does not say. */
static double process_age_s(void) {
    FILE *file = fopen("/proc/self/stat", "r");
    unsigned long long ticks = 0;
    struct timespec boot;
    if (file == NULL || clock_gettime(CLOCK_BOOTTIME, &boot) != 0) return 0;
    /* Field 22 of proc(5); the name in field 2 is ours and holds no space. */
    const int found =
        fscanf(file,
               "%*d %*s %*c %*d %*d %*d %*d %*d %*u %*u %*u %*u %*u %*u %*u %*d %*d %*d %*d %*d "
               "%*d %llu",
               &ticks);
    fclose(file);
    if (found != 1) return 0;
    return (double)boot.tv_sec + 1e-9 * (double)boot.tv_nsec - (double)ticks / (double)sysconf(_SC_CLK_TCK);
}

lt_status lt_train(lt_run *run) {
    const lt_config *config = &run->config;
    training t = {
        .run = run,
        .started = lt_now_s(),
        .on_terminal = lt_progress_on_terminal(),
        .options = {.lanes = run->own_lanes,
                    .batches_per_lane = run->own_batches / run->own_lanes,
                    .micro_batch = config->train.micro_batch,
                    .targets = config->train.global_batch * config->data.seq_len,
                    .gradient_clip = config->optimizer.grad_clip,
                    .workspace = run->step_workspace},
    };
    t.exchange = (lt_exchange){.context = &t,
                               .next_batch = next_batch,
                               .should_drop = should_drop,
                               .reduce_begin = reduce_begin,
                               .reduce_end = reduce_end,
                               .reduce_doubles = reduce_doubles,
                               .gather_parameters = run->zero != NULL ? gather_parameters : NULL};
    bool leaving = false;
    if (run->owes_validation) LT_CHECK(validate(&t, &leaving));
    if (run->first_step > config->train.steps) {
        if (run->resumed_from[0] == '\0') return lt_run_save(run); /* train.steps: 0 */
        if (leaving) return LT_STOPPED;
        lt_log_info("nothing to do: %s is of step %lld and train.steps is %lld", run->resumed_from,
                    (long long)run->step, (long long)config->train.steps);
        return LT_OK;
    }
    LT_CHECK(lt_interval_open(&run->interval, &run->grid));
    lt_log_info("start      first step began %.2f s after the process", process_age_s());
    lt_interval_begin(&run->interval);
    lt_watchdog_grant(config->train.stall_timeout_s); /* the first step touches all memory */
    lt_status status = LT_OK;
    while (status == LT_OK && run->step < config->train.steps && !leaving) status = train_step(&t, &leaving);
    if (t.on_terminal) lt_log_progress(NULL);
    if (status == LT_OK) lt_interval_conclude(&run->interval, &run->grid);
    lt_interval_close(&run->interval);
    return status == LT_OK && leaving ? leave(&t) : finish_save(run, status);
}
