/* `make gpu-bench`: attention, matrix products and whole training steps on the first GPU, as JSON on standard
 * output and a table on standard error. Every rate is the median of repeated batches of calls, timed on the
 * host from an empty stream to an empty stream; ratios are to what was measured in the same run: our softmax
 * attention and, where the library is, cuDNN's, once it has given the same numbers. `--smoke`: sizes that an
 * emulated GPU finishes in seconds, to show that the program works. `--list`: what would be measured; without
 * a GPU.
 *
 * Live tiles are made, not assumed: two elements of each head carry an angle that grows along the row, so
 * that scores fall with the distance as fast as a factor says, which is searched for. The others are noise.
 */
#include "model/step.h"
#include "tests/gpu/bench.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

static void check(lt_status status) {
    if (status == LT_OK) return;
    fprintf(stderr, "make gpu-bench: %s\n", lt_error_message());
    exit(status);
}

static void *memory(size_t bytes) {
    void *at = calloc(bytes, 1);
    if (at == NULL) check(lt_fail(LT_IO, "no %zu bytes of memory", bytes));
    return at;
}

static double now_s(void) {
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return (double)time.tv_sec + 1e-9 * (double)time.tv_nsec;
}

static int by_value(const void *a, const void *b) {
    const double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

double bench_seconds(bench *b, bench_operation run, void *context) {
    enum { BATCHES = 5 };
    double each[BATCHES];
    run(b, context);
    check(b->device->ops->synchronise(b->device));
    double begin = now_s();
    run(b, context);
    check(b->device->ops->synchronise(b->device));
    const double once = now_s() - begin;
    const int calls = b->smoke ? 1 : (int)fmin(200, fmax(1, 0.1 / once));
    for (int batch = 0; batch < BATCHES; batch++) {
        begin = now_s();
        for (int i = 0; i < calls; i++) run(b, context);
        check(b->device->ops->synchronise(b->device));
        each[batch] = (now_s() - begin) / calls;
    }
    qsort(each, BATCHES, sizeof *each, by_value);
    return each[BATCHES / 2];
}

static uint64_t random_state = 1;

/* In (-1.7, 1.7), of variance 1. */
static float noise(void) {
    random_state = random_state * 6364136223846793005u + 1442695040888963407u;
    return 3.4641016f * ((float)(random_state >> 40) / 16777216.0f - 0.5f);
}

static uint16_t bf16_of(float value) {
    uint32_t bits;
    memcpy(&bits, &value, sizeof bits);
    return (uint16_t)((bits + 0x8000u) >> 16);
}

static lt_mem take(bench *b, lt_type type, int64_t count) {
    lt_mem mem;
    check(b->device->ops->allocate(b->device, (size_t)count * lt_type_bytes(type), &mem));
    mem.type = type;
    return mem;
}

static void give(bench *b, lt_mem mem, int64_t count) {
    b->device->ops->release(b->device, mem, (size_t)count * lt_type_bytes(mem.type));
}

void bench_entry(bench *b) {
    printf("%s\n    ", b->comma ? "," : "");
    b->comma = true;
}

/* ---- matrix products ---- */

static void multiply(bench *b, void *context) {
    b->device->ops->gemm(b->device, context);
}

/* c [m, n] = a [m, k] b [k, n]; `adds`: to float32, as gradients of weights do. */
typedef struct product {
    const char *what;
    int64_t m, n, k;
    bool a_transposed, b_transposed, adds;
} product;

/* Queues a second of a product, and asks for the clocks meanwhile. */
static void ask_under_load(bench *b, lt_gemm *gemm, double seconds) {
    for (int i = 0; i < (b->smoke ? 1 : (int)fmin(1000, ceil(1 / seconds))); i++) multiply(b, gemm);
    bench_ask_chip(b);
    check(b->device->ops->synchronise(b->device));
}

static void measure_product(bench *b, product p) {
    bench_entry(b);
    printf("{\"product\": \"%s\", \"m\": %lld, \"n\": %lld, \"k\": %lld, \"accumulates\": %s", p.what,
           (long long)p.m, (long long)p.n, (long long)p.k, p.adds ? "true" : "false");
    if (b->list) {
        printf("}");
        return;
    }
    lt_gemm gemm = {.m = p.m,
                    .n = p.n,
                    .k = p.k,
                    .a = take(b, LT_BFLOAT16, p.m * p.k),
                    .lda = p.a_transposed ? p.m : p.k,
                    .a_transposed = p.a_transposed,
                    .b = take(b, LT_BFLOAT16, p.n * p.k),
                    .ldb = p.b_transposed ? p.k : p.n,
                    .b_transposed = p.b_transposed,
                    .c = take(b, p.adds ? LT_FLOAT32 : LT_BFLOAT16, p.m * p.n),
                    .ldc = p.n};
    if (p.adds) gemm.addend = gemm.c;
    const double seconds = bench_seconds(b, multiply, &gemm),
                 rate = 2e-12 * (double)(p.m * p.n) * (double)p.k / seconds;
    if (b->gemm_tflops == 0) ask_under_load(b, &gemm, seconds);
    if (rate > b->gemm_tflops) b->gemm_tflops = rate;
    printf(", \"tflops\": %.4g", rate);
    if (b->chip.peak_tflops > 0) printf(", \"share_of_peak\": %.4g", rate / b->chip.peak_tflops);
    printf("}");
    fprintf(stderr, "%-26s %6lld x %5lld x %5lld  %7.1f Tflop/s\n", p.what, (long long)p.m, (long long)p.n,
            (long long)p.k, rate);
    give(b, gemm.a, p.m * p.k);
    give(b, gemm.b, p.n * p.k);
    give(b, gemm.c, p.m * p.n);
}

/* Those of a layer with an MLP of 11/4, and of a head. */
static void measure_products(bench *b) {
    const int64_t m = b->tokens, c = b->hidden, ffn = 11 * c / 4, words = b->smoke ? 2 * c : 32000;
    const product products[] = {
        {"q, k, v", m, 3 * c, c, false, true, false},
        {"attention's output", m, c, c, false, true, false},
        {"gate, up", m, 2 * ffn, c, false, true, false},
        {"down", m, c, ffn, false, true, false},
        {"gradient of gate, up", 2 * ffn, c, m, true, false, true},
        {"head", m, words, c, false, true, false},
        {"gradient of head", words, c, m, true, false, true},
        {"gradient of head's input", m, c, words, false, false, false},
    };
    for (size_t i = 0; i < sizeof products / sizeof *products; i++) measure_product(b, products[i]);
}

/* ---- attention ---- */

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
    p->values = memory((size_t)p->elements * sizeof *p->values);
    p->qkv = take(b, LT_BFLOAT16, p->elements);
    p->d_qkv = take(b, LT_BFLOAT16, p->elements);
    p->d_output = take(b, LT_BFLOAT16, p->outputs);
    p->statistics_count = heads * LT_STATISTICS;
    p->statistics = take(b, LT_FLOAT64, p->statistics_count);
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
                           .bias = take(b, LT_FLOAT32, heads * window + 1),
                           .tau = take(b, LT_FLOAT32, heads),
                           .output = take(b, LT_BFLOAT16, p->outputs)};
    p->saved_bytes = device->ops->attention_saved_bytes(device, &p->at);
    p->at.saved = take(b, LT_BYTES, (int64_t)p->saved_bytes);
    p->gradients = (lt_attention_gradients){.d_output = p->d_output,
                                            .d_q = p->d_qkv,
                                            .d_k = lt_at(p->d_qkv, b->hidden),
                                            .d_v = lt_at(p->d_qkv, 2 * b->hidden),
                                            .d_bias = take(b, LT_FLOAT32, heads * window + 1),
                                            .d_tau = take(b, LT_FLOAT32, heads)};
    lt_cuda_choose_backward(device, LT_CUDA_BACKWARD_ONE_KERNEL); /* which takes more memory */
    check(device->ops->reserve(device, device->ops->scratch_bytes(device, &p->at, b->tokens, b->hidden, 1)));
    lt_cuda_choose_backward(device, LT_CUDA_BACKWARD_BY_SHAPE);
    float *tau = memory((size_t)heads * sizeof *tau);
    for (int64_t head = 0; head < heads; head++) tau[head] = -1.0f;
    device->ops->upload(device, p->at.tau, tau, heads);
    for (int64_t i = 0; i < p->outputs; i++) p->values[i] = bf16_of(noise());
    device->ops->upload(device, p->d_output, p->values, p->outputs);
    check(device->ops->synchronise(device));
    for (int64_t i = 0; i < p->elements; i++) p->values[i] = bf16_of(noise());
    free(tau);
}

static void close_problem(bench *b, attention_problem *p) {
    const int64_t heads = p->at.heads, biases = heads * p->at.bias_length + 1;
    give(b, p->at.bias, biases);
    give(b, p->at.tau, heads);
    give(b, p->at.output, p->outputs);
    give(b, p->at.saved, (int64_t)p->saved_bytes);
    give(b, p->gradients.d_bias, biases);
    give(b, p->gradients.d_tau, heads);
    give(b, p->qkv, p->elements);
    give(b, p->d_qkv, p->elements);
    give(b, p->d_output, p->outputs);
    give(b, p->statistics, p->statistics_count);
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
    double *sums = memory((size_t)p->statistics_count * sizeof *sums), tiles = 0, live = 0;
    check(ops->download(b->device, sums, p->statistics, p->statistics_count));
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

static void measure_attention(bench *b, int64_t length, int64_t head_size) {
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

/* ---- whole steps ---- */

typedef struct steps {
    lt_tokens tokens;
    lt_model *model;
    lt_step_options options;
} steps;

static lt_status next_batch(void *context, bool last, lt_tokens *tokens) {
    (void)last;
    *tokens = ((const steps *)context)->tokens;
    return LT_OK;
}

static void step(bench *b, void *context) {
    (void)b;
    steps *s = context;
    lt_step_result result;
    const lt_exchange exchange = {.context = s, .next_batch = next_batch};
    check(lt_step_run(s->model, &s->options, &exchange, &result));
    s->options.update.step++;
}

static double mib(size_t bytes) {
    return (double)bytes / 1048576.0;
}

/* The GPU as a run finds it: nothing is held. */
static void reopen(bench *b) {
    b->device->ops->destroy(b->device);
    check(lt_cuda_device_create(0, &b->device));
    check(lt_cuda_device_describe(b->device, &b->chip));
}

static void measure_steps(bench *b, const char *name, lt_model_shape shape, int64_t length,
                          int64_t micro_batch) {
    bench_entry(b);
    printf("{\"steps\": \"%s\", \"T\": %lld, \"micro_batch\": %lld", name, (long long)length,
           (long long)micro_batch);
    if (b->list) {
        printf("}");
        return;
    }
    reopen(b);
    const lt_model_options options = {.shape = shape,
                                      .sequence_length = length,
                                      .micro_batch = micro_batch,
                                      .training = true,
                                      .gradient_buffers = 1,
                                      .loss_slots = micro_batch};
    const lt_memory_plan plan = lt_model_plan(&options, b->device);
    const double needed =
        mib(plan.parameters + plan.optimizer + plan.gradients + plan.activations + plan.scratch);
    if (needed > mib(b->chip.available)) {
        printf(", \"refused\": \"needs %.0f MiB, of which %.0f are free\"}", needed, mib(b->chip.available));
        fprintf(stderr, "%-8s needs %.0f MiB, of which %.0f are free\n", name, needed,
                mib(b->chip.available));
        return;
    }
    const int64_t rows = micro_batch * length;
    int32_t *ids = memory((size_t)(2 * rows) * sizeof *ids);
    for (int64_t i = 0; i < 2 * rows; i++) {
        random_state = random_state * 6364136223846793005u + 1442695040888963407u;
        ids[i] = (int32_t)((random_state >> 33) % (uint64_t)shape.vocabulary);
    }
    steps s = {.tokens = {.rows = micro_batch, .inputs = ids, .targets = ids + rows}};
    check(lt_model_create(&options, b->device, &s.model));
    check(lt_model_initialise(s.model, 1));
    s.options = (lt_step_options){
        .lanes = 1,
        .batches_per_lane = 1,
        .micro_batch = micro_batch,
        .targets = rows,
        .gradient_clip = 1,
        .workspace = memory(sizeof(double) * (size_t)lt_step_workspace(s.model, micro_batch)),
        .update = {.step = 1,
                   .learning_rate = 1e-4,
                   .lazy_learning_rate = 1e-4,
                   .beta1 = 0.9,
                   .beta2 = 0.95,
                   .epsilon = 1e-8,
                   .weight_decay = 0.1}};
    const double seconds = bench_seconds(b, step, &s), rate = (double)rows / seconds;
    const double flops = 1e-12 * rate * lt_model_flops_per_token(&shape, length);
    const double peak = b->chip.peak_tflops > 0 ? b->chip.peak_tflops : b->gemm_tflops;
    lt_cuda_description held;
    check(lt_cuda_device_describe(b->device, &held));
    const double taken = mib(b->chip.available - held.available);
    printf(", \"tokens_per_s\": %.6g, \"tflops\": %.4g, \"utilisation\": %.4g, \"share_of_products\": %.4g, "
           "\"planned_mib\": %.1f, \"memory_mib\": %.1f}",
           rate, flops, flops / peak, flops / b->gemm_tflops, needed, taken);
    fprintf(stderr,
            "%-8s %lld x %lld  %9.0f tokens/s  %6.1f Tflop/s, %.2f of the %s peak, %.2f of the best product; "
            "%.0f MiB, %.0f planned\n",
            name, (long long)micro_batch, (long long)length, rate, flops, flops / peak,
            b->chip.peak_tflops > 0 ? "stated" : "measured", flops / b->gemm_tflops, taken, needed);
    lt_model_destroy(s.model);
    free(s.options.workspace);
    free(ids);
}

static lt_model_shape shape_of(int64_t hidden, int64_t layers, int64_t heads, int64_t ffn,
                               int64_t vocabulary) {
    return (lt_model_shape){.vocabulary = vocabulary,
                            .hidden = hidden,
                            .layers = layers,
                            .heads = heads,
                            .key_heads = heads,
                            .intermediate = ffn,
                            .rope_theta = 10000,
                            .norm_eps = 1e-6,
                            .init_std = 0.02,
                            .tied = true,
                            .attention = LT_ATTENTION_LAZY,
                            .bias_length = 512,
                            .bias_init_std = 0.001,
                            .tau_init = -1};
}

static void open_device(bench *b) {
    check(lt_cuda_device_create(0, &b->device));
    check(lt_cuda_device_describe(b->device, &b->chip));
    bench_open_cudnn(b);
    printf("  \"chip\": \"%s\", \"bus\": \"%s\", \"capability\": %d, \"memory_bytes\": %zu, "
           "\"stated_peak_tflops\": %g, \"driver_cuda\": %d,\n  \"cudnn\": %s%s%s,\n",
           b->chip.name, b->chip.bus, b->chip.capability, b->chip.memory, b->chip.peak_tflops, b->chip.driver,
           b->cudnn == NULL ? "" : "\"", b->cudnn == NULL ? "null" : b->cudnn->version,
           b->cudnn == NULL ? "" : "\"");
    check(b->device->ops->reserve(
        b->device,
        b->device->ops->scratch_bytes(
            b->device,
            &(lt_attention){
                .batch = 1, .query_length = 1, .key_length = 1, .heads = 1, .key_heads = 1, .head_size = 64},
            1, 1, 1)));
}

int main(int argc, char **argv) {
    const char *option = argc > 1 ? argv[1] : "";
    bench b = {.smoke = strcmp(option, "--smoke") == 0,
               .list = strcmp(option, "--list") == 0,
               .tokens = 16384,
               .hidden = 1024};
    if (b.smoke) b.tokens = b.hidden = 128;
    printf("{\n");
    if (!b.list) open_device(&b);
    printf("  \"results\": [");
    measure_products(&b);
    for (int64_t size = 64; size <= 128; size *= 2)
        for (int64_t length = b.smoke ? b.tokens : 512; length <= b.tokens; length *= 2)
            measure_attention(&b, length, size);
    cudnn_close(b.cudnn);
    if (b.smoke) {
        measure_steps(&b, "tiny", shape_of(64, 1, 1, 64, 64), 64, 1);
    } else {
        measure_steps(&b, "124M", shape_of(768, 12, 12, 2048, 50304), 1024, 16);
        measure_steps(&b, "340M", shape_of(1024, 24, 16, 2816, 32000), 4096, 4);
    }
    measure_steps(&b, "760M", shape_of(1536, 24, 16, 4096, 32000), 4096, 4); /* too large to emulate */
    printf("\n  ]");
    if (!b.list) {
        printf(",\n  \"driver\": \"%s\", \"sm_clock_mhz\": %d, \"sm_clock_limit_mhz\": %d, "
               "\"memory_clock_mhz\": %d",
               b.driver, b.sm_clock, b.sm_clock_limit, b.memory_clock);
        b.device->ops->destroy(b.device);
    }
    printf("\n}\n");
    return 0;
}
