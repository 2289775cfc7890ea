/* A CUDA driver without a device, for tests/unit/test_cudnn.c: cuDNN compiles kernels for a chip that is
 * described to it, and gives them to the driver, which notes their name. What else cuDNN 9.12 to 9.28 looks
 * for in a driver is here and does nothing.
 */
#include <stdio.h>

enum { SUCCESS = 0, NO_DEVICE = 100 };

int cuInit(unsigned flags);
int cuLibraryLoadData(void **library, const void *code);
int cuLibraryGetKernel(void **kernel, void *library, const char *name);
const char *driver_kernel(void); /* the last that cuDNN has asked for */

static char kernel_name[256];

const char *driver_kernel(void) {
    return kernel_name;
}

int cuInit(unsigned flags) {
    (void)flags;
    return NO_DEVICE;
}

int cuLibraryLoadData(void **library, const void *code) {
    (void)code;
    *library = kernel_name;
    return SUCCESS;
}

int cuLibraryGetKernel(void **kernel, void *library, const char *name) {
    snprintf(kernel_name, sizeof kernel_name, "%s", name);
    *kernel = library;
    return SUCCESS;
}

#define DOES_NOTHING(name) \
    int name(void); \
    int name(void) { \
        return SUCCESS; \
    }
DOES_NOTHING(cuCtxGetCurrent)
DOES_NOTHING(cuCtxGetDevice)
DOES_NOTHING(cuCtxGetLimit)
DOES_NOTHING(cuCtxPopCurrent)
DOES_NOTHING(cuCtxPushCurrent)
DOES_NOTHING(cuDeviceGet)
DOES_NOTHING(cuDeviceGetAttribute)
DOES_NOTHING(cuDeviceGetCount)
DOES_NOTHING(cuDevicePrimaryCtxRelease)
DOES_NOTHING(cuDevicePrimaryCtxReset)
DOES_NOTHING(cuDevicePrimaryCtxRetain)
DOES_NOTHING(cuDriverGetVersion)
DOES_NOTHING(cuFuncGetAttribute)
DOES_NOTHING(cuFuncSetAttribute)
DOES_NOTHING(cuGetErrorName)
DOES_NOTHING(cuGetErrorString)
DOES_NOTHING(cuKernelGetAttribute)
DOES_NOTHING(cuKernelGetFunction)
DOES_NOTHING(cuKernelSetAttribute)
DOES_NOTHING(cuLaunchCooperativeKernel)
DOES_NOTHING(cuLaunchKernel)
DOES_NOTHING(cuLaunchKernelEx)
DOES_NOTHING(cuLibraryLoadFromFile)
DOES_NOTHING(cuLibraryUnload)
DOES_NOTHING(cuLinkAddData)
DOES_NOTHING(cuLinkAddData_v2)
DOES_NOTHING(cuLinkAddFile_v2)
DOES_NOTHING(cuLinkComplete)
DOES_NOTHING(cuLinkCreate)
DOES_NOTHING(cuLinkCreate_v2)
DOES_NOTHING(cuLinkDestroy)
DOES_NOTHING(cuMemcpyDtoH_v2)
DOES_NOTHING(cuModuleGetFunction)
DOES_NOTHING(cuModuleGetGlobal_v2)
DOES_NOTHING(cuModuleLoadData)
DOES_NOTHING(cuModuleLoadDataEx)
DOES_NOTHING(cuModuleLoadFatBinary)
DOES_NOTHING(cuModuleUnload)
DOES_NOTHING(cuOccupancyMaxActiveBlocksPerMultiprocessor)
DOES_NOTHING(cuOccupancyMaxPotentialClusterSize)
DOES_NOTHING(cuStreamGetCtx)
DOES_NOTHING(cuStreamSynchronize)
DOES_NOTHING(cuTensorMapEncodeIm2col)
DOES_NOTHING(cuTensorMapEncodeTiled)
