/* What the forward, backward and statistics kernels of attention share: one block of up to 48 queries of one
 * head against all keys that it can see.
 *
 * Scores of the block lie in a strip [rows, columns] that grows with T (48 x T floats a thread), so forward
 * needs one product with the keys, and backward gets delta_i = sum_j p_ij g_ij by reading its two strips: no
 * second pass over keys and no kept u (lazy-attention.md counts 1 + 3f and 3 + 2f products a tile for kernels
 * that hold one tile at a time; with a strip it is 1 + f and 3 + 2f).
 *
 * The threshold is decided in one place, row_weights(): p = exp(s - max) * (1 / sum), rounded, is compared
 * with -tau / n. Backward recomputes p through the same functions from the same scores, so it sees the same
 * live entries.
 */
#ifndef LT_MODEL_CPU_KERNELS_ATTENTION_H
#define LT_MODEL_CPU_KERNELS_ATTENTION_H

#include "model/cpu/kernels/names.h"
#include "model/cpu/kernels/product.h"

typedef struct attention_block {
    int64_t batch, head, key_head;
    int64_t first, rows;         /* queries first .. first + rows - 1 */
    int64_t begin, end, columns; /* keys begin .. end - 1, whole tiles */
    int64_t stride;              /* of a strip, in floats */
    const int32_t *starts;       /* of the batch row's queries, or NULL */
    int64_t offset;              /* position of query 0 among the keys */
    float *q;                    /* [rows, head_pad], scaled by 1 / sqrt(head_size) */
    float *scores;               /* strip; then exp(s - max), weights, as the kernels go on */
    float *gradients;            /* strip (backward) */
    float *d_output;             /* [rows, head_pad] (backward) */
    float *sums;                 /* [rows, head_pad] */
    float *bias;                 /* [W] reversed: bias[W - 1 - d] for distance d */
} attention_block;

/* First and last key that query `row` of the block sees. */
LT_INLINE int64_t first_key(const attention_block *block, int64_t row) {
    return block->starts == NULL ? 0 : block->starts[block->first + row];
}

LT_INLINE int64_t last_key(const attention_block *block, int64_t row) {
    return block->offset + block->first + row;
}

/* Lays out this thread's scratch and finds the block's keys. */
void LT_KERNEL(lt_attention_open)(const lt_attention_job *job, int64_t batch, int64_t head, int64_t row_block,
                                  int worker, attention_block *block);

/* Fills the strip with the scores: q k / sqrt(D) + bias on visible keys, -infinity elsewhere. */
void LT_KERNEL(lt_attention_scores)(const lt_attention_job *job, attention_block *block);

/* The largest score of a row; replaces scores by exp(s - max) and gives their sum. */
float LT_KERNEL(lt_attention_row_max)(const float *scores, int64_t count);
float LT_KERNEL(lt_attention_row_exp)(float *scores, int64_t count, float max);

/* tau / n of a query that sees n keys; 0 under softmax. */
LT_INLINE float row_offset(const lt_attention_job *job, const attention_block *block, int64_t row) {
    if (job->shape->bias_length == 0) return 0.0f;
    return job->tau[block->head] / (float)(last_key(block, row) - first_key(block, row) + 1);
}

/* The predicate: p = e * inverse_sum as it would be stored, alive where p > -offset. */
LT_INLINE vmask row_weights(vec e, vec inverse_sum, vec offset, vec *p, vec *weight) {
    *p = v_rounded(e * inverse_sum);
    const vmask alive = v_greater(*p, v_set(0.0f) - offset);
    *weight = v_select(alive, *p + offset, v_set(0.0f));
    return alive;
}

/* tau > 0 makes p + offset positive on masked keys too: puts their zeros back. */
LT_INLINE void clear_masked(const attention_block *block, int64_t row, float *strip_row) {
    for (int64_t key = block->begin; key < first_key(block, row); key++) strip_row[key - block->begin] = 0.0f;
    for (int64_t key = last_key(block, row) + 1; key < block->end; key++)
        strip_row[key - block->begin] = 0.0f;
}

/* The same blocks of memory seen from the job: tile `tile` of a key head. */
LT_INLINE const float *tile_of(const lt_attention_job *job, const float *packed, const attention_block *block,
                               int64_t tile) {
    const int64_t pair = block->batch * job->shape->key_heads + block->key_head;
    return packed + (pair * job->tiles + tile) * job->shape->head_size * LT_TILE_COLUMNS;
}

LT_INLINE const float *rows_of(const lt_attention_job *job, const float *packed, const attention_block *block,
                               int64_t key) {
    const int64_t pair = block->batch * job->shape->key_heads + block->key_head;
    return packed + (pair * job->key_rows + key) * job->head_pad;
}

LT_INLINE uint8_t *live_tiles(const lt_attention_job *job, const attention_block *block) {
    const int64_t block_index = block->first / LT_TILE_ROWS;
    return job->live +
           ((block->batch * job->shape->heads + block->head) * job->row_blocks + block_index) * job->tiles;
}

#endif
