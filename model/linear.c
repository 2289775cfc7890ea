#include "model/plan.h"

void lt_linear(lt_device *device, lt_mem x, lt_mem weight, int64_t rows, int64_t in, int64_t out,
               lt_mem addend, lt_mem y) {
    device->ops->gemm(device, &(lt_gemm){.m = rows,
                                         .n = out,
                                         .k = in,
                                         .a = x,
                                         .lda = in,
                                         .b = weight,
                                         .ldb = in,
                                         .b_transposed = true,
                                         .c = y,
                                         .ldc = out,
                                         .addend = addend});
}

void lt_linear_weight_gradient(lt_device *device, lt_mem d_y, lt_mem x, int64_t rows, int64_t in, int64_t out,
                               lt_mem d_weight, bool accumulate) {
    device->ops->gemm(device, &(lt_gemm){.m = out,
                                         .n = in,
                                         .k = rows,
                                         .a = d_y,
                                         .lda = out,
                                         .a_transposed = true,
                                         .b = x,
                                         .ldb = in,
                                         .c = d_weight,
                                         .ldc = in,
                                         .addend = accumulate ? d_weight : LT_NOWHERE});
}

void lt_linear_input_gradient(lt_device *device, lt_mem d_y, lt_mem weight, int64_t rows, int64_t in,
                              int64_t out, lt_mem d_x) {
    device->ops->gemm(
        device,
        &(lt_gemm){
            .m = rows, .n = in, .k = out, .a = d_y, .lda = out, .b = weight, .ldb = in, .c = d_x, .ldc = in});
}
