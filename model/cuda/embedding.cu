/* The embedding: rows of a matrix at tokens, and sums of rows over equal tokens. Bound by memory: 70 to 80 %
 * of its bandwidth are expected of what moves rows, half of it of the sort (not measured). */
#include "model/cuda/vector.h"

constexpr unsigned MOST_THREADS = 128;

/* A thread copies 8 elements: 2 bytes read and 2 written. */
template <bool wide>
static __global__ void __launch_bounds__(MOST_THREADS)
    embed(const int32_t *tokens, lt_vocabulary vocabulary, const bf16 *weight, int64_t hidden,
          unsigned chunks, bf16 *out) {
    const int64_t row = row_of(chunks), column = column_of(chunks), left = hidden - column;
    if (left <= 0) return;
    const int64_t token = tokens[row] - vocabulary.first;
    float own[PACK] = {};
    if (token >= 0 && token < vocabulary.count) load<wide>(weight + token * hidden + column, left, own);
    store<wide>(out + row * hidden + column, left, own);
}

void lt_cuda_embedding_forward(lt_device *base, lt_mem tokens, const lt_vocabulary *vocabulary, lt_mem weight,
                               int64_t rows, int64_t hidden, lt_mem out) {
    cuda_device *device = cuda_of(base);
    if (rows == 0) return;
    const row_chunks chunks = chunks_of(hidden, MOST_THREADS);
    const auto kernel = is_wide(hidden, weight, out) ? embed<true> : embed<false>;
    lt_cuda_note(device, "the embedding",
                 LT_LAUNCH(kernel, blocks(rows * chunks.a_row), chunks.threads, 0, device->stream,
                           integers_of(tokens), *vocabulary, bf16_of(weight), hidden, chunks.a_row,
                           bf16_of(out)));
}

/* ---- backward: sorting ----
 * Keys of token and position: all are different, so there is one order of them, whatever sorts, and equal
 * tokens come in order of position. Tokens outside the vocabulary come last. */
constexpr unsigned SORT_THREADS = 512, MERGE_THREADS = 256;
constexpr int64_t RUN = 2 * SORT_THREADS; /* keys that a block sorts */

/* Room for the keys before and after a round of merging. */
size_t lt_cuda_embedding_scratch_bytes(int64_t rows, int64_t hidden) {
    (void)hidden;
    return 2 * sizeof(uint64_t) * static_cast<size_t>(rows);
}

static __device__ __forceinline__ int64_t token_of(uint64_t key) {
    return static_cast<int64_t>(key >> 32);
}

static __device__ __forceinline__ int64_t row_of_key(uint64_t key) {
    return static_cast<int64_t>(key & 0xffffffffu);
}

static __device__ __forceinline__ uint64_t key_of(const int32_t *tokens, lt_vocabulary vocabulary,
                                                  int64_t row) {
    const int64_t token = tokens[row] - vocabulary.first;
    const bool inside = token >= 0 && token < vocabulary.count;
    return static_cast<uint64_t>(inside ? token : vocabulary.count) << 32 | static_cast<uint64_t>(row);
}

/* Bitonic sort of a run in shared memory (8 KiB), a pair a thread and step; beyond the last row lie keys that
 * are greater than all. 55 steps. */
static __global__ void __launch_bounds__(SORT_THREADS)
    sort_run(const int32_t *tokens, lt_vocabulary vocabulary, int64_t rows, uint64_t *sorted) {
    LT_SHARED(uint64_t, keys, RUN);
    const int64_t begin = blockIdx.x * RUN;
    for (unsigned i = threadIdx.x; i < RUN; i += SORT_THREADS)
        keys[i] = begin + i < rows ? key_of(tokens, vocabulary, begin + i) : ~static_cast<uint64_t>(0);
    for (unsigned length = 2; length <= RUN; length *= 2)
        for (unsigned apart = length / 2; apart > 0; apart /= 2) {
            const unsigned low = 2 * threadIdx.x - (threadIdx.x & (apart - 1)), high = low + apart;
            __syncthreads();
            const uint64_t a = keys[low], b = keys[high];
            const bool ascending = (low & length) == 0;
            if ((a > b) == ascending) {
                keys[low] = b;
                keys[high] = a;
            }
        }
    __syncthreads();
    for (unsigned i = threadIdx.x; i < RUN && begin + i < rows; i += SORT_THREADS)
        sorted[begin + i] = keys[i];
}

/* How many of `count` ascending keys are below `key`. */
static __device__ __forceinline__ int64_t rank_of(uint64_t key, const uint64_t *keys, int64_t count) {
    int64_t low = 0;
    while (low < count) {
        const int64_t middle = low + (count - low) / 2;
        if (keys[middle] < key)
            low = middle + 1;
        else
            count = middle;
    }
    return low;
}

/* Pairs of sorted runs of `length` into runs of twice that: each key goes to where the keys below it in its
 * own run and in the other one leave it. A thread a key; 8 bytes read and 8 written, and log2(length) more
 * reads from the L2. */
static __global__ void __launch_bounds__(MERGE_THREADS)
    merge_runs(const uint64_t *from, int64_t rows, int64_t length, uint64_t *to) {
    const int64_t i = static_cast<int64_t>(blockIdx.x) * MERGE_THREADS + threadIdx.x;
    if (i >= rows) return;
    const int64_t own = i & -length, pair = i & -2 * length; /* a power of two */
    const int64_t other = own == pair ? pair + length : pair, left = rows - other;
    const int64_t below = rank_of(from[i], from + other, left < 0 ? 0 : left < length ? left : length);
    to[pair + (i - own) + below] = from[i];
}

/* The sorted keys, in scratch. */
static const uint64_t *sort_tokens(cuda_device *device, lt_mem tokens, const lt_vocabulary *vocabulary,
                                   int64_t rows) {
    uint64_t *sorted = reinterpret_cast<uint64_t *>(device->scratch), *merged = sorted + rows;
    lt_cuda_note(device, "sorting tokens",
                 LT_LAUNCH(sort_run, blocks(divide_up(rows, RUN)), SORT_THREADS, 0, device->stream,
                           integers_of(tokens), *vocabulary, rows, sorted));
    for (int64_t length = RUN; length < rows; length *= 2) {
        lt_cuda_note(device, "sorting tokens",
                     LT_LAUNCH(merge_runs, blocks(divide_up<int64_t>(rows, MERGE_THREADS)), MERGE_THREADS, 0,
                               device->stream, sorted, rows, length, merged));
        uint64_t *before = sorted;
        sorted = merged;
        merged = before;
    }
    return sorted;
}

/* ---- backward: sums ---- */

constexpr int FOUR = 4, AT_A_TIME = 8;
constexpr unsigned MOST_SUM_THREADS = 256;

/* A block where a token's keys begin owns that token's row, and adds d_out of its positions to it, in order;
 * the other blocks have nothing to do. A thread has 4 columns a turn, and 8 rows on their way at a time: 2
 * bytes read an element of d_out, 4 read and 4 written an element of a row that a token has met. */
template <bool wide>
static __global__ void __launch_bounds__(MOST_SUM_THREADS)
    sum_tokens(const uint64_t *keys, int64_t rows, int64_t vocabulary, const bf16 *d_out, int64_t hidden,
               float *d_weight) {
    const int64_t first = blockIdx.x, token = token_of(keys[first]);
    if (token == vocabulary || (first > 0 && token_of(keys[first - 1]) == token)) return;
    for (int64_t column = threadIdx.x * FOUR; column < hidden; column += blockDim.x * FOUR) {
        const int64_t left = hidden - column;
        float sum[FOUR], own[AT_A_TIME][FOUR];
        load<wide>(d_weight + token * hidden + column, left, sum);
        int there = AT_A_TIME;
        for (int64_t at = first; there == AT_A_TIME; at += AT_A_TIME) {
            uint64_t key[AT_A_TIME];
#pragma unroll
            for (int i = 0; i < AT_A_TIME; i++)
                key[i] = at + i < rows ? keys[at + i] : ~static_cast<uint64_t>(0);
            there = 0;
#pragma unroll
            for (int i = 0; i < AT_A_TIME; i++) there += token_of(key[i]) == token;
#pragma unroll
            for (int i = 0; i < AT_A_TIME; i++)
                if (i < there) load<wide>(d_out + row_of_key(key[i]) * hidden + column, left, own[i]);
#pragma unroll
            for (int i = 0; i < AT_A_TIME; i++)
#pragma unroll
                for (int j = 0; j < FOUR; j++)
                    if (i < there) sum[j] += own[i][j];
        }
        store<wide>(d_weight + token * hidden + column, left, sum);
    }
}

void lt_cuda_embedding_backward(lt_device *base, lt_mem tokens, const lt_vocabulary *vocabulary, lt_mem d_out,
                                int64_t rows, int64_t hidden, lt_mem d_weight) {
    cuda_device *device = cuda_of(base);
    if (rows == 0) return;
    const uint64_t *keys = sort_tokens(device, tokens, vocabulary, rows);
    const auto kernel = is_wide(hidden, d_out, d_weight) ? sum_tokens<true> : sum_tokens<false>;
    lt_cuda_note(device, "the embedding's backward pass",
                 LT_LAUNCH(kernel, blocks(rows),
                           threads_for(divide_up<int64_t>(hidden, FOUR), MOST_SUM_THREADS), 0, device->stream,
                           keys, rows, vocabulary->count, bf16_of(d_out), hidden, floats_of(d_weight)));
}
