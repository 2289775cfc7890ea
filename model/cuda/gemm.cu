/* Matrix products by cuBLASLt: bfloat16 in, float32 sums, bfloat16 or float32 out.
 *
 * The library counts in columns, so it is asked for c^T = b^T a^T over the same memory. The algorithm of a
 * shape is the first that the library proposes, asked for once: no timing has a say, so a shape has the same
 * bits in every run. Splits of k that add in place, in the order of their arrival, are ruled out.
 *
 * The library is opened with the device, not linked: it is half a gigabyte, which a process that only asks
 * whether there is a GPU should not load.
 */
#include "model/cuda/device.h"

#include <cublasLt.h>

#include <cstring>
#include <new>
#include <vector>

/* What decides the algorithm. */
struct gemm_key {
    int64_t m, n, k, lda, ldb, ldc;
    unsigned alignment[4]; /* bytes, of a, b, the addend, c */
    bool a_transposed, b_transposed, wide; /* wide: c is float32 */
};

struct gemm_plan {
    gemm_key key;
    cublasLtMatmulDesc_t operation;
    cublasLtMatrixLayout_t a, b, c;
    cublasLtMatmulAlgo_t algorithm;
    size_t workspace_bytes;
};

/* The functions that are called: cublasLt and what follows. */
/* clang-format off */
#define LT_BLAS_FUNCTIONS(each) \
    each(GetStatusString) each(Create) each(Destroy) \
    each(MatmulDescCreate) each(MatmulDescSetAttribute) each(MatmulDescDestroy) \
    each(MatrixLayoutCreate) each(MatrixLayoutDestroy) \
    each(MatmulPreferenceCreate) each(MatmulPreferenceSetAttribute) each(MatmulPreferenceDestroy) \
    each(MatmulAlgoGetHeuristic) each(Matmul)
/* clang-format on */

#define LT_BLAS_POINTER(name) decltype(&cublasLt##name) name;
struct blas_functions {
    LT_BLAS_FUNCTIONS(LT_BLAS_POINTER)
};

struct cuda_gemm {
    blas_functions blas;
    cublasLtHandle_t handle;
    std::vector<gemm_plan> plans;
};

static lt_status open_library(blas_functions *blas) {
#define LT_TEXT_OF(number) #number
#define LT_LIBRARY_FILE(version) "libcublasLt.so." LT_TEXT_OF(version)
    static const char file[] = LT_LIBRARY_FILE(CUBLAS_VER_MAJOR);
    void *library = LT_OPEN_LIBRARY(file);
    if (library == nullptr)
        return lt_fail(LT_BAD_INPUT,
                       "a GPU needs cuBLASLt, which cannot be loaded: %s; install the CUDA toolkit's libraries, or "
                       "name their folder in LD_LIBRARY_PATH",
                       dlerror());
#define LT_BLAS_FIND(name) \
    blas->name = LT_LIBRARY_FUNCTION(library, cublasLt##name); \
    if (blas->name == nullptr) return lt_fail(LT_BAD_INPUT, "%s has no cublasLt" #name, file);
    LT_BLAS_FUNCTIONS(LT_BLAS_FIND)
    return LT_OK;
}

/* Notes a failed call of the library; whether it went well. */
static bool well(cuda_device *device, const char *operation, cublasStatus_t status) {
    if (status == CUBLAS_STATUS_SUCCESS) return true;
    if (device->error == cudaSuccess) device->reason = device->gemm->blas.GetStatusString(status);
    lt_cuda_note(device, operation, cudaErrorLaunchFailure);
    return false;
}

size_t lt_cuda_gemm_workspace(const cuda_device *device) {
    return static_cast<size_t>(device->capability >= 90 ? 32 : 4) << 20;
}

lt_status lt_cuda_gemm_create(cuda_device *device) {
    device->gemm = new (std::nothrow) cuda_gemm{};
    if (device->gemm == nullptr) return lt_fail(LT_IO, "no memory for matrix products");
    LT_CHECK(open_library(&device->gemm->blas));
    const blas_functions *blas = &device->gemm->blas;
    const cublasStatus_t status = blas->Create(&device->gemm->handle);
    if (status != CUBLAS_STATUS_SUCCESS)
        return lt_fail(LT_IO, "GPU %d (%s): cuBLASLt does not start: %s", device->index, device->chip,
                       blas->GetStatusString(status));
    return LT_OK;
}

static void destroy_plan(const blas_functions *blas, gemm_plan *plan) {
    if (plan->operation != nullptr) blas->MatmulDescDestroy(plan->operation);
    for (cublasLtMatrixLayout_t layout : {plan->a, plan->b, plan->c})
        if (layout != nullptr) blas->MatrixLayoutDestroy(layout);
}

void lt_cuda_gemm_destroy(cuda_device *device) {
    if (device->gemm == nullptr) return;
    const blas_functions *blas = &device->gemm->blas;
    for (gemm_plan &plan : device->gemm->plans) destroy_plan(blas, &plan);
    if (device->gemm->handle != nullptr) blas->Destroy(device->gemm->handle);
    delete device->gemm;
}

static unsigned alignment_of(lt_mem mem, int64_t row) {
    const uintptr_t bits = reinterpret_cast<uintptr_t>(mem.address) |
                           static_cast<uintptr_t>(row) * lt_type_bytes(mem.type) | 16;
    return static_cast<unsigned>(bits & (~bits + 1));
}

/* Where there is none the library wants an address all the same. */
static lt_mem addend_of(const lt_gemm *g) {
    return g->addend.address == nullptr ? g->c : g->addend;
}

static gemm_key key_of(const lt_gemm *g) {
    gemm_key key;
    memset(&key, 0, sizeof key); /* compared as bytes */
    key.m = g->m, key.n = g->n, key.k = g->k;
    key.lda = g->lda, key.ldb = g->ldb, key.ldc = g->ldc;
    key.alignment[0] = alignment_of(g->a, g->lda);
    key.alignment[1] = alignment_of(g->b, g->ldb);
    key.alignment[2] = alignment_of(addend_of(g), g->ldc);
    key.alignment[3] = alignment_of(g->c, g->ldc);
    key.a_transposed = g->a_transposed, key.b_transposed = g->b_transposed;
    key.wide = g->c.type == LT_FLOAT32;
    return key;
}

/* The library's first matrix is our b, its second our a. */
static bool choose(cuda_device *device, gemm_plan *plan) {
    const blas_functions *blas = &device->gemm->blas;
    cublasLtMatmulPreference_t preference = nullptr;
    cublasLtMatmulHeuristicResult_t found = {};
    const gemm_key *key = &plan->key;
    const uint64_t most = lt_cuda_gemm_workspace(device), workspace = device->scratch_bytes < most ? 0 : most;
    const uint32_t reductions = CUBLASLT_REDUCTION_SCHEME_COMPUTE_TYPE;
    const struct {
        cublasLtMatmulPreferenceAttributes_t attribute;
        const void *value;
        size_t bytes;
    } wishes[] = {{CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, &workspace, sizeof workspace},
                  {CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK, &reductions, sizeof reductions},
                  {CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES, &key->alignment[1], sizeof(uint32_t)},
                  {CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES, &key->alignment[0], sizeof(uint32_t)},
                  {CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES, &key->alignment[2], sizeof(uint32_t)},
                  {CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES, &key->alignment[3], sizeof(uint32_t)}};
    int count = 0;
    bool good = well(device, "planning a matrix product", blas->MatmulPreferenceCreate(&preference));
    for (const auto &wish : wishes)
        good = good && well(device, "planning a matrix product",
                            blas->MatmulPreferenceSetAttribute(preference, wish.attribute, wish.value, wish.bytes));
    good = good && well(device, "planning a matrix product",
                        blas->MatmulAlgoGetHeuristic(device->gemm->handle, plan->operation, plan->b, plan->a,
                                                       plan->c, plan->c, preference, 1, &found, &count));
    good = good && well(device, "planning a matrix product", count == 0 ? CUBLAS_STATUS_NOT_SUPPORTED : found.state);
    if (preference != nullptr) blas->MatmulPreferenceDestroy(preference);
    plan->algorithm = found.algo;
    plan->workspace_bytes = found.workspaceSize;
    return good;
}

static bool make_plan(cuda_device *device, gemm_plan *plan) {
    static const char *const what = "planning a matrix product";
    const blas_functions *blas = &device->gemm->blas;
    const gemm_key *key = &plan->key;
    const auto rows = [](int64_t count) { return static_cast<uint64_t>(count); };
    const cublasOperation_t a = key->a_transposed ? CUBLAS_OP_T : CUBLAS_OP_N;
    const cublasOperation_t b = key->b_transposed ? CUBLAS_OP_T : CUBLAS_OP_N;
    return well(device, what, blas->MatmulDescCreate(&plan->operation, CUBLAS_COMPUTE_32F, CUDA_R_32F)) &&
           well(device, what,
                blas->MatmulDescSetAttribute(plan->operation, CUBLASLT_MATMUL_DESC_TRANSA, &b, sizeof b)) &&
           well(device, what,
                blas->MatmulDescSetAttribute(plan->operation, CUBLASLT_MATMUL_DESC_TRANSB, &a, sizeof a)) &&
           well(device, what,
                blas->MatrixLayoutCreate(&plan->b, CUDA_R_16BF, rows(key->b_transposed ? key->k : key->n),
                                           rows(key->b_transposed ? key->n : key->k), key->ldb)) &&
           well(device, what,
                blas->MatrixLayoutCreate(&plan->a, CUDA_R_16BF, rows(key->a_transposed ? key->m : key->k),
                                           rows(key->a_transposed ? key->k : key->m), key->lda)) &&
           well(device, what,
                blas->MatrixLayoutCreate(&plan->c, key->wide ? CUDA_R_32F : CUDA_R_16BF, rows(key->n),
                                           rows(key->m), key->ldc)) &&
           choose(device, plan);
}

static const gemm_plan *plan_of(cuda_device *device, const lt_gemm *gemm) {
    std::vector<gemm_plan> &plans = device->gemm->plans;
    const gemm_key key = key_of(gemm);
    for (const gemm_plan &plan : plans)
        if (memcmp(&plan.key, &key, sizeof key) == 0) return &plan;
    gemm_plan plan = {};
    plan.key = key;
    if (!make_plan(device, &plan)) {
        destroy_plan(&device->gemm->blas, &plan);
        return nullptr;
    }
    plans.push_back(plan);
    return &plans.back();
}

void lt_cuda_gemm(lt_device *base, const lt_gemm *gemm) {
    cuda_device *device = cuda_of(base);
    if (gemm->m == 0 || gemm->n == 0) return;
    const gemm_plan *plan = plan_of(device, gemm);
    if (plan == nullptr) return;
    const float one = 1, sum = gemm->addend.address == nullptr ? 0 : 1;
    well(device, "a matrix product",
         device->gemm->blas.Matmul(device->gemm->handle, plan->operation, &one, gemm->b.address, plan->b, gemm->a.address,
                        plan->a, &sum, addend_of(gemm).address, plan->c, gemm->c.address, plan->c, &plan->algorithm,
                        device->scratch, plan->workspace_bytes, device->stream));
}
