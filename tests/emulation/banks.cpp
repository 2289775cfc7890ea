/* Bank conflicts of a warp's accesses to shared memory. */
#include "tests/emulation/fibres.h"

#include <algorithm>
#include <cstring>

namespace emulation {

namespace {

constexpr size_t WARP = 32;

}

void shared_access(const void *address, size_t bytes) {
    exchange(0xffffffffu, "an access to shared memory", &address, sizeof address);
    count_access(bytes);
}

void count_access(size_t bytes) {
    if (lane() != 0) return; /* who counts for all */
    uintptr_t addresses[WARP];
    for (unsigned i = 0; i < WARP; i++) {
        memcpy(&addresses[i], from(static_cast<int>(i)), sizeof addresses[i]);
        if (addresses[i] % bytes != 0)
            fail("an access of %zu bytes to a shared address that is no multiple of that", bytes);
    }
    /* Of 4 bytes all lanes go at once, of 8 a half, of 16 a quarter of the warp; one turn serves one word of
     * each of the 32 banks, to all who want that word. */
    const size_t together = WARP * 4 / bytes;
    for (size_t group = 0; group < WARP; group += together) {
        uintptr_t words[WARP][WARP];
        size_t turns[WARP] = {}, most = 0;
        for (size_t i = group; i < group + together; i++)
            for (uintptr_t word = addresses[i] / 4; word < (addresses[i] + bytes) / 4; word++) {
                uintptr_t *bank = words[word % WARP];
                size_t &used = turns[word % WARP];
                if (std::find(bank, bank + used, word) == bank + used) bank[used++] = word;
                most = std::max(most, used);
            }
        count.shared_accesses++;
        count.bank_conflicts += most - 1;
    }
}

} // namespace emulation
