/* cuDNN's flash attention, softmax and causal, on the very inputs and strides that our kernels take. Of a
 * shape with as many keys as queries and as many key heads as heads, without bias and documents.
 */
#ifndef LT_TESTS_GPU_CUDNN_ATTENTION_H
#define LT_TESTS_GPU_CUDNN_ATTENTION_H

#include "model/ops.h"
#include "tests/gpu/cudnn_graph.h"

/* Adds the operations to a graph that has begun. `saved` takes a float32 for each head of a query; `sums` is
 * memory for cudnn_sums() float32 values. */
void cudnn_attention_forward(cudnn_graph *graph, const lt_attention *at);
void cudnn_attention_backward(cudnn_graph *graph, const lt_attention *at,
                              const lt_attention_gradients *gradients, lt_mem sums);
int64_t cudnn_sums(const lt_attention *at);

/* Both passes, planned and ready, with outputs of their own. */
typedef struct cudnn_attention {
    lt_device *device;
    lt_attention at;
    lt_attention_gradients gradients;
    cudnn_graph forward, backward;
    lt_mem memory[5];
    size_t bytes[5];
    lt_status status; /* the first error of a run */
} cudnn_attention;

/* Of the shape, inputs and d_output of ours, whose gradients of q, k and v lie side by side in each token.
 * LT_FAILED: cuDNN refuses; LT_IO: no memory. To be closed either way. */
lt_status cudnn_attention_open(cudnn_attention *attention, const cudnn *library, lt_device *device,
                               const lt_attention *ours, const lt_attention_gradients *gradients);
void cudnn_attention_close(cudnn_attention *attention);

/* The largest difference from what ours has computed, output and gradients of q, k and v each by its largest
 * entry. */
lt_status cudnn_attention_compare(const cudnn_attention *attention, const lt_attention *ours,
                                  const lt_attention_gradients *gradients, double *difference);

#endif
