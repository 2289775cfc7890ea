/* Operations over the rows of matrices on the CPU: cut into blocks of rows (kernels/rows.c does a row). */
#include "model/cpu/device.h"

#include <string.h>

/* A task takes rows of about this many elements together; sums over rows are kept in at most MOST_PARTS
 * parts. */
enum { TASK_ELEMENTS = 16384, MOST_PARTS = 32, COLUMNS = 64 };

typedef struct row_job {
    cpu_device *device;
    int64_t rows, width, rows_per_task;
    const float *x, *weight, *d_y;
    float *y, *z, *inverse_rms, *d_weight;
    const int32_t *tokens;
    lt_vocabulary vocabulary;
    float *embedding;
    float epsilon, scale;
    double *losses;
    int64_t stride, length, first, heads;
    int64_t count; /* of a row of logits: tokens */
    bool flag;
} row_job;

static int64_t divide_up(int64_t a, int64_t b) {
    return (a + b - 1) / b;
}

static int64_t smaller(int64_t a, int64_t b) {
    return a < b ? a : b;
}

/* Runs `task` over blocks of rows. */
static void run_rows(lt_device *device, row_job *job, lt_task task) {
    job->device = cpu_of(device);
    if (job->rows_per_task == 0) job->rows_per_task = divide_up(TASK_ELEMENTS, job->width);
    lt_pool_run(job->device->pool, divide_up(job->rows, job->rows_per_task), task, job);
}

#define FOR_ROWS_OF_TASK(job, index, row) \
    for (int64_t row = (index) * (job)->rows_per_task, \
                 row##_end = smaller((job)->rows, row + (job)->rows_per_task); \
         row < row##_end; row++)

/* The row of the embedding that a token of the vocabulary has; NULL for any other token. */
static float *row_of_token(float *embedding, const row_job *job, int64_t row) {
    const int64_t token = job->tokens[row] - job->vocabulary.first;
    return token >= 0 && token < job->vocabulary.count ? embedding + token * job->width : NULL;
}

static void embed(void *context, int64_t index, int worker) {
    (void)worker;
    const row_job *job = context;
    FOR_ROWS_OF_TASK(job, index, row) {
        const float *from = row_of_token(job->embedding, job, row);
        float *to = job->y + row * job->width;
        if (from != NULL)
            memcpy(to, from, sizeof(float) * (size_t)job->width);
        else
            memset(to, 0, sizeof(float) * (size_t)job->width);
    }
}

void lt_cpu_embedding_forward(lt_device *device, lt_mem tokens, const lt_vocabulary *vocabulary,
                              lt_mem weight, int64_t rows, int64_t hidden, lt_mem out) {
    run_rows(device,
             &(row_job){.rows = rows,
                        .width = hidden,
                        .tokens = integers_of(tokens),
                        .vocabulary = *vocabulary,
                        .embedding = floats_of(weight),
                        .y = floats_of(out)},
             embed);
}

/* A task owns a range of columns and takes all rows in order, so equal tokens are summed in one order. */
static void embed_backward(void *context, int64_t index, int worker) {
    (void)worker;
    const row_job *job = context;
    const int64_t begin = index * COLUMNS, count = smaller(COLUMNS, job->width - begin);
    for (int64_t row = 0; row < job->rows; row++) {
        float *to = row_of_token(job->embedding, job, row);
        if (to != NULL) job->device->kernels->add(to + begin, job->d_y + row * job->width + begin, count);
    }
}

void lt_cpu_embedding_backward(lt_device *device, lt_mem tokens, const lt_vocabulary *vocabulary,
                               lt_mem d_out, int64_t rows, int64_t hidden, lt_mem d_weight) {
    row_job job = {.device = cpu_of(device),
                   .rows = rows,
                   .width = hidden,
                   .tokens = integers_of(tokens),
                   .vocabulary = *vocabulary,
                   .d_y = floats_of(d_out),
                   .embedding = floats_of(d_weight)};
    lt_pool_run(job.device->pool, divide_up(hidden, COLUMNS), embed_backward, &job);
}

static void normalise(void *context, int64_t index, int worker) {
    (void)worker;
    const row_job *job = context;
    FOR_ROWS_OF_TASK(job, index, row)
    job->device->kernels->rmsnorm_forward(job->x + row * job->width, job->weight, job->epsilon, job->width,
                                          job->y + row * job->width, job->inverse_rms + row);
}

void lt_cpu_rmsnorm_forward(lt_device *device, lt_mem x, lt_mem weight, double epsilon, int64_t rows,
                            int64_t hidden, lt_mem y, lt_mem inverse_rms) {
    run_rows(device,
             &(row_job){.rows = rows,
                        .width = hidden,
                        .x = floats_of(x),
                        .weight = floats_of(weight),
                        .epsilon = (float)epsilon,
                        .y = floats_of(y),
                        .inverse_rms = floats_of(inverse_rms)},
             normalise);
}

static int64_t rows_per_part(int64_t rows) {
    return divide_up(rows, MOST_PARTS);
}

static void normalise_backward(void *context, int64_t index, int worker) {
    (void)worker;
    const row_job *job = context;
    float *part = job->z + index * job->width;
    memset(part, 0, sizeof(float) * (size_t)job->width);
    FOR_ROWS_OF_TASK(job, index, row)
    job->device->kernels->rmsnorm_backward(job->x + row * job->width, job->weight, job->inverse_rms[row],
                                           job->d_y + row * job->width, job->width, job->y + row * job->width,
                                           part);
}

/* The parts of d_weight lie in scratch and are added in order. */
void lt_cpu_rmsnorm_backward(lt_device *device, lt_mem x, lt_mem weight, lt_mem inverse_rms, lt_mem d_y,
                             int64_t rows, int64_t hidden, lt_mem d_x, lt_mem d_weight) {
    row_job job = {.rows = rows,
                   .width = hidden,
                   .rows_per_task = rows_per_part(rows),
                   .x = floats_of(x),
                   .weight = floats_of(weight),
                   .inverse_rms = floats_of(inverse_rms),
                   .d_y = floats_of(d_y),
                   .y = floats_of(d_x),
                   .z = (float *)(void *)cpu_of(device)->scratch};
    run_rows(device, &job, normalise_backward);
    for (int64_t part = 0; part < divide_up(rows, job.rows_per_task); part++)
        job.device->kernels->add(floats_of(d_weight), job.z + part * hidden, hidden);
}

/* Fewer rows may make more parts, but never more than there are rows. */
size_t lt_cpu_rows_scratch_bytes(int64_t rows, int64_t hidden) {
    return sizeof(float) * (size_t)(smaller(rows, MOST_PARTS) * hidden);
}

static void rotate(void *context, int64_t index, int worker) {
    (void)worker;
    const row_job *job = context;
    FOR_ROWS_OF_TASK(job, index, row)
    job->device->kernels->rope(job->y + row * job->stride,
                               job->x + (job->first + row % job->length) * (job->width / job->heads),
                               job->heads, job->width / job->heads, job->flag);
}

void lt_cpu_rope(lt_device *device, lt_mem x, int64_t stride, lt_mem table, int64_t rows, int64_t length,
                 int64_t first, int64_t heads, int64_t head_size, bool inverse) {
    run_rows(device,
             &(row_job){.rows = rows,
                        .width = heads * head_size,
                        .heads = heads,
                        .y = floats_of(x),
                        .x = floats_of(table),
                        .stride = stride,
                        .length = length,
                        .first = first,
                        .flag = inverse},
             rotate);
}

static void activate(void *context, int64_t index, int worker) {
    (void)worker;
    const row_job *job = context;
    FOR_ROWS_OF_TASK(job, index, row) {
        const float *gate = job->x + row * 2 * job->width;
        job->device->kernels->swiglu_forward(gate, gate + job->width, job->width, job->y + row * job->width);
    }
}

void lt_cpu_swiglu_forward(lt_device *device, lt_mem gate_up, int64_t rows, int64_t ffn, lt_mem out) {
    run_rows(device, &(row_job){.rows = rows, .width = ffn, .x = floats_of(gate_up), .y = floats_of(out)},
             activate);
}

static void activate_backward(void *context, int64_t index, int worker) {
    (void)worker;
    const row_job *job = context;
    FOR_ROWS_OF_TASK(job, index, row) {
        const float *gate = job->x + row * 2 * job->width;
        float *d_gate = job->z + row * 2 * job->width;
        job->device->kernels->swiglu_backward(gate, gate + job->width, job->d_y + row * job->width,
                                              job->width, d_gate, d_gate + job->width,
                                              job->y + row * job->width);
    }
}

void lt_cpu_swiglu_backward(lt_device *device, lt_mem gate_up, lt_mem d_out, int64_t rows, int64_t ffn,
                            lt_mem d_gate_up, lt_mem out) {
    run_rows(device,
             &(row_job){.rows = rows,
                        .width = ffn,
                        .x = floats_of(gate_up),
                        .d_y = floats_of(d_out),
                        .z = floats_of(d_gate_up),
                        .y = floats_of(out)},
             activate_backward);
}

static void lose(void *context, int64_t index, int worker) {
    (void)worker;
    const row_job *job = context;
    FOR_ROWS_OF_TASK(job, index, row) {
        float *logits = job->y + row * job->width;
        job->losses[row] =
            job->device->kernels->cross_entropy(logits, job->count, job->tokens[row], job->scale, job->flag);
        for (int64_t i = job->count; job->flag && i < job->width; i++) logits[i] = 0.0f;
    }
}

void lt_cpu_cross_entropy(lt_device *device, lt_mem logits, lt_mem targets, int64_t rows, int64_t vocabulary,
                          int64_t width, double scale, bool gradient, lt_mem losses) {
    run_rows(device,
             &(row_job){.rows = rows,
                        .width = width,
                        .count = vocabulary,
                        .y = floats_of(logits),
                        .tokens = integers_of(targets),
                        .scale = (float)scale,
                        .flag = gradient,
                        .losses = doubles_of(losses)},
             lose);
}
