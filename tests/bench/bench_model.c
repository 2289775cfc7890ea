/* Speed of the model on this machine, as shares of what sgemm reaches beside it.
 *
 * The yardstick is the sgemm rate of all threads, each calling single-threaded sgemm of 1024^3, measured in
 * turn with each line; best and median of the rounds are printed. Flops are counted as in the metrics
 * (lt_model_flops_per_token): 6 N a token and 6 products of causal attention, whatever is computed beside it.
 */
#include "model/model.h"

#include <cblas.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <time.h>

enum { ROUNDS = 7, SIZE = 1024, MOST_THREADS = 64 };

static double now_s(void) {
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return (double)time.tv_sec + 1e-9 * (double)time.tv_nsec;
}

static int by_value(const void *a, const void *b) {
    const double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static void *multiply(void *memory) {
    float *a = memory, *b = a + SIZE * SIZE, *c = b + SIZE * SIZE;
    cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasNoTrans, SIZE, SIZE, SIZE, 1.0f, a, SIZE, b, SIZE, 0.0f, c,
                SIZE);
    return NULL;
}

static double sgemm_gflops(int threads) {
    static float *memory;
    const size_t own = 3 * SIZE * SIZE;
    if (memory == NULL) {
        memory = malloc(sizeof(float) * own * (size_t)threads);
        if (memory == NULL) return 0;
        for (size_t i = 0; i < own * (size_t)threads; i++) memory[i] = (float)(i % 7) - 3.0f;
    }
    pthread_t thread[MOST_THREADS];
    const double begin = now_s();
    for (int i = 1; i < threads; i++) pthread_create(&thread[i], NULL, multiply, memory + own * (size_t)i);
    multiply(memory);
    for (int i = 1; i < threads; i++) pthread_join(thread[i], NULL);
    return 2e-9 * SIZE * SIZE * SIZE * threads / (now_s() - begin);
}

typedef struct line {
    const char *name;
    double goal, gflop; /* work of one call */
    double share[ROUNDS], rate[ROUNDS], sgemm[ROUNDS];
} line;

static void report(line *l, const char *unit, double units) {
    double sorted[ROUNDS], rate[ROUNDS], sgemm[ROUNDS];
    memcpy(sorted, l->share, sizeof sorted);
    memcpy(rate, l->rate, sizeof rate);
    memcpy(sgemm, l->sgemm, sizeof sgemm);
    qsort(sorted, ROUNDS, sizeof *sorted, by_value);
    qsort(rate, ROUNDS, sizeof *rate, by_value);
    qsort(sgemm, ROUNDS, sizeof *sgemm, by_value);
    printf("%-34s best %.3f median %.3f of sgemm (%.0f Gflop/s; sgemm %.0f), %.0f %s", l->name,
           sorted[ROUNDS - 1], sorted[ROUNDS / 2], rate[ROUNDS / 2], sgemm[ROUNDS / 2],
           rate[ROUNDS / 2] / l->gflop * units, unit);
    if (l->goal > 0) printf("  goal %.2f: %s", l->goal, sorted[ROUNDS / 2] >= l->goal ? "hit" : "miss");
    printf("\n");
    fflush(stdout);
}

static void record(line *l, int round, int threads, double seconds) {
    l->sgemm[round] = sgemm_gflops(threads);
    l->rate[round] = l->gflop / seconds;
    l->share[round] = l->rate[round] / l->sgemm[round];
}

static lt_status bench_step(lt_device *device, int64_t batch, int64_t length, lt_attention_kind kind,
                            double goal) {
    const lt_model_options options = {.shape = {.vocabulary = 4096,
                                                .hidden = 384,
                                                .layers = 6,
                                                .heads = 6,
                                                .key_heads = 6,
                                                .intermediate = 1024,
                                                .rope_theta = 10000,
                                                .norm_eps = 1e-6,
                                                .init_std = 0.02,
                                                .attention = kind,
                                                .bias_length = kind == LT_ATTENTION_LAZY ? 512 : 0,
                                                .bias_init_std = 0.001,
                                                .tau_init = -1.0},
                                      .sequence_length = length,
                                      .micro_batch = batch,
                                      .training = true,
                                      .gradient_buffers = 1,
                                      .loss_slots = batch};
    lt_model *model;
    LT_CHECK(lt_model_create(&options, device, &model));
    LT_CHECK(lt_model_initialise(model, 1));
    const int64_t count = batch * length;
    int32_t *tokens = malloc(sizeof(int32_t) * (size_t)(count + 1));
    for (int64_t i = 0; i <= count; i++) tokens[i] = (int32_t)(rand() % 4096);
    const lt_tokens micro_batch = {.rows = batch, .inputs = tokens, .targets = tokens + 1};
    char name[64];
    snprintf(name, sizeof name, "step %s %lld x %lld", kind == LT_ATTENTION_LAZY ? "lazy" : "softmax",
             (long long)batch, (long long)length);
    line l = {.name = name,
              .goal = goal,
              .gflop = 1e-9 * (double)count * lt_model_flops_per_token(&options.shape, length)};
    double sums[64];
    double *squares = malloc(sizeof(double) * (size_t)lt_model_square_sums(model));
    for (int round = -1; round < ROUNDS; round++) {
        const double begin = now_s();
        LT_CHECK(lt_model_forward_backward(model, &micro_batch, 1.0 / (double)count, 0, true, 0, NULL));
        LT_CHECK(lt_model_results(model, batch, sums, squares));
        lt_model_update(model, &(lt_update){.step = round + 2,
                                            .learning_rate = 3e-4,
                                            .lazy_learning_rate = 3e-4,
                                            .beta1 = 0.9,
                                            .beta2 = 0.95,
                                            .epsilon = 1e-8,
                                            .weight_decay = 0.1,
                                            .gradient_scale = 1});
        if (round >= 0) record(&l, round, device->threads, now_s() - begin);
    }
    report(&l, "tokens/s", (double)count);
    free(squares);
    free(tokens);
    lt_model_destroy(model);
    return LT_OK;
}

static lt_status bench_attention(lt_device *device, int64_t length, int64_t bias_length, float tau,
                                 double goal) {
    enum { HEADS = 6, HEAD = 64 };
    const lt_ops *ops = device->ops;
    const int64_t width = HEADS * HEAD, count = length * width;
    lt_attention shape = {.batch = 1,
                          .query_length = length,
                          .key_length = length,
                          .heads = HEADS,
                          .key_heads = HEADS,
                          .head_size = HEAD,
                          .bias_length = bias_length,
                          .query_stride = width,
                          .key_stride = width};
    lt_mem memory;
    const int64_t saved_floats = (int64_t)(ops->attention_saved_bytes(device, &shape) / 4 + 64);
    LT_CHECK(ops->reserve(device, ops->scratch_bytes(device, &shape, 1, 1, 1)));
    LT_CHECK(ops->allocate(device, sizeof(float) * (size_t)(8 * count + saved_floats + 2 * HEADS * 1025),
                           &memory));
    memory.type = LT_FLOAT32;
    float *host = malloc(sizeof(float) * (size_t)(4 * count));
    for (int64_t i = 0; i < 4 * count; i++) host[i] = (float)(rand() % 2001 - 1000) * 1e-3f;
    ops->upload(device, memory, host, 4 * count);
    shape.q = memory, shape.k = lt_at(memory, count), shape.v = lt_at(memory, 2 * count);
    shape.output = lt_at(memory, 4 * count);
    lt_attention_gradients gradients = {.d_output = lt_at(memory, 3 * count),
                                        .d_q = lt_at(memory, 5 * count),
                                        .d_k = lt_at(memory, 6 * count),
                                        .d_v = lt_at(memory, 7 * count)};
    shape.saved = lt_at(memory, 8 * count);
    shape.bias = lt_at(shape.saved, saved_floats);
    shape.tau = lt_at(shape.bias, HEADS * 1024);
    gradients.d_bias = lt_at(shape.tau, HEADS);
    gradients.d_tau = lt_at(gradients.d_bias, HEADS * 1024);
    for (int i = 0; i < HEADS; i++) host[i] = tau;
    ops->upload(device, shape.tau, host, HEADS);
    char name[64];
    snprintf(name, sizeof name, "attention %s 1 x %lld x 6 x 64", bias_length > 0 ? "lazy" : "softmax",
             (long long)length);
    line l = {.name = name, .goal = goal, .gflop = 6e-9 * (double)length * (double)length * HEAD * HEADS};
    for (int round = -1; round < ROUNDS; round++) {
        const double begin = now_s();
        ops->attention_forward(device, &shape);
        ops->attention_backward(device, &shape, &gradients);
        if (round >= 0) record(&l, round, device->threads, now_s() - begin);
    }
    report(&l, "calls/s", 1);
    free(host);
    ops->release(device, memory, sizeof(float) * (size_t)(8 * count + saved_floats + 2 * HEADS * 1025));
    return LT_OK;
}

static lt_status bench_all(int threads) {
    lt_device *device;
    LT_CHECK(lt_cpu_device_create(threads, &device));
    printf("threads %d, instruction set %s, BLAS kernel %s\n", threads, device->instruction_set,
           device->blas_kernel);
    LT_CHECK(bench_attention(device, 1024, 512, -1.0f, 0.2));
    LT_CHECK(bench_attention(device, 1024, 0, 0.0f, 0));
    LT_CHECK(bench_attention(device, 4096, 512, -1.0f, 0));
    LT_CHECK(bench_step(device, 8, 256, LT_ATTENTION_LAZY, 0.65));
    struct rusage usage;
    getrusage(RUSAGE_SELF, &usage);
    printf("peak memory at 8 x 256: %ld MiB  goal 1000: %s\n", usage.ru_maxrss / 1024,
           usage.ru_maxrss < 1000000 ? "hit" : "miss");
    LT_CHECK(bench_step(device, 8, 256, LT_ATTENTION_SOFTMAX, 0));
    LT_CHECK(bench_step(device, 2, 1024, LT_ATTENTION_LAZY, 0.45));
    LT_CHECK(bench_step(device, 2, 1024, LT_ATTENTION_SOFTMAX, 0));
    device->ops->destroy(device);
    return LT_OK;
}

int main(int argc, char **argv) {
    const int threads = argc > 1 ? (int)strtol(argv[1], NULL, 10) : 2;
    if (threads < 1 || threads > MOST_THREADS) {
        fprintf(stderr, "usage: bench_model [threads, at most %d]\n", MOST_THREADS);
        return LT_BAD_INPUT;
    }
    if (bench_all(threads) != LT_OK) fprintf(stderr, "bench_model: %s\n", lt_error_message());
    return 0;
}
