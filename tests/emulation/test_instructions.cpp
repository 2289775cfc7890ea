/* What each function of model/cuda/instructions.h does, with the device's own (on a GPU: compiled by nvcc)
 * and with the twins (on the host). The expected values come from plain loops over matrices. */
#include "model/cuda/device.h"
#include "model/cuda/instructions.h"

#include <cmath>
#include <cstdarg>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <csetjmp>
extern "C" {
#include <cmocka.h>
}

enum { WARP = 32, BLOCK_THREADS = 64 };

/* Memory that host and device share in turn. */
template <typename element> struct mirrored {
    element *device;
    element host[1024];
    explicit mirrored(element first = element{}) {
        for (element &e : host) e = first;
        assert_int_equal(cudaMalloc(&device, sizeof host), cudaSuccess);
    }
    mirrored(const mirrored &) = delete;
    mirrored &operator=(const mirrored &) = delete;
    ~mirrored() {
        cudaFree(device);
    }
    void give() {
        cudaMemcpy(device, host, sizeof host, cudaMemcpyHostToDevice);
    }
    void take() {
        cudaMemcpy(host, device, sizeof host, cudaMemcpyDeviceToHost);
    }
};

static void check(cudaError_t error) {
    if (error == cudaSuccess) error = cudaDeviceSynchronize();
    if (error != cudaSuccess) fail_msg("%s", cudaGetErrorString(error));
}

/* ---- matrices from shared memory ---- */

/* Element (i, j) of the 16 x 16 block at the head of each of 24-element rows is 24 i + j. */
static __global__ void load_kernel(unsigned *plain, unsigned *transposed, unsigned *moved) {
    LT_SHARED(uint4, rows, 16 * 3);
    uint16_t *elements = reinterpret_cast<uint16_t *>(rows);
    for (int i = static_cast<int>(threadIdx.x); i < 16 * 24; i += WARP)
        elements[i] = static_cast<uint16_t>(i);
    __syncwarp();
    const int lane = static_cast<int>(threadIdx.x);
    const void *row = rows + lane % 16 * 3 + lane / 16;
    unsigned of[4], of_transposed[4];
    load_matrices(of, row);
    load_matrices_transposed(of_transposed, row);
    for (int m = 0; m < 4; m++) {
        plain[lane * 4 + m] = of[m];
        transposed[lane * 4 + m] = of_transposed[m];
        moved[lane * 4 + m] = transposed_matrix(of[m]);
    }
}

static void test_matrices(void **state) {
    (void)state;
    mirrored<unsigned> plain, transposed, moved;
    plain.give(), transposed.give(), moved.give();
    check(LT_LAUNCH(load_kernel, 1, WARP, 0, nullptr, plain.device, transposed.device, moved.device));
    plain.take(), transposed.take(), moved.take();
    for (unsigned lane = 0; lane < WARP; lane++)
        for (unsigned m = 0; m < 4; m++) {
            /* Matrices 0 and 1 are the upper and lower left, 2 and 3 the upper and lower right. */
            const unsigned row = m % 2 * 8, column = m / 2 * 8, g = lane / 4, t = lane % 4;
            const unsigned own = 24 * (row + g) + column + 2 * t, across = 24 * (row + 2 * t) + column + g;
            assert_int_equal(plain.host[lane * 4 + m], own | (own + 1) << 16);
            assert_int_equal(transposed.host[lane * 4 + m], across | (across + 24) << 16);
            assert_int_equal(moved.host[lane * 4 + m], across | (across + 24) << 16);
        }
}

/* ---- products ---- */

/* c [16, 8] += a [16, 16] b [16, 8], each from places that follow the layouts of the twin's head. */
static __global__ void product_kernel(const float *a, const float *b, float *c) {
    const int lane = static_cast<int>(threadIdx.x), g = lane / 4, t = lane % 4;
    unsigned of_a[4], of_b[2];
    float of_c[4];
    for (int i = 0; i < 4; i++) {
        const float *at = a + (g + i % 2 * 8) * 16 + 2 * t + i / 2 * 8;
        of_a[i] = pack_bf16(at[0], at[1]);
    }
    for (int i = 0; i < 2; i++) {
        const float *at = b + (2 * t + i * 8) * 8 + g;
        of_b[i] = pack_bf16(at[0], at[8]);
    }
    for (int i = 0; i < 4; i++) of_c[i] = c[(g + i / 2 * 8) * 8 + 2 * t + i % 2];
    multiply_add(of_c, of_a, of_b[0], of_b[1]);
    for (int i = 0; i < 4; i++) c[(g + i / 2 * 8) * 8 + 2 * t + i % 2] = of_c[i];
}

/* Small integers, whose sums are exact in any order. */
static void test_product(void **state) {
    (void)state;
    mirrored<float> a, b, c;
    float expected[16 * 8];
    for (int i = 0; i < 16 * 16; i++) a.host[i] = static_cast<float>(i * i % 23 - 11);
    for (int i = 0; i < 16 * 8; i++) b.host[i] = static_cast<float>(i * i * i % 19 - 9);
    for (int i = 0; i < 16 * 8; i++) {
        c.host[i] = expected[i] = static_cast<float>(1000 + i);
        for (int k = 0; k < 16; k++) expected[i] += a.host[i / 8 * 16 + k] * b.host[k * 8 + i % 8];
    }
    a.give(), b.give(), c.give();
    check(LT_LAUNCH(product_kernel, 1, WARP, 0, nullptr, a.device, b.device, c.device));
    c.take();
    for (int i = 0; i < 16 * 8; i++) assert_true(c.host[i] == expected[i]);
}

/* A row of a times a column of b has the same bits wherever in the fragments they lie, and products of equal
 * rows and columns are equal: what attention's threshold relies on. */
static void test_product_places(void **state) {
    (void)state;
    mirrored<float> a, b, c;
    for (int i = 0; i < 16 * 16; i++)
        a.host[i] = 0.37f + 1.7f * static_cast<float>(i % 16) * static_cast<float>(i % 5);
    for (int i = 0; i < 16 * 16; i++) a.host[i] = a.host[i % 16];
    for (int i = 0; i < 16 * 8; i++) b.host[i] = std::sin(static_cast<float>(i / 8) * 12.3f);
    a.give(), b.give(), c.give();
    check(LT_LAUNCH(product_kernel, 1, WARP, 0, nullptr, a.device, b.device, c.device));
    c.take();
    assert_true(c.host[0] != 0.0f);
    for (int i = 0; i < 16 * 8; i++) assert_memory_equal(&c.host[i], &c.host[0], sizeof(float));
}

/* ---- asynchronous copies ---- */

static __global__ void copy_kernel(const unsigned *from, unsigned *to) {
    LT_SHARED(uint4, wide, BLOCK_THREADS);
    LT_SHARED(unsigned, narrow, BLOCK_THREADS);
    const unsigned own = threadIdx.x, other = BLOCK_THREADS - 1 - own;
    copy_async_16(&wide[own], from + 4 * own, own != 7);
    copy_async_commit();
    copy_async_4(&narrow[own], from + own, own % 3 != 0);
    copy_async_commit();
    copy_async_wait<1>();
    __syncthreads();
    const uint4 four = wide[other];
    to[own * 5] = four.x, to[own * 5 + 1] = four.y, to[own * 5 + 2] = four.z, to[own * 5 + 3] = four.w;
    copy_async_wait<0>();
    __syncthreads();
    to[own * 5 + 4] = narrow[other];
}

static void test_copies(void **state) {
    (void)state;
    mirrored<unsigned> from, to;
    for (unsigned i = 0; i < 1024; i++) from.host[i] = 3 * i + 1;
    from.give(), to.give();
    check(LT_LAUNCH(copy_kernel, 1, BLOCK_THREADS, 0, nullptr, from.device, to.device));
    to.take();
    for (unsigned own = 0; own < BLOCK_THREADS; own++) {
        const unsigned other = BLOCK_THREADS - 1 - own;
        for (unsigned i = 0; i < 4; i++)
            assert_int_equal(to.host[own * 5 + i], other == 7 ? 0 : 3 * (4 * other + i) + 1);
        assert_int_equal(to.host[own * 5 + 4], other % 3 == 0 ? 0 : 3 * other + 1);
    }
}

/* ---- between lanes ---- */

static __global__ void shuffle_kernel(unsigned *to) {
    const unsigned lane = threadIdx.x, own = 5 * lane + 3;
    to[lane] = __shfl_sync(0xffffffffu, own, static_cast<int>(lane * 7 + 40) & 31);
    for (unsigned i = 0; i < 5; i++) to[(i + 1) * WARP + lane] = __shfl_xor_sync(0xffffffffu, own, 1 << i);
}

static void test_shuffles(void **state) {
    (void)state;
    mirrored<unsigned> to;
    check(LT_LAUNCH(shuffle_kernel, 1, WARP, 0, nullptr, to.device));
    to.take();
    for (unsigned lane = 0; lane < WARP; lane++) {
        assert_int_equal(to.host[lane], 5 * ((lane * 7 + 40) % 32) + 3);
        for (unsigned i = 0; i < 5; i++)
            assert_int_equal(to.host[(i + 1) * WARP + lane], 5 * (lane ^ 1u << i) + 3);
    }
}

/* For each bit: the lanes whose word has it, and whether there is a word of that bit alone. */
static __global__ void vote_kernel(const unsigned *words, unsigned *ballots, unsigned *any) {
    const unsigned lane = threadIdx.x;
    for (unsigned i = 0; i < WARP; i++) {
        const unsigned ballot = __ballot_sync(0xffffffffu, static_cast<int>(words[lane] & 1u << i));
        const int found = __any_sync(0xffffffffu, words[lane] == 1u << i);
        ballots[i * WARP + lane] = ballot;
        any[i * WARP + lane] = found != 0;
    }
}

static void test_votes(void **state) {
    (void)state;
    mirrored<unsigned> words, ballots, any;
    for (unsigned lane = 0; lane < WARP; lane++) words.host[lane] = lane * lane * 0x9e3779b1u;
    words.host[0] = 1u << 31, words.host[9] = 1u, words.host[31] = 1u << 17;
    words.give();
    check(LT_LAUNCH(vote_kernel, 1, WARP, 0, nullptr, words.device, ballots.device, any.device));
    ballots.take(), any.take();
    for (unsigned i = 0; i < WARP; i++)
        for (unsigned lane = 0; lane < WARP; lane++) {
            unsigned expected = 0;
            for (unsigned other = 0; other < WARP; other++)
                expected |= (words.host[other] >> i & 1u) << other;
            assert_int_equal(ballots.host[i * WARP + lane], expected);
            assert_int_equal(any.host[i * WARP + lane], i == 0 || i == 17 || i == 31);
        }
}

/* ---- words between blocks ---- */

/* Each block in the turn of its ticket: halves what the one before left and adds its ticket. words: the next
 * ticket, then how many blocks are done. */
static __global__ void turns_kernel(unsigned *words, float *values) {
    LT_SHARED(unsigned, ticket, 1);
    if (threadIdx.x == 0) {
        ticket[0] = atomicAdd(words, 1u);
        wait_for(words + 1, ticket[0]);
    }
    __syncthreads();
    const unsigned other = BLOCK_THREADS - 1 - threadIdx.x, own = ticket[0] % 2 == 0 ? threadIdx.x : other;
    __stcg(values + own, __ldcg(values + own) * 0.5f + static_cast<float>(ticket[0]));
    __syncthreads();
    if (threadIdx.x == 0) write_release(words + 1, ticket[0] + 1);
}

static void test_turns(void **state) {
    (void)state;
    enum { BLOCKS = 300 };
    mirrored<unsigned> words;
    mirrored<float> values;
    words.give(), values.give();
    check(LT_LAUNCH(turns_kernel, BLOCKS, BLOCK_THREADS, 0, nullptr, words.device, values.device));
    words.take(), values.take();
    float expected = 0.0f;
    for (int ticket = 0; ticket < BLOCKS; ticket++) expected = expected * 0.5f + static_cast<float>(ticket);
    for (int i = 0; i < BLOCK_THREADS; i++) assert_true(values.host[i] == expected);
    assert_int_equal(words.host[0], BLOCKS);
    assert_int_equal(words.host[1], BLOCKS);
}

/* ---- arithmetic ---- */

static __global__ void power_kernel(const float *x, float *y, unsigned *pairs, float *smaller) {
    const unsigned own = threadIdx.x;
    y[own] = power_of_two(x[own]);
    pairs[own] = pack_bf16(x[own], y[own]);
    smaller[own] = smaller_or_nan(x[own], 0.5f * y[own]);
}

static unsigned rounded_bits(float value) {
    const bf16 rounded = __float2bfloat16_rn(value);
    uint16_t bits;
    memcpy(&bits, &rounded, sizeof bits);
    return bits;
}

static void test_arithmetic(void **state) {
    (void)state;
    mirrored<float> x, y, smaller;
    mirrored<unsigned> pairs;
    for (int i = 0; i < 256; i++) x.host[i] = static_cast<float>(1 - i) * 0.53f;
    x.host[0] = 0.0f, x.host[1] = -0.0f, x.host[2] = -INFINITY, x.host[3] = -127.0f;
    x.host[256] = NAN;
    x.give(), y.give(), pairs.give(), smaller.give();
    check(LT_LAUNCH(power_kernel, 1, 257, 0, nullptr, x.device, y.device, pairs.device, smaller.device));
    y.take(), pairs.take(), smaller.take();
    assert_true(std::isnan(smaller.host[256]));
    for (int i = 0; i < 256; i++) assert_true(smaller.host[i] == std::fmin(x.host[i], 0.5f * y.host[i]));
    assert_true(y.host[0] == 1.0f && y.host[1] == 1.0f && y.host[2] == 0.0f && y.host[3] == 0.0f);
    for (int i = 4; i < 256; i++) {
        const double expected = std::exp2(static_cast<double>(x.host[i]));
        if (x.host[i] < -126.0f)
            assert_true(y.host[i] == 0.0f);
        else
            assert_true(std::fabs(static_cast<double>(y.host[i]) - expected) <= 3e-7 * expected);
        assert_int_equal(pairs.host[i], rounded_bits(x.host[i]) | rounded_bits(y.host[i]) << 16);
    }
}

int main() {
    const CMUnitTest tests[] = {
        cmocka_unit_test(test_matrices),       cmocka_unit_test(test_product),
        cmocka_unit_test(test_product_places), cmocka_unit_test(test_copies),
        cmocka_unit_test(test_shuffles),       cmocka_unit_test(test_votes),
        cmocka_unit_test(test_turns),          cmocka_unit_test(test_arithmetic),
    };
    return cmocka_run_group_tests_name("instructions of a GPU", tests, nullptr, nullptr);
}
