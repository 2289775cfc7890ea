#include "trainer/run.h"

#include "comm/log.h"
#include "comm/watchdog.h"

#include <stdlib.h>
#include <string.h>

/* Reads samples [first, first + rows) of a set, in their order. */
static lt_status read_rows(const lt_run *run, const lt_dataset *dataset, int64_t first, int64_t rows,
                           int32_t *memory, lt_tokens *tokens) {
    const int64_t length = run->config.data.seq_len;
    const bool documents = run->config.data.document_mask;
    int32_t *inputs = memory, *targets = inputs + rows * length, *starts = targets + rows * length;
    int32_t *sample = run->evaluation_sample;
    for (int64_t row = 0; row < rows; row++) {
        LT_CHECK(lt_dataset_read_item(dataset, &(lt_shuffle){.shuffle = false}, first + row, sample, NULL));
        memcpy(inputs + row * length, sample, sizeof(int32_t) * (size_t)length);
        memcpy(targets + row * length, sample + 1, sizeof(int32_t) * (size_t)length);
        if (documents)
            lt_document_starts(sample, length, run->config.data.document_token,
                               strcmp(run->config.data.document_token_position, "first") == 0,
                               starts + row * length);
    }
    *tokens = (lt_tokens){
        .rows = rows, .inputs = inputs, .targets = targets, .document_starts = documents ? starts : NULL};
    return LT_OK;
}

/* What a validation asks at every micro-batch. */
typedef struct patience {
    bool (*wants_to_stop)(void *context);
    void *context;
    bool stopped; /* agreed by all ranks */
    bool failed;  /* a rank of this tensor group cannot go on */
} patience;

/* Begins an agreement on whether to stop, or ends it. */
static lt_status ask(lt_run *run, patience *p, bool begin) {
    if (begin) return lt_grid_agree_begin(&run->grid, p->wants_to_stop(p->context) ? 1 : 0);
    lt_verdict verdict;
    LT_CHECK(lt_grid_agree_end(&run->grid, &verdict));
    p->stopped = verdict.code != 0;
    return LT_OK;
}

/* The loss sums of one micro-batch, each at its sample's place in `sums`. Micro-batches are the same whatever
 * the number of ranks, so a sample's bits are too. */
static lt_status evaluate_batch(lt_run *run, const lt_dataset *dataset, int64_t batch, int64_t samples,
                                double *sums, patience *p) {
    const int64_t micro_batch = run->config.train.micro_batch, first = batch * micro_batch;
    const int64_t rows = samples - first < micro_batch ? samples - first : micro_batch;
    lt_tokens tokens;
    lt_verdict verdict;
    lt_status status = LT_OK;
    lt_watchdog_tick("validation", run->step);
    if (rows > 0) status = read_rows(run, dataset, first, rows, run->evaluation_memory, &tokens);
    LT_CHECK(lt_tensor_agree(&run->grid, status != LT_OK ? 1 : 0, &verdict));
    p->failed = verdict.code != 0;
    return p->failed || rows <= 0 ? status : lt_model_evaluate(run->model, &tokens, sums + first);
}

/* Every rank goes through as many rounds; the answer to a question is heard a round later, so that nobody
 * waits. */
static lt_status evaluate_own(lt_run *run, const lt_dataset *dataset, int64_t samples, double *sums,
                              patience *p) {
    const int64_t at_once = run->config.train.micro_batch * run->grid.data_ranks;
    lt_status status = LT_OK;
    for (int64_t round = 0; round * at_once < samples && !p->stopped; round++) {
        if (round > 0) LT_CHECK(ask(run, p, false));
        LT_CHECK(ask(run, p, true));
        if (!p->failed && !p->stopped)
            status = evaluate_batch(run, dataset, round * run->grid.data_ranks + run->grid.data_rank, samples,
                                    sums, p);
    }
    const bool stopped = p->stopped;
    LT_CHECK(ask(run, p, false));
    p->stopped = stopped; /* a wish that came after the last batch can wait */
    return status;
}

/* lt_run_share() of what reading gave, where one rank that was stopped stops all. */
static lt_status share_reading(lt_run *run, patience *p, lt_status mine) {
    const lt_status status = lt_run_share(run, mine);
    if (status != LT_STOPPED) return status;
    run->error_shared = false;
    p->stopped = true;
    return LT_OK;
}

static lt_status evaluate(lt_run *run, const lt_validation_set *set, patience *p, double *loss) {
    int64_t samples = run->config.train.eval_batches * run->config.train.global_batch;
    lt_watchdog_tick("counting validation samples", run->step);
    lt_dataset_heed(set->dataset, p->wants_to_stop, p->context);
    LT_CHECK(share_reading(run, p, lt_dataset_count_samples(set->dataset, samples, &samples)));
    if (p->stopped) return LT_OK;
    double *sums = run->evaluation_sums;
    memset(sums, 0, sizeof(double) * (size_t)samples);
    LT_CHECK(share_reading(run, p, evaluate_own(run, set->dataset, samples, sums, p)));
    if (p->stopped) return LT_OK;
    if (run->grid.tensor_rank > 0) memset(sums, 0, sizeof(double) * (size_t)samples); /* others have them */
    LT_CHECK(lt_grid_sum_disjoint(&run->grid, sums, samples));
    double total = 0;
    for (int64_t sample = 0; sample < samples; sample++) total += sums[sample];
    *loss = total / (double)(samples * run->config.data.seq_len);
    return LT_OK;
}

static lt_status write_losses(lt_run *run, const double *losses) {
    for (int i = 0; i < run->validation_sets; i++) {
        const char *name = run->validation[i].name;
        lt_log_info("step %lld: validation%s%s loss %.4f", (long long)run->step, name == NULL ? "" : " ",
                    name == NULL ? "" : name, losses[i]);
        if (run->metrics != NULL)
            LT_CHECK(lt_metrics_write_validation(run->metrics, run->step, name, losses[i]));
    }
    return LT_OK;
}

bool lt_run_validation_is_due(const lt_run *run, int64_t step) {
    const int64_t every = run->config.train.eval_every;
    return every > 0 && step > 0 && (step % every == 0 || step == run->config.train.steps);
}

lt_status lt_run_validate(lt_run *run, bool (*wants_to_stop)(void *context), void *context, bool *stopped) {
    double losses[LT_MAX_SOURCES];
    patience p = {.wants_to_stop = wants_to_stop, .context = context};
    for (int i = 0; i < run->validation_sets && !p.stopped; i++)
        LT_CHECK(evaluate(run, &run->validation[i], &p, &losses[i]));
    *stopped = p.stopped;
    return p.stopped ? LT_OK : lt_run_share(run, write_losses(run, losses));
}
