/* The emulation of a warpgroup's products ends a kernel that relies on luck: each case is a kernel with one
 * flaw, in a process of its own, and what is said of it. */
#include "model/cuda/instructions_sm90.h"
#include "tests/emulation/flaws.h"

#include <cmath>
#include <cstdlib>

namespace {

enum { GROUP = 128, ROWS = 64, ROW_BYTES = 128, BYTES = ROWS * ROW_BYTES };

enum flaw {
    NONE,
    NO_PROXY_FENCE,
    NO_REGISTER_FENCE,
    NO_COMMIT,
    NO_WAIT,
    OVERWRITTEN,
    COPIED_LATE,
    A_WARP_ELSEWHERE,
    BEYOND,
};

/* c = a a', of a of ones. */
void product_kernel(flaw which, const float *ones, float *c) {
    LT_DYNAMIC_SHARED(unsigned char, shared);
    const int thread = static_cast<int>(threadIdx.x);
    for (int i = thread; i < BYTES / 16; i += GROUP) copy_async_16(shared + 16 * i, ones, true);
    copy_async_commit();
    if (which != COPIED_LATE) copy_async_wait<0>();
    if (which != NO_PROXY_FENCE) fence_async_proxy();
    __syncthreads();
    float sums[8][4] = {};
    if (which != NO_REGISTER_FENCE) multiply_fence(sums);
    const uint64_t rows = operand<ROW_BYTES>(shared, 16, 8 * ROW_BYTES);
    const bool elsewhere = which == A_WARP_ELSEWHERE && thread >= 96;
    multiply_async(sums, rows + (elsewhere ? 2 : 0), rows + (which == BEYOND ? BYTES / 32 : 0), false);
    if (which == COPIED_LATE) copy_async_wait<0>();
    if (which == OVERWRITTEN && thread == 0) shared[0] = 0;
    if (which != NO_COMMIT) multiply_commit();
    if (which != NO_WAIT) multiply_wait(sums);
    c[thread] = sums[thread % 8][thread % 4];
}

void run(flaw which) {
    alignas(16) unsigned ones[4] = {0x3f803f80, 0x3f803f80, 0x3f803f80, 0x3f803f80};
    float c[GROUP];
    LT_LAUNCH(product_kernel, 1, GROUP, BYTES, nullptr, which, reinterpret_cast<const float *>(ones), &c[0]);
    cudaDeviceSynchronize();
    for (float sum : c) {
        if (std::isnan(sum)) {
            fprintf(stderr, "sums are not there\n");
            abort();
        }
        if (sum != 16.0f) exit(1);
    }
}

void test_flaws(void **state) {
    (void)state;
    static const struct {
        flaw which;
        const char *words;
    } CASES[] = {
        {NONE, ""},
        {NO_PROXY_FENCE, "without a fence of the asynchronous proxy"},
        {NO_REGISTER_FENCE, "without a fence of its registers"},
        {NO_COMMIT, "not committed before the wait"},
        {NO_WAIT, "sums are not there"},
        {OVERWRITTEN, "shared memory changed while a product was under way"},
        {COPIED_LATE, "shared memory changed while a product was under way"},
        {A_WARP_ELSEWHERE, "threads of a warpgroup are at different products"},
        {BEYOND, "of shared memory"},
    };
    for (const auto &c : CASES) check_said(c.words, [&c] { run(c.which); });
}

} // namespace

int main() {
    const CMUnitTest tests[] = {cmocka_unit_test(test_flaws)};
    return cmocka_run_group_tests_name("flaws of a warpgroup's products", tests, nullptr, nullptr);
}
