/* What of NCCL is called, a library that is opened by name and need not be there when this is built: its
 * types and functions as every version from 2.7 on has them (NCCL's nccl.h). */
#ifndef LT_MODEL_CUDA_NCCL_H
#define LT_MODEL_CUDA_NCCL_H

#include <cuda_runtime.h>

#include <cstddef>

struct ncclComm;
typedef ncclComm *ncclComm_t;
typedef int ncclResult_t;
struct ncclUniqueId {
    char internal[128];
};
enum { ncclSuccess = 0, ncclInProgress = 7 };
enum { ncclInt8 = 0, ncclFloat32 = 7 };
enum { ncclSum = 0 };

extern "C" {
ncclResult_t ncclGetVersion(int *version);
const char *ncclGetErrorString(ncclResult_t result);
ncclResult_t ncclGetUniqueId(ncclUniqueId *id);
ncclResult_t ncclCommInitRank(ncclComm_t *ranks, int count, ncclUniqueId id, int rank);
ncclResult_t ncclCommGetAsyncError(ncclComm_t ranks, ncclResult_t *result);
ncclResult_t ncclCommDestroy(ncclComm_t ranks);
ncclResult_t ncclCommAbort(ncclComm_t ranks);
ncclResult_t ncclGroupStart();
ncclResult_t ncclGroupEnd();
ncclResult_t ncclSend(const void *from, size_t count, int type, int peer, ncclComm_t ranks,
                      cudaStream_t stream);
ncclResult_t ncclRecv(void *to, size_t count, int type, int peer, ncclComm_t ranks, cudaStream_t stream);
ncclResult_t ncclAllReduce(const void *from, void *to, size_t count, int type, int operation,
                           ncclComm_t ranks, cudaStream_t stream);
ncclResult_t ncclReduce(const void *from, void *to, size_t count, int type, int operation, int root,
                        ncclComm_t ranks, cudaStream_t stream);
}

#endif
