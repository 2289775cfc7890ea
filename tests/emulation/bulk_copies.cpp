#include "tests/emulation/bulk_copies.h"
#include "tests/emulation/fibres.h"
#include "tests/emulation/phases.h"

#include <algorithm>
#include <cstring>

namespace emulation {

namespace {

constexpr size_t ELEMENT = 2, ALIGNMENT = 1024, UNIT = 16;
constexpr uint64_t MOST_ELEMENTS = uint64_t{1} << 32, MOST_STRIDE = uint64_t{1} << 40, MOST_ACROSS = 256,
                   MARK = 0x7e4502a9;

/* How a map lies in its 128 bytes is our own affair. */
struct tensor {
    uint64_t mark, sizes[TENSOR_RANK], strides[TENSOR_RANK]; /* strides: bytes */
    const unsigned char *base;
    uint32_t box[TENSOR_RANK], span; /* of the swizzling mode, bytes */
};
static_assert(sizeof(tensor) <= sizeof(CUtensorMap), "a map is 128 bytes");

bool maps_there = true;

bool is_possible(const tensor &of, const cuuint32_t *steps) {
    bool possible = reinterpret_cast<uintptr_t>(of.base) % UNIT == 0 && of.box[0] * ELEMENT % UNIT == 0 &&
                    of.box[0] * ELEMENT <= of.span;
    for (size_t i = 0; i < TENSOR_RANK; i++)
        possible = possible && of.sizes[i] > 0 && of.sizes[i] <= MOST_ELEMENTS && of.box[i] > 0 &&
                   of.box[i] <= MOST_ACROSS && steps[i] == 1;
    for (size_t i = 1; i < TENSOR_RANK; i++)
        possible = possible && of.strides[i] % UNIT == 0 && of.strides[i] < MOST_STRIDE;
    return possible;
}

size_t bytes_of(const tensor &of) {
    return size_t{of.box[0]} * of.box[1] * of.box[2] * of.box[3] * ELEMENT;
}

/* Where element 0 of a row of the box lies: a number of those from `first` on; nullptr outside of the tensor.
 */
const unsigned char *find_row(const tensor &of, const coordinates &first, size_t number) {
    const unsigned char *row = of.base;
    for (size_t i = 1; i < TENSOR_RANK; i++) {
        const int64_t at = int64_t{first[i]} + static_cast<int64_t>(number % of.box[i]);
        if (at < 0 || at >= static_cast<int64_t>(of.sizes[i])) return nullptr;
        row += static_cast<uint64_t>(at) * of.strides[i];
        number /= of.box[i];
    }
    return row;
}

void copy_elements(unsigned char *to, const tensor &of, const coordinates &first) {
    for (size_t offset = 0; offset < bytes_of(of);) {
        const unsigned char *row = find_row(of, first, offset / ELEMENT / of.box[0]);
        for (size_t i = 0; i < of.box[0]; i++, offset += ELEMENT) {
            const int64_t column = int64_t{first[0]} + static_cast<int64_t>(i);
            const bool there = row != nullptr && column >= 0 && column < static_cast<int64_t>(of.sizes[0]);
            unsigned char *place = to + (offset ^ (offset >> 7 & (of.span / UNIT - 1)) << 4);
            if (there)
                memcpy(place, row + static_cast<uint64_t>(column) * ELEMENT, ELEMENT);
            else
                memset(place, 0, ELEMENT);
        }
    }
}

void check_place(const unsigned char *to, size_t bytes) {
    size_t all;
    const unsigned char *memory = static_cast<const unsigned char *>(dynamic_shared(&all));
    if (to < memory || to + bytes > memory + all)
        fail("a bulk copy of %zu bytes to outside of dynamic shared memory", bytes);
    if ((to - memory) % static_cast<ptrdiff_t>(ALIGNMENT) != 0)
        fail("a bulk copy to byte %td of shared memory, no multiple of %zu", to - memory, ALIGNMENT);
    for (size_t unit = 0; unit < bytes; unit += UNIT)
        if (unfenced_writer(to + unit) >= 0)
            fail("a bulk copy to what thread %d wrote, without a fence of the asynchronous proxy",
                 unfenced_writer(to + unit));
}

} // namespace

void copy_box(void *to, const CUtensorMap &map, const coordinates &first, uint64_t *phases) {
    tensor of;
    memcpy(&of, &map, sizeof of);
    if (of.mark != MARK) fail("a bulk copy by a map that nobody made");
    unsigned char *place = static_cast<unsigned char *>(to);
    check_place(place, bytes_of(of));
    memset(place, 0xff, bytes_of(of));
    bring_bytes(phases, bytes_of(of), [place, of, first] { copy_elements(place, of, first); });
}

} // namespace emulation

void emulated_tensor_maps(bool there) {
    emulation::maps_there = there;
}

CUresult cuTensorMapEncodeTiled(CUtensorMap *map, CUtensorMapDataType type, cuuint32_t rank, void *base,
                                const cuuint64_t *sizes, const cuuint64_t *strides, const cuuint32_t *box,
                                const cuuint32_t *steps, CUtensorMapInterleave, CUtensorMapSwizzle swizzle,
                                CUtensorMapL2promotion, CUtensorMapFloatOOBfill) {
    using namespace emulation;
    if (!maps_there) return CUDA_ERROR_NOT_SUPPORTED;
    if (rank != TENSOR_RANK || type != CU_TENSOR_MAP_DATA_TYPE_BFLOAT16) return CUDA_ERROR_INVALID_VALUE;
    tensor of = {};
    of.mark = MARK;
    of.base = static_cast<const unsigned char *>(base);
    of.span = swizzle == CU_TENSOR_MAP_SWIZZLE_128B ? 128 : 64;
    std::copy_n(sizes, TENSOR_RANK, of.sizes);
    std::copy_n(strides, TENSOR_RANK - 1, of.strides + 1);
    std::copy_n(box, TENSOR_RANK, of.box);
    if (!is_possible(of, steps)) return CUDA_ERROR_INVALID_VALUE;
    *map = {};
    memcpy(map, &of, sizeof of);
    return CUDA_SUCCESS;
}
