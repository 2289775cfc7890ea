/* cuDNN's graphs of operations, for what `make gpu-bench` measures our kernels against.
 *
 * Tensors are [batch, heads, rows, columns]. A graph keeps its first error and does nothing from then on, so
 * that who builds one asks once, at the end. It stays where it is: cuDNN keeps addresses of its numbers.
 */
#ifndef LT_TESTS_GPU_CUDNN_GRAPH_H
#define LT_TESTS_GPU_CUDNN_GRAPH_H

#include "tests/gpu/cudnn_library.h"

typedef enum cudnn_type {
    CUDNN_FLOAT = 0,
    CUDNN_INTEGER = 4,
    CUDNN_BFLOAT16 = 9,
    CUDNN_BOOLEAN = 11
} cudnn_type;

typedef struct cudnn_tensor {
    void *descriptor;
    int64_t size[4], stride[4]; /* in elements */
} cudnn_tensor;

enum { CUDNN_MOST_DESCRIPTORS = 160, CUDNN_MOST_OPERATIONS = 32, CUDNN_MOST_PLACES = 20 };

typedef struct cudnn_graph {
    const cudnn *library;
    lt_status status;
    void *descriptors[CUDNN_MOST_DESCRIPTORS], *operations[CUDNN_MOST_OPERATIONS], *plan, *arguments;
    int64_t descriptor_count, operation_count, place_count;
    int64_t tensors, ids[CUDNN_MOST_PLACES]; /* of tensors in memory, and where they lie */
    void *places[CUDNN_MOST_PLACES];
    float numbers[CUDNN_MOST_PLACES];
} cudnn_graph;

void cudnn_begin(const cudnn *library, cudnn_graph *graph);
void cudnn_end(cudnn_graph *graph); /* releases what it holds; all zero: nothing happens */

/* A tensor in the device's memory; a number; a tensor between two operations, packed, that is never stored.
 */
cudnn_tensor cudnn_stored(cudnn_graph *, cudnn_type, const int64_t size[4], const int64_t stride[4], void *);
cudnn_tensor cudnn_number(cudnn_graph *, float value);
cudnn_tensor cudnn_between(cudnn_graph *, cudnn_type, const int64_t size[4]);

/* Each adds an operation, computed in float, and gives its result `out`. */
typedef enum cudnn_function {
    CUDNN_ADD = 0,
    CUDNN_MULTIPLY = 1,
    CUDNN_DIVIDE = 6,
    CUDNN_SUBTRACT = 9,
    CUDNN_EXP = 13,
    CUDNN_LOG = 15,
    CUDNN_COPY = 21
} cudnn_function;
/* Element by element; a size of 1 fits every size. */
cudnn_tensor cudnn_of_one(cudnn_graph *, cudnn_function, cudnn_tensor a, cudnn_tensor out);
cudnn_tensor cudnn_of_two(cudnn_graph *, cudnn_function, cudnn_tensor a, cudnn_tensor b, cudnn_tensor out);
/* `a` where the row's number is not below the column's, `otherwise` elsewhere. */
cudnn_tensor cudnn_lower_triangle(cudnn_graph *, cudnn_tensor a, cudnn_tensor otherwise, cudnn_tensor out);
cudnn_tensor cudnn_product(cudnn_graph *, cudnn_tensor a, cudnn_tensor b, cudnn_tensor out);
/* Of each row. */
cudnn_tensor cudnn_sum(cudnn_graph *, cudnn_tensor a, cudnn_tensor out);
cudnn_tensor cudnn_largest(cudnn_graph *, cudnn_tensor a, cudnn_tensor out);
/* A view with rows and columns exchanged. */
cudnn_tensor cudnn_transposed(cudnn_graph *, cudnn_type, cudnn_tensor a);

/* Makes a plan, of cuDNN's choices the first that can be made, and says how large a workspace it wants.
 * LT_FAILED: none can be, or the graph is in error; the message has cuDNN's words. */
lt_status cudnn_plan(cudnn_graph *graph, int64_t *workspace_bytes);

/* Before runs of a plan. */
lt_status cudnn_bind(cudnn_graph *graph, void *workspace);

/* Queues a run. */
lt_status cudnn_run(const cudnn_graph *graph);

#endif
