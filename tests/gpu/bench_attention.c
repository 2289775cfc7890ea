/* Lazy attention against our softmax attention and cuDNN's.
 *
 * Live tiles are made, not assumed: two elements of each head carry an angle that grows along the row, so
 * that scores fall with the distance as fast as a factor says, which is searched for. The others are noise.
 */
#include "tests/gpu/bench.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* In (-1.7, 1.7), of variance 1. */
static float noise(void) {
    return 3.4641016f * ((float)(bench_random() >> 8) / 16777216.0f - 0.5f);
}

static uint16_t bf16_of(float value) {
    uint32_t bits;
    memcpy(&bits, &value, sizeof bits);
    return (uint16_t)((bits + 0x8000u) >> 16);
}

typedef struct attention_problem {
    lt_attention at;
    lt_attention_gradients gradients;
    lt_mem qkv, d_qkv, d_output, statistics;
    int64_t elements, outputs, statistics_count;
    size_t saved_bytes;
    uint16_t *values; /* of qkv, on the host */
} attention_problem;

static void forward(bench *b, void *context) {
    b->device->ops->attention_forward(b->device, context);
}

static void backward(bench *b, void *context) {
    const attention_problem *p = context;
    b->device->ops->attention_backward(b->device, &p->at, &p->gradients);
}

static void open_problem(bench *b, attention_problem *p, int64_t length, int64_t head_size, bool lazy) {
    const int64_t heads = b->hidden / head_size, window = lazy ? (length < 512 ? length : 512) : 0;
    lt_device *device = b->device;
    *p = (attention_problem){.elements = b->tokens * 3 * b->hidden, .outputs = b->tokens * b->hidden};
    p->values = bench_memory((size_t)p->elements * sizeof *p->values);
    p->qkv = bench_take(b, LT_BFLOAT16, p->elements);
    p->d_qkv = bench_take(b, LT_BFLOAT16, p->elements);
    p->d_output = bench_take(b, LT_BFLOAT16, p->outputs);
    p->statistics_count = heads * LT_STATISTICS;
    p->statistics = bench_take(b, LT_FLOAT64, p->statistics_count);
    p->at = (lt_attention){.batch = b->tokens / length,
                           .query_length = length,
                           .key_length = length,
                           .heads = heads,
                           .key_heads = heads,
                           .head_size = head_size,
                           .bias_length = window,
                           .q = p->qkv,
                           .k = lt_at(p->qkv, b->hidden),
                           .v = lt_at(p->qkv, 2 * b->hidden),
                           .query_stride = 3 * b->hidden,
                           .key_stride = 3 * b->hidden,
                           .bias = bench_take(b, LT_FLOAT32, heads * window + 1),
                           .tau = bench_take(b, LT_FLOAT32, heads),
                           .output = bench_take(b, LT_BFLOAT16, p->outputs)};
    p->saved_bytes = device->ops->attention_saved_bytes(device, &p->at);
    p->at.saved = bench_take(b, LT_BYTES, (int64_t)p->saved_bytes);
    p->gradients = (lt_attention_gradients){.d_output = p->d_output,
                                            .d_q = p->d_qkv,
                                            .d_k = lt_at(p->d_qkv, b->hidden),
                                            .d_v = lt_at(p->d_qkv, 2 * b->hidden),
                                            .d_bias = bench_take(b, LT_FLOAT32, heads * window + 1),
                                            .d_tau = bench_take(b, LT_FLOAT32, heads)};
    lt_cuda_choose_backward(device, LT_CUDA_BACKWARD_ONE_KERNEL); /* which takes more memory */
    bench_check(
        device->ops->reserve(device, device->ops->scratch_bytes(device, &p->at, b->tokens, b->hidden, 1)));
    lt_cuda_choose_backward(device, LT_CUDA_BACKWARD_BY_SHAPE);
    float *tau = bench_memory((size_t)heads * sizeof *tau);
    for (int64_t head = 0; head < heads; head++) tau[head] = -1.0f;
    device->ops->upload(device, p->at.tau, tau, heads);
    for (int64_t i = 0; i < p->outputs; i++) p->values[i] = bf16_of(noise());
    device->ops->upload(device, p->d_output, p->values, p->outputs);
    bench_check(device->ops->synchronise(device));
    for (int64_t i = 0; i < p->elements; i++) p->values[i] = bf16_of(noise());
    free(tau);
}

static void close_problem(bench *b, attention_problem *p) {
    const int64_t heads = p->at.heads, biases = heads * p->at.bias_length + 1;
    bench_give(b, p->at.bias, biases);
    bench_give(b, p->at.tau, heads);
    bench_give(b, p->at.output, p->outputs);
    bench_give(b, p->at.saved, (int64_t)p->saved_bytes);
    bench_give(b, p->gradients.d_bias, biases);
    bench_give(b, p->gradients.d_tau, heads);
    bench_give(b, p->qkv, p->elements);
    bench_give(b, p->d_qkv, p->elements);
    bench_give(b, p->d_output, p->outputs);
    bench_give(b, p->statistics, p->statistics_count);
    free(p->values);
}

/* Scores fall by up to `fall` from the diagonal to the far end; the share of tiles that are alive then. */
static double set_fall(bench *b, attention_problem *p, double fall) {
    const lt_ops *ops = b->device->ops;
    const int64_t size = p->at.head_size, length = p->at.query_length;
    const float radius = (float)sqrt(0.5 * fall * sqrt((double)size));
    for (int64_t token = 0; token < b->tokens; token++) {
        const double angle = 3.14159265358979 * (double)(token % length) / (double)length;
        const uint16_t pair[2] = {bf16_of(radius * (float)cos(angle)), bf16_of(radius * (float)sin(angle))};
        for (int64_t at = 0; at < 2 * b->hidden; at += size) /* q and k */
            memcpy(p->values + token * 3 * b->hidden + at, pair, sizeof pair);
    }
    ops->upload(b->device, p->qkv, p->values, p->elements);
    ops->attention_forward(b->device, &p->at);
    ops->zero(b->device, p->statistics, p->statistics_count);
    ops->attention_statistics(b->device, &p->at, p->statistics);
    double *sums = bench_memory((size_t)p->statistics_count * sizeof *sums), tiles = 0, live = 0;
    bench_check(ops->download(b->device, sums, p->statistics, p->statistics_count));
    for (int64_t head = 0; head < p->at.heads; head++) {
        tiles += sums[head * LT_STATISTICS + LT_STAT_TILES];
        live += sums[head * LT_STATISTICS + LT_STAT_LIVE_TILES];
    }
    free(sums);
    return live / tiles;
}

/* The live share nearest to `wanted` that a dozen tries find. */
static double seek_live(bench *b, attention_problem *p, double wanted) {
    double low = 0, high = 200, found = set_fall(b, p, 0);
    for (int i = 0; i < 12 && fabs(found - wanted) > 0.01; i++) {
        const double middle = 0.5 * (low + high);
        found = set_fall(b, p, middle);
        if (found > wanted)
            low = middle;
        else
            high = middle;
    }
    return found;
}

static double backward_seconds(bench *b, attention_problem *p, lt_cuda_backward form) {
    lt_cuda_choose_backward(b->device, form);
    const double seconds = bench_seconds(b, backward, p);
    lt_cuda_choose_backward(b->device, LT_CUDA_BACKWARD_BY_SHAPE);
    return seconds;
}

/* Seconds of forward + backward that ours are held against; 0: not measured. */
typedef struct yardsticks {
    double softmax, cudnn;
} yardsticks;

double bench_attention_tera(const lt_attention *at, int products) {
    const double pairs = 0.5 * (double)(at->query_length + 1) * (double)(at->batch * at->query_length);
    return 2e-12 * (double)products * pairs * (double)(at->heads * at->head_size);
}

/* Prints a line; gives forward + backward, in the form that serves the shape. Rates count what softmax
 * attention does. */
static double report_attention(bench *b, attention_problem *p, const char *kind, double live,
                               yardsticks against) {
    const double ahead = bench_seconds(b, forward, &p->at),
                 two = backward_seconds(b, p, LT_CUDA_BACKWARD_TWO_KERNELS),
                 one = backward_seconds(b, p, LT_CUDA_BACKWARD_ONE_KERNEL);
    const bool in_one = lt_cuda_backward_in_one_kernel(b->device, &p->at);
    const double back = in_one ? one : two, rate = bench_attention_tera(&p->at, 2) / ahead,
                 back_rate = bench_attention_tera(&p->at, 5) / back,
                 times_softmax = against.softmax > 0 ? against.softmax / (ahead + back) : 1.0;
    bench_entry(b);
    printf("{\"attention\": \"%s\", \"T\": %lld, \"D\": %lld, \"live\": %.3f, \"forward_ms\": %.5g, "
           "\"backward_ms\": %.5g, \"backward_kernels\": %d, \"in_two_kernels_ms\": %.5g, "
           "\"in_one_kernel_ms\": %.5g, \"forward_tflops\": %.4g, \"backward_tflops\": %.4g, "
           "\"times_softmax\": %.4g",
           kind, (long long)p->at.query_length, (long long)p->at.head_size, live, 1e3 * ahead, 1e3 * back,
           in_one ? 1 : 2, 1e3 * two, 1e3 * one, rate, back_rate, times_softmax);
    fprintf(stderr,
            "%-8s T %6lld  D %4lld  live %.2f  %9.3f + %9.3f ms (two kernels %9.3f%s, one %9.3f%s)  %6.1f, "
            "%6.1f Tflop/s  x %.2f",
            kind, (long long)p->at.query_length, (long long)p->at.head_size, live, 1e3 * ahead, 1e3 * back,
            1e3 * two, in_one ? "" : " *", 1e3 * one, in_one ? " *" : "", rate, back_rate, times_softmax);
    if (against.cudnn > 0) {
        printf(", \"times_cudnn\": %.4g", against.cudnn / (ahead + back));
        fprintf(stderr, ", x %.2f cuDNN", against.cudnn / (ahead + back));
    }
    printf("}");
    fprintf(stderr, "\n");
    return ahead + back;
}

static const double shares[] = {1.0, 0.6, 0.4, 0.1};

static void list_attention(bench *b, int64_t length, int64_t head_size) {
    for (size_t i = 0; i <= sizeof shares / sizeof *shares; i++) {
        bench_entry(b);
        printf("{\"attention\": \"%s\", \"T\": %lld, \"D\": %lld, \"live\": %g}", i == 0 ? "softmax" : "lazy",
               (long long)length, (long long)head_size, i == 0 ? 1 : shares[i - 1]);
    }
}

void bench_attention(bench *b, int64_t length, int64_t head_size) {
    if (b->list) return list_attention(b, length, head_size);
    attention_problem p;
    open_problem(b, &p, length, head_size, false);
    set_fall(b, &p, 0);
    forward(b, &p.at);
    backward(b, &p);
    yardsticks against = {.cudnn = bench_cudnn(b, &p.at, &p.gradients)};
    against.softmax = report_attention(b, &p, "softmax", 1.0, against);
    close_problem(b, &p);
    open_problem(b, &p, length, head_size, true);
    for (size_t i = 0; i < sizeof shares / sizeof *shares; i++)
        report_attention(b, &p, "lazy", seek_live(b, &p, shares[i]), against);
    close_problem(b, &p);
}
