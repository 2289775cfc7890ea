#include <cublasLt.h>
#include <cuda_bf16.h>

#include <set>
#include <string>
#include <vector>

/* What was asked for already: an algorithm is chosen once. */
struct emulated_blas {
    std::set<std::string> asked;
};

struct emulated_product {
    cublasOperation_t a = CUBLAS_OP_N, b = CUBLAS_OP_N;
};

struct emulated_matrix {
    cudaDataType_t type;
    uint64_t rows, columns;
    int64_t ld;
};

struct emulated_preference {
    uint32_t alignment[4] = {256, 256, 256, 256}; /* the library's own defaults */
    bool in_order = false;                        /* no sums in the order of their arrival */
};

const char *cublasLtGetStatusString(cublasStatus_t status) {
    switch (status) {
    case CUBLAS_STATUS_SUCCESS:
        return "CUBLAS_STATUS_SUCCESS";
    case CUBLAS_STATUS_ALLOC_FAILED:
        return "CUBLAS_STATUS_ALLOC_FAILED";
    case CUBLAS_STATUS_INVALID_VALUE:
        return "CUBLAS_STATUS_INVALID_VALUE";
    case CUBLAS_STATUS_NOT_SUPPORTED:
        return "CUBLAS_STATUS_NOT_SUPPORTED";
    }
    return "unknown";
}

cublasStatus_t cublasLtCreate(cublasLtHandle_t *handle) {
    *handle = new emulated_blas{};
    return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtDestroy(cublasLtHandle_t handle) {
    delete handle;
    return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtMatmulDescCreate(cublasLtMatmulDesc_t *product, cublasComputeType_t, cudaDataType_t) {
    *product = new emulated_product{};
    return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtMatmulDescSetAttribute(cublasLtMatmulDesc_t product,
                                              cublasLtMatmulDescAttributes_t attribute, const void *value,
                                              size_t bytes) {
    if (bytes != sizeof(cublasOperation_t)) return CUBLAS_STATUS_INVALID_VALUE;
    memcpy(attribute == CUBLASLT_MATMUL_DESC_TRANSA ? &product->a : &product->b, value, bytes);
    return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtMatmulDescDestroy(cublasLtMatmulDesc_t product) {
    delete product;
    return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtMatrixLayoutCreate(cublasLtMatrixLayout_t *matrix, cudaDataType_t type, uint64_t rows,
                                          uint64_t columns, int64_t ld) {
    if (ld < static_cast<int64_t>(rows)) return CUBLAS_STATUS_INVALID_VALUE;
    *matrix = new emulated_matrix{type, rows, columns, ld};
    return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtMatrixLayoutDestroy(cublasLtMatrixLayout_t matrix) {
    delete matrix;
    return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtMatmulPreferenceCreate(cublasLtMatmulPreference_t *preference) {
    *preference = new emulated_preference{};
    return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtMatmulPreferenceSetAttribute(cublasLtMatmulPreference_t preference,
                                                    cublasLtMatmulPreferenceAttributes_t attribute,
                                                    const void *value, size_t bytes) {
    if (attribute == CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK)
        preference->in_order =
            *static_cast<const uint32_t *>(value) == CUBLASLT_REDUCTION_SCHEME_COMPUTE_TYPE;
    if (attribute < CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES) return CUBLAS_STATUS_SUCCESS;
    if (bytes != sizeof(uint32_t)) return CUBLAS_STATUS_INVALID_VALUE;
    memcpy(&preference->alignment[attribute - CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES], value, bytes);
    return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtMatmulPreferenceDestroy(cublasLtMatmulPreference_t preference) {
    delete preference;
    return CUBLAS_STATUS_SUCCESS;
}

/* The algorithm remembers which alignment of a, b, c and d it was chosen for. */
static uint64_t chosen_for(const emulated_preference *preference) {
    return preference->alignment[0] | static_cast<uint64_t>(preference->alignment[1]) << 16 |
           static_cast<uint64_t>(preference->alignment[2]) << 32 |
           static_cast<uint64_t>(preference->alignment[3]) << 48;
}

static bool is_aligned(const cublasLtMatmulAlgo_t *algorithm, int which, const void *address,
                       const emulated_matrix *m) {
    const uint64_t alignment = algorithm->chosen >> 16 * which & 0xffff,
                   element = m->type == CUDA_R_32F ? 4 : 2;
    return reinterpret_cast<uintptr_t>(address) % alignment == 0 &&
           static_cast<uint64_t>(m->ld) * element % alignment == 0;
}

cublasStatus_t cublasLtMatmulAlgoGetHeuristic(cublasLtHandle_t handle, cublasLtMatmulDesc_t product,
                                              cublasLtMatrixLayout_t a, cublasLtMatrixLayout_t b,
                                              cublasLtMatrixLayout_t c, cublasLtMatrixLayout_t d,
                                              cublasLtMatmulPreference_t preference, int asked,
                                              cublasLtMatmulHeuristicResult_t *results, int *count) {
    const uint64_t inner = product->a == CUBLAS_OP_N ? a->columns : a->rows;
    const bool fits = inner == (product->b == CUBLAS_OP_N ? b->rows : b->columns) &&
                      c->rows == (product->a == CUBLAS_OP_N ? a->rows : a->columns) &&
                      c->columns == (product->b == CUBLAS_OP_N ? b->columns : b->rows) &&
                      c->rows == d->rows && c->columns == d->columns && c->type == d->type;
    if (!fits || asked < 1 || !preference->in_order) return CUBLAS_STATUS_INVALID_VALUE;
    std::string question = std::to_string(product->a) + ' ' + std::to_string(product->b) + ' ' +
                           std::to_string(chosen_for(preference));
    for (const emulated_matrix *m : {a, b, c, d})
        question += ' ' + std::to_string(m->type) + ' ' + std::to_string(m->rows) + ' ' +
                    std::to_string(m->columns) + ' ' + std::to_string(m->ld);
    if (!handle->asked.insert(question).second) return CUBLAS_STATUS_NOT_SUPPORTED;
    results[0] = {{chosen_for(preference)}, 0, CUBLAS_STATUS_SUCCESS};
    *count = 1;
    return CUBLAS_STATUS_SUCCESS;
}

/* op(x) as floats, by columns. */
static std::vector<float> widened(const void *values, const emulated_matrix *m, cublasOperation_t operation) {
    const uint64_t rows = operation == CUBLAS_OP_N ? m->rows : m->columns;
    const uint64_t columns = operation == CUBLAS_OP_N ? m->columns : m->rows;
    std::vector<float> wide(rows * columns);
    const __nv_bfloat16 *from = static_cast<const __nv_bfloat16 *>(values);
    for (uint64_t column = 0; column < m->columns; column++)
        for (uint64_t row = 0; row < m->rows; row++) {
            const uint64_t i = operation == CUBLAS_OP_N ? row : column,
                           j = operation == CUBLAS_OP_N ? column : row;
            wide[j * rows + i] = __bfloat162float(from[column * static_cast<uint64_t>(m->ld) + row]);
        }
    return wide;
}

/* d = a b + keep c, which lies as d does. Another algorithm sums in another order, from its own k on. */
static void multiply(cublasLtMatmulDesc_t product, cublasLtMatmulAlgo_t algorithm, const void *a,
                     cublasLtMatrixLayout_t a_layout, const void *b, cublasLtMatrixLayout_t b_layout,
                     float keep, const void *c, void *d, cublasLtMatrixLayout_t d_layout) {
    const std::vector<float> left = widened(a, a_layout, product->a);
    const std::vector<float> right = widened(b, b_layout, product->b);
    const uint64_t rows = d_layout->rows, columns = d_layout->columns;
    const uint64_t inner = columns == 0 ? 0 : right.size() / columns;
    const uint64_t first = algorithm.chosen * 0x9e3779b97f4a7c15u >> 32;
    std::vector<float> sums(rows);
    for (uint64_t column = 0; column < columns; column++) {
        std::fill(sums.begin(), sums.end(), 0.0f);
        for (uint64_t i = 0; i < inner; i++) {
            const uint64_t k = (first + i) % inner;
            const float factor = right[column * inner + k], *values = left.data() + k * rows;
            for (uint64_t row = 0; row < rows; row++) sums[row] += values[row] * factor;
        }
        for (uint64_t row = 0; row < rows; row++) {
            const uint64_t at = column * static_cast<uint64_t>(d_layout->ld) + row;
            if (d_layout->type == CUDA_R_32F) {
                static_cast<float *>(d)[at] =
                    keep == 0 ? sums[row] : sums[row] + keep * static_cast<const float *>(c)[at];
            } else {
                const __nv_bfloat16 *from = static_cast<const __nv_bfloat16 *>(c) + at;
                static_cast<__nv_bfloat16 *>(d)[at] =
                    __float2bfloat16_rn(keep == 0 ? sums[row] : sums[row] + keep * __bfloat162float(*from));
            }
        }
    }
}

cublasStatus_t cublasLtMatmul(cublasLtHandle_t, cublasLtMatmulDesc_t product, const void *alpha,
                              const void *a, cublasLtMatrixLayout_t a_layout, const void *b,
                              cublasLtMatrixLayout_t b_layout, const void *beta, const void *c,
                              cublasLtMatrixLayout_t c_layout, void *d, cublasLtMatrixLayout_t d_layout,
                              const cublasLtMatmulAlgo_t *algorithm, void *, size_t, cudaStream_t stream) {
    const float scale = *static_cast<const float *>(alpha), keep = *static_cast<const float *>(beta);
    if (scale != 1 || c_layout->ld != d_layout->ld || a_layout->type != CUDA_R_16BF ||
        b_layout->type != CUDA_R_16BF || !is_aligned(algorithm, 0, a, a_layout) ||
        !is_aligned(algorithm, 1, b, b_layout) || !is_aligned(algorithm, 2, c, c_layout) ||
        !is_aligned(algorithm, 3, d, d_layout))
        return CUBLAS_STATUS_NOT_SUPPORTED;
    emulated_put(stream,
                 [=, left = *a_layout, right = *b_layout, to = *d_layout, how = *product,
                  by = *algorithm]() mutable { multiply(&how, by, a, &left, b, &right, keep, c, d, &to); });
    return CUBLAS_STATUS_SUCCESS;
}
