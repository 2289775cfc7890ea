/* Cross entropy where the vocabulary is cut among ranks. */
#include "model/cpu/device.h"

#include <math.h>
#include <string.h>

enum { TASK_ELEMENTS = 16384 };

typedef struct loss_job {
    const lt_cut_loss *loss;
    const lt_kernels *kernels;
    int64_t rows_per_task;
} loss_job;

static void run_rows(lt_device *device, const lt_cut_loss *loss, lt_task task) {
    loss_job job = {.loss = loss, .kernels = cpu_of(device)->kernels};
    job.rows_per_task = (TASK_ELEMENTS + loss->vocabulary.width - 1) / loss->vocabulary.width;
    lt_pool_run(cpu_of(device)->pool, (loss->rows + job.rows_per_task - 1) / job.rows_per_task, task, &job);
}

static int64_t end_of_task(const loss_job *job, int64_t index) {
    const int64_t end = (index + 1) * job->rows_per_task;
    return end < job->loss->rows ? end : job->loss->rows;
}

static float *logits_of(const lt_cut_loss *loss, int64_t row) {
    return floats_of(loss->logits) + row * loss->vocabulary.width;
}

static double *parts_of(const lt_cut_loss *loss, int rank, int64_t row) {
    return doubles_of(loss->parts) + (rank * loss->rows + row) * LT_LOSS_PARTS;
}

/* The column of the target's logit; -1 where another rank has it. */
static int64_t target_of(const lt_cut_loss *loss, int64_t row) {
    const int64_t column = integers_of(loss->targets)[row] - loss->vocabulary.first;
    return column >= 0 && column < loss->vocabulary.count ? column : -1;
}

static void give(void *context, int64_t index, int worker) {
    (void)worker;
    const loss_job *job = context;
    const lt_cut_loss *loss = job->loss;
    for (int64_t row = index * job->rows_per_task; row < end_of_task(job, index); row++) {
        float *logits = logits_of(loss, row);
        const int64_t target = target_of(loss, row);
        double *parts = parts_of(loss, loss->rank, row);
        float largest;
        parts[LT_LOSS_TARGET] = target < 0 ? 0 : (double)logits[target];
        parts[LT_LOSS_SUM] =
            job->kernels->exponentials(logits, loss->vocabulary.count, loss->gradient, &largest);
        parts[LT_LOSS_LARGEST] = (double)largest;
    }
}

void lt_cpu_cross_entropy_part(lt_device *device, const lt_cut_loss *loss) {
    run_rows(device, loss, give);
}

/* Ranks in order; a rank with no token has a largest logit of -inf and adds 0. */
static double join_row(const lt_cut_loss *loss, int64_t row, double *largest, double *sum) {
    double target = 0;
    *largest = -INFINITY;
    *sum = 0;
    for (int rank = 0; rank < loss->ranks; rank++)
        *largest = fmax(*largest, parts_of(loss, rank, row)[LT_LOSS_LARGEST]);
    for (int rank = 0; rank < loss->ranks; rank++) {
        const double *parts = parts_of(loss, rank, row);
        *sum += parts[LT_LOSS_SUM] * exp(parts[LT_LOSS_LARGEST] - *largest);
        target += parts[LT_LOSS_TARGET];
    }
    /* cppcheck-suppress invalidFunctionArg ; there is a rank, so the sum is not 0 */
    return log(*sum) + (*largest - target);
}

static void join(void *context, int64_t index, int worker) {
    (void)worker;
    const loss_job *job = context;
    const lt_cut_loss *loss = job->loss;
    const int64_t count = loss->vocabulary.count;
    for (int64_t row = index * job->rows_per_task; row < end_of_task(job, index); row++) {
        double largest, sum;
        doubles_of(loss->losses)[row] = join_row(loss, row, &largest, &sum);
        if (!loss->gradient) continue;
        const double own_largest = parts_of(loss, loss->rank, row)[LT_LOSS_LARGEST];
        float *logits = logits_of(loss, row);
        const int64_t target = target_of(loss, row);
        job->kernels->multiply(logits, (float)(loss->scale * exp(own_largest - largest) / sum), count);
        if (target >= 0) logits[target] -= (float)loss->scale;
        memset(logits + count, 0, sizeof(float) * (size_t)(loss->vocabulary.width - count));
    }
}

void lt_cpu_cross_entropy_join(lt_device *device, const lt_cut_loss *loss) {
    run_rows(device, loss, join);
}
