#include "tests/emulation/warpgroup.h"
#include "tests/emulation/fibres.h"

#include <cmath>
#include <cstring>
#include <deque>
#include <map>
#include <vector>

namespace emulation {

namespace {

constexpr int GROUP = 128, DEPTH = 16;

/* ---- operands ---- */

struct descriptor {
    size_t address, leading, stride, row_bytes;
};

descriptor decode(uint64_t bits) {
    const uint64_t mode = bits >> 62;
    if (mode != 1 && mode != 2) fail("a descriptor of swizzling mode %d", static_cast<int>(mode));
    if ((bits >> 49 & 7) != 0) fail("a descriptor with a base offset");
    return {(bits & 0x3fff) * 16, (bits >> 16 & 0x3fff) * 16, (bits >> 32 & 0x3fff) * 16,
            mode == 1 ? 128u : 64u};
}

/* Where elements lie, by number: k + 16 row, of `rows` rows and k. */
std::vector<size_t> places_of(const descriptor &at, int rows, bool along) {
    std::vector<size_t> places;
    const size_t across = at.row_bytes / 2;
    for (size_t row = 0; row < static_cast<size_t>(rows); row++)
        for (size_t k = 0; k < DEPTH; k++) {
            const size_t place = at.address + (along ? row / 8 * at.stride + row % 8 * at.row_bytes + 2 * k
                                                     : row / across * at.leading + 2 * (row % across) +
                                                           k / 8 * at.stride + k % 8 * at.row_bytes);
            places.push_back(place ^ (place >> 7 & (at.row_bytes / 16 - 1)) << 4);
        }
    return places;
}

struct contents {
    std::vector<size_t> places;
    std::vector<uint16_t> bits;
    std::vector<float> values;
};

std::vector<uint16_t> read(const std::vector<size_t> &places) {
    size_t bytes;
    const unsigned char *memory = static_cast<const unsigned char *>(dynamic_shared(&bytes));
    std::vector<uint16_t> bits(places.size());
    for (size_t i = 0; i < places.size(); i++) {
        if (places[i] + 2 > bytes) fail("a product reads byte %zu of %zu of shared memory", places[i], bytes);
        memcpy(&bits[i], memory + places[i], 2);
    }
    return bits;
}

contents look(const operand_place &place, int rows) {
    contents of;
    of.places = places_of(decode(place.descriptor), rows, place.along);
    of.bits = read(of.places);
    const unsigned char *memory = static_cast<const unsigned char *>(dynamic_shared(nullptr));
    for (size_t i = 0; i < of.places.size(); i++) {
        const int writer = unfenced_writer(memory + of.places[i]);
        if (writer >= 0)
            fail("a product reads what thread %d wrote, without a fence of the asynchronous proxy", writer);
        const uint32_t wide = static_cast<uint32_t>(of.bits[i]) << 16;
        float value;
        memcpy(&value, &wide, sizeof value);
        of.values.push_back(value);
    }
    return of;
}

/* ---- products ---- */

struct product {
    operand_place a_place, b_place;
    int columns;
    bool add;
    contents a, b; /* a: none where it is in registers */
    int done;      /* threads that have waited for it */
};

struct group_state {
    std::deque<product> products;
    uint64_t gone; /* products before the first of these */
};

struct block_state {
    std::map<int, group_state> groups;
};

struct own_product {
    float *c;
    uint64_t number;
    std::vector<float> a; /* its rows g and g + 8 */
};

struct thread_state {
    bool fenced = false;
    uint64_t asked = 0;
    std::vector<own_product> open, committed;
    std::map<float *, std::vector<float>> sums;
};

template <typename state> state &kept(std::shared_ptr<void> &at) {
    if (at == nullptr) at = std::make_shared<state>();
    return *static_cast<state *>(at.get());
}

group_state &own_group() {
    return kept<block_state>(kept_for_block()).groups[thread_number() / GROUP];
}

/* Rows g and g + 8 of a warp's a, from the registers of its lanes. */
std::vector<float> gather(const unsigned *a) {
    std::vector<float> rows(2 * DEPTH);
    exchange(0xffffffffu, "wgmma", a, 4 * sizeof *a);
    for (int t = 0; t < 4; t++) {
        unsigned of[4];
        memcpy(of, from(lane() / 4 * 4 + t), sizeof of);
        for (int i = 0; i < 4; i++)
            for (int half = 0; half < 2; half++) {
                const uint32_t wide = half == 0 ? of[i] << 16 : of[i] & 0xffff0000u;
                memcpy(&rows[static_cast<size_t>(i % 2 * DEPTH + 2 * t + i / 2 * 8 + half)], &wide,
                       sizeof wide);
            }
    }
    return rows;
}

__attribute__((no_sanitize("address", "undefined"))) void add_up(float *c, const float *a, const float *b,
                                                                 int columns) {
    const int t = lane() % 4;
    for (int n = 0; n < columns / 8; n++)
        for (int i = 0; i < 4; i++) {
            const float *row = a + i / 2 * DEPTH, *column = b + (8 * n + 2 * t + i % 2) * DEPTH;
            float sum = c[4 * n + i];
            for (int k = DEPTH - 1; k >= 0; k--) sum = fmaf(row[k], column[k], sum);
            c[4 * n + i] = sum;
        }
}

void check_unchanged(const contents &of) {
    if (read(of.places) != of.bits) fail("shared memory changed while a product was under way");
}

void finish(thread_state &own, const own_product &which) {
    group_state &group = own_group();
    product &of = group.products[which.number - group.gone];
    std::vector<float> &sums = own.sums[which.c];
    if (!of.add) std::fill(sums.begin(), sums.end(), 0.0f);
    add_up(sums.data(), which.a.data(), of.b.values.data(), of.columns);
    if (++of.done < GROUP) return;
    check_unchanged(of.a);
    check_unchanged(of.b);
    while (!group.products.empty() && group.products.front().done == GROUP) {
        group.products.pop_front();
        group.gone++;
    }
}

} // namespace

void multiply_later(float *c, int columns, const unsigned *a, const operand_place &a_place,
                    const operand_place &b_place, bool add) {
    thread_state &own = kept<thread_state>(kept_for_thread());
    group_state &group = own_group();
    if (!own.fenced) fail("a product without a fence of its registers");
    if (own.asked == group.gone + group.products.size()) {
        product first = {a_place, b_place, columns, add, {}, {}, 0};
        if (a == nullptr) first.a = look(a_place, 64);
        first.b = look(b_place, columns);
        group.products.push_back(std::move(first));
    }
    const product &of = group.products[own.asked - group.gone];
    if (of.a_place.descriptor != a_place.descriptor || of.b_place.descriptor != b_place.descriptor ||
        of.columns != columns || of.add != add)
        fail("threads of a warpgroup are at different products");
    own_product mine = {c, own.asked++, {}};
    if (a == nullptr) {
        const int row = thread_number() % GROUP / 32 * 16 + lane() / 4;
        for (int i = 0; i < 2 * DEPTH; i++)
            mine.a.push_back(of.a.values[static_cast<size_t>((row + i / DEPTH * 8) * DEPTH + i % DEPTH)]);
    } else {
        mine.a = gather(a);
    }
    if (lane() == 0) count.products += static_cast<uint64_t>(columns / 8);
    const size_t size = static_cast<size_t>(columns) / 2;
    if (own.sums.count(c) == 0) own.sums[c] = std::vector<float>(c, c + size);
    memset(c, 0xff, size * sizeof *c);
    own.open.push_back(std::move(mine));
}

void fence_products() {
    kept<thread_state>(kept_for_thread()).fenced = true;
}

void commit_products() {
    thread_state &own = kept<thread_state>(kept_for_thread());
    for (own_product &of : own.open) own.committed.push_back(std::move(of));
    own.open.clear();
}

void wait_for_products() {
    thread_state &own = kept<thread_state>(kept_for_thread());
    if (!own.open.empty()) fail("a product that was not committed before the wait");
    for (const own_product &of : own.committed) finish(own, of);
    for (const own_product &of : own.committed)
        memcpy(of.c, own.sums[of.c].data(), own.sums[of.c].size() * sizeof(float));
    own.committed.clear();
    own.sums.clear();
    own.fenced = false;
}

} // namespace emulation
