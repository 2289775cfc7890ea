/* The twin of model/cuda/instructions.h. Layouts are those of the PTX ISA manual ("Matrix multiply-accumulate
 * instructions", m16n8k16 with 16-bit elements); g = lane / 4, t = lane % 4, low half of a register first:
 *
 *   ldmatrix, register m             matrix m: (g, 2t), (g, 2t + 1); .trans: (2t, g), (2t + 1, g)
 *   movmatrix.trans                  in (g, 2t), (g, 2t + 1) of a matrix, out the same of its transpose
 *   mma, a [16, 16] (row, k)         a[0]: (g, 2t), (g, 2t + 1)          a[1]: (g + 8, 2t), (g + 8, 2t + 1)
 *                                    a[2]: (g, 2t + 8), (g, 2t + 9)      a[3]: (g + 8, 2t + 8), (g + 8, 2t +
 * 9) mma, b [16, 8] (k, column)       b0: (2t, g), (2t + 1, g)            b1: (2t + 8, g), (2t + 9, g) mma, c
 * [16, 8] (row, column)     c[0]: (g, 2t)    c[1]: (g, 2t + 1)  c[2]: (g + 8, 2t)  c[3]: (g + 8, 2t + 1)
 *
 * The sum of a product is rounded once here; a GPU adds in an order and with a width that nobody states.
 * Accesses to shared memory are those of a whole warp, so that bank conflicts can be counted.
 */
#ifndef LT_MODEL_CUDA_INSTRUCTIONS_H
#define LT_MODEL_CUDA_INSTRUCTIONS_H

#include "model/cuda/launch.h"

namespace emulation {

/* What a lane brings to ldmatrix: its row, as it is when the lane arrives. */
struct matrix_row {
    const void *address; /* first: count_access() reads it */
    uint16_t elements[8];
};

inline void bring_row(const char *what, const void *row) {
    matrix_row own;
    own.address = row;
    memcpy(own.elements, row, sizeof own.elements);
    exchange(0xffffffffu, what, &own, sizeof own);
    count_access(16);
}

inline uint16_t element_of(int matrix, int row, int column) {
    return static_cast<const matrix_row *>(from(8 * matrix + row))->elements[column];
}

inline unsigned pair_of(uint16_t low, uint16_t high) {
    return low | static_cast<unsigned>(high) << 16;
}

struct mma_operands {
    unsigned a[4], b[2];
};

/* A lane's four of a b, in c. Most of the time that kernels take on the host is spent here, so the
 * sanitizers, which have nothing to find in it, are told to keep away. */
__attribute__((no_sanitize("address", "undefined"))) inline void multiply_brought(float *c) {
    const int g = lane() / 4, t = lane() % 4;
    double rows[2][16], columns[2][16];
    const auto value_of = [](unsigned pair, int half) __attribute__((no_sanitize("address", "undefined"))) {
        const unsigned bits = half == 0 ? pair << 16 : pair & 0xffff0000u;
        float value;
        __builtin_memcpy(&value, &bits, sizeof value);
        return static_cast<double>(value);
    };
    for (int k = 0; k < 4; k++) {
        const mma_operands *of_a = static_cast<const mma_operands *>(from(4 * g + k));
        const mma_operands *of_b[2] = {static_cast<const mma_operands *>(from(8 * t + k)),
                                       static_cast<const mma_operands *>(from(8 * t + 4 + k))};
        for (int i = 0; i < 2; i++)
            for (int upper = 0; upper < 2; upper++)
                for (int half = 0; half < 2; half++) {
                    rows[i][2 * k + 8 * upper + half] = value_of(of_a->a[i + 2 * upper], half);
                    columns[i][2 * k + 8 * upper + half] = value_of(of_b[i]->b[upper], half);
                }
    }
    for (int i = 0; i < 4; i++) {
        double sum = 0;
        for (int k = 0; k < 16; k++) sum += rows[i / 2][k] * columns[i % 2][k];
        c[i] = static_cast<float>(static_cast<double>(c[i]) + sum);
    }
}

} // namespace emulation

inline void load_matrices(unsigned (&to)[4], const void *row) {
    const int g = emulation::lane() / 4, t = emulation::lane() % 4;
    emulation::bring_row("ldmatrix", row);
    for (int m = 0; m < 4; m++)
        to[m] =
            emulation::pair_of(emulation::element_of(m, g, 2 * t), emulation::element_of(m, g, 2 * t + 1));
}

inline void load_matrices_transposed(unsigned (&to)[4], const void *row) {
    const int g = emulation::lane() / 4, t = emulation::lane() % 4;
    emulation::bring_row("ldmatrix.trans", row);
    for (int m = 0; m < 4; m++)
        to[m] =
            emulation::pair_of(emulation::element_of(m, 2 * t, g), emulation::element_of(m, 2 * t + 1, g));
}

inline unsigned transposed_matrix(unsigned pair) {
    const int g = emulation::lane() / 4, t = emulation::lane() % 4;
    emulation::exchange(0xffffffffu, "movmatrix", &pair, sizeof pair);
    uint16_t of[2][2];
    memcpy(of[0], emulation::from(8 * t + g / 2), sizeof of[0]);
    memcpy(of[1], emulation::from(8 * t + 4 + g / 2), sizeof of[1]);
    return emulation::pair_of(of[0][g % 2], of[1][g % 2]);
}

inline void multiply_add(float (&c)[4], const unsigned (&a)[4], unsigned b0, unsigned b1) {
    const emulation::mma_operands own = {{a[0], a[1], a[2], a[3]}, {b0, b1}};
    emulation::exchange(0xffffffffu, "mma", &own, sizeof own);
    if (emulation::lane() == 0) emulation::count.products++;
    emulation::multiply_brought(c);
}

inline void copy_async_16(void *to, const void *from, bool there) {
    emulation::shared_access(to, 16);
    emulation::copy_later(to, from, 16, there);
}
inline void copy_async_4(void *to, const void *from, bool there) {
    emulation::shared_access(to, 4);
    emulation::copy_later(to, from, 4, there);
}
inline void copy_async_commit() {
    emulation::commit_copies();
}
template <int LEFT> void copy_async_wait() {
    emulation::wait_for_copies(LEFT);
}

template <typename element> element shared_read(const element *at) {
    emulation::shared_access(at, sizeof(element));
    return *at;
}
template <typename element> void shared_write(element *at, element value) {
    emulation::shared_access(at, sizeof(element));
    *at = value;
    emulation::note_write(at, sizeof(element));
}

inline void write_release(unsigned *at, unsigned value) {
    *at = value;
}
inline void wait_for(const unsigned *at, unsigned value) {
    emulation::wait_until("another block's word", [at, value] { return *at == value; });
}

inline float power_of_two(float x) {
    const float result = exp2f(x);
    return result < 0x1p-126f ? 0.0f : result;
}

inline float smaller_or_nan(float x, float y) {
    return x < y || x != x ? x : y;
}

inline unsigned pack_bf16(float low, float high) {
    return emulation::pair_of(__float2bfloat16_rn(low).bits, __float2bfloat16_rn(high).bits);
}

#endif
