/* Bulk copies by tensor maps, on the host, by the CUDA driver's manual (cuTensorMapEncodeTiled) and the PTX
 * ISA's ("Asynchronous data movement by tensor copy"; "Swizzling modes").
 *
 * The place that a box goes to is NaN from the call until the copy is made (phases.h says when); what lies
 * outside of the tensor becomes 0, and counts among the bytes of the box. A copy writes by the asynchronous
 * proxy, so it ends the program where a thread wrote its place or opened its barrier without a fence of that
 * proxy, and where its place is no multiple of 1024 of dynamic shared memory.
 */
#ifndef LT_TESTS_EMULATION_BULK_COPIES_H
#define LT_TESTS_EMULATION_BULK_COPIES_H

#include <cuda.h>

#include <array>
#include <cstddef>

namespace emulation {

constexpr size_t TENSOR_RANK = 4; /* of all our maps */
typedef std::array<int, TENSOR_RANK> coordinates;

/* The box of `map` from element `first` on. */
void copy_box(void *to, const CUtensorMap &map, const coordinates &first, uint64_t *phases);

} // namespace emulation

#endif
