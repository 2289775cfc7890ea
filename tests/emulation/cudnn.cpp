/* cuDNN's twin, in the place of tests/gpu/cudnn_library.c: whatever graph it is given runs operation by
 * operation, in float, what lies between two of them included. EMULATED_CUDNN=0: there is none. */
#include "tests/gpu/cudnn_library.h"
#include "tests/gpu/cudnn_backend.h"
#include "tests/gpu/cudnn_graph.h"

#include <cuda_bf16.h>
#include <cuda_runtime.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdio>
#include <cstring>
#include <functional>
#include <map>
#include <vector>

namespace {

enum { SUCCESS = 0, BAD_PARAM = 2000, NOT_SUPPORTED = 3000 };

struct descriptor {
    int kind;
    std::map<int, std::vector<unsigned char>> values; /* of attributes */

    template <typename type> std::vector<type> all(int attribute) const {
        const auto found = values.find(attribute);
        if (found == values.end())
            emulation::fail("a descriptor of kind %d lacks attribute %d", kind, attribute);
        std::vector<type> read(found->second.size() / sizeof(type));
        memcpy(read.data(), found->second.data(), found->second.size());
        return read;
    }
    template <typename type> type one(int attribute) const {
        return all<type>(attribute).at(0);
    }
    const descriptor *other(int attribute) const {
        return one<const descriptor *>(attribute);
    }
};

descriptor *of(void *made) {
    return static_cast<descriptor *>(made);
}

typedef std::array<int64_t, 4> four;

four size_of(const descriptor *tensor) {
    four size;
    std::copy_n(tensor->all<int64_t>(TENSOR_SIZE).begin(), 4, size.begin());
    return size;
}

/* Where an element lies among packed ones; a size of 1 is as many as are asked for. */
size_t packed(const four &size, const four &at) {
    int64_t index = 0;
    for (size_t i = 0; i < 4; i++) {
        if (size[i] != 1 && at[i] >= size[i]) emulation::fail("cuDNN: sizes that do not fit");
        index = index * size[i] + (size[i] == 1 ? 0 : at[i]);
    }
    return static_cast<size_t>(index);
}

void each(const four &size, const std::function<void(const four &)> &visit) {
    four at;
    for (at[0] = 0; at[0] < size[0]; at[0]++)
        for (at[1] = 0; at[1] < size[1]; at[1]++)
            for (at[2] = 0; at[2] < size[2]; at[2]++)
                for (at[3] = 0; at[3] < size[3]; at[3]++) visit(at);
}

struct tensor {
    four size;
    std::vector<float> elements; /* packed */
    float operator()(const four &at) const {
        return elements[packed(size, at)];
    }
};

/* One run of a graph. */
class execution {
  public:
    execution(const descriptor *graph, const descriptor *arguments) : graph_(graph) {
        const auto ids = arguments->all<int64_t>(ARGUMENTS_IDS);
        const auto places = arguments->all<void *>(ARGUMENTS_PLACES);
        for (size_t i = 0; i < ids.size(); i++) places_[ids[i]] = places.at(i);
    }

    void run() {
        for (const descriptor *operation : graph_->all<const descriptor *>(GRAPH_OPERATIONS))
            switch (operation->kind) {
            case DESCRIPTOR_POINTWISE_OPERATION:
                pointwise(operation);
                break;
            case DESCRIPTOR_PRODUCT_OPERATION:
                product(operation);
                break;
            case DESCRIPTOR_REDUCTION_OPERATION:
                reduction(operation);
                break;
            case DESCRIPTOR_RESHAPE_OPERATION:
                transpose(operation);
                break;
            default:
                emulation::fail("cuDNN: an operation of kind %d", operation->kind);
            }
    }

  private:
    void *place(const descriptor *of) const {
        const auto found = places_.find(of->one<int64_t>(TENSOR_ID));
        if (found == places_.end()) emulation::fail("cuDNN: a tensor without a place");
        return found->second;
    }

    /* The index of an element in memory. */
    static int64_t stored(const std::vector<int64_t> &stride, const four &at) {
        return at[0] * stride[0] + at[1] * stride[1] + at[2] * stride[2] + at[3] * stride[3];
    }

    tensor read(const descriptor *from) const {
        if (from->one<unsigned char>(TENSOR_VIRTUAL) != 0) {
            const auto found = between_.find(from);
            if (found == between_.end()) emulation::fail("cuDNN: a tensor is read before it is written");
            return found->second;
        }
        tensor result{size_of(from), {}};
        const void *memory = place(from);
        const auto stride = from->all<int64_t>(TENSOR_STRIDE);
        each(result.size, [&](const four &at) {
            const int64_t index = stored(stride, at);
            result.elements.push_back(
                from->one<int>(TENSOR_TYPE) == CUDNN_FLOAT
                    ? static_cast<const float *>(memory)[index]
                    : __bfloat162float(static_cast<const __nv_bfloat16 *>(memory)[index]));
        });
        return result;
    }

    void write(const descriptor *to, const std::function<float(const four &)> &value) {
        const bool narrow = to->one<int>(TENSOR_TYPE) == CUDNN_BFLOAT16;
        const auto stride = to->all<int64_t>(TENSOR_STRIDE);
        tensor result{size_of(to), {}};
        each(result.size, [&](const four &at) {
            const float exact = value(at);
            result.elements.push_back(narrow ? __bfloat162float(__float2bfloat16_rn(exact)) : exact);
        });
        if (to->one<unsigned char>(TENSOR_VIRTUAL) != 0) {
            between_[to] = result;
            return;
        }
        void *memory = place(to);
        each(result.size, [&](const four &at) {
            const int64_t index = stored(stride, at);
            if (narrow)
                static_cast<__nv_bfloat16 *>(memory)[index] = __float2bfloat16_rn(result(at));
            else
                static_cast<float *>(memory)[index] = result(at);
        });
    }

    void pointwise(const descriptor *operation) {
        const descriptor *is = operation->other(POINTWISE_OPERATION_IS);
        const int function = is->one<int>(POINTWISE_FUNCTION);
        const bool two = operation->values.count(POINTWISE_OPERATION_B) > 0;
        const tensor a = read(operation->other(POINTWISE_OPERATION_A));
        const tensor b = two ? read(operation->other(POINTWISE_OPERATION_B)) : a;
        const tensor where =
            function == FUNCTION_SELECT ? read(operation->other(POINTWISE_OPERATION_WHERE)) : a;
        write(operation->other(POINTWISE_OPERATION_OUT), [&](const four &at) -> float {
            switch (function) {
            case CUDNN_ADD:
                return a(at) + b(at);
            case CUDNN_SUBTRACT:
                return a(at) - b(at);
            case CUDNN_MULTIPLY:
                return a(at) * b(at);
            case CUDNN_DIVIDE:
                return a(at) / b(at);
            case CUDNN_EXP:
                return std::exp(a(at));
            case CUDNN_LOG:
                return std::log(a(at));
            case CUDNN_COPY:
                return a(at);
            case FUNCTION_NOT_BELOW:
                return a(at) >= b(at) ? 1.0f : 0.0f;
            case FUNCTION_SELECT:
                return where(at) != 0 ? a(at) : b(at);
            case FUNCTION_INDEX:
                return static_cast<float>(at[static_cast<size_t>(is->one<int64_t>(POINTWISE_AXIS))]);
            default:
                emulation::fail("cuDNN: function %d", function);
            }
        });
    }

    void product(const descriptor *operation) {
        const tensor a = read(operation->other(PRODUCT_OPERATION_A)),
                     b = read(operation->other(PRODUCT_OPERATION_B));
        if (a.size[3] != b.size[2]) emulation::fail("cuDNN: a product of sizes that do not fit");
        write(operation->other(PRODUCT_OPERATION_OUT), [&](const four &at) {
            float sum = 0;
            for (int64_t i = 0; i < a.size[3]; i++)
                sum += a({at[0], at[1], at[2], i}) * b({at[0], at[1], i, at[3]});
            return sum;
        });
    }

    void reduction(const descriptor *operation) {
        const bool adds =
            operation->other(REDUCTION_OPERATION_IS)->one<int>(REDUCTION_FUNCTION) == REDUCTION_SUM;
        const tensor a = read(operation->other(REDUCTION_OPERATION_A));
        write(operation->other(REDUCTION_OPERATION_OUT), [&](const four &at) {
            float result = a({at[0], at[1], at[2], 0});
            for (int64_t i = 1; i < a.size[3]; i++) {
                const float next = a({at[0], at[1], at[2], i});
                result = adds ? result + next : std::max(result, next);
            }
            return result;
        });
    }

    void transpose(const descriptor *operation) {
        const tensor a = read(operation->other(RESHAPE_OPERATION_A));
        write(operation->other(RESHAPE_OPERATION_OUT), [&](const four &at) {
            return a({at[0], at[1], at[3], at[2]});
        });
    }

    const descriptor *graph_;
    std::map<int64_t, void *> places_;
    std::map<const descriptor *, tensor> between_;
};

void last_error(char *message, size_t bytes) {
    snprintf(message, bytes, "emulated");
}

const char *name_of(int status) {
    return status == NOT_SUPPORTED ? "CUDNN_STATUS_NOT_SUPPORTED" : "CUDNN_STATUS_BAD_PARAM";
}

int make(int kind, void **made) {
    *made = new descriptor{kind, {}};
    return SUCCESS;
}

int release(void *made) {
    delete of(made);
    return SUCCESS;
}

int finalize(void *) {
    return SUCCESS;
}

int set(void *made, int attribute, int type, int64_t count, const void *values) {
    const size_t bytes =
        type == AS_BOOLEAN ? sizeof(bool)
        : type == AS_TYPE || type == AS_HEURISTIC_MODE || type == AS_FUNCTION || type == AS_REDUCTION
            ? sizeof(int)
            : sizeof(int64_t);
    const auto from = static_cast<const unsigned char *>(values);
    of(made)->values[attribute].assign(from, from + bytes * static_cast<size_t>(count));
    return SUCCESS;
}

/* The one configuration of a heuristic, which knows its graph; no workspace. */
int get(void *made, int attribute, int, int64_t most, int64_t *count, void *values) {
    if (most < 1) return BAD_PARAM;
    *count = 1;
    if (attribute == HEURISTIC_RESULTS)
        (*static_cast<descriptor **>(values))->values[HEURISTIC_GRAPH] = of(made)->values.at(HEURISTIC_GRAPH);
    else if (attribute == PLAN_WORKSPACE)
        *static_cast<int64_t *>(values) = 0;
    else
        return NOT_SUPPORTED;
    return SUCCESS;
}

int execute(void *stream, void *plan, void *arguments) {
    const descriptor *graph = of(plan)->other(PLAN_CONFIGURATION)->other(HEURISTIC_GRAPH);
    emulated_put(static_cast<cudaStream_t>(stream), [=] { execution(graph, of(arguments)).run(); });
    return SUCCESS;
}

} // namespace

/* Its handle is the stream. */
lt_status cudnn_open(void *stream, cudnn **library) {
    *library = nullptr;
    if (emulated_number("EMULATED_CUDNN", 1) == 0)
        return lt_fail(LT_BAD_INPUT, "no cuDNN 9: EMULATED_CUDNN=0");
    cudnn made = {};
    made.handle = stream;
    snprintf(made.version, sizeof made.version, "emulated");
    made.last_error = last_error;
    made.name_of = name_of;
    made.make = make;
    made.release = release;
    made.finalize = finalize;
    made.set = set;
    made.get = get;
    made.execute = execute;
    *library = new cudnn(made);
    return LT_OK;
}

void cudnn_close(cudnn *library) {
    delete library;
}

lt_status cudnn_failed(const cudnn *library, const char *doing, int status) {
    return lt_fail(LT_FAILED, "cuDNN %s, %s: %s", library->version, doing, library->name_of(status));
}
