/* The kernels of a CPU device: functions over plain arrays, one thread each, compiled once for every
 * instruction set and reached through a table. model/cpu/ cuts operations into tasks, these do a task. */
#ifndef LT_MODEL_CPU_KERNELS_KERNELS_H
#define LT_MODEL_CPU_KERNELS_KERNELS_H

#include "model/ops.h"

enum {
    LT_TILE_ROWS = 48,    /* queries of an attention tile: a multiple of the register block's 6 and 8 rows */
    LT_TILE_COLUMNS = 64, /* keys of an attention tile: a multiple of two vectors of 16 */
    LT_HEAD_ALIGN = 16,   /* packed heads are padded with zeros to a multiple of this */
};

/* One attention operation, as the tasks see it. Packed arrays are laid out per key head p = b * key_heads +
 * kh: packed_kt, packed_vt [p][tile][head_size][LT_TILE_COLUMNS]   keys and values, transposed tile by tile
 *   packed_k, packed_v   [p][key_rows][head_pad]                 the same, row by row
 * Keys past the end of the sequence are zeros. A backward task is a (batch, head, group): a group is every
 * groups-th block of queries, so that few heads still make enough tasks; its sums are added up in order
 * later. */
typedef struct lt_attention_job {
    const lt_attention *shape;
    int64_t head_pad, tiles, key_rows, row_blocks, groups; /* key_rows = tiles * LT_TILE_COLUMNS */
    bool backward;
    const float *q, *k, *v, *bias, *tau;
    const int32_t *document_starts;
    float *output;
    float *row_max, *row_sum; /* [batch, heads, Tq]: kept for backward */
    uint8_t *live;            /* [batch, heads, row_blocks, tiles]: 1 where a tile has a weight above 0 */
    float *packed_kt, *packed_k, *packed_vt, *packed_v;
    const float *d_output;
    float *d_q, *d_k, *d_v, *d_bias, *d_tau;
    float *sum_dk, *sum_dv; /* [batch, heads, groups][key_rows][head_pad] */
    float *sum_bias;        /* [batch, heads, groups][bias_pad] */
    double *sum_tau;        /* [batch, heads, groups] */
    int64_t bias_pad;       /* W rounded up to whole vectors of 16 */
    double *row_statistics; /* [batch, heads, row_blocks, LT_STATISTICS] */
    float *scratch;         /* [threads][scratch_floats] */
    int64_t scratch_floats;
} lt_attention_job;

typedef struct lt_kernels {
    const char *name;

    /* Tasks: one key tile of one key head; one block of queries of one head; one (batch, head, group); one
     * tile of keys of one key head; one head. */
    void (*attention_pack)(const lt_attention_job *, int64_t task, int worker);
    void (*attention_forward)(const lt_attention_job *, int64_t task, int worker);
    void (*attention_backward)(const lt_attention_job *, int64_t task, int worker);
    void (*attention_sum_keys)(const lt_attention_job *, int64_t task, int worker);
    void (*attention_sum_lazy)(const lt_attention_job *, int64_t task, int worker);
    void (*attention_statistics)(const lt_attention_job *, int64_t task, int worker);

    void (*rmsnorm_forward)(const float *x, const float *weight, float epsilon, int64_t hidden, float *y,
                            float *inverse_rms);
    /* d_weight += d_y * x * inverse_rms of this row. */
    void (*rmsnorm_backward)(const float *x, const float *weight, float inverse_rms, const float *d_y,
                             int64_t hidden, float *d_x, float *d_weight);
    void (*rope)(float *x, const float *angles, int64_t heads, int64_t head_size, bool inverse);
    void (*swiglu_forward)(const float *gate, const float *up, int64_t ffn, float *out);
    void (*swiglu_backward)(const float *gate, const float *up, const float *d_out, int64_t ffn,
                            float *d_gate, float *d_up, float *out);
    double (*cross_entropy)(float *logits, int64_t vocabulary, int32_t target, float scale, bool gradient);
    /* The sum of exp(logit - *largest); with `keep` the logits become these. */
    double (*exponentials)(float *logits, int64_t count, bool keep, float *largest);
    void (*multiply)(float *values, float factor, int64_t count);
    void (*add)(float *to, const float *from, int64_t count);
    double (*sum_squares)(const float *values, int64_t count);
    void (*adamw)(float *weights, const float *gradients, float *m, float *v, int64_t count,
                  const lt_adamw *);
} lt_kernels;

/* Floats of scratch that a thread needs for `shape`. */
int64_t lt_attention_scratch_floats(const lt_attention *shape, bool backward);

#endif
