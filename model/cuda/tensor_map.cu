/* Tensor maps, made by the driver. Its library is not linked: the runtime finds the function in it. */
#include "model/cuda/tensor_map.h"

typedef decltype(&cuTensorMapEncodeTiled) map_encoder;

enum { CUDA_12_0 = 12000 };

/* nullptr: a driver without it. */
static map_encoder find_encoder() {
    void *function = nullptr;
    cudaDriverEntryPointQueryResult found = cudaDriverEntryPointSymbolNotFound;
    const cudaError_t error = cudaGetDriverEntryPointByVersion("cuTensorMapEncodeTiled", &function, CUDA_12_0,
                                                               cudaEnableDefault, &found);
    if (error == cudaSuccess && found == cudaDriverEntryPointSuccess)
        return reinterpret_cast<map_encoder>(function);
    cudaGetLastError(); /* the next launch is not to blame */
    return nullptr;
}

bool lt_cuda_map_rows(CUtensorMap *map, const head_rows &of, int columns, int box_rows) {
    static const map_encoder encode = find_encoder();
    const auto count = [](int64_t elements) { return static_cast<cuuint64_t>(elements); };
    const cuuint64_t sizes[] = {count(of.head_size), count(of.heads), count(of.rows), count(of.batch)},
                     strides[] = {count(of.head_size) * sizeof(bf16), count(of.stride) * sizeof(bf16),
                                  count(of.rows * of.stride) * sizeof(bf16)};
    const cuuint32_t box[] = {static_cast<cuuint32_t>(columns), 1, static_cast<cuuint32_t>(box_rows), 1},
                     steps[] = {1, 1, 1, 1};
    return encode != nullptr &&
           encode(map, CU_TENSOR_MAP_DATA_TYPE_BFLOAT16, 4, const_cast<bf16 *>(of.base), sizes, strides, box,
                  steps, CU_TENSOR_MAP_INTERLEAVE_NONE,
                  columns == 64 ? CU_TENSOR_MAP_SWIZZLE_128B : CU_TENSOR_MAP_SWIZZLE_64B,
                  CU_TENSOR_MAP_L2_PROMOTION_L2_128B, CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE) == CUDA_SUCCESS;
}
