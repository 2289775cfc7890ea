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

/* Ends the program where a call failed. */
void bench_check(lt_status status);

/* Zeroed memory of the host, for the caller to free, and of the device, for bench_give(). */
void *bench_memory(size_t bytes);
lt_mem bench_take(bench *b, lt_type type, int64_t count);
void bench_give(bench *b, lt_mem mem, int64_t count);

/* The next of 2^32 numbers, the same ones in each run. */
uint32_t bench_random(void);

typedef void (*bench_operation)(bench *b, void *context);

/* Seconds of a call: the median of batches of a tenth of a second each. */
double bench_seconds(bench *b, bench_operation run, void *context);

/* Asks nvidia-smi for the driver and, of now, the clocks. */
void bench_ask_chip(bench *b);

/* Begins the next of the results on standard output. */
void bench_entry(bench *b);

/* Measures softmax attention and lazy attention with each share of live tiles at one length and head size. */
void bench_attention(bench *b, int64_t length, int64_t head_size);

/* Measures training steps of the models. */
void bench_steps(bench *b);

/* 1e12 operations of so many products over the pairs of queries and keys of softmax attention. */
double bench_attention_tera(const lt_attention *at, int products);

/* Opens cuDNN, or says in a line why not. */
void bench_open_cudnn(bench *b);

/* cuDNN's forward + backward, in seconds, of softmax attention that ours has just computed, and a line about
 * it; 0: there is no cuDNN, it refuses, or its numbers are not ours. */
double bench_cudnn(bench *b, const lt_attention *at, const lt_attention_gradients *gradients);

#endif
