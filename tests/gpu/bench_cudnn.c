/* cuDNN's flash attention beside ours: a yardstick where it gives the same numbers. */
#include "tests/gpu/bench.h"
#include "tests/gpu/cudnn_attention.h"

#include <math.h>
#include <stdio.h>

void bench_open_cudnn(bench *b) {
    if (cudnn_open(lt_cuda_stream(b->device), &b->cudnn) != LT_OK)
        fprintf(stderr, "attention is not measured against cuDNN: %s\n", lt_error_message());
}

static void forward(bench *b, void *context) {
    (void)b;
    cudnn_attention *a = context;
    if (a->status == LT_OK) a->status = cudnn_run(&a->forward);
}

static void backward(bench *b, void *context) {
    (void)b;
    cudnn_attention *a = context;
    if (a->status == LT_OK) a->status = cudnn_run(&a->backward);
}

static lt_status compare(bench *b, cudnn_attention *a, const lt_attention *at,
                         const lt_attention_gradients *gradients, double *difference) {
    LT_CHECK(cudnn_attention_open(a, b->cudnn, b->device, at, gradients));
    forward(b, a);
    backward(b, a);
    LT_CHECK(a->status);
    return cudnn_attention_compare(a, at, gradients, difference);
}

/* The last error in a JSON string, without what would have to be escaped. */
static void print_error(void) {
    for (const char *at = lt_error_message(); *at != '\0'; at++)
        putchar(*at == '"' || *at == '\\' || (unsigned char)*at < ' ' ? '\'' : *at);
}

double bench_cudnn(bench *b, const lt_attention *at, const lt_attention_gradients *gradients) {
    static const double ALLOWED = 2e-2; /* bfloat16, rounded at other places */
    if (b->cudnn == NULL) return 0;
    cudnn_attention a;
    double difference = INFINITY, ahead = 0, back = 0;
    lt_status status = compare(b, &a, at, gradients, &difference);
    const bool agrees = status == LT_OK && difference <= ALLOWED;
    if (agrees) {
        ahead = bench_seconds(b, forward, &a);
        back = bench_seconds(b, backward, &a);
        status = a.status;
    }
    bench_entry(b);
    printf("{\"attention\": \"cudnn\", \"T\": %lld, \"D\": %lld, ", (long long)at->query_length,
           (long long)at->head_size);
    fprintf(stderr, "%-8s T %6lld  D %4lld  ", "cudnn", (long long)at->query_length,
            (long long)at->head_size);
    if (status != LT_OK) {
        printf("\"refused\": \"");
        print_error();
        printf("\"}");
        fprintf(stderr, "%s\n", lt_error_message());
    } else if (!agrees) {
        printf("\"differs\": true, \"difference\": %.4g}", fmin(difference, 1e9));
        fprintf(stderr, "differs from ours by %.3g of the largest entry: not a yardstick\n", difference);
    } else {
        printf("\"differs\": false, \"difference\": %.4g, \"forward_ms\": %.5g, \"backward_ms\": %.5g, "
               "\"forward_tflops\": %.4g, \"backward_tflops\": %.4g}",
               difference, 1e3 * ahead, 1e3 * back, bench_attention_tera(at, 2) / ahead,
               bench_attention_tera(at, 5) / back);
        fprintf(stderr, "live 1.00  %9.3f + %9.3f ms  %6.1f, %6.1f Tflop/s\n", 1e3 * ahead, 1e3 * back,
                bench_attention_tera(at, 2) / ahead, bench_attention_tera(at, 5) / back);
    }
    cudnn_attention_close(&a);
    return agrees && status == LT_OK ? ahead + back : 0;
}
