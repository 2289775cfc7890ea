#include "tests/gpu/cudnn_graph.h"
#include "tests/gpu/cudnn_backend.h"

#include <stdbool.h>
#include <stdio.h>
#include <string.h>

/* ---- descriptors ---- */

static void note(cudnn_graph *graph, const char *doing, int status) {
    if (status != 0 && graph->status == LT_OK) graph->status = cudnn_failed(graph->library, doing, status);
}

static void *make(cudnn_graph *graph, int kind) {
    void *made = NULL;
    if (graph->status != LT_OK) return NULL;
    if (graph->descriptor_count == CUDNN_MOST_DESCRIPTORS)
        graph->status = lt_fail(LT_FAILED, "a graph of more than %d descriptors", CUDNN_MOST_DESCRIPTORS);
    else
        note(graph, "making a descriptor", graph->library->make(kind, &made));
    if (graph->status == LT_OK) graph->descriptors[graph->descriptor_count++] = made;
    return made;
}

static void set(cudnn_graph *graph, void *descriptor, int name, int type, int64_t count, const void *values) {
    if (graph->status != LT_OK) return;
    char doing[64];
    snprintf(doing, sizeof doing, "setting attribute %d", name);
    note(graph, doing, graph->library->set(descriptor, name, type, count, values));
}

static void set_value(cudnn_graph *graph, void *descriptor, int name, int type, int value) {
    set(graph, descriptor, name, type, 1, &value); /* cuDNN's enumerations are int */
}

static void set_descriptor(cudnn_graph *graph, void *descriptor, int name, void *value) {
    set(graph, descriptor, name, AS_DESCRIPTOR, 1, &value);
}

static void finalize(cudnn_graph *graph, void *descriptor, const char *what) {
    if (graph->status == LT_OK) note(graph, what, graph->library->finalize(descriptor));
}

void cudnn_begin(const cudnn *library, cudnn_graph *graph) {
    *graph = (cudnn_graph){.library = library};
}

void cudnn_end(cudnn_graph *graph) {
    while (graph->descriptor_count > 0)
        graph->library->release(graph->descriptors[--graph->descriptor_count]);
}

/* ---- tensors ---- */

static cudnn_tensor tensor(cudnn_graph *graph, int type, const int64_t size[4], const int64_t stride[4],
                           bool stored, bool by_value) {
    cudnn_tensor made = {.descriptor = make(graph, DESCRIPTOR_TENSOR)};
    memcpy(made.size, size, sizeof made.size);
    memcpy(made.stride, stride, sizeof made.stride);
    const int64_t id = ++graph->tensors, alignment = 16;
    const bool is_virtual = !stored;
    set_value(graph, made.descriptor, TENSOR_TYPE, AS_TYPE, type);
    set(graph, made.descriptor, TENSOR_SIZE, AS_INTEGER, 4, size);
    set(graph, made.descriptor, TENSOR_STRIDE, AS_INTEGER, 4, stride);
    set(graph, made.descriptor, TENSOR_ID, AS_INTEGER, 1, &id);
    set(graph, made.descriptor, TENSOR_ALIGNMENT, AS_INTEGER, 1, &alignment);
    set(graph, made.descriptor, TENSOR_VIRTUAL, AS_BOOLEAN, 1, &is_virtual);
    set(graph, made.descriptor, TENSOR_BY_VALUE, AS_BOOLEAN, 1, &by_value);
    finalize(graph, made.descriptor, "making a tensor");
    return made;
}

static void put(cudnn_graph *graph, void *place) {
    graph->ids[graph->place_count] = graph->tensors;
    graph->places[graph->place_count++] = place;
}

static bool full(cudnn_graph *graph) {
    if (graph->status == LT_OK && graph->place_count == CUDNN_MOST_PLACES)
        graph->status = lt_fail(LT_FAILED, "a graph of more than %d stored tensors", CUDNN_MOST_PLACES);
    return graph->status != LT_OK;
}

cudnn_tensor cudnn_stored(cudnn_graph *graph, cudnn_type type, const int64_t size[4], const int64_t stride[4],
                          void *place) {
    if (full(graph)) return (cudnn_tensor){.descriptor = NULL};
    const cudnn_tensor made = tensor(graph, (int)type, size, stride, true, false);
    put(graph, place);
    return made;
}

cudnn_tensor cudnn_number(cudnn_graph *graph, float value) {
    static const int64_t one[4] = {1, 1, 1, 1};
    if (full(graph)) return (cudnn_tensor){.descriptor = NULL};
    const cudnn_tensor made = tensor(graph, CUDNN_FLOAT, one, one, true, true);
    graph->numbers[graph->place_count] = value;
    put(graph, &graph->numbers[graph->place_count]);
    return made;
}

cudnn_tensor cudnn_between(cudnn_graph *graph, cudnn_type type, const int64_t size[4]) {
    const int64_t stride[4] = {size[1] * size[2] * size[3], size[2] * size[3], size[3], 1};
    return tensor(graph, (int)type, size, stride, false, false);
}

/* ---- operations ---- */

static void add_operation(cudnn_graph *graph, void *operation, const char *what) {
    finalize(graph, operation, what);
    if (graph->status == LT_OK && graph->operation_count == CUDNN_MOST_OPERATIONS)
        graph->status = lt_fail(LT_FAILED, "a graph of more than %d operations", CUDNN_MOST_OPERATIONS);
    if (graph->status == LT_OK) graph->operations[graph->operation_count++] = operation;
}

/* b, where: NULL where the function takes fewer. */
static cudnn_tensor pointwise(cudnn_graph *graph, int function, int compute_in, int64_t axis, cudnn_tensor a,
                              const cudnn_tensor *b, const cudnn_tensor *where, cudnn_tensor out) {
    void *is = make(graph, DESCRIPTOR_POINTWISE);
    set_value(graph, is, POINTWISE_FUNCTION, AS_FUNCTION, function);
    set_value(graph, is, POINTWISE_COMPUTES_IN, AS_TYPE, compute_in);
    if (function == FUNCTION_INDEX) set(graph, is, POINTWISE_AXIS, AS_INTEGER, 1, &axis);
    finalize(graph, is, "choosing a function");
    void *operation = make(graph, DESCRIPTOR_POINTWISE_OPERATION);
    set_descriptor(graph, operation, POINTWISE_OPERATION_IS, is);
    set_descriptor(graph, operation, POINTWISE_OPERATION_A, a.descriptor);
    if (b != NULL) set_descriptor(graph, operation, POINTWISE_OPERATION_B, b->descriptor);
    if (where != NULL) set_descriptor(graph, operation, POINTWISE_OPERATION_WHERE, where->descriptor);
    set_descriptor(graph, operation, POINTWISE_OPERATION_OUT, out.descriptor);
    add_operation(graph, operation, "adding a function of elements");
    return out;
}

cudnn_tensor cudnn_of_one(cudnn_graph *graph, cudnn_function function, cudnn_tensor a, cudnn_tensor out) {
    return pointwise(graph, (int)function, CUDNN_FLOAT, 0, a, NULL, NULL, out);
}

cudnn_tensor cudnn_of_two(cudnn_graph *graph, cudnn_function function, cudnn_tensor a, cudnn_tensor b,
                          cudnn_tensor out) {
    return pointwise(graph, (int)function, CUDNN_FLOAT, 0, a, &b, NULL, out);
}

cudnn_tensor cudnn_lower_triangle(cudnn_graph *graph, cudnn_tensor a, cudnn_tensor otherwise,
                                  cudnn_tensor out) {
    enum { ROWS = 2, COLUMNS = 3 };
    cudnn_tensor row = cudnn_between(graph, CUDNN_INTEGER, a.size),
                 column = cudnn_between(graph, CUDNN_INTEGER, a.size),
                 below = cudnn_between(graph, CUDNN_BOOLEAN, a.size);
    pointwise(graph, FUNCTION_INDEX, CUDNN_FLOAT, ROWS, a, NULL, NULL, row);
    pointwise(graph, FUNCTION_INDEX, CUDNN_FLOAT, COLUMNS, a, NULL, NULL, column);
    pointwise(graph, FUNCTION_NOT_BELOW, CUDNN_BOOLEAN, 0, row, &column, NULL, below);
    return pointwise(graph, FUNCTION_SELECT, CUDNN_FLOAT, 0, a, &otherwise, &below, out);
}

cudnn_tensor cudnn_product(cudnn_graph *graph, cudnn_tensor a, cudnn_tensor b, cudnn_tensor out) {
    void *is = make(graph, DESCRIPTOR_PRODUCT);
    set_value(graph, is, PRODUCT_COMPUTES_IN, AS_TYPE, CUDNN_FLOAT);
    finalize(graph, is, "choosing a product");
    void *operation = make(graph, DESCRIPTOR_PRODUCT_OPERATION);
    set_descriptor(graph, operation, PRODUCT_OPERATION_A, a.descriptor);
    set_descriptor(graph, operation, PRODUCT_OPERATION_B, b.descriptor);
    set_descriptor(graph, operation, PRODUCT_OPERATION_OUT, out.descriptor);
    set_descriptor(graph, operation, PRODUCT_OPERATION_IS, is);
    add_operation(graph, operation, "adding a product");
    return out;
}

static cudnn_tensor reduction(cudnn_graph *graph, int function, cudnn_tensor a, cudnn_tensor out) {
    void *is = make(graph, DESCRIPTOR_REDUCTION);
    set_value(graph, is, REDUCTION_COMPUTES_IN, AS_TYPE, CUDNN_FLOAT);
    set_value(graph, is, REDUCTION_FUNCTION, AS_REDUCTION, function);
    finalize(graph, is, "choosing a reduction");
    void *operation = make(graph, DESCRIPTOR_REDUCTION_OPERATION);
    set_descriptor(graph, operation, REDUCTION_OPERATION_A, a.descriptor);
    set_descriptor(graph, operation, REDUCTION_OPERATION_OUT, out.descriptor);
    set_descriptor(graph, operation, REDUCTION_OPERATION_IS, is);
    add_operation(graph, operation, "adding a reduction");
    return out;
}

cudnn_tensor cudnn_sum(cudnn_graph *graph, cudnn_tensor a, cudnn_tensor out) {
    return reduction(graph, REDUCTION_SUM, a, out);
}

cudnn_tensor cudnn_largest(cudnn_graph *graph, cudnn_tensor a, cudnn_tensor out) {
    return reduction(graph, REDUCTION_LARGEST, a, out);
}

cudnn_tensor cudnn_transposed(cudnn_graph *graph, cudnn_type type, cudnn_tensor a) {
    const int64_t size[4] = {a.size[0], a.size[1], a.size[3], a.size[2]},
                  stride[4] = {a.stride[0], a.stride[1], a.stride[3], a.stride[2]};
    const cudnn_tensor out = tensor(graph, (int)type, size, stride, false, false);
    void *operation = make(graph, DESCRIPTOR_RESHAPE_OPERATION);
    set_descriptor(graph, operation, RESHAPE_OPERATION_A, a.descriptor);
    set_descriptor(graph, operation, RESHAPE_OPERATION_OUT, out.descriptor);
    add_operation(graph, operation, "adding a view");
    return out;
}

/* ---- plans ---- */

/* What cuDNN advises, best first; gives how many. */
static int64_t ask(cudnn_graph *graph, void *operations, void **configurations, int64_t most) {
    const cudnn *library = graph->library;
    void *heuristic = make(graph, DESCRIPTOR_HEURISTIC);
    set_descriptor(graph, heuristic, HEURISTIC_GRAPH, operations);
    set_value(graph, heuristic, HEURISTIC_MODE, AS_HEURISTIC_MODE, HEURISTIC_A);
    if (library->properties != NULL)
        set_descriptor(graph, heuristic, HEURISTIC_PROPERTIES, library->properties);
    finalize(graph, heuristic, "asking for engines");
    for (int64_t i = 0; i < most; i++) configurations[i] = make(graph, DESCRIPTOR_CONFIGURATION);
    int64_t count = 0;
    if (graph->status != LT_OK) return 0;
    note(graph, "asking for engines",
         library->get(heuristic, HEURISTIC_RESULTS, AS_DESCRIPTOR, most, &count, configurations));
    if (graph->status == LT_OK && count == 0)
        graph->status = cudnn_failed(library, "asking for engines, of which it names none", 0);
    return count;
}

lt_status cudnn_plan(cudnn_graph *graph, int64_t *workspace_bytes) {
    enum { MOST = 8 };
    const cudnn *library = graph->library;
    void *operations = make(graph, DESCRIPTOR_GRAPH), *configurations[MOST];
    set(graph, operations, GRAPH_OPERATIONS, AS_DESCRIPTOR, graph->operation_count, graph->operations);
    if (library->handle != NULL) set(graph, operations, GRAPH_HANDLE, AS_HANDLE, 1, &library->handle);
    finalize(graph, operations, "making the graph");
    const int64_t count = ask(graph, operations, configurations, MOST);
    for (int64_t i = 0; i < count && graph->plan == NULL; i++) {
        graph->status = LT_OK;
        void *plan = make(graph, DESCRIPTOR_PLAN);
        set_descriptor(graph, plan, PLAN_CONFIGURATION, configurations[i]);
        if (library->properties != NULL)
            set_descriptor(graph, plan, PLAN_PROPERTIES, library->properties);
        else
            set(graph, plan, PLAN_HANDLE, AS_HANDLE, 1, &library->handle);
        finalize(graph, plan, "making a plan");
        if (graph->status == LT_OK) graph->plan = plan;
    }
    int64_t found = 0;
    LT_CHECK(graph->status);
    note(graph, "asking for the size of the workspace",
         library->get(graph->plan, PLAN_WORKSPACE, AS_INTEGER, 1, &found, workspace_bytes));
    return graph->status;
}

lt_status cudnn_bind(cudnn_graph *graph, void *workspace) {
    graph->arguments = make(graph, DESCRIPTOR_ARGUMENTS);
    set(graph, graph->arguments, ARGUMENTS_IDS, AS_INTEGER, graph->place_count, graph->ids);
    set(graph, graph->arguments, ARGUMENTS_PLACES, AS_POINTER, graph->place_count, graph->places);
    set(graph, graph->arguments, ARGUMENTS_WORKSPACE, AS_POINTER, 1, &workspace);
    finalize(graph, graph->arguments, "taking arguments");
    return graph->status;
}

lt_status cudnn_run(const cudnn_graph *graph) {
    const int status = graph->library->execute(graph->library->handle, graph->plan, graph->arguments);
    return status == 0 ? LT_OK : cudnn_failed(graph->library, "running a graph", status);
}
