/* Instructions of sm_90a alone, one function each, for files named *_sm90.cu: products of a warpgroup, the
 * barriers of a pipeline, the fence between the two ways to shared memory, and the trade of registers.
 * tests/emulation has a twin of this header too.
 *
 * A warpgroup is four warps, the first of which has a number that is a multiple of four. All its 128 threads
 * call multiply_...() and registers_...() together. A product is under way from multiply_async() to the
 * multiply_wait() for its group: until then nobody touches its sums or the shared memory that it reads.
 *
 * wgmma reads shared memory by the asynchronous proxy: who wrote it by stores or cp.async calls
 * fence_async_proxy() once the writes are done, before the barrier that hands it over.
 */
#ifndef LT_MODEL_CUDA_INSTRUCTIONS_SM90_H
#define LT_MODEL_CUDA_INSTRUCTIONS_SM90_H

#include "model/cuda/instructions.h"
#include "model/cuda/tensor_map.h"

/* ---- registers that the compiler has ---- */

/* The same number, as one that the compiler knows nothing of: what follows from it is made anew each time,
 * not kept in registers all along. */
static __device__ __forceinline__ int anew(int number) {
    asm volatile("" : "+r"(number));
    return number;
}

/* ---- operands in shared memory ---- */

/* Rows of a matrix that are `row_bytes` of 128 or 64 long, one after the other, in groups of eight; the
 * 16-byte units of a row are permuted: a byte at `offset` from a multiple of 1024 lies at
 * swizzled<row_bytes>(offset). */
template <int row_bytes> __host__ __device__ constexpr int swizzled(int offset) {
    static_assert(row_bytes == 128 || row_bytes == 64, "rows of the 128-byte and 64-byte modes");
    return offset ^ (offset >> 7 & (row_bytes / 16 - 1)) << 4;
}

/* The descriptor of an operand whose rows begin at `rows`, a multiple of 1024; `stride` bytes from eight rows
 * to the next eight. Where k runs along a row `leading` is not used; where it runs across rows, `leading`
 * bytes are from the columns of one row to those that follow them. */
template <int row_bytes>
static __device__ __forceinline__ uint64_t operand(const void *rows, int leading, int stride) {
    return (shared_address(rows) & 0x3ffff) >> 4 | static_cast<uint64_t>(leading >> 4) << 16 |
           static_cast<uint64_t>(stride >> 4) << 32 | static_cast<uint64_t>(row_bytes == 128 ? 1 : 2) << 62;
}

/* The operand that lies `bytes` further on; the address is in the lower half and does not overflow. */
static __device__ __forceinline__ uint64_t further(uint64_t of, int bytes) {
    return (of & 0xffffffff00000000u) | (static_cast<unsigned>(of) + static_cast<unsigned>(bytes / 16));
}

/* ---- products ---- */

/* Tells the compiler that registers are read and written here. */
template <int N> static __device__ __forceinline__ void settle(float (&c)[N][4]) {
#pragma unroll
    for (int n = 0; n < N; n++)
        asm volatile("" : "+f"(c[n][0]), "+f"(c[n][1]), "+f"(c[n][2]), "+f"(c[n][3])::"memory");
}

template <int N> static __device__ __forceinline__ void settle(unsigned (&a)[N][4]) {
#pragma unroll
    for (int n = 0; n < N; n++)
        asm volatile("" : "+r"(a[n][0]), "+r"(a[n][1]), "+r"(a[n][2]), "+r"(a[n][3])::"memory");
}

static __device__ __forceinline__ void settle(unsigned (&a)[4]) {
    asm volatile("" : "+r"(a[0]), "+r"(a[1]), "+r"(a[2]), "+r"(a[3])::"memory");
}

/* wgmma.fence: before products, and after registers of theirs were touched. Takes all of these. */
template <typename... fragments> static __device__ __forceinline__ void multiply_fence(fragments &...of) {
    (settle(of), ...);
    asm volatile("wgmma.fence.sync.aligned;" ::: "memory");
}

/* Makes a group of the products since the last one. */
static __device__ __forceinline__ void multiply_commit() {
    asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory");
}

/* Waits for all groups, whose sums these are. */
template <typename... fragments> static __device__ __forceinline__ void multiply_wait(fragments &...of) {
    asm volatile("wgmma.wait_group.sync.aligned 0;" ::: "memory");
    (settle(of), ...);
}

/* Operands of asm: the sums of 32 columns, from column 8 n on. */
#define LT_SUMS_8(c, n) "+f"(c[n][0]), "+f"(c[n][1]), "+f"(c[n][2]), "+f"(c[n][3])
#define LT_SUMS_32(c, n) LT_SUMS_8(c, n), LT_SUMS_8(c, n + 1), LT_SUMS_8(c, n + 2), LT_SUMS_8(c, n + 3)

/* clang-format off */
#define LT_NAMES_HALF "%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15"
#define LT_NAMES_0 "%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, %16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31"
#define LT_NAMES_32 "%32, %33, %34, %35, %36, %37, %38, %39, %40, %41, %42, %43, %44, %45, %46, %47"
#define LT_NAMES_48 "%48, %49, %50, %51, %52, %53, %54, %55, %56, %57, %58, %59, %60, %61, %62, %63"
/* clang-format on */

/* wgmma m64n64k16: c [64, 64] (+)= a [64, 16] times the transpose of b [64, 16], bfloat16 with float32 sums;
 * k runs along the rows of both. Warp w of the group has rows 16 w to 16 w + 15, as mma.sync's c. Not `add`:
 * c is overwritten. */
static __device__ __forceinline__ void multiply_async(float (&c)[8][4], uint64_t a, uint64_t b, bool add) {
    asm volatile("{\n"
                 ".reg .pred add;\n"
                 "setp.ne.b32 add, %34, 0;\n"
                 "wgmma.mma_async.sync.aligned.m64n64k16.f32.bf16.bf16 {" LT_NAMES_0
                 "}, %32, %33, add, 1, 1, 0, 0;\n"
                 "}\n"
                 : LT_SUMS_32(c, 0), LT_SUMS_32(c, 4)
                 : "l"(a), "l"(b), "r"(static_cast<int>(add)));
}

/* wgmma m64nNk16, N of 64, 96, 128: c [64, N] += a [64, 16] b [16, N]; a's rows lie as c's do, as mma.sync's
 * a; k runs across the rows of b. */
static __device__ __forceinline__ void multiply_add_async(float (&c)[8][4], const unsigned (&a)[4],
                                                          uint64_t b) {
    asm volatile("wgmma.mma_async.sync.aligned.m64n64k16.f32.bf16.bf16 {" LT_NAMES_0
                 "}, {%32, %33, %34, %35}, %36, 1, 1, 1, 1;"
                 : LT_SUMS_32(c, 0), LT_SUMS_32(c, 4)
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b));
}

static __device__ __forceinline__ void multiply_add_async(float (&c)[12][4], const unsigned (&a)[4],
                                                          uint64_t b) {
    asm volatile("wgmma.mma_async.sync.aligned.m64n96k16.f32.bf16.bf16 {" LT_NAMES_0 ", " LT_NAMES_32
                 "}, {%48, %49, %50, %51}, %52, 1, 1, 1, 1;"
                 : LT_SUMS_32(c, 0), LT_SUMS_32(c, 4), LT_SUMS_32(c, 8)
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b));
}

static __device__ __forceinline__ void multiply_add_async(float (&c)[16][4], const unsigned (&a)[4],
                                                          uint64_t b) {
    asm volatile("wgmma.mma_async.sync.aligned.m64n128k16.f32.bf16.bf16 {" LT_NAMES_0 ", " LT_NAMES_32
                 ", " LT_NAMES_48 "}, {%64, %65, %66, %67}, %68, 1, 1, 1, 1;"
                 : LT_SUMS_32(c, 0), LT_SUMS_32(c, 4), LT_SUMS_32(c, 8), LT_SUMS_32(c, 12)
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b));
}

/* wgmma m64nNk16, N of 32 and 64: c [64, N] += a [64, 16] b [16, N]; k runs across the rows of both, those of
 * a are its columns. */
static __device__ __forceinline__ void multiply_across_async(float (&c)[4][4], uint64_t a, uint64_t b) {
    asm volatile("wgmma.mma_async.sync.aligned.m64n32k16.f32.bf16.bf16 {" LT_NAMES_HALF
                 "}, %16, %17, 1, 1, 1, 1, 1;"
                 : LT_SUMS_32(c, 0)
                 : "l"(a), "l"(b));
}

static __device__ __forceinline__ void multiply_across_async(float (&c)[8][4], uint64_t a, uint64_t b) {
    asm volatile("wgmma.mma_async.sync.aligned.m64n64k16.f32.bf16.bf16 {" LT_NAMES_0
                 "}, %32, %33, 1, 1, 1, 1, 1;"
                 : LT_SUMS_32(c, 0), LT_SUMS_32(c, 4)
                 : "l"(a), "l"(b));
}

/* Writes of this thread to shared memory that are done come before what others read of it by the asynchronous
 * proxy, once they know of this. */
static __device__ __forceinline__ void fence_async_proxy() {
    asm volatile("fence.proxy.async.shared::cta;" ::: "memory");
}

/* ---- barriers ---- */

/* bar.sync: waits until THREADS of the block, whole warps, are at this barrier; 0 is that of __syncthreads().
 */
template <int THREADS> static __device__ __forceinline__ void meet(int barrier) {
    asm volatile("bar.sync %0, %1;" ::"r"(barrier), "n"(THREADS) : "memory");
}

/* mbarrier: phases 0, 1, 0, ..., each of which ends when `arrivals` threads have arrived. One thread makes
 * it, before a barrier of the block. */
static __device__ __forceinline__ void phases_open(uint64_t *phases, unsigned arrivals) {
    asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;" ::"r"(shared_address(phases)), "r"(arrivals)
                 : "memory");
}

/* What this thread did before is seen by those who wait for the phase. */
static __device__ __forceinline__ void phases_arrive(uint64_t *phases) {
    asm volatile("{\n"
                 ".reg .b64 state;\n"
                 "mbarrier.arrive.shared::cta.b64 state, [%0];\n"
                 "}\n" ::"r"(shared_address(phases))
                 : "memory");
}

/* Arrives, and lets the phase end no sooner than `bytes` more have come by copy_tensor(). */
static __device__ __forceinline__ void phases_expect(uint64_t *phases, unsigned bytes) {
    asm volatile("{\n"
                 ".reg .b64 state;\n"
                 "mbarrier.arrive.expect_tx.shared::cta.b64 state, [%0], %1;\n"
                 "}\n" ::"r"(shared_address(phases)),
                 "r"(bytes)
                 : "memory");
}

/* Arrives once all copies that this thread asked for by copy_async_16() and copy_async_4() are done; needs no
 * commit and no wait. */
static __device__ __forceinline__ void phases_arrive_copied(uint64_t *phases) {
    asm volatile("cp.async.mbarrier.arrive.noinc.shared::cta.b64 [%0];" ::"r"(shared_address(phases))
                 : "memory");
}

/* Waits until the phase of this parity is over, the present one or the one before; before the first, phase 1
 * is. */
static __device__ __forceinline__ void phases_wait(uint64_t *phases, unsigned parity) {
    int over = 0;
    while (over == 0)
        asm volatile("{\n"
                     ".reg .pred over;\n"
                     "mbarrier.try_wait.parity.shared::cta.b64 over, [%1], %2;\n"
                     "selp.b32 %0, 1, 0, over;\n"
                     "}\n"
                     : "=r"(over)
                     : "r"(shared_address(phases)), "r"(parity)
                     : "memory");
}

/* ---- bulk copies ---- */

/* cp.async.bulk.tensor, by one thread: begins to copy a box of a map of lt_cuda_map_rows() (tensor_map.h) to
 * `to`, a multiple of 1024, as an operand's matrix; what lies beyond the head's rows becomes 0. All bytes of
 * the box count for the present phase of `phases`, which one thread has told to expect them. */
static __device__ __forceinline__ void copy_tensor(void *to, const CUtensorMap &map, int column, int head,
                                                   int row, int batch, uint64_t *phases) {
    asm volatile("cp.async.bulk.tensor.4d.shared::cluster.global.tile.mbarrier::complete_tx::bytes [%0], "
                 "[%1, {%2, %3, %4, %5}], [%6];" ::"r"(shared_address(to)),
                 "l"(&map), "r"(column), "r"(head), "r"(row), "r"(batch), "r"(shared_address(phases))
                 : "memory");
}

/* ---- registers ---- */

/* setmaxnreg: gives up registers of each thread beyond COUNT, or waits until the block has so many to give.
 */
template <int COUNT> static __device__ __forceinline__ void registers_at_most() {
    asm volatile("setmaxnreg.dec.sync.aligned.u32 %0;" ::"n"(COUNT));
}

template <int COUNT> static __device__ __forceinline__ void registers_at_least() {
    asm volatile("setmaxnreg.inc.sync.aligned.u32 %0;" ::"n"(COUNT));
}

#endif
