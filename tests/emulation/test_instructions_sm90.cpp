/* What each function of model/cuda/instructions_sm90.h does, on a GPU of compute capability 9.0 and with the
 * twins on the host, against plain loops over matrices. Entries are small integers, whose sums are exact in
 * any order. */
#include "model/cuda/device.h"
#include "model/cuda/instructions_sm90.h"

#include <cstdarg>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <vector>
#include <csetjmp>
extern "C" {
#include <cmocka.h>
}

enum { WARP = 32, GROUP = 128, ROWS = 64, ROUNDS = 5 };

struct mirrored {
    float *device;
    std::vector<float> host;
    explicit mirrored(size_t count) : host(count) {
        assert_int_equal(cudaMalloc(&device, count * sizeof(float)), cudaSuccess);
    }
    mirrored(const mirrored &) = delete;
    mirrored &operator=(const mirrored &) = delete;
    ~mirrored() {
        cudaFree(device);
    }
    void draw(int period) {
        for (size_t i = 0; i < host.size(); i++)
            host[i] = static_cast<float>(static_cast<int>(i * i * 7 + i / 5) % period - period / 2);
        cudaMemcpy(device, host.data(), host.size() * sizeof(float), cudaMemcpyHostToDevice);
    }
    void take() {
        cudaMemcpy(host.data(), device, host.size() * sizeof(float), cudaMemcpyDeviceToHost);
    }
};

static void check(cudaError_t error) {
    if (error == cudaSuccess) error = cudaDeviceSynchronize();
    if (error != cudaSuccess) fail_msg("%s", cudaGetErrorString(error));
}

/* ---- products ---- */

/* `columns` of 64 rows to matrices of row_bytes each, one after the other. */
template <int row_bytes>
static __device__ void place_rows(unsigned char *to, const float *from, int columns) {
    const int across = row_bytes / 2;
    for (int i = static_cast<int>(threadIdx.x) * 2; i < ROWS * columns; i += 2 * GROUP) {
        const int row = i / columns, column = i % columns,
                  offset = column / across * ROWS * row_bytes +
                           swizzled<row_bytes>(row * row_bytes + column % across * 2);
        shared_write(reinterpret_cast<unsigned *>(to + offset), pack_bf16(from[i], from[i + 1]));
    }
}

static __device__ float *sum_place(float *c, int columns, int n, int i) {
    const int thread = static_cast<int>(threadIdx.x),
              row = thread / WARP * 16 + thread % WARP / 4 + i / 2 * 8;
    return c + row * columns + 8 * n + thread % 4 * 2 + i % 2;
}

/* c [64, 64] = a [64, K] times the transpose of b [64, K], in steps of 16 along rows. */
template <int row_bytes> static __global__ void along_kernel(const float *a, const float *b, float *c) {
    LT_DYNAMIC_SHARED(unsigned char, shared);
    constexpr int K = row_bytes / 2;
    unsigned char *of_b = shared + ROWS * row_bytes;
    place_rows<row_bytes>(shared, a, K);
    place_rows<row_bytes>(of_b, b, K);
    fence_async_proxy();
    __syncthreads();
    float sums[8][4] = {{1.0f}}; /* overwritten */
    multiply_fence(sums);
    for (int k = 0; k < K / 16; k++)
        multiply_async(sums, operand<row_bytes>(shared, 16, 8 * row_bytes) + static_cast<uint64_t>(2 * k),
                       operand<row_bytes>(of_b, 16, 8 * row_bytes) + static_cast<uint64_t>(2 * k), k > 0);
    multiply_commit();
    multiply_wait(sums);
    for (int n = 0; n < 8; n++)
        for (int i = 0; i < 4; i++) *sum_place(c, 64, n, i) = sums[n][i];
}

template <int row_bytes> static void check_along() {
    constexpr int K = row_bytes / 2;
    mirrored a(ROWS * K), b(ROWS * K), c(ROWS * 64);
    a.draw(23), b.draw(19), c.draw(3);
    check(LT_LAUNCH(along_kernel<row_bytes>, 1, GROUP, 2 * ROWS * row_bytes, nullptr, a.device, b.device,
                    c.device));
    c.take();
    for (int i = 0; i < ROWS * 64; i++) {
        float expected = 0.0f;
        for (int k = 0; k < K; k++) expected += a.host[i / 64 * K + k] * b.host[i % 64 * K + k];
        assert_true(c.host[i] == expected);
    }
}

/* c [64, N] += a [64, 64] b [64, N], in steps of 16 rows of b. */
template <int N, int row_bytes>
static __global__ void across_kernel(const float *a, const float *b, float *c) {
    LT_DYNAMIC_SHARED(unsigned char, shared);
    const int thread = static_cast<int>(threadIdx.x), row = thread / WARP * 16 + thread % WARP / 4,
              t = thread % 4;
    place_rows<row_bytes>(shared, b, N);
    fence_async_proxy();
    __syncthreads();
    float sums[N / 8][4];
    unsigned of_a[ROWS / 16][4];
    for (int n = 0; n < N / 8; n++)
        for (int i = 0; i < 4; i++) sums[n][i] = *sum_place(c, N, n, i);
    for (int k = 0; k < ROWS / 16; k++)
        for (int i = 0; i < 4; i++) {
            const float *at = a + (row + i % 2 * 8) * ROWS + 16 * k + 2 * t + i / 2 * 8;
            of_a[k][i] = pack_bf16(at[0], at[1]);
        }
    multiply_fence(sums, of_a);
#pragma unroll
    for (int k = 0; k < ROWS / 16; k++)
        multiply_add_async(sums, of_a[k],
                           operand<row_bytes>(shared, ROWS * row_bytes, 8 * row_bytes) +
                               static_cast<uint64_t>(k * row_bytes));
    multiply_commit();
    multiply_wait(sums);
    for (int n = 0; n < N / 8; n++)
        for (int i = 0; i < 4; i++) *sum_place(c, N, n, i) = sums[n][i];
}

template <int N, int row_bytes> static void check_across() {
    mirrored a(ROWS * ROWS), b(ROWS * N), c(ROWS * N);
    a.draw(17), b.draw(29), c.draw(1000);
    std::vector<float> expected = c.host;
    check(LT_LAUNCH((across_kernel<N, row_bytes>), 1, GROUP, ROWS * N * 2, nullptr, a.device, b.device,
                    c.device));
    c.take();
    for (int i = 0; i < ROWS * N; i++) {
        for (int k = 0; k < ROWS; k++)
            expected[static_cast<size_t>(i)] += a.host[i / N * ROWS + k] * b.host[k * N + i % N];
        assert_true(c.host[i] == expected[static_cast<size_t>(i)]);
    }
}

/* c [64, N] += the transpose of a [64, 64] times b [64, N], in steps of 16 rows of both. */
template <int N> static __global__ void both_across_kernel(const float *a, const float *b, float *c) {
    LT_DYNAMIC_SHARED(unsigned char, shared);
    unsigned char *of_b = shared + ROWS * 128;
    place_rows<128>(shared, a, ROWS);
    place_rows<2 * N>(of_b, b, N);
    fence_async_proxy();
    __syncthreads();
    float sums[N / 8][4];
    for (int n = 0; n < N / 8; n++)
        for (int i = 0; i < 4; i++) sums[n][i] = *sum_place(c, N, n, i);
    multiply_fence(sums);
#pragma unroll
    for (int k = 0; k < ROWS / 16; k++)
        multiply_across_async(sums, further(operand<128>(shared, 16, 8 * 128), 16 * k * 128),
                              further(operand<2 * N>(of_b, 16, 8 * 2 * N), 16 * k * 2 * N));
    multiply_commit();
    multiply_wait(sums);
    for (int n = 0; n < N / 8; n++)
        for (int i = 0; i < 4; i++) *sum_place(c, N, n, i) = sums[n][i];
}

template <int N> static void check_both_across() {
    mirrored a(ROWS * ROWS), b(ROWS * N), c(ROWS * N);
    a.draw(17), b.draw(29), c.draw(1000);
    std::vector<float> expected = c.host;
    check(LT_LAUNCH(both_across_kernel<N>, 1, GROUP, ROWS * 128 + ROWS * N * 2, nullptr, a.device, b.device,
                    c.device));
    c.take();
    for (int i = 0; i < ROWS * N; i++) {
        for (int k = 0; k < ROWS; k++)
            expected[static_cast<size_t>(i)] += a.host[k * ROWS + i / N] * b.host[k * N + i % N];
        assert_true(c.host[i] == expected[static_cast<size_t>(i)]);
    }
}

static void test_along_rows(void **state) {
    (void)state;
    check_along<128>();
    check_along<64>();
}

static void test_across_rows(void **state) {
    (void)state;
    check_across<64, 128>();
    check_across<64, 64>();
    check_across<96, 64>();
    check_across<128, 128>();
    check_across<128, 64>();
    check_both_across<32>();
    check_both_across<64>();
}

/* ---- barriers ---- */

/* Two warps of three meet, and each has what the other wrote before. */
static __global__ void meet_kernel(float *to) {
    LT_SHARED(unsigned, numbers, 2 * WARP);
    const unsigned thread = threadIdx.x;
    if (thread >= 2 * WARP) return;
    shared_write(&numbers[thread], thread);
    meet<2 * WARP>(1);
    to[thread] = static_cast<float>(shared_read(&numbers[2 * WARP - 1 - thread]));
}

static void test_meet(void **state) {
    (void)state;
    mirrored numbers(2 * WARP);
    check(LT_LAUNCH(meet_kernel, 1, 3 * WARP, 0, nullptr, numbers.device));
    numbers.take();
    for (int i = 0; i < 2 * WARP; i++)
        assert_true(numbers.host[static_cast<size_t>(i)] == static_cast<float>(2 * WARP - 1 - i));
}

/* The first warp hands a number to each thread of the second, ROUNDS times through one place. */
static __global__ void phases_kernel(float *to) {
    LT_SHARED(unsigned, numbers, WARP);
    LT_SHARED(uint64_t, phases, 2);
    const unsigned thread = threadIdx.x;
    if (thread == 0) {
        phases_open(&phases[0], WARP);
        phases_open(&phases[1], WARP);
    }
    __syncthreads();
    float sum = 0.0f;
    for (unsigned round = 0; round < ROUNDS; round++)
        if (thread < WARP) {
            phases_wait(&phases[1], (round & 1) ^ 1);
            shared_write(&numbers[thread], 100 * round + thread);
            phases_arrive(&phases[0]);
        } else {
            phases_wait(&phases[0], round & 1);
            sum = 2.0f * sum + static_cast<float>(shared_read(&numbers[2 * WARP - 1 - thread]));
            phases_arrive(&phases[1]);
        }
    if (thread >= WARP) to[thread - WARP] = sum;
}

static void test_phases(void **state) {
    (void)state;
    mirrored sums(WARP);
    check(LT_LAUNCH(phases_kernel, 1, 2 * WARP, 0, nullptr, sums.device));
    sums.take();
    for (int thread = 0; thread < WARP; thread++) {
        float expected = 0.0f;
        for (int round = 0; round < ROUNDS; round++)
            expected = 2.0f * expected + static_cast<float>(100 * round + WARP - 1 - thread);
        assert_true(sums.host[static_cast<size_t>(thread)] == expected);
    }
}

/* The first warp hands on numbers that it copies itself, WIDTH at a time, and waits for none. */
template <int WIDTH> static __global__ void copied_kernel(const float *from, float *to) {
    LT_SHARED(float4, places, WARP * WIDTH / 4);
    float *numbers = reinterpret_cast<float *>(places);
    LT_SHARED(uint64_t, phases, 2);
    const unsigned thread = threadIdx.x;
    if (thread == 0) {
        phases_open(&phases[0], WARP);
        phases_open(&phases[1], WARP);
    }
    __syncthreads();
    for (unsigned round = 0; round < ROUNDS; round++)
        if (thread < WARP) {
            phases_wait(&phases[1], (round & 1) ^ 1);
            float *place = &numbers[thread * WIDTH];
            const float *source = from + (round * WARP + thread) * WIDTH;
            if (WIDTH == 4)
                copy_async_16(place, source, round != 2);
            else
                copy_async_4(place, source, round != 2);
            phases_arrive_copied(&phases[0]);
        } else {
            phases_wait(&phases[0], round & 1);
            const unsigned other = 2 * WARP - 1 - thread;
            for (unsigned i = 0; i < WIDTH; i++)
                to[(round * WARP + other) * WIDTH + i] = shared_read(&numbers[other * WIDTH + i]);
            phases_arrive(&phases[1]);
        }
}

template <int WIDTH> static void check_copied() {
    constexpr size_t ROUND = WARP * WIDTH;
    mirrored from(ROUNDS * ROUND), to(ROUNDS * ROUND);
    from.draw(101);
    check(LT_LAUNCH(copied_kernel<WIDTH>, 1, 2 * WARP, 0, nullptr, from.device, to.device));
    to.take();
    for (size_t i = 0; i < ROUNDS * ROUND; i++)
        assert_true(to.host[i] == (i / ROUND == 2 ? 0.0f : from.host[i]));
}

static void test_copied(void **state) {
    (void)state;
    check_copied<1>();
    check_copied<4>();
}

/* ---- bulk copies ---- */

enum { BATCH = 2, TENSOR_ROWS = 50, HEADS = 3, BOX_ROWS = 32, PADDING = 8, PAIRS = 3 };

/* The first elements of boxes, for heads of two boxes' columns. A pair shares a phase. */
struct box_place {
    int part, head, row, batch; /* part: the column, in 32nds of a box's columns */
};
static __host__ __device__ constexpr box_place box_at(int box) {
    constexpr box_place PLACES[2 * PAIRS] = {{0, 0, 0, 0},  {32, 2, 30, 1}, {32, 1, -5, 1},
                                             {48, 0, 7, 0}, {0, 2, 49, 0},  {0, 1, TENSOR_ROWS, 0}};
    return PLACES[box];
}
static __host__ __device__ constexpr int column_of(int box, int columns) {
    return box_at(box).part * columns / 32;
}

template <int columns> struct boxes_shared {
    alignas(1024) bf16 boxes[2][BOX_ROWS * columns];
    uint64_t full;
};

/* Boxes by way of two places, to `to` as plain rows. */
template <int columns>
static __global__ void boxes_kernel(const __grid_constant__ CUtensorMap map, bf16 *to) {
    LT_DYNAMIC_SHARED(boxes_shared<columns>, shared);
    const int thread = static_cast<int>(threadIdx.x);
    if (thread == 0) {
        phases_open(&shared->full, 1);
        fence_async_proxy();
    }
    __syncthreads();
    for (int pair = 0; pair < PAIRS; pair++) {
        if (thread == 0) {
            phases_expect(&shared->full, sizeof shared->boxes);
            for (int i = 0; i < 2; i++) {
                const box_place at = box_at(2 * pair + i);
                copy_tensor(shared->boxes[i], map, column_of(2 * pair + i, columns), at.head, at.row,
                            at.batch, &shared->full);
            }
        }
        phases_wait(&shared->full, static_cast<unsigned>(pair & 1));
        for (int i = thread; i < 2 * BOX_ROWS * columns; i += GROUP)
            to[pair * 2 * BOX_ROWS * columns + i] =
                shared->boxes[i / (BOX_ROWS * columns)]
                             [swizzled<columns * 2>(i % (BOX_ROWS * columns) * 2) / 2];
        __syncthreads();
    }
}

/* Where element (column, head, row, batch) lies, or -1. */
static int64_t place_in_tensor(const head_rows &of, int64_t column, int64_t head, int64_t row,
                               int64_t batch) {
    return column < of.head_size && row >= 0 && row < of.rows
               ? column + head * of.head_size + (batch * of.rows + row) * of.stride
               : -1;
}

template <int columns> static void check_boxes() {
    constexpr int64_t HEAD = 2 * columns, STRIDE = HEADS * HEAD + PADDING;
    std::vector<uint16_t> elements(BATCH * TENSOR_ROWS * STRIDE), boxes(2 * PAIRS * BOX_ROWS * columns);
    for (size_t i = 0; i < elements.size(); i++) elements[i] = static_cast<uint16_t>(i * 7 + 1);
    bf16 *tensor, *copied;
    CUtensorMap map;
    assert_int_equal(cudaMalloc(&tensor, elements.size() * sizeof(bf16)), cudaSuccess);
    assert_int_equal(cudaMalloc(&copied, boxes.size() * sizeof(bf16)), cudaSuccess);
    cudaMemcpy(tensor, elements.data(), elements.size() * sizeof(bf16), cudaMemcpyHostToDevice);
    const head_rows rows = {tensor, HEAD, HEADS, TENSOR_ROWS, BATCH, STRIDE};
    assert_true(lt_cuda_map_rows(&map, rows, columns, BOX_ROWS));
    check(LT_LAUNCH(boxes_kernel<columns>, 1, GROUP, sizeof(boxes_shared<columns>), nullptr, map, copied));
    cudaMemcpy(boxes.data(), copied, boxes.size() * sizeof(bf16), cudaMemcpyDeviceToHost);
    for (int i = 0; i < static_cast<int>(boxes.size()); i++) {
        const int box = i / (BOX_ROWS * columns), in_box = i % (BOX_ROWS * columns);
        const box_place at = box_at(box);
        const int64_t place = place_in_tensor(rows, column_of(box, columns) + in_box % columns, at.head,
                                              at.row + in_box / columns, at.batch);
        assert_int_equal(boxes[static_cast<size_t>(i)], place < 0 ? 0 : elements[static_cast<size_t>(place)]);
    }
    cudaFree(tensor), cudaFree(copied);
}

static void test_boxes(void **state) {
    (void)state;
    check_boxes<64>();
    check_boxes<32>();
}

/* Rows that no map can have. */
static void test_impossible_maps(void **state) {
    (void)state;
    bf16 *base;
    CUtensorMap map;
    assert_int_equal(cudaMalloc(&base, 4096), cudaSuccess);
    const head_rows rows = {base, 64, 2, 5, 1, 128};
    head_rows odd_base = rows, odd_stride = rows, far_rows = rows, none = rows;
    odd_base.base = base + 1;
    odd_stride.stride = 129;
    far_rows.stride = int64_t{1} << 40;
    none.rows = 0;
    assert_true(lt_cuda_map_rows(&map, rows, 64, 256));
    assert_true(!lt_cuda_map_rows(&map, rows, 64, 257));
    for (const head_rows &impossible : {odd_base, odd_stride, far_rows, none})
        assert_true(!lt_cuda_map_rows(&map, impossible, 64, 16));
    cudaFree(base);
}

/* ---- registers ---- */

/* Three warpgroups of at most 168 each, as attention's: the first gives what the others take. */
static __global__ void __launch_bounds__(3 * GROUP, 1) registers_kernel(float *to) {
    if (threadIdx.x < GROUP)
        registers_at_most<40>();
    else
        registers_at_least<232>();
    to[threadIdx.x] = static_cast<float>(threadIdx.x);
}

static void test_registers(void **state) {
    (void)state;
    mirrored numbers(3 * GROUP);
    check(LT_LAUNCH(registers_kernel, 1, 3 * GROUP, 0, nullptr, numbers.device));
    numbers.take();
    for (int i = 0; i < 3 * GROUP; i++)
        assert_true(numbers.host[static_cast<size_t>(i)] == static_cast<float>(i));
}

int main() {
    const CMUnitTest tests[] = {
        cmocka_unit_test(test_along_rows),
        cmocka_unit_test(test_across_rows),
        cmocka_unit_test(test_meet),
        cmocka_unit_test(test_phases),
        cmocka_unit_test(test_copied),
        cmocka_unit_test(test_boxes),
        cmocka_unit_test(test_impossible_maps),
        cmocka_unit_test(test_registers),
    };
    cudaDeviceProp properties;
    if (cudaGetDeviceProperties(&properties, 0) == cudaSuccess && properties.major != 9) {
        puts("1..1\nok 1 - instructions of sm_90a # SKIP this GPU is another");
        return 0;
    }
    return cmocka_run_group_tests_name("instructions of sm_90a", tests, nullptr, nullptr);
}
