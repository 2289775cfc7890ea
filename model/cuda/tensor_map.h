/* Maps by which bulk copies of compute capability 9.0 find rows of heads in memory. */
#ifndef LT_MODEL_CUDA_TENSOR_MAP_H
#define LT_MODEL_CUDA_TENSOR_MAP_H

#include <cuda.h>

#include "model/cuda/device.h"

/* Where the rows of all heads lie: element (column, head, row, batch) at `base` + column + head x head_size +
 * (batch x rows + row) x stride. `base` and rows are aligned to 16 bytes. */
struct head_rows {
    const bf16 *base;
    int64_t head_size, heads, rows, batch, stride; /* elements */
};

/* Of boxes of `columns` (64 or 32: the 128-byte and 64-byte modes of swizzled()) by `box_rows` (256 at most)
 * of one head. False: the driver has no maps, or none of this shape. */
bool lt_cuda_map_rows(CUtensorMap *map, const head_rows &of, int columns, int box_rows);

#endif
