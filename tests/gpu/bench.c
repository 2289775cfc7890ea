/* `make gpu-bench`: attention, matrix products and whole training steps on the first GPU, as JSON on standard
 * output and a table on standard error. Every rate is the median of repeated batches of calls, timed on the
 * host from an empty stream to an empty stream; ratios are to what was measured in the same run: our softmax
 * attention and, where the library is, cuDNN's, once it has given the same numbers. `--smoke`: sizes that an
 * emulated GPU finishes in seconds, to show that the program works. `--list`: what would be measured; without
 * a GPU. */
#include "tests/gpu/bench.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

void bench_check(lt_status status) {
    if (status == LT_OK) return;
    fprintf(stderr, "make gpu-bench: %s\n", lt_error_message());
    exit(status);
}

void *bench_memory(size_t bytes) {
    void *at = calloc(bytes, 1);
    if (at == NULL) bench_check(lt_fail(LT_IO, "no %zu bytes of memory", bytes));
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
    bench_check(b->device->ops->synchronise(b->device));
    double begin = now_s();
    run(b, context);
    bench_check(b->device->ops->synchronise(b->device));
    const double once = now_s() - begin;
    const int calls = b->smoke ? 1 : (int)fmin(200, fmax(1, 0.1 / once));
    for (int batch = 0; batch < BATCHES; batch++) {
        begin = now_s();
        for (int i = 0; i < calls; i++) run(b, context);
        bench_check(b->device->ops->synchronise(b->device));
        each[batch] = (now_s() - begin) / calls;
    }
    qsort(each, BATCHES, sizeof *each, by_value);
    return each[BATCHES / 2];
}

uint32_t bench_random(void) {
    static uint64_t state = 1;
    state = state * 6364136223846793005u + 1442695040888963407u;
    return (uint32_t)(state >> 32);
}

lt_mem bench_take(bench *b, lt_type type, int64_t count) {
    lt_mem mem;
    bench_check(b->device->ops->allocate(b->device, (size_t)count * lt_type_bytes(type), &mem));
    mem.type = type;
    return mem;
}

void bench_give(bench *b, lt_mem mem, int64_t count) {
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
    bench_check(b->device->ops->synchronise(b->device));
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
                    .a = bench_take(b, LT_BFLOAT16, p.m * p.k),
                    .lda = p.a_transposed ? p.m : p.k,
                    .a_transposed = p.a_transposed,
                    .b = bench_take(b, LT_BFLOAT16, p.n * p.k),
                    .ldb = p.b_transposed ? p.k : p.n,
                    .b_transposed = p.b_transposed,
                    .c = bench_take(b, p.adds ? LT_FLOAT32 : LT_BFLOAT16, p.m * p.n),
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
    bench_give(b, gemm.a, p.m * p.k);
    bench_give(b, gemm.b, p.n * p.k);
    bench_give(b, gemm.c, p.m * p.n);
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

static void open_device(bench *b) {
    bench_check(lt_cuda_device_create(0, &b->device));
    bench_check(lt_cuda_device_describe(b->device, &b->chip));
    bench_open_cudnn(b);
    printf("  \"chip\": \"%s\", \"bus\": \"%s\", \"capability\": %d, \"memory_bytes\": %zu, "
           "\"stated_peak_tflops\": %g, \"driver_cuda\": %d,\n  \"cudnn\": %s%s%s,\n",
           b->chip.name, b->chip.bus, b->chip.capability, b->chip.memory, b->chip.peak_tflops, b->chip.driver,
           b->cudnn == NULL ? "" : "\"", b->cudnn == NULL ? "null" : b->cudnn->version,
           b->cudnn == NULL ? "" : "\"");
    bench_check(b->device->ops->reserve(
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
            bench_attention(&b, length, size);
    cudnn_close(b.cudnn);
    bench_steps(&b);
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
