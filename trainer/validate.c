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
        LT_CHECK(lt_dataset_read(dataset, first + row, sample));
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

/* The loss sums of this rank's micro-batches, each at its sample's place in `sums`. Micro-batches are the
 * same whatever the number of ranks, so a sample's bits are too. */
static lt_status evaluate_own(lt_run *run, const lt_dataset *dataset, int64_t samples, double *sums) {
    const int64_t micro_batch = run->config.train.micro_batch;
    for (int64_t batch = run->grid.data_rank; batch * micro_batch < samples; batch += run->grid.data_ranks) {
        const int64_t first = batch * micro_batch;
        const int64_t rows = samples - first < micro_batch ? samples - first : micro_batch;
        lt_tokens tokens;
        lt_watchdog_tick("validation", run->step);
        LT_CHECK(read_rows(run, dataset, first, rows, run->evaluation_memory, &tokens));
        LT_CHECK(lt_model_evaluate(run->model, &tokens, sums + first));
    }
    return LT_OK;
}

static lt_status evaluate(lt_run *run, const lt_validation_set *set, double *loss) {
    int64_t samples = run->config.train.eval_batches * run->config.train.global_batch;
    if (lt_dataset_samples(set->dataset) < samples) samples = lt_dataset_samples(set->dataset);
    double *sums = run->evaluation_sums;
    memset(sums, 0, sizeof(double) * (size_t)samples);
    LT_CHECK(lt_run_share(run, evaluate_own(run, set->dataset, samples, sums)));
    LT_CHECK(lt_grid_sum_disjoint(&run->grid, sums, samples));
    double total = 0;
    for (int64_t sample = 0; sample < samples; sample++) total += sums[sample];
    *loss = total / (double)(samples * run->config.data.seq_len);
    return LT_OK;
}

lt_status lt_run_validate(lt_run *run) {
    for (int i = 0; i < run->validation_sets; i++) {
        const lt_validation_set *set = &run->validation[i];
        double loss;
        LT_CHECK(evaluate(run, set, &loss));
        lt_log_info("step %lld: validation%s%s loss %.4f", (long long)run->step, set->name == NULL ? "" : " ",
                    set->name == NULL ? "" : set->name, loss);
        LT_CHECK(lt_run_share(run, run->metrics == NULL ? LT_OK
                                                        : lt_metrics_write_validation(run->metrics, run->step,
                                                                                      set->name, loss)));
    }
    return LT_OK;
}
