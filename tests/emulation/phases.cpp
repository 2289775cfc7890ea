#include "tests/emulation/phases.h"
#include "tests/emulation/fibres.h"

#include <cstring>
#include <map>
#include <vector>

namespace emulation {

namespace {

constexpr uint64_t MARK = 0xba44ba44ba44ba44; /* how a barrier lies there is our own affair */
constexpr unsigned MOST_BYTES = (1 << 20) - 1;

/* What the present phase lacks: arrivals, bytes that nobody copies yet (below 0: that nobody was told of),
 * and copies. */
struct barrier_phases {
    unsigned parity;
    int arrivals, missing;
    int64_t bytes;
    std::vector<std::function<void()>> copies;
};

void check_told(const barrier_phases &of) {
    if (of.bytes < 0)
        fail("copies bring %d bytes more than their phase was told", static_cast<int>(-of.bytes));
}

struct block_phases {
    std::map<const uint64_t *, barrier_phases> all;
    ~block_phases() {
        for (const auto &barrier : all) {
            const barrier_phases &of = barrier.second;
            if (!of.copies.empty()) fail("a block ended before the copies that it asked for");
            check_told(of);
        }
    }
};

block_phases &own_block() {
    std::shared_ptr<void> &kept = phases_of_block();
    if (kept == nullptr) kept = std::make_shared<block_phases>();
    return *static_cast<block_phases *>(kept.get());
}

barrier_phases &state_of(const uint64_t *phases) {
    const auto at = own_block().all.find(phases);
    uint64_t mark;
    memcpy(&mark, phases, sizeof mark);
    if (mark != MARK || at == own_block().all.end()) fail("a barrier in shared memory that nobody opened");
    return at->second;
}

bool lacks_copies_alone(const barrier_phases &of) {
    return of.missing == 0 && of.bytes == 0;
}

void end_if_over(barrier_phases &of) {
    if (of.missing == 0) check_told(of);
    if (!lacks_copies_alone(of) || !of.copies.empty()) return;
    of.missing = of.arrivals;
    of.parity ^= 1;
}

void take_arrival(barrier_phases &of) {
    if (of.missing == 0) fail("more threads arrive than a phase of a barrier has");
    of.missing--;
}

/* Others may go on before what this thread does next: those of its block, and blocks that wait for these. */
void let_others() {
    for (int turn = 0, turns = later() ? 2 : 0; turn < turns; turn++)
        wait_until("its turn", [] { return true; });
}

void copy_now_or_later(barrier_phases &of, std::function<void()> copy) {
    if (later())
        of.copies.push_back(std::move(copy));
    else
        copy();
    end_if_over(of);
}

} // namespace

void open_phases(uint64_t *phases, unsigned arrivals) {
    const int all = static_cast<int>(arrivals);
    own_block().all[phases] = {0, all, all, 0, {}};
    memcpy(phases, &MARK, sizeof MARK);
    note_write(phases, sizeof MARK);
}

void arrive(uint64_t *phases) {
    arrive_expecting(phases, 0);
}

void arrive_expecting(uint64_t *phases, unsigned bytes) {
    barrier_phases &state = state_of(phases);
    if (bytes > MOST_BYTES) fail("a phase of %u bytes", bytes);
    take_arrival(state);
    state.bytes += bytes;
    end_if_over(state);
    let_others();
}

void arrive_copied(uint64_t *phases) {
    barrier_phases &state = state_of(phases);
    take_arrival(state);
    copy_now_or_later(state, take_copies());
    let_others();
}

void bring_bytes(uint64_t *phases, size_t bytes, std::function<void()> copy) {
    barrier_phases &state = state_of(phases);
    if (unfenced_writer(phases) >= 0)
        fail("a bulk copy tells a barrier that was opened without a fence of the asynchronous proxy");
    state.bytes -= static_cast<int64_t>(bytes);
    copy_now_or_later(state, std::move(copy));
}

void wait_for_phase(uint64_t *phases, unsigned parity) {
    barrier_phases *state = &state_of(phases);
    wait_until("a phase of a barrier in shared memory", [state, parity] {
        if (state->parity != parity) return true;
        if (!lacks_copies_alone(*state)) return false;
        for (const std::function<void()> &copy : state->copies) copy();
        state->copies.clear();
        end_if_over(*state);
        return true;
    });
}

} // namespace emulation
