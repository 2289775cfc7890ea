#include "tests/emulation/fibres.h"
#include "tests/emulation/stacks.h"

#include <algorithm>
#include <cstdarg>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <mutex>
#include <vector>

uint3 threadIdx, blockIdx;
dim3 blockDim, gridDim;

namespace emulation {

counts count;

namespace {

constexpr unsigned WARP = 32;
constexpr int BARRIERS = 16;
constexpr size_t UNIT = 16;
constexpr uint64_t HELD_TURNS = 64;
constexpr size_t LIVE_BLOCKS = 3;

struct warp {
    /* What lanes brought to their last two exchanges: one that is ahead writes where nobody reads any more.
     */
    unsigned char slots[2][WARP][LANE_BYTES];
    unsigned arrived[2];
    const char *what[2];
};

struct barrier_state {
    int arrived;
    uint64_t passed;
};

struct block;

struct copy {
    void *to;
    const void *from; /* nullptr: zeros */
    size_t bytes;
};

struct fibre {
    stack own_stack;
    block *home;
    uint3 index;
    unsigned number; /* in the block */
    bool ended;
    const char *waits_for; /* nullptr: it can go on */
    std::function<bool()> ready;
    uint64_t exchanges;
    std::vector<copy> copies;              /* not in a group yet */
    std::vector<std::vector<copy>> groups; /* the oldest first */
    std::vector<size_t> unfenced;          /* units of 16 bytes of dynamic shared memory */
    std::shared_ptr<void> kept;
};

struct block {
    uint3 index;
    std::vector<fibre> fibres;
    std::vector<warp> warps;
    barrier_state barriers[BARRIERS];
    unsigned left; /* fibres that have not ended */
    struct array {
        const void *key;
        unsigned char *memory;
        size_t bytes;
    };
    std::vector<array> arrays;
    unsigned char *dynamic;
    std::vector<int> writers; /* of each unit of dynamic: who wrote it and made no fence since, or -1 */
    std::shared_ptr<void> kept, phases;
    uint64_t turns, held; /* a bit for each warp */
};

uint64_t order_seed, later_state;
std::mutex one_kernel;
const char *kernel_name;
const std::function<void()> *kernel;
fibre *current;
size_t dynamic_size, most_shared;

uint64_t draw(uint64_t *state) {
    *state += 0x9e3779b97f4a7c15u;
    uint64_t z = *state;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return z ^ (z >> 31);
}

template <typename item> void put_in_order(std::vector<item> &items, uint64_t *state) {
    if (order_seed == 1) std::reverse(items.begin(), items.end());
    if (order_seed > 1)
        for (size_t i = items.size(); i > 1; i--) std::swap(items[i - 1], items[draw(state) % i]);
}

void run_thread() {
    (*kernel)();
    current->ended = true;
    current->home->left--;
}

void run(fibre *f) {
    current = f;
    threadIdx = f->index;
    blockIdx = f->home->index;
    go_on(&f->own_stack);
    current = nullptr;
}

std::unique_ptr<block> make_block(unsigned number) {
    auto b = std::make_unique<block>();
    const unsigned threads = blockDim.x * blockDim.y * blockDim.z;
    b->index = {number % gridDim.x, number / gridDim.x % gridDim.y, number / gridDim.x / gridDim.y};
    b->fibres.resize(threads);
    b->warps.resize((threads + WARP - 1) / WARP);
    b->left = threads;
    for (unsigned i = 0; i < threads; i++) {
        fibre *f = &b->fibres[i];
        f->home = b.get();
        f->number = i;
        f->index = {i % blockDim.x, i / blockDim.x % blockDim.y, i / blockDim.x / blockDim.y};
        open_stack(&f->own_stack, run_thread);
    }
    count.threads += threads;
    return b;
}

void free_block(block *b) {
    for (fibre &f : b->fibres) close_stack(&f.own_stack);
    for (block::array &array : b->arrays) free(array.memory);
    free(b->dynamic);
}

/* One turn for each thread of the block that can go on and whose warp is not `held` up; whether there was
 * one. */
bool turn_of(block *b, uint64_t *state, uint64_t held) {
    std::vector<fibre *> order;
    bool any = false;
    for (fibre &f : b->fibres)
        if (!f.ended && (held >> f.number / WARP & 1) == 0) order.push_back(&f);
    put_in_order(order, state);
    for (fibre *f : order) {
        if (f->waits_for != nullptr && !f->ready()) continue;
        f->waits_for = nullptr;
        run(f);
        any = true;
    }
    return any;
}

/* In drawn orders half of the warps are held up for a while, and then others, unless nobody else can go on.
 */
bool turn(block *b, uint64_t *state) {
    if (order_seed > 1 && b->turns++ % HELD_TURNS == 0) b->held = draw(state);
    return (order_seed > 1 && turn_of(b, state, b->held)) || turn_of(b, state, 0);
}

[[noreturn]] void stuck(const std::vector<std::unique_ptr<block>> &blocks) {
    const block *b = blocks.front().get();
    unsigned waiting = 0;
    for (const fibre &f : b->fibres)
        if (!f.ended && waiting++ < 4)
            fprintf(stderr, "emulation: %s: block %u thread %u waits for %s\n", kernel_name, b->index.x,
                    f.number, f.waits_for);
    fail("no thread can go on: %u of %zu threads of a block wait, the others have ended", waiting,
         b->fibres.size());
}

unsigned char *nan_filled(size_t bytes, size_t alignment) {
    void *memory = nullptr;
    if (posix_memalign(&memory, std::max<size_t>(alignment, 16), std::max<size_t>(bytes, 1)) != 0)
        fail("no memory for %zu bytes of shared memory", bytes);
    memset(memory, 0xff, bytes);
    return static_cast<unsigned char *>(memory);
}

bool in_dynamic(const block *b, const void *address) {
    const unsigned char *at = static_cast<const unsigned char *>(address);
    return b->dynamic != nullptr && at >= b->dynamic && at < b->dynamic + dynamic_size;
}

size_t unit_of(const block *b, const void *address) {
    return static_cast<size_t>(static_cast<const unsigned char *>(address) - b->dynamic) / UNIT;
}

/* `writer` owes a fence. */
void note(fibre *writer, const void *address, size_t bytes) {
    block *b = writer->home;
    if (!in_dynamic(b, address)) return;
    const void *last = static_cast<const unsigned char *>(address) + bytes - 1;
    for (size_t unit = unit_of(b, address); unit <= unit_of(b, last); unit++) {
        b->writers[unit] = static_cast<int>(writer->number);
        writer->unfenced.push_back(unit);
    }
}

void carry_out(const std::vector<copy> &copies, fibre *asked) {
    for (const copy &c : copies) {
        if (c.from == nullptr)
            memset(c.to, 0, c.bytes);
        else
            memcpy(c.to, c.from, c.bytes);
        note(asked, c.to, c.bytes);
    }
}

} // namespace

void fail(const char *format, ...) {
    va_list arguments;
    va_start(arguments, format);
    fprintf(stderr, "emulation: %s: ", kernel_name == nullptr ? "-" : kernel_name);
    vfprintf(stderr, format, arguments);
    fputc('\n', stderr);
    va_end(arguments);
    abort();
}

void set_order(uint64_t seed) {
    order_seed = later_state = seed;
}

bool later() {
    return order_seed == 1 || (order_seed > 1 && draw(&later_state) % 2 != 0);
}

int lane() {
    return static_cast<int>(current->number % WARP);
}

void launch(const char *name, dim3 grid, dim3 block_size, size_t dynamic_bytes, size_t shared_limit,
            const std::function<void()> &thread) {
    std::lock_guard<std::mutex> lock(one_kernel);
    kernel_name = name;
    kernel = &thread;
    gridDim = grid;
    blockDim = block_size;
    dynamic_size = dynamic_bytes;
    most_shared = shared_limit;
    count.launches++;
    const unsigned threads = block_size.x * block_size.y * block_size.z;
    if (threads == 0 || threads > 1024) fail("a block of %u threads", threads);
    if (grid.x == 0 || grid.y == 0 || grid.z == 0 || grid.y > 65535 || grid.z > 65535 || grid.x > 0x7fffffff)
        fail("a grid of %u x %u x %u blocks", grid.x, grid.y, grid.z);
    std::vector<unsigned> numbers(static_cast<size_t>(grid.x) * grid.y * grid.z);
    for (size_t i = 0; i < numbers.size(); i++) numbers[i] = static_cast<unsigned>(i);
    uint64_t state = order_seed;
    put_in_order(numbers, &state);
    /* In ascending order blocks run one after the other. Else LIVE_BLOCKS are on the chip at a time: in
     * descending order the last to start is as far ahead of the others as can be, in drawn ones any may be.
     */
    const size_t most = order_seed == 0 ? 1 : LIVE_BLOCKS;
    std::vector<std::unique_ptr<block>> running;
    size_t next = 0;
    while (next < numbers.size() || !running.empty()) {
        size_t i = running.size();
        if (i < most && next < numbers.size()) {
            running.push_back(make_block(numbers[next++]));
            turn(running[i].get(), &state);
        } else {
            const size_t first = order_seed > 1 ? draw(&state) % i : i - 1;
            i = first;
            while (!turn(running[i].get(), &state)) {
                i = (i + running.size() - 1) % running.size();
                if (i == first) stuck(running);
            }
        }
        if (running[i]->left > 0) continue;
        free_block(running[i].get());
        running.erase(running.begin() + static_cast<ptrdiff_t>(i));
    }
    kernel_name = nullptr;
}

void *shared(const void *key, size_t bytes, size_t alignment) {
    block *b = current->home;
    size_t total = dynamic_size + bytes;
    for (const block::array &array : b->arrays) {
        if (array.key == key) return array.memory;
        total += array.bytes;
    }
    if (total > most_shared) fail("%zu bytes of shared memory, of at most %zu", total, most_shared);
    b->arrays.push_back({key, nan_filled(bytes, alignment), bytes});
    return b->arrays.back().memory;
}

void *dynamic_shared(size_t *bytes) {
    block *b = current->home;
    if (b->dynamic == nullptr) {
        b->dynamic = nan_filled(dynamic_size, 1024);
        b->writers.assign(dynamic_size / UNIT + 1, -1);
    }
    if (bytes != nullptr) *bytes = dynamic_size;
    return b->dynamic;
}

void wait_until(const char *what, const std::function<bool()> &done) {
    current->waits_for = what;
    current->ready = done;
    leave();
}

void barrier(int id, int threads) {
    block *b = current->home;
    barrier_state *state = &b->barriers[id];
    const uint64_t turn_of = state->passed;
    count.barriers++;
    state->arrived++;
    const auto complete = [b, state, threads] {
        return state->arrived >= (threads > 0 ? threads : static_cast<int>(b->left));
    };
    wait_until("a barrier of the block", [state, turn_of, complete] {
        if (state->passed == turn_of && complete()) {
            state->passed++;
            state->arrived = 0;
        }
        return state->passed != turn_of;
    });
}

void exchange(unsigned mask, const char *what, const void *value, size_t bytes) {
    fibre *self = current;
    const unsigned own = self->number % WARP, parity = self->exchanges++ % 2;
    const unsigned threads = static_cast<unsigned>(self->home->fibres.size()), first = self->number - own;
    const unsigned there = threads - first >= WARP ? 0xffffffffu : (1u << (threads - first)) - 1;
    warp *w = &self->home->warps[self->number / WARP];
    if (bytes > LANE_BYTES) fail("%s exchanges %zu bytes", what, bytes);
    if ((mask & there) != there) fail("%s: a mask of %08x, not of the whole warp", what, mask);
    if (w->arrived[parity] == 0) {
        w->what[parity] = what;
        w->arrived[1 - parity] = 0;
        count.exchanges++;
    } else if (w->what[parity] != what && strcmp(w->what[parity], what) != 0) {
        fail("lanes of a warp are at %s and at %s", w->what[parity], what);
    }
    memset(w->slots[parity][own], 0xff, LANE_BYTES);
    memcpy(w->slots[parity][own], value, bytes);
    w->arrived[parity] |= 1u << own;
    /* 0: all arrived, and one of them is at its next exchange already. */
    wait_until(what, [w, parity, there] { return w->arrived[parity] == there || w->arrived[parity] == 0; });
}

const void *from(int lane_number) {
    const fibre *self = current;
    warp *w = &self->home->warps[self->number / WARP];
    return w->slots[(self->exchanges - 1) % 2][lane_number & 31];
}

void copy_later(void *to, const void *from, size_t bytes, bool there) {
    if (there && reinterpret_cast<uintptr_t>(from) % bytes != 0)
        fail("an asynchronous copy of %zu bytes from an address that is no multiple of that", bytes);
    memset(to, 0xff, bytes);
    current->copies.push_back({to, there ? from : nullptr, bytes});
}

void commit_copies() {
    current->groups.push_back(std::move(current->copies));
    current->copies.clear();
}

void wait_for_copies(int left) {
    auto &groups = current->groups;
    while (groups.size() > static_cast<size_t>(left)) {
        carry_out(groups.front(), current);
        groups.erase(groups.begin());
    }
}

std::function<void()> take_copies() {
    commit_copies();
    std::vector<std::vector<copy>> groups;
    groups.swap(current->groups);
    return [groups, asked = current] {
        for (const std::vector<copy> &group : groups) carry_out(group, asked);
    };
}

int thread_number() {
    return static_cast<int>(current->number);
}

std::shared_ptr<void> &kept_for_thread() {
    return current->kept;
}

std::shared_ptr<void> &kept_for_block() {
    return current->home->kept;
}

std::shared_ptr<void> &phases_of_block() {
    return current->home->phases;
}

void note_write(const void *address, size_t bytes) {
    note(current, address, bytes);
}

void fence_writes() {
    for (size_t unit : current->unfenced)
        if (current->home->writers[unit] == thread_number()) current->home->writers[unit] = -1;
    current->unfenced.clear();
}

int unfenced_writer(const void *address) {
    const block *b = current->home;
    return in_dynamic(b, address) ? b->writers[unit_of(b, address)] : -1;
}

} // namespace emulation
