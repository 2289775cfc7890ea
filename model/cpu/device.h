/* Inside the CPU device: what its operations share. */
#ifndef LT_MODEL_CPU_DEVICE_H
#define LT_MODEL_CPU_DEVICE_H

#include "model/cpu/kernels/kernels.h"
#include "model/cpu/pool.h"
#include "model/ops.h"

typedef struct cpu_device {
    lt_device base; /* first: an lt_device * of this kind is a cpu_device * */
    lt_pool *pool;
    const lt_kernels *kernels;
    unsigned char *scratch; /* one operation at a time uses it */
    size_t scratch_bytes;
    char blas_kernel[64];
} cpu_device;

static inline cpu_device *cpu_of(lt_device *device) {
    return (cpu_device *)device;
}

static inline float *floats_of(lt_mem mem) {
    return (float *)(void *)mem.address;
}

static inline double *doubles_of(lt_mem mem) {
    return (double *)(void *)mem.address;
}

static inline int32_t *integers_of(lt_mem mem) {
    return (int32_t *)(void *)mem.address;
}

/* model/cpu/gemm.c */
void lt_cpu_gemm(lt_device *device, const lt_gemm *gemm);
void lt_cpu_blas_multiply(const lt_gemm *gemm); /* one call of the BLAS, by the calling thread */
const char *lt_cpu_blas_kernel(void);
void lt_cpu_blas_use_one_thread(
    void); /* of a BLAS that has more: tiles have threads, and bits must not change */

/* model/cpu/attention.c */
size_t lt_cpu_attention_saved_bytes(lt_device *device, const lt_attention *shape);
size_t lt_cpu_attention_scratch_bytes(lt_device *device, const lt_attention *shape);
void lt_cpu_attention_forward(lt_device *device, const lt_attention *shape);
void lt_cpu_attention_backward(lt_device *device, const lt_attention *shape,
                               const lt_attention_gradients *gradients);
void lt_cpu_attention_statistics(lt_device *device, const lt_attention *shape, lt_mem statistics);

/* model/cpu/rows.c */
size_t lt_cpu_rows_scratch_bytes(int64_t rows, int64_t hidden);
void lt_cpu_embedding_forward(lt_device *device, lt_mem tokens, const lt_vocabulary *vocabulary,
                              lt_mem weight, int64_t rows, int64_t hidden, lt_mem out);
void lt_cpu_embedding_backward(lt_device *device, lt_mem tokens, const lt_vocabulary *vocabulary,
                               lt_mem d_out, int64_t rows, int64_t hidden, lt_mem d_weight);
void lt_cpu_rmsnorm_forward(lt_device *device, lt_mem x, lt_mem weight, double epsilon, int64_t rows,
                            int64_t hidden, lt_mem y, lt_mem inverse_rms);
void lt_cpu_rmsnorm_backward(lt_device *device, lt_mem x, lt_mem weight, lt_mem inverse_rms, lt_mem d_y,
                             int64_t rows, int64_t hidden, lt_mem d_x, lt_mem d_weight);
void lt_cpu_rope(lt_device *device, lt_mem x, int64_t stride, lt_mem table, int64_t rows, int64_t length,
                 int64_t first, int64_t heads, int64_t head_size, bool inverse);
void lt_cpu_swiglu_forward(lt_device *device, lt_mem gate_up, int64_t rows, int64_t ffn, lt_mem out);
void lt_cpu_swiglu_backward(lt_device *device, lt_mem gate_up, lt_mem d_out, int64_t rows, int64_t ffn,
                            lt_mem d_gate_up, lt_mem out);
void lt_cpu_cross_entropy(lt_device *device, lt_mem logits, lt_mem targets, int64_t rows, int64_t vocabulary,
                          int64_t width, double scale, bool gradient, lt_mem losses);
void lt_cpu_cross_entropy_part(lt_device *device, const lt_cut_loss *loss);
void lt_cpu_cross_entropy_join(lt_device *device, const lt_cut_loss *loss);

/* model/cpu/flat.c */
void lt_cpu_copy(lt_device *device, lt_mem to, lt_mem from, int64_t count);
void lt_cpu_zero(lt_device *device, lt_mem mem, int64_t count);
void lt_cpu_add(lt_device *device, lt_mem to, lt_mem from, int64_t count);
void lt_cpu_sum_segments(lt_device *device, lt_mem values, int64_t segments, int64_t length, lt_mem sums);
void lt_cpu_sum_squares(lt_device *device, lt_mem values, lt_mem pieces, int64_t count, lt_mem sums);
void lt_cpu_adamw(lt_device *device, lt_mem weights, lt_mem gradients, lt_mem m, lt_mem v, lt_mem pieces,
                  int64_t count, const lt_adamw groups[LT_ADAMW_GROUPS]);

#endif
