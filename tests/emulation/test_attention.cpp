/* What the fast attention kernels do, counted: products of tensor cores for each tile, as the comments above
 * the kernels state them, and bank conflicts, of which there are none. Results are the affair of
 * tests/unit/test_ops_attention.c. */
#include <cuda.h>

#include "model/cuda/device.h"
#include "tests/emulation/fibres.h"

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <cstring>
#include <vector>

extern "C" {
#include "tests/reference/fixture.h"
}

namespace {

enum { LENGTH = 272, HEADS = 2, NEAR = 16, ROWS = 16, KEYS = 64, DOCUMENT = 100 };

/* Attention of one batch row in which every product q k is 0, since q is 1 where k is 0 and the other way
 * round: scores are biases, 10 up to a distance of NEAR and 0 beyond. At tau = -1 an entry is dead that is
 * far, since l is e^10 or more, or whose row sees near ones alone, since p is exactly 1/n. All other near
 * ones are alive. */
struct problem {
    test_arena arena = {};
    lt_attention at = {};
    lt_attention_gradients to = {};

    problem(int64_t head_size, bool lazy, bool documents, float near_bias = 10.0f, float offset = -1.0f,
            int capability = 80) {
        emulation::set_order(0);
        emulated_machine(1, static_cast<size_t>(1) << 30, capability);
        assert_int_equal(lt_cuda_device_create(0, &arena.device), LT_OK);
        const int64_t width = HEADS * head_size, elements = LENGTH * width;
        test_random random = {7};
        std::vector<float> bias(HEADS * LENGTH), tau(HEADS, offset), evens(elements), odds(elements);
        std::vector<int32_t> starts(LENGTH);
        for (int i = 0; i < HEADS * LENGTH; i++) bias[i] = i % LENGTH < NEAR ? near_bias : 0.0f;
        for (int64_t i = 0; i < elements; i++) (i % 2 == 0 ? evens : odds)[i] = 1.0f;
        for (int i = DOCUMENT; i < LENGTH; i++) starts[i] = DOCUMENT;
        at.batch = 1, at.query_length = at.key_length = LENGTH;
        at.heads = at.key_heads = HEADS, at.head_size = head_size;
        at.query_stride = at.key_stride = width;
        at.q = test_compute_buffer(&arena, evens.data(), elements);
        at.k = test_compute_buffer(&arena, odds.data(), elements);
        at.v = test_compute_buffer(&arena, test_floats(&random, elements, 0.0, 1.0), elements);
        at.output = test_compute_buffer(&arena, nullptr, elements);
        at.document_starts = documents ? test_integer_buffer(&arena, starts.data(), LENGTH) : LT_NOWHERE;
        if (lazy) {
            at.bias_length = LENGTH;
            at.bias = test_float_buffer(&arena, bias.data(), HEADS * LENGTH);
            at.tau = test_float_buffer(&arena, tau.data(), HEADS);
            to.d_bias = test_float_buffer(&arena, bias.data(), HEADS * LENGTH);
            to.d_tau = test_float_buffer(&arena, tau.data(), HEADS);
        }
        to.d_output = test_compute_buffer(&arena, test_floats(&random, elements, 0.0, 1.0), elements);
        to.d_q = test_compute_buffer(&arena, nullptr, elements);
        to.d_k = test_compute_buffer(&arena, nullptr, elements);
        to.d_v = test_compute_buffer(&arena, nullptr, elements);
        at.saved = test_byte_buffer(&arena, arena.device->ops->attention_saved_bytes(arena.device, &at));
        choose(LT_CUDA_BACKWARD_TWO_KERNELS);
    }
    void choose(lt_cuda_backward form) {
        lt_cuda_choose_backward(arena.device, form);
        test_reserve(&arena, &at, LENGTH, HEADS * at.head_size, 1);
    }
    /* What earlier operations left in memory. */
    void poison() {
        cuda_device *device = cuda_of(arena.device);
        memset(device->scratch, 0xff, device->scratch_bytes);
    }
    problem(const problem &) = delete;
    problem &operator=(const problem &) = delete;
    ~problem() {
        for (int i = 0; i < arena.count; i++)
            test_free_device_memory(arena.device, arena.buffers[i].whole, arena.buffers[i].bytes);
        arena.device->ops->destroy(arena.device);
        free(arena.record);
    }
};

int first_key(bool documents, int query) {
    return documents && query >= DOCUMENT ? DOCUMENT : 0;
}

bool is_live(bool lazy, bool documents, int query, int key) {
    if (!lazy) return true;
    return query - key < NEAR && query - first_key(documents, query) >= NEAR;
}

/* Parts of a head's attention, ROWS queries x `keys` keys each, that hold a visible pair, one that is near
 * and so not surely dead by a running sum, and a live one. */
struct parts {
    uint64_t visible, near, live;
};

parts count_parts(int keys, bool lazy, bool documents) {
    parts result = {0, 0, 0};
    for (int row = 0; row < LENGTH; row += ROWS)
        for (int column = 0; column < LENGTH; column += keys) {
            bool visible = false, near = false, live = false;
            for (int i = row; i < row + ROWS && i < LENGTH; i++)
                for (int j = column; j < column + keys && j <= i; j++)
                    if (j >= first_key(documents, i)) {
                        visible = true;
                        near = near || i - j < NEAR;
                        live = live || is_live(lazy, documents, i, j);
                    }
            result.visible += visible;
            result.near += near;
            result.live += live;
        }
    return result;
}

/* Products of 16 x 16 x 8 in the product of `keys` keys with 16 queries. */
uint64_t products_of(int keys, int64_t head_size) {
    return static_cast<uint64_t>(keys / 8 * head_size / 16);
}

/* Which live bits a 16 x 16 part shares: those of its 16 x 64 tile. */
uint64_t parts_in_live_tiles(bool lazy, bool documents) {
    uint64_t result = 0;
    for (int row = 0; row < LENGTH; row += ROWS)
        for (int column = 0; column < LENGTH; column += ROWS) {
            bool visible = false, live = false;
            for (int i = row; i < row + ROWS; i++) {
                for (int j = column; j < column + ROWS && j <= i; j++)
                    visible = visible || j >= first_key(documents, i);
                for (int j = column / KEYS * KEYS; j < column / KEYS * KEYS + KEYS && j <= i; j++)
                    live = live || (j >= first_key(documents, i) && is_live(lazy, documents, i, j));
            }
            result += visible && live;
        }
    return result;
}

/* Of the forward kernel that any chip runs. */
uint64_t products_of_forward(int64_t head_size, bool lazy, bool documents) {
    const parts tiles = count_parts(KEYS, lazy, documents), halves = count_parts(KEYS / 2, lazy, documents);
    const uint64_t of_tile = HEADS * products_of(KEYS, head_size);
    return lazy ? (tiles.visible + tiles.near + halves.live) * of_tile : tiles.visible * 2 * of_tile;
}

void check(int64_t head_size, bool lazy, bool documents) {
    problem p(head_size, lazy, documents);
    const lt_ops *ops = p.arena.device->ops;
    const parts tiles = count_parts(KEYS, lazy, documents), squares = count_parts(ROWS, lazy, documents);
    const uint64_t of_tile = HEADS * products_of(KEYS, head_size), of_square = of_tile / 4;

    emulation::count = {};
    ops->attention_forward(p.arena.device, &p.at);
    assert_int_equal(emulation::count.products, products_of_forward(head_size, lazy, documents));
    assert_true(emulation::count.shared_accesses > 0);
    assert_int_equal(emulation::count.bank_conflicts, 0);

    p.poison();
    emulation::count = {};
    ops->attention_backward(p.arena.device, &p.at, &p.to);
    const uint64_t live_squares = parts_in_live_tiles(lazy, documents);
    assert_int_equal(emulation::count.products, (2 * tiles.visible + tiles.live) * of_tile +
                                                    (2 * squares.visible + 2 * live_squares) * of_square);
    assert_int_equal(emulation::count.bank_conflicts, 0);

    p.choose(LT_CUDA_BACKWARD_ONE_KERNEL);
    p.poison();
    emulation::count = {};
    ops->attention_backward(p.arena.device, &p.at, &p.to);
    assert_int_equal(emulation::count.products, (3 * squares.visible + 2 * live_squares) * of_square);
    assert_int_equal(emulation::count.bank_conflicts, 0);

    if (lazy)
        for (int i = 0; i < HEADS * LENGTH; i++)
            assert_true(std::isfinite(test_read_floats(&p.arena, lt_at(p.to.d_bias, i), 1)[0]));

    p.poison();
    std::vector<double> zeros(HEADS * LT_STATISTICS);
    const lt_mem statistics = test_double_buffer(&p.arena, zeros.data(), HEADS * LT_STATISTICS);
    emulation::count = {};
    ops->attention_statistics(p.arena.device, &p.at, statistics);
    assert_int_equal(emulation::count.products, tiles.visible * of_tile);
    assert_int_equal(emulation::count.bank_conflicts, 0);
    const double *got = test_read_doubles(&p.arena, statistics, HEADS * LT_STATISTICS);
    assert_true(got[LT_STAT_TILES] == static_cast<double>(tiles.visible));
    assert_true(got[LT_STAT_LIVE_TILES] == static_cast<double>(tiles.live));
    if (lazy) assert_true(tiles.live < tiles.visible);
}

/* Parts of a head of 64 queries x `keys` keys that hold a visible pair, and one of whose tiles holds a near
 * one, or a live one. */
parts count_large_parts(int keys, bool lazy, bool documents) {
    parts result = {0, 0, 0};
    for (int row = 0; row < LENGTH; row += KEYS)
        for (int column = 0; column < LENGTH; column += keys) {
            bool visible = false, near = false, live = false;
            for (int i = row; i < row + KEYS && i < LENGTH; i++)
                for (int j = std::max(column, first_key(documents, i)); j < column + keys && j <= i; j++) {
                    visible = true;
                    near = near || !lazy || i - j < NEAR;
                    live = live || is_live(lazy, documents, i, j);
                }
            result.visible += visible;
            result.near += near;
            result.live += live;
        }
    return result;
}

/* The kernels of compute capability 9.0 do the products that they state, and forward leaves the live bits,
 * and so the work of backward in two kernels, that the other one does. In one kernel dq is formed for all 128
 * keys of a block, and at head size 96 a fourth span of it in vain. */
void check_sm90(int64_t head_size, bool lazy, bool documents) {
    problem p(head_size, lazy, documents, 10.0f, -1.0f, 90);
    const lt_ops *ops = p.arena.device->ops;
    const parts large = count_large_parts(KEYS, lazy, documents),
                blocks = count_large_parts(2 * KEYS, lazy, documents),
                tiles = count_parts(KEYS, lazy, documents), squares = count_parts(ROWS, lazy, documents);
    const uint64_t of_tile = HEADS * products_of(KEYS, head_size), of_large = of_tile * KEYS / ROWS;
    emulation::set_order(static_cast<uint64_t>(head_size / 32 - 2));
    emulation::count = {};
    ops->attention_forward(p.arena.device, &p.at);
    assert_int_equal(emulation::count.products,
                     lazy ? (large.visible + 3 * large.near) * of_large : 2 * large.visible * of_large);
    assert_int_equal(emulation::count.bank_conflicts, 0);
    p.poison();
    emulation::count = {};
    ops->attention_backward(p.arena.device, &p.at, &p.to);
    assert_int_equal(emulation::count.products,
                     (2 * tiles.visible + tiles.live) * of_tile +
                         (2 * squares.visible + 2 * parts_in_live_tiles(lazy, documents)) * of_tile / 4);
    p.choose(LT_CUDA_BACKWARD_ONE_KERNEL);
    p.poison();
    emulation::count = {};
    ops->attention_backward(p.arena.device, &p.at, &p.to);
    assert_int_equal(emulation::count.products,
                     2 * (large.visible + large.live) * of_large +
                         blocks.visible * HEADS *
                             products_of(2 * KEYS * KEYS / ROWS, head_size == 96 ? 128 : head_size));
    assert_int_equal(emulation::count.bank_conflicts, 0);
    if (lazy) assert_true(large.live < large.visible);
}

/* Where the driver has no tensor maps that chip runs the kernel of any other. */
void check_without_maps(int64_t head_size) {
    problem p(head_size, true, false, 10.0f, -1.0f, 90);
    emulated_tensor_maps(false);
    emulation::count = {};
    p.arena.device->ops->attention_forward(p.arena.device, &p.at);
    emulated_tensor_maps(true);
    assert_int_equal(emulation::count.products, products_of_forward(head_size, true, false));
    p.choose(LT_CUDA_BACKWARD_ONE_KERNEL);
    emulated_tensor_maps(false);
    emulation::count = {};
    p.arena.device->ops->attention_backward(p.arena.device, &p.at, &p.to);
    emulated_tensor_maps(true);
    assert_int_equal(emulation::count.products,
                     (3 * count_parts(ROWS, true, false).visible + 2 * parts_in_live_tiles(true, false)) *
                         HEADS * products_of(KEYS, head_size) / 4);
}

/* All p of a row are equal and a hundredth above the threshold: no running sum may prove a tile dead. */
void check_barely_alive(int64_t head_size) {
    problem p(head_size, true, false, 0.0f, -0.99f);
    const parts tiles = count_parts(KEYS, true, false), halves = count_parts(KEYS / 2, true, false);
    const uint64_t of_tile = HEADS * products_of(KEYS, head_size);
    emulation::count = {};
    p.arena.device->ops->attention_forward(p.arena.device, &p.at);
    assert_int_equal(emulation::count.products, tiles.visible * 2 * of_tile + halves.visible * of_tile);
}

/* Most of p lies on dead tiles here. A row's ds_ij add up to 0 when they owe their part, so dq, of keys that
 * are all alike, is 0 and so are the sums of dk. */
void check_dead_tiles_owe(int64_t head_size, int capability, lt_cuda_backward form) {
    problem p(head_size, true, false, 1.0f, -1.0f, capability);
    const lt_ops *ops = p.arena.device->ops;
    const int64_t width = HEADS * head_size;
    p.choose(form);
    ops->attention_forward(p.arena.device, &p.at);
    p.poison();
    ops->attention_backward(p.arena.device, &p.at, &p.to);
    const float *dq = test_read_floats(&p.arena, p.to.d_q, LENGTH * width),
                *dk = test_read_floats(&p.arena, p.to.d_k, LENGTH * width);
    const float *d_bias = test_read_floats(&p.arena, p.to.d_bias, HEADS * LENGTH);
    for (int64_t i = 0; i < HEADS * LENGTH; i++) assert_true(std::isfinite(d_bias[i]));
    double sums[HEADS] = {}, largest = 0;
    for (int64_t i = 0; i < LENGTH * width; i += 2) {
        assert_true(std::isfinite(dq[i + 1]));
        largest = std::fmax(largest, std::fabs(static_cast<double>(dq[i + 1])));
        if (i % head_size == 0) sums[i % width / head_size] += static_cast<double>(dk[i]);
    }
    /* delta's rounding leaves a sixth of these at most; without what dead tiles owe they are five times as
     * large and more. */
    assert_true(largest > 0.0 && largest < 0.01);
    for (double sum : sums) assert_true(std::fabs(sum) < 0.04);
}

void test_counts(void **state) {
    const int64_t head_size = *static_cast<const int64_t *>(*state);
    check(head_size, true, false);
    check(head_size, true, true);
    check(head_size, false, true);
    check_sm90(head_size, true, true);
    check_sm90(head_size, false, true);
    check_without_maps(head_size);
    check_barely_alive(head_size);
    check_dead_tiles_owe(head_size, 80, LT_CUDA_BACKWARD_TWO_KERNELS);
    for (int capability : {80, 90}) check_dead_tiles_owe(head_size, capability, LT_CUDA_BACKWARD_ONE_KERNEL);
}

} // namespace

int main() {
    static int64_t sizes[] = {64, 96, 128};
    const CMUnitTest tests[] = {
        {"head size 64", test_counts, nullptr, test_free_all, &sizes[0]},
        {"head size 96", test_counts, nullptr, test_free_all, &sizes[1]},
        {"head size 128", test_counts, nullptr, test_free_all, &sizes[2]},
    };
    return cmocka_run_group_tests_name("work of the fast attention kernels", tests, nullptr, nullptr);
}
