/* The twin of model/cuda/instructions_sm90.h, by the PTX ISA manual ("Asynchronous warpgroup level matrix
 * instructions"). In tests/emulation warpgroup.h says how products run, phases.h and bulk_copies.h how copies
 * do.
 *
 *   descriptor      bits 0-13: the address in shared memory / 16; 16-29: leading byte offset / 16;
 *                   32-45: stride byte offset / 16; 49-51: base offset, 0 here; 62-63: 1 for swizzling by
 *                   128 bytes, 2 by 64
 *   k along rows    ("K-major") element (row, k) at row / 8 x stride + row % 8 x row bytes + 2 k, swizzled
 *   k across rows   ("MN-major") element (k, n), of rows of r elements, at n / r x leading + 2 (n % r)
 *                   + k / 8 x stride + k % 8 x row bytes, swizzled
 *   swizzling       bits 4, 5 (and 6) of an address are changed by those three places higher
 *   a, c            warp w of the four has rows 16 w to 16 w + 15, as a and c of m16n8k16; c[n] columns
 *                   8 n to 8 n + 7
 */
#ifndef LT_MODEL_CUDA_INSTRUCTIONS_SM90_H
#define LT_MODEL_CUDA_INSTRUCTIONS_SM90_H

#include "model/cuda/instructions.h"
#include "model/cuda/tensor_map.h"
#include "tests/emulation/bulk_copies.h"
#include "tests/emulation/phases.h"
#include "tests/emulation/warpgroup.h"

template <int row_bytes> constexpr int swizzled(int offset) {
    static_assert(row_bytes == 128 || row_bytes == 64, "rows of the 128-byte and 64-byte modes");
    return offset ^ (offset >> 7 & (row_bytes / 16 - 1)) << 4;
}

template <int row_bytes> uint64_t operand(const void *rows, int leading, int stride) {
    const uint64_t address =
        static_cast<uint64_t>(static_cast<const unsigned char *>(rows) -
                              static_cast<const unsigned char *>(emulation::dynamic_shared(nullptr)));
    if (address % 1024 != 0)
        emulation::fail("an operand's rows begin at %zu, no multiple of 1024", static_cast<size_t>(address));
    return address >> 4 | static_cast<uint64_t>(leading >> 4) << 16 |
           static_cast<uint64_t>(stride >> 4) << 32 | static_cast<uint64_t>(row_bytes == 128 ? 1 : 2) << 62;
}

inline uint64_t further(uint64_t of, int bytes) {
    return of + static_cast<uint64_t>(bytes / 16);
}

template <typename... fragments> void multiply_fence(fragments &...) {
    emulation::fence_products();
}
inline void multiply_commit() {
    emulation::commit_products();
}
template <typename... fragments> void multiply_wait(fragments &...) {
    emulation::wait_for_products();
}

inline void multiply_async(float (&c)[8][4], uint64_t a, uint64_t b, bool add) {
    emulation::multiply_later(c[0], 64, nullptr, {a, true}, {b, true}, add);
}
template <int N> void multiply_add_async(float (&c)[N][4], const unsigned (&a)[4], uint64_t b) {
    emulation::multiply_later(c[0], 8 * N, a, {}, {b, false}, true);
}
template <int N> void multiply_across_async(float (&c)[N][4], uint64_t a, uint64_t b) {
    emulation::multiply_later(c[0], 8 * N, nullptr, {a, false}, {b, false}, true);
}

template <int THREADS> void meet(int barrier) {
    emulation::barrier(barrier, THREADS);
}

inline void fence_async_proxy() {
    emulation::fence_writes();
}

inline void phases_open(uint64_t *phases, unsigned arrivals) {
    emulation::open_phases(phases, arrivals);
}
inline void phases_arrive(uint64_t *phases) {
    emulation::arrive(phases);
}
inline void phases_expect(uint64_t *phases, unsigned bytes) {
    emulation::arrive_expecting(phases, bytes);
}
inline void phases_arrive_copied(uint64_t *phases) {
    emulation::arrive_copied(phases);
}
inline void phases_wait(uint64_t *phases, unsigned parity) {
    emulation::wait_for_phase(phases, parity);
}

inline int anew(int number) {
    return number;
}

inline void copy_tensor(void *to, const CUtensorMap &map, int column, int head, int row, int batch,
                        uint64_t *phases) {
    emulation::copy_box(to, map, {column, head, row, batch}, phases);
}

template <int COUNT> void registers_at_most() {
    static_assert(COUNT % 8 == 0 && COUNT >= 24 && COUNT <= 256, "what setmaxnreg takes");
}
template <int COUNT> void registers_at_least() {
    static_assert(COUNT % 8 == 0 && COUNT >= 24 && COUNT <= 256, "what setmaxnreg takes");
}

#endif
