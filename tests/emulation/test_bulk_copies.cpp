/* The emulation of bulk copies, and of the phases that they are parts of, ends a kernel that relies on luck:
 * each case is a kernel with one flaw, the order of threads in which it shows, and what is said of it. */
#include "model/cuda/instructions_sm90.h"
#include "tests/emulation/flaws.h"

#include <cmath>
#include <cstdlib>
#include <vector>

namespace {

enum { GROUP = 128, WARP = 32, ROWS = 64, COLUMNS = 64, BYTES = ROWS * COLUMNS * 2 };

enum flaw {
    NONE,
    BARRIER_NOT_OPENED,
    BARRIER_NOT_FENCED,
    BARRIER_OVERWRITTEN,
    NO_BYTES_TOLD,
    TOO_MANY_TOLD,
    TOO_FEW_TOLD,
    ONE_WAITS,
    NOBODY_WAITS,
    PLACE_BEFORE,
    PLACE_BEYOND,
    PLACE_MISALIGNED,
    PLACE_NOT_FENCED,
    PLACE_NOT_EMPTY,
    PLACE_IN_USE,
    MAP_NOT_MADE,
    NUMBERS_NOT_WAITED_FOR,
    NUMBERS_NOT_COPIED,
    NUMBERS_WRITTEN_LATE,
};

struct shared_block {
    alignas(1024) unsigned rows[BYTES / 4];
    float numbers[WARP];
    uint64_t full, copied;
};

void copy_rows(flaw which, shared_block *shared, const CUtensorMap &map) {
    const unsigned told = BYTES + (which == TOO_MANY_TOLD ? 1 : 0) - (which == TOO_FEW_TOLD ? 1 : 0);
    if (which == NO_BYTES_TOLD)
        phases_arrive(&shared->full);
    else
        phases_expect(&shared->full, told);
    const int from_rows = which == PLACE_BEFORE       ? -256
                          : which == PLACE_BEYOND     ? 512
                          : which == PLACE_MISALIGNED ? 4
                                                      : 0;
    copy_tensor(shared->rows + from_rows, map, 0, 0, 0, 0, &shared->full);
}

void copy_number(flaw which, shared_block *shared, const float *number) {
    const unsigned thread = threadIdx.x;
    if (which != NUMBERS_WRITTEN_LATE) copy_async_4(&shared->numbers[thread], number, true);
    if (which == NUMBERS_NOT_COPIED)
        phases_arrive(&shared->copied);
    else
        phases_arrive_copied(&shared->copied);
    if (which == NUMBERS_WRITTEN_LATE) shared_write(&shared->numbers[thread], *number);
}

/* c = a a' + 1, of a [64, 16] of ones: bulk copies bring it, and lanes of a warp the number 1. */
void product_kernel(flaw which, const CUtensorMap map, const float *number, float *c) {
    LT_DYNAMIC_SHARED(shared_block, shared);
    const int thread = static_cast<int>(threadIdx.x);
    if (thread == 0) {
        if (which != BARRIER_NOT_OPENED) phases_open(&shared->full, 1);
        phases_open(&shared->copied, WARP);
        if (which != BARRIER_NOT_FENCED) fence_async_proxy();
    }
    if (thread == 0 && which == BARRIER_OVERWRITTEN) shared->full = 0;
    if (thread < WARP && which == PLACE_NOT_FENCED) shared_write(&shared->rows[thread], 0u);
    __syncthreads();
    if (thread == 0) copy_rows(which, shared, map);
    if (thread == 0 && which == PLACE_NOT_EMPTY) copy_rows(which, shared, map);
    if (thread < WARP) copy_number(which, shared, number);
    if (which == NOBODY_WAITS) return;
    if (which != ONE_WAITS || thread == 0) phases_wait(&shared->full, 0);
    if (which != NUMBERS_NOT_WAITED_FOR) phases_wait(&shared->copied, 0);
    float sums[8][4] = {};
    multiply_fence(sums);
    const uint64_t rows = operand<2 * COLUMNS>(shared->rows, 16, 16 * COLUMNS);
    multiply_async(sums, rows, rows, false);
    multiply_commit();
    if (thread == 0 && which == PLACE_IN_USE) copy_rows(which, shared, map);
    multiply_wait(sums);
    c[thread] = sums[thread % 8][thread % 4] + shared->numbers[thread % WARP];
}

void run(flaw which, uint64_t order) {
    alignas(16) static bf16 ones[ROWS * COLUMNS];
    for (bf16 &one : ones) one = __float2bfloat16_rn(1.0f);
    const float number = 1.0f;
    float c[GROUP];
    CUtensorMap map = {};
    if (which != MAP_NOT_MADE && !lt_cuda_map_rows(&map, {ones, COLUMNS, 1, ROWS, 1, COLUMNS}, COLUMNS, ROWS))
        exit(1);
    emulation::set_order(order);
    if (LT_LAUNCH(product_kernel, 1, GROUP, sizeof(shared_block), nullptr, which, map, &number, &c[0]) !=
        cudaSuccess)
        exit(1);
    for (float sum : c)
        if (!(sum == 17.0f)) emulation::fail("sums are not there");
}

void test_flaws(void **state) {
    (void)state;
    static const struct {
        flaw which;
        uint64_t order;
        const char *words;
    } CASES[] = {
        {NONE, 0, ""},
        {NONE, 1, ""},
        {NONE, 5, ""},
        {BARRIER_NOT_OPENED, 0, "a barrier in shared memory that nobody opened"},
        {BARRIER_NOT_FENCED, 0, "opened without a fence of the asynchronous proxy"},
        {BARRIER_OVERWRITTEN, 0, "a barrier in shared memory that nobody opened"},
        {NO_BYTES_TOLD, 0, "8192 bytes more than their phase was told"},
        {TOO_MANY_TOLD, 0, "waits for a phase of a barrier in shared memory"},
        {TOO_FEW_TOLD, 0, "1 bytes more than their phase was told"},
        {ONE_WAITS, 1, "shared memory changed while a product was under way"},
        {NOBODY_WAITS, 1, "a block ended before the copies"},
        {PLACE_BEFORE, 0, "to outside of dynamic shared memory"},
        {PLACE_BEYOND, 0, "to outside of dynamic shared memory"},
        {PLACE_MISALIGNED, 0, "no multiple of 1024"},
        {PLACE_NOT_FENCED, 0,
         "a bulk copy to what thread 3 wrote, without a fence of the asynchronous proxy"},
        {PLACE_NOT_EMPTY, 1, "more threads arrive than a phase of a barrier has"},
        {PLACE_IN_USE, 1, "shared memory changed while a product was under way"},
        {MAP_NOT_MADE, 0, "by a map that nobody made"},
        {NUMBERS_NOT_WAITED_FOR, 1, "a block ended before the copies"},
        {NUMBERS_NOT_COPIED, 0, "sums are not there"},
        {NUMBERS_WRITTEN_LATE, 1, "sums are not there"},
    };
    for (const auto &c : CASES) check_said(c.words, [&c] { run(c.which, c.order); });
}

} // namespace

int main() {
    const CMUnitTest tests[] = {cmocka_unit_test(test_flaws)};
    return cmocka_run_group_tests_name("flaws of bulk copies", tests, nullptr, nullptr);
}
