#include "model/cpu/kernels/attention.h"

void LT_KERNEL(lt_attention_open)(const lt_attention_job *job, int64_t batch, int64_t head, int64_t row_block,
                                  int worker, attention_block *block) {
    const lt_attention *shape = job->shape;
    *block = (attention_block){.batch = batch, .head = head};
    block->key_head = head / (shape->heads / shape->key_heads);
    block->first = row_block * LT_TILE_ROWS;
    block->rows = shape->query_length - block->first;
    if (block->rows > LT_TILE_ROWS) block->rows = LT_TILE_ROWS;
    block->offset = shape->key_length - shape->query_length;
    if (job->document_starts != NULL) block->starts = job->document_starts + batch * shape->query_length;

    int64_t lowest = first_key(block, 0); /* starts never fall along a row */
    block->begin = lowest / LT_TILE_COLUMNS * LT_TILE_COLUMNS;
    block->end = (last_key(block, block->rows - 1) / LT_TILE_COLUMNS + 1) * LT_TILE_COLUMNS;
    block->columns = block->end - block->begin;
    block->stride = job->key_rows + LT_HEAD_ALIGN; /* off the powers of two, which would share cache sets */

    float *scratch = job->scratch + worker * job->scratch_floats;
    const int64_t tile = LT_TILE_ROWS * job->head_pad, strip = LT_TILE_ROWS * block->stride;
    block->q = scratch;
    block->sums = block->q + tile;
    block->bias = block->sums + tile;
    block->scores = block->bias + job->bias_pad;
    block->d_output = block->scores + strip;
    block->gradients = block->d_output + tile;

    const float scale = 1.0f / sqrtf((float)shape->head_size);
    const float *q =
        job->q + (batch * shape->query_length + block->first) * shape->query_stride + head * shape->head_size;
    for (int64_t row = 0; row < block->rows; row++, q += shape->query_stride)
        for (int64_t d = 0; d < job->head_pad; d++)
            block->q[row * job->head_pad + d] = d < shape->head_size ? q[d] * scale : 0.0f;
    for (int64_t d = 0; d < shape->bias_length; d++)
        block->bias[shape->bias_length - 1 - d] = job->bias[head * shape->bias_length + d];
}

/* Adds the bias to the visible keys within W of the query and hides the others. */
static void mask_and_bias(const lt_attention_job *job, const attention_block *block, int64_t row) {
    float *scores = block->scores + row * block->stride;
    const int64_t first = first_key(block, row) - block->begin, last = last_key(block, row) - block->begin;
    for (int64_t i = 0; i < first; i++) scores[i] = -INFINITY;
    for (int64_t i = last + 1; i < block->columns; i++) scores[i] = -INFINITY;
    const int64_t nearest =
        last - job->shape->bias_length + 1; /* the key that meets bias[0] of the reversed table */
    int64_t i = first > nearest ? first : nearest;
    for (; i + LANES <= last + 1; i += LANES)
        v_store(scores + i, v_load(scores + i) + v_load(block->bias + (i - nearest)));
    for (; i <= last; i++) scores[i] += block->bias[i - nearest];
}

void LT_KERNEL(lt_attention_scores)(const lt_attention_job *job, attention_block *block) {
    for (int64_t key = block->begin; key < block->end; key += LT_TILE_COLUMNS)
        product(&(lt_product){.m = block->rows,
                              .n = LT_TILE_COLUMNS,
                              .k = job->shape->head_size,
                              .a = block->q,
                              .a_row = job->head_pad,
                              .a_k = 1,
                              .b = tile_of(job, job->packed_kt, block, key / LT_TILE_COLUMNS),
                              .ldb = LT_TILE_COLUMNS,
                              .c = block->scores + (key - block->begin),
                              .ldc = block->stride});
    for (int64_t row = 0; row < block->rows; row++) mask_and_bias(job, block, row);
}

float LT_KERNEL(lt_attention_row_max)(const float *scores, int64_t count) {
    vec largest = v_set(-INFINITY);
    for (int64_t i = 0; i < count; i += LANES) largest = v_max(v_load(scores + i), largest);
    return v_largest(largest);
}

float LT_KERNEL(lt_attention_row_exp)(float *scores, int64_t count, float max) {
    const vec largest = v_set(max);
    vec sum = v_set(0.0f);
    for (int64_t i = 0; i < count; i += LANES) {
        const vec e = v_exp(v_load(scores + i) - largest);
        v_store(scores + i, e);
        sum = sum + e;
    }
    return v_sum(sum);
}

/* Packs one tile of keys, and of values, of one key head. */
void LT_KERNEL(lt_attention_pack)(const lt_attention_job *job, int64_t task, int worker) {
    (void)worker;
    const lt_attention *shape = job->shape;
    const int64_t pair = task / job->tiles, tile = task % job->tiles;
    const int64_t batch = pair / shape->key_heads, head = pair % shape->key_heads;
    const int64_t size = shape->head_size, pad = job->head_pad, first = tile * LT_TILE_COLUMNS;
    const int64_t at = (batch * shape->key_length + first) * shape->key_stride + head * size;
    const int64_t packed_rows = (pair * job->key_rows + first) * pad;
    const int64_t packed_tile = (pair * job->tiles + tile) * size * LT_TILE_COLUMNS;
    int64_t rows = shape->key_length - first;
    if (rows > LT_TILE_COLUMNS) rows = LT_TILE_COLUMNS;

    for (int which = 0; which < 2; which++) {
        const float *from = (which == 0 ? job->k : job->v) + at;
        float *transposed = which == 0 ? job->packed_kt : job->packed_vt;
        float *by_row = which == 0 ? job->packed_k : job->packed_v;
        if (transposed != NULL) {
            transposed += packed_tile;
            for (int64_t d = 0; d < size; d++)
                for (int64_t row = 0; row < LT_TILE_COLUMNS; row++)
                    transposed[d * LT_TILE_COLUMNS + row] =
                        row < rows ? from[row * shape->key_stride + d] : 0.0f;
        }
        if (by_row != NULL) {
            by_row += packed_rows;
            for (int64_t row = 0; row < LT_TILE_COLUMNS; row++)
                for (int64_t d = 0; d < pad; d++)
                    by_row[row * pad + d] = row < rows && d < size ? from[row * shape->key_stride + d] : 0.0f;
        }
    }
}
