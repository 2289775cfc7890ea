#include "model/cpu/kernels/attention.h"

/* What a task adds up over its blocks of queries. */
typedef struct group_sums {
    float *dk, *dv; /* [key_rows, head_pad] */
    float *bias;    /* [W] reversed, as the block's bias */
    double tau;
} group_sums;

/* gradients strip = d_output v^T, on live tiles; the others stay unread. */
static void value_gradients(const lt_attention_job *job, const attention_block *block, const uint8_t *live) {
    for (int64_t key = block->begin; key < block->end; key += LT_TILE_COLUMNS)
        if (live[key / LT_TILE_COLUMNS])
            product(&(lt_product){.m = block->rows,
                                  .n = LT_TILE_COLUMNS,
                                  .k = job->shape->head_size,
                                  .a = block->d_output,
                                  .a_row = job->head_pad,
                                  .a_k = 1,
                                  .b = tile_of(job, job->packed_vt, block, key / LT_TILE_COLUMNS),
                                  .ldb = LT_TILE_COLUMNS,
                                  .c = block->gradients + (key - block->begin),
                                  .ldc = block->stride});
}

/* g where alive, else 0, to the gradients strip; p to the scores strip. Gives delta = sum p g and sum g. */
static void probabilities(const uint8_t *live, int64_t columns, float *scores, float *gradients,
                          vec inverse_sum, vec offset, float *delta, float *sum_g) {
    vec delta_sum = v_set(0.0f), g_sum = v_set(0.0f);
    for (int64_t tile = 0; tile < columns / LT_TILE_COLUMNS; tile++) {
        const int64_t begin = tile * LT_TILE_COLUMNS, end = begin + LT_TILE_COLUMNS;
        for (int64_t i = begin; i < end; i += LANES) {
            vec p, weight, g = v_set(0.0f);
            const vmask alive = row_weights(v_load(scores + i), inverse_sum, offset, &p, &weight);
            if (live[tile]) g = v_select(alive, v_load(gradients + i), g);
            v_store(scores + i, p);
            v_store(gradients + i, g);
            delta_sum = v_fma(p, g, delta_sum);
            g_sum = g_sum + g;
        }
    }
    *delta = v_sum(delta_sum);
    *sum_g = v_sum(g_sum);
}

/* ds = p (g - delta) to the gradients strip, the weight a to the scores strip. */
static void score_gradients(int64_t columns, float *scores, float *gradients, float delta, vec offset) {
    const vec zero = v_set(0.0f), deltas = v_set(delta), threshold = zero - offset;
    for (int64_t i = 0; i < columns; i += LANES) {
        const vec p = v_load(scores + i), g = v_load(gradients + i);
        v_store(gradients + i, p * (g - deltas));
        v_store(scores + i, v_select(v_greater(p, threshold), p + offset, zero));
    }
}

/* The bias of distance i - j gets ds_ij. */
static void bias_gradients(const lt_attention_job *job, const attention_block *block, int64_t row,
                           float *sums) {
    const float *gradients = block->gradients + row * block->stride;
    const int64_t first = first_key(block, row) - block->begin, last = last_key(block, row) - block->begin;
    const int64_t nearest = last - job->shape->bias_length + 1;
    int64_t i = first > nearest ? first : nearest;
    for (; i + LANES <= last + 1; i += LANES)
        v_store(sums + (i - nearest), v_load(sums + (i - nearest)) + v_load(gradients + i));
    for (; i <= last; i++) sums[i - nearest] += gradients[i];
}

/* Both strips, row by row, to ds and a; the sums for tau and the bias on the way. */
static void differentiate(const lt_attention_job *job, const attention_block *block, const uint8_t *live,
                          group_sums *sums) {
    const int64_t query =
        (block->batch * job->shape->heads + block->head) * job->shape->query_length + block->first;
    for (int64_t row = 0; row < block->rows; row++) {
        float *scores = block->scores + row * block->stride,
              *gradients = block->gradients + row * block->stride;
        LT_KERNEL(lt_attention_row_exp)(scores, block->columns, job->row_max[query + row]);
        const vec inverse_sum = v_set(1.0f / job->row_sum[query + row]);
        const float offset = row_offset(job, block, row);
        if (offset > 0.0f) clear_masked(block, row, gradients);
        float delta, sum_g;
        probabilities(live + block->begin / LT_TILE_COLUMNS, block->columns, scores, gradients, inverse_sum,
                      v_set(offset), &delta, &sum_g);
        score_gradients(block->columns, scores, gradients, delta, v_set(offset));
        if (offset > 0.0f) clear_masked(block, row, scores);
        if (job->shape->bias_length == 0) continue;
        sums->tau += (double)sum_g / (double)(last_key(block, row) - first_key(block, row) + 1);
        bias_gradients(job, block, row, sums->bias);
    }
}

/* dk += ds^T q (q carries the scale already) on every tile, dv += a^T d_output on live ones. */
static void key_gradients(const lt_attention_job *job, const attention_block *block, const uint8_t *live,
                          group_sums *sums) {
    lt_product transposed = {.m = LT_TILE_COLUMNS,
                             .n = job->head_pad,
                             .k = block->rows,
                             .a_row = 1,
                             .a_k = block->stride,
                             .ldb = job->head_pad,
                             .ldc = job->head_pad,
                             .accumulate = true};
    for (int64_t key = block->begin; key < block->end; key += LT_TILE_COLUMNS) {
        transposed.a = block->gradients + (key - block->begin);
        transposed.b = block->q;
        transposed.c = sums->dk + key * job->head_pad;
        product(&transposed);
        if (!live[key / LT_TILE_COLUMNS]) continue;
        transposed.a = block->scores + (key - block->begin);
        transposed.b = block->d_output;
        transposed.c = sums->dv + key * job->head_pad;
        product(&transposed);
    }
}

static void query_gradients(const lt_attention_job *job, const attention_block *block) {
    const lt_attention *shape = job->shape;
    product(&(lt_product){.m = block->rows,
                          .n = job->head_pad,
                          .k = block->columns,
                          .a = block->gradients,
                          .a_row = block->stride,
                          .a_k = 1,
                          .b = rows_of(job, job->packed_k, block, block->begin),
                          .ldb = job->head_pad,
                          .c = block->sums,
                          .ldc = job->head_pad});
    const float scale = 1.0f / sqrtf((float)shape->head_size);
    float *d_q = job->d_q + (block->batch * shape->query_length + block->first) * shape->query_stride +
                 block->head * shape->head_size;
    for (int64_t row = 0; row < block->rows; row++)
        for (int64_t d = 0; d < shape->head_size; d++)
            d_q[row * shape->query_stride + d] = block->sums[row * job->head_pad + d] * scale;
}

/* One group of query blocks of one head: lazy-attention.md, "Backward". */
void LT_KERNEL(lt_attention_backward)(const lt_attention_job *job, int64_t task, int worker) {
    const lt_attention *shape = job->shape;
    const int64_t pair = task / job->groups, group = task % job->groups;
    const int64_t batch = pair / shape->heads, head = pair % shape->heads,
                  keys = job->key_rows * job->head_pad;
    group_sums sums = {.dk = job->sum_dk + task * keys,
                       .dv = job->sum_dv + task * keys,
                       .bias = job->sum_bias + task * job->bias_pad};
    memset(sums.dk, 0, sizeof(float) * (size_t)keys);
    memset(sums.dv, 0, sizeof(float) * (size_t)keys);
    memset(sums.bias, 0, sizeof(float) * (size_t)job->bias_pad);
    for (int64_t row_block = group; row_block < job->row_blocks; row_block += job->groups) {
        attention_block block;
        LT_KERNEL(lt_attention_open)(job, batch, head, row_block, worker, &block);
        const int64_t width = shape->heads * shape->head_size;
        const float *d_output =
            job->d_output + (batch * shape->query_length + block.first) * width + head * shape->head_size;
        for (int64_t row = 0; row < block.rows; row++)
            for (int64_t d = 0; d < job->head_pad; d++)
                block.d_output[row * job->head_pad + d] =
                    d < shape->head_size ? d_output[row * width + d] : 0.0f;
        const uint8_t *live = live_tiles(job, &block);
        LT_KERNEL(lt_attention_scores)(job, &block);
        value_gradients(job, &block, live);
        differentiate(job, &block, live, &sums);
        query_gradients(job, &block);
        key_gradients(job, &block, live, &sums);
    }
    job->sum_tau[task] = sums.tau;
}

/* Adds up the groups and query heads of one tile of keys, in order. */
void LT_KERNEL(lt_attention_sum_keys)(const lt_attention_job *job, int64_t task, int worker) {
    (void)worker;
    const lt_attention *shape = job->shape;
    const int64_t pair = task / job->tiles, first = task % job->tiles * LT_TILE_COLUMNS;
    const int64_t batch = pair / shape->key_heads, key_head = pair % shape->key_heads;
    const int64_t shared = shape->heads / shape->key_heads, keys = job->key_rows * job->head_pad;
    const int64_t sums_begin = (batch * shape->heads + key_head * shared) * job->groups;
    for (int64_t key = first; key < first + LT_TILE_COLUMNS && key < shape->key_length; key++) {
        const int64_t to =
            (batch * shape->key_length + key) * shape->key_stride + key_head * shape->head_size;
        for (int64_t d = 0; d < shape->head_size; d++) {
            float dk = 0.0f, dv = 0.0f;
            for (int64_t part = sums_begin; part < sums_begin + shared * job->groups; part++) {
                dk += job->sum_dk[part * keys + key * job->head_pad + d];
                dv += job->sum_dv[part * keys + key * job->head_pad + d];
            }
            job->d_k[to + d] = dk;
            job->d_v[to + d] = dv;
        }
    }
}

/* Adds up the bias and tau of one head over batch rows and groups, in order. */
void LT_KERNEL(lt_attention_sum_lazy)(const lt_attention_job *job, int64_t head, int worker) {
    (void)worker;
    const lt_attention *shape = job->shape;
    const int64_t length = shape->bias_length;
    double tau = 0;
    float *d_bias = job->d_bias + head * length;
    for (int64_t batch = 0; batch < shape->batch; batch++)
        for (int64_t group = 0; group < job->groups; group++) {
            const int64_t task = (batch * shape->heads + head) * job->groups + group;
            const float *sums = job->sum_bias + task * job->bias_pad;
            for (int64_t d = 0; d < length; d++) d_bias[d] += sums[length - 1 - d];
            tau += job->sum_tau[task];
        }
    job->d_tau[head] += (float)tau;
}
