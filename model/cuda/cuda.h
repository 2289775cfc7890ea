/* The CUDA device: one GPU of this host, whole training steps in bfloat16 with float32 statistics, gradients
 * and optimiser (model/ops.h says which). C++ behind C functions; nothing here needs MPI.
 */
#ifndef LT_MODEL_CUDA_CUDA_H
#define LT_MODEL_CUDA_CUDA_H

#include "comm/device.h"
#include "model/ops.h"

#ifdef __cplusplus
extern "C" {
#endif

/* How many GPUs this process sees; 0 with *why (not owned, "no NVIDIA driver is loaded") where none can be
 * used. Local. */
int lt_cuda_device_count(const char **why);

/* Device `index` of those. LT_BAD_INPUT: there is no such device, or it is older than this build serves.
 * LT_IO: it does not answer. Local. */
lt_status lt_cuda_device_create(int index, lt_device **device);

typedef struct lt_cuda_description {
    char name[128];           /* "NVIDIA H100 80GB HBM3" */
    char bus[32];             /* where it is on its host: "0000:17:00.0" */
    unsigned char id[16];     /* of this GPU, or part of one, and no other anywhere */
    int capability;           /* 90 */
    int driver;               /* the CUDA that the driver serves: 13000 */
    size_t memory, available; /* bytes; what is not taken now */
    double peak_tflops;       /* bfloat16, dense, as the vendor states it; 0: not known */
} lt_cuda_description;

/* Of a CUDA device. Local. */
lt_status lt_cuda_device_describe(lt_device *device, lt_cuda_description *description);

/* The stream, a cudaStream_t, on which operations are queued: for libraries that a measurement compares with.
 * Local. */
void *lt_cuda_stream(lt_device *device);

/* Backward of attention for head sizes 64, 96 and 128: in two kernels, of queries and of keys, or in one that
 * does both, where the chip can (model/cuda/attention.cu says when). Each gives the same bits in every run;
 * the two forms sum dq and db in other orders. For tests and measurements: whatever the shape, before
 * scratch_bytes() is asked. Local. */
typedef enum lt_cuda_backward {
    LT_CUDA_BACKWARD_BY_SHAPE,
    LT_CUDA_BACKWARD_TWO_KERNELS,
    LT_CUDA_BACKWARD_ONE_KERNEL
} lt_cuda_backward;
void lt_cuda_choose_backward(lt_device *device, lt_cuda_backward form);

/* Which of the forms serves a shape on this device. Local. */
bool lt_cuda_backward_in_one_kernel(lt_device *device, const lt_attention *shape);

/* Messages between GPUs by NCCL. The ranks of a group have an id of its own, which one of them makes; a group
 * of one needs none. */
enum { LT_CUDA_NETWORK_ID = 128 };

typedef struct lt_cuda_group {
    int ranks, rank;
    unsigned char id[LT_CUDA_NETWORK_ID];
} lt_cuda_group;

/* Makes an id; NULL: only looks for NCCL. LT_BAD_INPUT: there is none here, or one that is too old. Local. */
lt_status lt_cuda_network_id(unsigned char *id);

/* The network of a CUDA device; `groups` [LT_RANK_KINDS], or NULL: MPI, of memory on the device. Close it
 * before the device, and after what uses it. LT_IO: NCCL fails. Collective on each group. */
lt_status lt_cuda_network_open(lt_device *device, const lt_cuda_group *groups, lt_comm_device *result);
void lt_cuda_network_close(lt_comm_device *opened);

/* Host memory that a GPU reaches by itself, for copies; nullptr: there is none. Local. */
void *lt_cuda_host_allocate(size_t bytes);
void lt_cuda_host_release(void *memory);

/* What the plugin exports, as `lt_cuda_plugin` (comm/plugin.h). */
typedef struct lt_cuda_functions {
    int (*device_count)(const char **why);
    lt_status (*device_create)(int index, lt_device **device);
    lt_status (*device_describe)(lt_device *device, lt_cuda_description *description);
    lt_status (*network_id)(unsigned char *id);
    lt_status (*network_open)(lt_device *device, const lt_cuda_group *groups, lt_comm_device *result);
    void (*network_close)(lt_comm_device *opened);
    void *(*host_allocate)(size_t bytes);
    void (*host_release)(void *memory);
} lt_cuda_functions;

#ifdef __cplusplus
}
#endif

#endif
