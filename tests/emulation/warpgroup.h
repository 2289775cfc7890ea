/* Products of a warpgroup, on the host: what instructions_sm90.h's twin of wgmma is made of.
 *
 * A product is as adverse as the manual lets it be. Its sums are NaN from the call until the wait. Shared
 * memory is read when the first thread of the warpgroup calls, and again when the last one waits, and must be
 * the same: a copy that comes late and one that comes early both end the program. So do bytes that a thread
 * wrote and has not fenced, threads of a warpgroup with different products, and a product without a fence
 * after the last wait. Sums are rounded after each of their terms, from the last to the first: otherwise than
 * those of mma.sync's twin.
 */
#ifndef LT_TESTS_EMULATION_WARPGROUP_H
#define LT_TESTS_EMULATION_WARPGROUP_H

#include <cstdint>

namespace emulation {

/* An operand in shared memory: its descriptor, and whether k runs along its rows or across them. */
struct operand_place {
    uint64_t descriptor;
    bool along;
};

/* c [64, columns] (+)= a [64, 16] b; `c` and `a` are this thread's. `a` nullptr: it lies at `a_place`. */
void multiply_later(float *c, int columns, const unsigned *a, const operand_place &a_place,
                    const operand_place &b_place, bool add);
void fence_products();
void commit_products();
void wait_for_products();

} // namespace emulation

#endif
