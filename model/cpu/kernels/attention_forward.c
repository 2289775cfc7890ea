#include "model/cpu/kernels/attention.h"

/* Scores to weights, row by row; marks the tiles that hold a weight above 0. */
static void weigh(const lt_attention_job *job, const attention_block *block, uint8_t *live) {
    const int64_t query =
        (block->batch * job->shape->heads + block->head) * job->shape->query_length + block->first;
    const int64_t first_tile = block->begin / LT_TILE_COLUMNS;
    for (int64_t row = 0; row < block->rows; row++) {
        float *strip = block->scores + row * block->stride;
        const float max = LT_KERNEL(lt_attention_row_max)(strip, block->columns);
        const float sum = LT_KERNEL(lt_attention_row_exp)(strip, block->columns, max);
        job->row_max[query + row] = max;
        job->row_sum[query + row] = sum;
        const float offset = row_offset(job, block, row);
        const vec inverse_sum = v_set(1.0f / sum), offsets = v_set(offset);
        for (int64_t tile = 0; tile < block->columns / LT_TILE_COLUMNS; tile++) {
            int alive = 0;
            for (int64_t i = tile * LT_TILE_COLUMNS; i < (tile + 1) * LT_TILE_COLUMNS; i += LANES) {
                vec p, weight;
                alive |= v_mask_count(row_weights(v_load(strip + i), inverse_sum, offsets, &p, &weight));
                v_store(strip + i, weight);
            }
            if (alive) live[first_tile + tile] = 1;
        }
        if (offset > 0.0f) clear_masked(block, row, strip);
    }
}

/* sums = weights v, over runs of neighbouring live tiles. */
static void gather_values(const lt_attention_job *job, const attention_block *block, const uint8_t *live) {
    bool started = false;
    for (int64_t tile = block->begin / LT_TILE_COLUMNS, end = block->end / LT_TILE_COLUMNS; tile < end;) {
        int64_t run = tile;
        while (run < end && live[run]) run++;
        if (run == tile) {
            tile++;
            continue;
        }
        const int64_t key = tile * LT_TILE_COLUMNS;
        product(&(lt_product){.m = block->rows,
                              .n = job->head_pad,
                              .k = (run - tile) * LT_TILE_COLUMNS,
                              .a = block->scores + (key - block->begin),
                              .a_row = block->stride,
                              .a_k = 1,
                              .b = rows_of(job, job->packed_v, block, key),
                              .ldb = job->head_pad,
                              .c = block->sums,
                              .ldc = job->head_pad,
                              .accumulate = started});
        started = true;
        tile = run;
    }
    if (!started) memset(block->sums, 0, sizeof(float) * (size_t)(block->rows * job->head_pad));
}

/* One block of queries of one head: lazy-attention.md, "Forward". */
void LT_KERNEL(lt_attention_forward)(const lt_attention_job *job, int64_t task, int worker) {
    const lt_attention *shape = job->shape;
    /* The longest blocks first, so that no thread is left with one at the end. */
    const int64_t row_block = job->row_blocks - 1 - task / (shape->batch * shape->heads);
    const int64_t pair = task % (shape->batch * shape->heads);
    attention_block block;
    LT_KERNEL(lt_attention_open)(job, pair / shape->heads, pair % shape->heads, row_block, worker, &block);
    LT_KERNEL(lt_attention_scores)(job, &block);
    uint8_t *live = live_tiles(job, &block);
    memset(live, 0, (size_t)job->tiles);
    weigh(job, &block, live);
    gather_values(job, &block, live);
    const int64_t width = shape->heads * shape->head_size;
    float *output = job->output + (block.batch * shape->query_length + block.first) * width +
                    block.head * shape->head_size;
    for (int64_t row = 0; row < block.rows; row++)
        memcpy(output + row * width, block.sums + row * job->head_pad,
               sizeof(float) * (size_t)shape->head_size);
}

/* Scores to weights without keeping anything for backward. */
static void weigh_only(const lt_attention_job *job, const attention_block *block) {
    for (int64_t row = 0; row < block->rows; row++) {
        float *strip = block->scores + row * block->stride;
        const float max = LT_KERNEL(lt_attention_row_max)(strip, block->columns);
        const vec inverse_sum = v_set(1.0f / LT_KERNEL(lt_attention_row_exp)(strip, block->columns, max));
        const vec offset = v_set(row_offset(job, block, row));
        for (int64_t i = 0; i < block->columns; i += LANES) {
            vec p, weight;
            row_weights(v_load(strip + i), inverse_sum, offset, &p, &weight);
            v_store(strip + i, weight);
        }
    }
}

/* Counts the visible part of one tile. */
static void count_tile(const attention_block *block, int64_t tile, double *statistics) {
    double visible = 0, zeros = 0;
    for (int64_t row = 0; row < block->rows; row++) {
        const int64_t first = first_key(block, row) - block->begin,
                      last = last_key(block, row) - block->begin;
        const int64_t begin = tile * LT_TILE_COLUMNS, end = begin + LT_TILE_COLUMNS;
        const float *weights = block->scores + row * block->stride;
        for (int64_t i = first > begin ? first : begin; i <= last && i < end; i++) {
            visible += 1;
            zeros += weights[i] == 0.0f;
            statistics[LT_STAT_MASS] += (double)weights[i];
        }
    }
    statistics[LT_STAT_VISIBLE] += visible;
    statistics[LT_STAT_ZEROS] += zeros;
    statistics[LT_STAT_TILES] += visible > 0;
    statistics[LT_STAT_LIVE_TILES] += visible > zeros;
}

/* The same block's counts and sums, to row_statistics. */
void LT_KERNEL(lt_attention_statistics)(const lt_attention_job *job, int64_t task, int worker) {
    const lt_attention *shape = job->shape;
    const int64_t pair = task / job->row_blocks;
    attention_block block;
    LT_KERNEL(lt_attention_open)
    (job, pair / shape->heads, pair % shape->heads, task % job->row_blocks, worker, &block);
    LT_KERNEL(lt_attention_scores)(job, &block);
    weigh_only(job, &block);
    double *statistics = job->row_statistics + task * LT_STATISTICS;
    memset(statistics, 0, sizeof(double) * LT_STATISTICS);
    for (int64_t tile = 0; tile < block.columns / LT_TILE_COLUMNS; tile++)
        count_tile(&block, tile, statistics);
    statistics[LT_STAT_ROWS] = (double)block.rows;
    for (int64_t row = 0; row < block.rows; row++) {
        const int64_t first = first_key(&block, row);
        if (last_key(&block, row) == first) continue;
        statistics[LT_STAT_SINK] += (double)block.scores[row * block.stride + first - block.begin];
        statistics[LT_STAT_SINK_ROWS] += 1;
    }
}
