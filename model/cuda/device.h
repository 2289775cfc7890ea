/* Inside the CUDA device: what its operations share.
 *
 * Operations are queued on one stream. One that cannot be queued notes the first error, of which
 * synchronise() and download() then tell. Kernels take raw pointers: places in the flat arrays of parameters
 * and gradients are aligned to 4 bytes only, activations to 256; where rows are as wide as a vector needs is
 * for each operation to see.
 */
#ifndef LT_MODEL_CUDA_DEVICE_H
#define LT_MODEL_CUDA_DEVICE_H

#include "model/cuda/cuda.h"
#include "model/cuda/launch.h"

typedef __nv_bfloat16 bf16;
typedef __nv_bfloat162 bf16x2;

struct cuda_device {
    lt_device base; /* first: an lt_device * of this kind is a cuda_device * */
    int index;
    int capability; /* 90: compute capability 9.0 */
    int multiprocessors;
    size_t block_shared_bytes; /* at most, of a block that asks for it */
    lt_cuda_backward backward; /* of attention */
    cudaStream_t stream;
    struct {
        unsigned char *memory; /* pinned, of the host */
        cudaEvent_t sent;      /* what was last put there has gone to the device */
    } stages[2];
    int stage;              /* the next one to be used */
    unsigned char *scratch; /* one operation at a time uses it */
    size_t scratch_bytes;
    cudaError_t error; /* the first, of `failed` */
    const char *failed;
    const char *reason;     /* a library's word for it; nullptr: CUDA's */
    struct cuda_gemm *gemm; /* model/cuda/gemm.cu */
    char chip[128];
    unsigned char id[16]; /* its UUID */
};

static inline cuda_device *cuda_of(lt_device *device) {
    return reinterpret_cast<cuda_device *>(device);
}

/* Notes the error of an operation, if it is one and the first. */
void lt_cuda_note(cuda_device *device, const char *operation, cudaError_t error);

static inline float *floats_of(lt_mem mem) {
    return reinterpret_cast<float *>(mem.address);
}

static inline double *doubles_of(lt_mem mem) {
    return reinterpret_cast<double *>(mem.address);
}

static inline const lt_flat_piece *pieces_of(lt_mem mem) {
    return reinterpret_cast<const lt_flat_piece *>(mem.address);
}

static inline int32_t *integers_of(lt_mem mem) {
    return reinterpret_cast<int32_t *>(mem.address);
}

static inline bf16 *bf16_of(lt_mem mem) {
    return reinterpret_cast<bf16 *>(mem.address);
}

template <typename number> __host__ __device__ constexpr number divide_up(number a, number b) {
    return (a + b - 1) / b;
}

/* model/cuda/flat.cu */
void lt_cuda_round_to(lt_device *, lt_mem to, lt_mem from, int64_t count);
void lt_cuda_sum_segments(lt_device *, lt_mem values, int64_t segments, int64_t length, lt_mem sums);
void lt_cuda_add(lt_device *, lt_mem to, lt_mem from, int64_t count);
void lt_cuda_sum_squares(lt_device *, lt_mem values, lt_mem pieces, int64_t count, lt_mem sums);

/* model/cuda/adamw.cu */
void lt_cuda_adamw(lt_device *, lt_mem weights, lt_mem gradients, lt_mem m, lt_mem v, lt_mem pieces,
                   int64_t count, const lt_adamw groups[LT_ADAMW_GROUPS]);

/* model/cuda/gemm.cu. What the library may use of the scratch is part of its choices, so it is the same in
 * every run: what NVIDIA recommends for the chip. */
size_t lt_cuda_gemm_workspace(const cuda_device *);
lt_status lt_cuda_gemm_create(cuda_device *);
void lt_cuda_gemm_destroy(cuda_device *);
void lt_cuda_gemm(lt_device *, const lt_gemm *);

/* model/cuda/embedding.cu */
size_t lt_cuda_embedding_scratch_bytes(int64_t rows, int64_t hidden);
void lt_cuda_embedding_forward(lt_device *, lt_mem tokens, const lt_vocabulary *, lt_mem weight, int64_t rows,
                               int64_t hidden, lt_mem out);
void lt_cuda_embedding_backward(lt_device *, lt_mem tokens, const lt_vocabulary *, lt_mem d_out, int64_t rows,
                                int64_t hidden, lt_mem d_weight);

/* model/cuda/rmsnorm.cu */
size_t lt_cuda_rmsnorm_scratch_bytes(int64_t rows, int64_t hidden);
void lt_cuda_rmsnorm_forward(lt_device *, lt_mem x, lt_mem weight, double epsilon, int64_t rows,
                             int64_t hidden, lt_mem y, lt_mem inverse_rms);
void lt_cuda_rmsnorm_backward(lt_device *, lt_mem x, lt_mem weight, lt_mem inverse_rms, lt_mem d_y,
                              int64_t rows, int64_t hidden, lt_mem d_x, lt_mem d_weight);

/* model/cuda/rope.cu */
void lt_cuda_rope(lt_device *, lt_mem x, int64_t stride, lt_mem table, int64_t rows, int64_t length,
                  int64_t first, int64_t heads, int64_t head_size, bool inverse);

/* model/cuda/swiglu.cu */
void lt_cuda_swiglu_forward(lt_device *, lt_mem gate_up, int64_t rows, int64_t ffn, lt_mem out);
void lt_cuda_swiglu_backward(lt_device *, lt_mem gate_up, lt_mem d_out, int64_t rows, int64_t ffn,
                             lt_mem d_gate_up, lt_mem out);

/* model/cuda/cross_entropy.cu */
void lt_cuda_cross_entropy(lt_device *, lt_mem logits, lt_mem targets, int64_t rows, int64_t vocabulary,
                           int64_t width, double scale, bool gradient, lt_mem losses);
void lt_cuda_cross_entropy_part(lt_device *, const lt_cut_loss *);
void lt_cuda_cross_entropy_join(lt_device *, const lt_cut_loss *);

/* model/cuda/attention.cu: which kernels serve a shape */
size_t lt_cuda_attention_saved_bytes(lt_device *, const lt_attention *);
size_t lt_cuda_attention_scratch_bytes(lt_device *, const lt_attention *);
void lt_cuda_attention_forward(lt_device *, const lt_attention *);
void lt_cuda_attention_backward(lt_device *, const lt_attention *, const lt_attention_gradients *);
void lt_cuda_attention_statistics(lt_device *, const lt_attention *, lt_mem statistics);

#endif
