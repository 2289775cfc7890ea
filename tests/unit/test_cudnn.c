/* The graphs by which `make gpu-bench` reaches cuDNN's flash attention, without a GPU: cuDNN makes plans for
 * chips that are described to it, down to the kernel. That the graphs are attention is seen on the emulated
 * GPU (tests/cli/gpu_bench.sh); whether cuDNN's kernels compute what ours do, `make gpu-bench` looks at.
 */
#include "tests/gpu/cudnn_attention.h"
#include "tests/reference/fixture.h"

#include <dlfcn.h>
#include <stdio.h>
#include <string.h>

/* As cuDNN describes them. */
static const char H100[] =
    "\"deviceName\": \"NVIDIA H100 80GB HBM3\", \"deviceVer\": 900, "
    "\"multiProcessorCount\": 132, \"maxSharedMemoryPerBlockOptin\": 232448, "
    "\"maxCtasPerSM\": 32, \"l2CacheSize\": 52428800, \"smClockRateKHz\": 1980000, "
    "\"memClockRateKHz\": 2619000, \"memoryBusWidth\": 5120, \"totalGlobalMem\": 84987740160";
static const char A100[] =
    "\"deviceName\": \"NVIDIA A100-SXM4-80GB\", \"deviceVer\": 800, "
    "\"multiProcessorCount\": 108, \"maxSharedMemoryPerBlockOptin\": 166912, "
    "\"maxCtasPerSM\": 32, \"l2CacheSize\": 41943040, \"smClockRateKHz\": 1410000, "
    "\"memClockRateKHz\": 1593000, \"memoryBusWidth\": 5120, \"totalGlobalMem\": 85094825984";

static const char *(*driver_kernel)(void);

/* The driver that the library finds from now on, by its name, on whatever machine this is. */
static int load_driver(void **state) {
    (void)state;
    void *driver = dlopen(DRIVER, RTLD_NOW | RTLD_LOCAL);
    if (driver == NULL) print_message("# %s\n", dlerror());
    if (driver != NULL) *(void **)&driver_kernel = dlsym(driver, "driver_kernel");
    return driver_kernel == NULL ? -1 : 0;
}

/* NULL, and says so: there is no cuDNN here, or one that may ask for more than there is in a chip's
 * description and in the driver. */
static cudnn *open_for(const char *chip) {
    enum { NEWEST = 28 };
    char json[2048];
    snprintf(
        json, sizeof json,
        "{%s, \"maxGridSize\": [2147483647, 65535, 65535], \"maxBlockSize\": [1024, 1024, 64], "
        "\"regsPerBlock\": 65536, \"warpSize\": 32, \"maxSharedMemoryPerBlock\": 49152, "
        "\"reservedSharedMemoryPerBlock\": 1024, \"maxRegistersPerSM\": 65536, \"maxThreadsPerBlock\": 1024, "
        "\"maxThreadsPerSM\": 2048, \"pciDeviceId\": 0, \"isTccDriver\": 0, \"supportCoopLaunch\": 1, "
        "\"cudaDeviceId\": 0, \"driverVer\": 13000}",
        chip);
    cudnn *library;
    const lt_status status = cudnn_open_without_device(json, &library);
    if (status == LT_BAD_INPUT) {
        print_message("# skip: %s\n", lt_error_message());
        return NULL;
    }
    assert_int_equal(status, LT_OK);
    int minor = 0;
    sscanf(library->version, "9.%d", &minor);
    if (minor <= NEWEST) return library;
    print_message("# skip: cuDNN is %s, and what it is given here was seen to do until 9.%d\n",
                  library->version, NEWEST);
    cudnn_close(library);
    return NULL;
}

/* 16,384 tokens of 1,024 elements; q, k and v side by side. */
static lt_attention attention_of(int64_t length, int64_t head_size) {
    return (lt_attention){.batch = 16384 / length,
                          .query_length = length,
                          .key_length = length,
                          .heads = 1024 / head_size,
                          .key_heads = 1024 / head_size,
                          .head_size = head_size,
                          .query_stride = 3072,
                          .key_stride = 3072};
}

static void assert_flash(const cudnn *library, bool forward, int64_t length, int64_t head_size,
                         const char *kernel) {
    static unsigned char nothing[4096]; /* addresses of it are taken, and nothing is run */
    const lt_mem mem = {.address = nothing, .type = LT_FLOAT32};
    const lt_attention at = attention_of(length, head_size);
    const lt_attention_gradients gradients = {.d_output = mem};
    int64_t workspace_bytes = -1;
    cudnn_graph graph;
    cudnn_begin(library, &graph);
    if (forward)
        cudnn_attention_forward(&graph, &at);
    else
        cudnn_attention_backward(&graph, &at, &gradients, (lt_mem){.type = LT_FLOAT32});
    const lt_status status = cudnn_plan(&graph, &workspace_bytes);
    if (status != LT_OK) fail_msg("T %d, D %d: %s", (int)length, (int)head_size, lt_error_message());
    if (strstr(driver_kernel(), kernel) == NULL) fail_msg("%s, not %s", driver_kernel(), kernel);
    assert_in_range(workspace_bytes, 0, 256 << 20);
    assert_int_equal(cudnn_bind(&graph, nothing), LT_OK);
    cudnn_end(&graph);
}

static void test_h100(void **state) {
    (void)state;
    cudnn *library = open_for(H100);
    if (library == NULL) skip();
    for (int64_t head_size = 64; head_size <= 128; head_size *= 2)
        for (int64_t length = 512; length <= 4096; length *= 8) {
            assert_flash(library, true, length, head_size, "sm90_flash_fprop_wgmma");
            assert_flash(library, false, length, head_size, "sm90_flash_bprop_wgmma");
        }
    cudnn_close(library);
}

static void test_a100(void **state) {
    (void)state;
    cudnn *library = open_for(A100);
    if (library == NULL) skip();
    assert_flash(library, true, 4096, 64, "sm80_flash_fprop");
    assert_flash(library, false, 512, 128, "sm80_flash_bprop");
    cudnn_close(library);
}

/* Refusals are words, and nothing is done after one. */
static void test_refusals(void **state) {
    (void)state;
    cudnn *library = open_for(H100);
    if (library == NULL) skip();
    const lt_attention at = attention_of(512, 100);
    int64_t workspace_bytes;
    cudnn_graph graph;
    cudnn_begin(library, &graph);
    cudnn_attention_forward(&graph, &at);
    assert_int_equal(cudnn_plan(&graph, &workspace_bytes), LT_FAILED);
    assert_non_null(strstr(lt_error_message(), "cuDNN 9."));
    assert_null(strchr(lt_error_message(), '\n'));
    assert_int_equal(cudnn_bind(&graph, NULL), LT_FAILED);
    cudnn_end(&graph);
    cudnn_close(library);

    assert_int_equal(cudnn_open(NULL, &library), LT_FAILED);
    assert_null(library);
    assert_non_null(strstr(lt_error_message(), "taking the device"));
    assert_int_equal(cudnn_open_without_device("{}", &library), LT_FAILED);
    assert_non_null(strstr(lt_error_message(), "taking a device's properties"));
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_h100), cmocka_unit_test(test_a100),
                                       cmocka_unit_test(test_refusals)};
    return cmocka_run_group_tests(tests, load_driver, NULL);
}
