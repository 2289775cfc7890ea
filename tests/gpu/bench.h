/* What the parts of `make gpu-bench` share. */
#ifndef LT_TESTS_GPU_BENCH_H
#define LT_TESTS_GPU_BENCH_H

#include "model/cuda/cuda.h"
#include "tests/gpu/cudnn_library.h"

#include <stdbool.h>

typedef struct bench {
    lt_device *device;
    lt_cuda_description chip;
    cudnn *cudnn; /* NULL: not here */
    bool smoke, list;
    int64_t tokens, hidden; /* of attention and matrix products: 16 Ki x 1024 */
    double gemm_tflops;     /* the best seen */
    bool comma;
    char driver[32];                            /* what nvidia-smi says; "": it is not here */
    int sm_clock, sm_clock_limit, memory_clock; /* MHz, under the load of a product; 0: not known */
} bench;

typedef void (*bench_operation)(bench *b, void *context);

/* Seconds of a call: the median of batches of a tenth of a second each. */
double bench_seconds(bench *b, bench_operation run, void *context);

/* Asks nvidia-smi for the driver and, of now, the clocks. */
void bench_ask_chip(bench *b);

/* Begins the next of the results on standard output. */
void bench_entry(bench *b);

/* 1e12 operations of so many products over the pairs of queries and keys of softmax attention. */
double bench_attention_tera(const lt_attention *at, int products);

/* Opens cuDNN, or says in a line why not. */
void bench_open_cudnn(bench *b);

/* cuDNN's forward + backward, in seconds, of softmax attention that ours has just computed, and a line about
 * it; 0: there is no cuDNN, it refuses, or its numbers are not ours. */
double bench_cudnn(bench *b, const lt_attention *at, const lt_attention_gradients *gradients);

#endif
