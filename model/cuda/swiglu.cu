/* The gated activation. Bound by memory: 75 to 85 % of its bandwidth are expected (not measured). */
#include "model/cuda/vector.h"

constexpr unsigned MOST_THREADS = 128;

/* Where exp() overflows the quotient is 0, as it should. The approximate functions are good to a few units of
 * float32's last places, of which bfloat16 keeps none. */
static __device__ __forceinline__ float sigmoid(float x) {
    return __fdividef(1.0f, 1.0f + __expf(-x));
}

/* A thread takes 8 elements: 4 bytes read and 2 written an element of the output. */
template <bool wide>
static __global__ void __launch_bounds__(MOST_THREADS)
    activate(const bf16 *gate_up, int64_t ffn, unsigned chunks, bf16 *out) {
    const int64_t row = row_of(chunks), column = column_of(chunks), left = ffn - column;
    if (left <= 0) return;
    const bf16 *gates = gate_up + row * 2 * ffn + column;
    float gate[PACK], up[PACK];
    load<wide>(gates, left, gate);
    load<wide>(gates + ffn, left, up);
#pragma unroll
    for (int i = 0; i < PACK; i++) up[i] = gate[i] * sigmoid(gate[i]) * up[i];
    store<wide>(out + row * ffn + column, left, up);
}

/* silu'(g) = sigmoid(g) (1 + g (1 - sigmoid(g))). 6 bytes read and 6 written an element of the output. */
template <bool wide>
static __global__ void __launch_bounds__(MOST_THREADS)
    activate_backward(const bf16 *gate_up, const bf16 *d_out, int64_t ffn, unsigned chunks, bf16 *d_gate_up,
                      bf16 *out) {
    const int64_t row = row_of(chunks), column = column_of(chunks), left = ffn - column;
    if (left <= 0) return;
    const int64_t gates = row * 2 * ffn + column, at = row * ffn + column;
    float gate[PACK], up[PACK], d[PACK];
    load<wide>(gate_up + gates, left, gate);
    load<wide>(gate_up + gates + ffn, left, up);
    load<wide>(d_out + at, left, d);
#pragma unroll
    for (int i = 0; i < PACK; i++) {
        const float s = sigmoid(gate[i]), silu = gate[i] * s, u = up[i];
        gate[i] = d[i] * u * (s * fmaf(gate[i], 1.0f - s, 1.0f));
        up[i] = d[i] * silu;
        d[i] = silu * u;
    }
    store<wide>(d_gate_up + gates, left, gate);
    store<wide>(d_gate_up + gates + ffn, left, up);
    store<wide>(out + at, left, d);
}

void lt_cuda_swiglu_forward(lt_device *base, lt_mem gate_up, int64_t rows, int64_t ffn, lt_mem out) {
    cuda_device *device = cuda_of(base);
    if (rows == 0) return;
    const row_chunks chunks = chunks_of(ffn, MOST_THREADS);
    const auto kernel = is_wide(ffn, gate_up, out) ? activate<true> : activate<false>;
    lt_cuda_note(device, "the activation",
                 LT_LAUNCH(kernel, blocks(rows * chunks.a_row), chunks.threads, 0, device->stream,
                           bf16_of(gate_up), ffn, chunks.a_row, bf16_of(out)));
}

void lt_cuda_swiglu_backward(lt_device *base, lt_mem gate_up, lt_mem d_out, int64_t rows, int64_t ffn,
                             lt_mem d_gate_up, lt_mem out) {
    cuda_device *device = cuda_of(base);
    if (rows == 0) return;
    const row_chunks chunks = chunks_of(ffn, MOST_THREADS);
    const auto kernel =
        is_wide(ffn, gate_up, d_out, d_gate_up, out) ? activate_backward<true> : activate_backward<false>;
    lt_cuda_note(device, "the activation's backward pass",
                 LT_LAUNCH(kernel, blocks(rows * chunks.a_row), chunks.threads, 0, device->stream,
                           bf16_of(gate_up), bf16_of(d_out), ffn, chunks.a_row, bf16_of(d_gate_up),
                           bf16_of(out)));
}
