/* Barriers in shared memory, on the host: what instructions_sm90.h's twin of mbarrier is made of.
 *
 * What a phase waits for beside arrivals is as adverse as the manual lets it be: a copy is made at once, or
 * when a thread waits for the phase and nothing but copies is missing (fibres.h, later()); others may go on
 * as soon as a thread has arrived. A phase to which more threads arrive, or for which more bytes are copied,
 * than it has been told ends the program; so do a phase that never ends, for which a thread waits, and a
 * block that ends before its copies.
 */
#ifndef LT_TESTS_EMULATION_PHASES_H
#define LT_TESTS_EMULATION_PHASES_H

#include <cstddef>
#include <cstdint>
#include <functional>

namespace emulation {

void open_phases(uint64_t *phases, unsigned arrivals);
void arrive(uint64_t *phases);
void arrive_expecting(uint64_t *phases, unsigned bytes);
void arrive_copied(uint64_t *phases);
void wait_for_phase(uint64_t *phases, unsigned parity);

/* `copy`, of so many bytes, is a part of the present phase. */
void bring_bytes(uint64_t *phases, size_t bytes, std::function<void()> copy);

} // namespace emulation

#endif
