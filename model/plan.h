/* Inside the model: what it is made of, and the memory plan. */
#ifndef LT_MODEL_PLAN_H
#define LT_MODEL_PLAN_H

#include "model/model.h"

/* The parameters of one layer as places in the flat arrays. qkv stands for q_proj, k_proj, v_proj, which are
 * neighbours; gate_up likewise. bias and tau are -1 under softmax. */
typedef struct lt_layer_offsets {
    int64_t attn_norm, qkv, o_proj, bias, tau, mlp_norm, gate_up, down_proj;
} lt_layer_offsets;

/* The matrices that meet activations, in the compute type. Where that is float32 they lie in the parameters;
 * else they are rounded copies, each at a place that suits matrix products. */
typedef struct lt_layer_matrices {
    lt_mem qkv, o_proj, gate_up, down_proj;
} lt_layer_matrices;

/* What forward keeps of one layer for backward (what is recomputed has one place for all layers), rows x ...
 * as on the right; "own rows" are this rank's. Heads and the like are those that this rank holds. */
typedef struct lt_layer_kept {
    lt_mem input;     /* own rows, hidden: the residual stream before attention */
    lt_mem attn_rms;  /* own rows, 1 (float32) */
    lt_mem qkv;       /* (heads + 2 key heads) head_size, rotated */
    lt_mem attention; /* heads head_size: what attention gives to o_proj */
    lt_mem saved;     /* of the attention operation */
    lt_mem middle;    /* own rows, hidden: the residual stream before the MLP */
    lt_mem mlp_rms;   /* own rows, 1 */
    lt_mem gate_up;   /* 2 intermediate */
} lt_layer_kept;

struct lt_model {
    lt_device *device;
    lt_model_options options;
    const lt_tensor_group *group; /* NULL: one rank */
    int rank, ranks;              /* of the group */
    lt_model_shape shape;         /* of what this rank holds */
    lt_vocabulary vocabulary;     /* likewise */
    int64_t *cuts;                /* [ranks + 1], for exchanges */
    double *exchanged;            /* of a group: statistics of all heads, on the host */
    lt_registry registry;
    lt_memory_plan plan;

    int64_t embedding, final_norm, head; /* offsets; head = embedding when tied */
    lt_layer_offsets *layers;
    lt_layer_matrices *matrices;          /* of each layer */
    lt_mem embedding_matrix, head_matrix; /* one where they are tied */
    bool matrices_are_old;                /* the parameters have changed since they were rounded */

    lt_mem memory; /* one allocation holds everything below */
    size_t memory_bytes;

    lt_span own;             /* this model's share of the flat arrays */
    lt_mem parameters;       /* float32 [registry.elements] */
    lt_mem moment1, moment2; /* float32, of own */
    lt_mem *gradients;       /* [gradient_buffers] as parameters */
    lt_mem loss_slots;       /* float64 [options.loss_slots], and right after them */
    lt_mem squares;          /* float64 [square_sums]; 0 for ever outside own */
    int64_t square_sums;
    double *results;                    /* on the host: loss_slots and squares */
    lt_mem pieces;                      /* lt_flat_piece [piece_count], of own, from its first element on */
    int64_t piece_count, pieces_before; /* before own: of squares */

    int64_t most_rows;                       /* micro_batch T */
    int64_t head_rows;                       /* tokens whose logits are held at a time, and */
    int64_t logits_width;                    /* how far their rows lie apart */
    int64_t attention_width, qkv_width;      /* heads head_size; (heads + 2 key heads) head_size */
    lt_mem rope_table;                       /* [positions, head_size] */
    lt_mem inputs, targets, document_starts; /* int32 [most_rows], one after the other */
    int32_t *tokens;                         /* on the host: they, on their way */
    lt_layer_kept *kept; /* a model that does not train has one layer's and uses it again for each */
    lt_mem stream;       /* own rows, hidden: the residual stream after the last layer */
    lt_mem final_rms;    /* own rows, 1 */
    lt_mem normed;       /* hidden; then the partial sums of lt_partial_of() */
    lt_mem arrivals;     /* of a group: own rows of the other ranks' partial sums */
    lt_mem activated;    /* intermediate: silu(gate) up */
    lt_mem logits;       /* head_rows x logits_width */
    lt_mem loss_parts;   /* of a group: float64 [ranks, head_rows, LT_LOSS_PARTS] */
    lt_mem losses;       /* float64, rows */
    lt_mem row_sums;     /* float64, micro_batch */
    lt_mem d_stream;     /* hidden */
    lt_mem d_normed;     /* own rows, hidden */
    lt_mem d_attention;  /* heads head_size: there is no d_normed where this is, so they share a place */
    lt_mem d_qkv;        /* qkv_width */
    lt_mem d_gate_up;    /* 2 intermediate */
    lt_mem d_activated;  /* intermediate */
    lt_mem statistics;   /* float64 [layers, heads, LT_STATISTICS] */
};

/* What of elements [first, first + count) of a parameter is in this model's share; where nothing is, first >=
 * end.
 */
lt_span lt_model_own(const lt_model *model, const lt_parameter *parameter, int64_t first, int64_t count);

/* The pieces of this model's share, to `pieces` if it is not NULL; gives their number and that of all
 * parameters' pieces before them. */
int64_t lt_model_pieces(const lt_model *model, int64_t *before, lt_flat_piece *pieces);

/* Rounds the matrices anew where the parameters have changed: before anything reads them. */
void lt_model_refresh_matrices(lt_model *model);

/* The attention operation of layer `layer` over `batch` rows of T tokens. */
lt_attention lt_model_attention(const lt_model *model, int64_t layer, int64_t batch, bool documents);

/* One pass over a micro-batch of `batch` rows of T tokens, here called rows as they are those of matrices. Of
 * the stream this rank has `own` rows from `own_first` on; where there are fewer than ranks, perhaps none. */
typedef struct lt_pass {
    int64_t batch, rows, own_first, own;
    bool documents;
} lt_pass;

lt_pass lt_pass_of(const lt_model *model, const lt_tokens *tokens);

/* This rank's rows within all rows of a matrix [rows, hidden]. */
lt_mem lt_own_rows(const lt_model *model, const lt_pass *pass, lt_mem matrix);

/* Each rank has its own rows in place in `matrix` [rows, hidden], and gets the others. Collective. */
lt_status lt_gather_rows(lt_model *model, const lt_pass *pass, lt_mem matrix);

/* Where this rank's part of a sum [rows, hidden] over the ranks goes, of which each keeps its own rows in
 * `own`; what lt_norm_forward() gave is then gone. lt_sum_rows() adds the ranks' parts up. On one rank the
 * part is the sum, and in its place. Collective. */
lt_mem lt_partial_of(const lt_model *model, lt_mem own);
lt_status lt_sum_rows(lt_model *model, const lt_pass *pass, lt_mem own);

/* model->normed [rows, hidden] = the norm, of weight `weight`, of the ranks' own rows `x`. Collective. */
lt_status lt_norm_forward(lt_model *model, const lt_pass *pass, lt_mem x, int64_t weight, lt_mem rms);

/* Sums the ranks' gradients of normed rows, lt_partial_of(d_normed), and adds what the norm makes of them to
 * the own rows of d_stream and to the gradients of `weight`. Collective. */
lt_status lt_norm_backward(lt_model *model, const lt_pass *pass, lt_mem x, int64_t weight, lt_mem rms,
                           lt_mem gradients);

/* Forward through all layers: tokens are on the device already. With `statistics` (float64 [layers, heads,
 * LT_STATISTICS]) also counts each layer's weights. Collective, as the two below. */
lt_status lt_forward(lt_model *model, const lt_pass *pass, lt_mem statistics);

/* Computes again what forward did not keep of a layer. The last layer's is still there. */
lt_status lt_recompute_layer(lt_model *model, int64_t layer, const lt_pass *pass);

/* From the gradient of the stream (model->d_stream) back to the embedding; gradients to `gradients`, of which
 * `watch` is told. */
lt_status lt_backward(lt_model *model, const lt_pass *pass, lt_mem gradients, bool first,
                      const lt_gradient_watch *watch);

/* Tells `watch`, if there is one, of elements [first, end). */
static inline lt_status lt_gradients_ready(const lt_gradient_watch *watch, int64_t first, int64_t end) {
    return watch == NULL ? LT_OK : watch->ready(watch->context, first, end - first);
}

/* Final norm, head and loss over the stream: losses to model->losses. With `gradients` also their gradients,
 * scaled, and model->d_stream. */
lt_status lt_head_loss(lt_model *model, const lt_pass *pass, double scale, const lt_mem *gradients,
                       bool first);

/* Cosines and sines of positions 0 .. positions - 1, [positions, head_size], as lt_ops.rope reads them. */
void lt_rope_angles(const lt_model_shape *shape, int64_t positions, float *table);

/* y [rows, out] = x [rows, in] weight [out, in]^T (+ addend, where it is somewhere). */
void lt_linear(lt_device *device, lt_mem x, lt_mem weight, int64_t rows, int64_t in, int64_t out,
               lt_mem addend, lt_mem y);

/* d_weight [out, in] (+)= d_y [rows, out]^T x [rows, in]. */
void lt_linear_weight_gradient(lt_device *device, lt_mem d_y, lt_mem x, int64_t rows, int64_t in, int64_t out,
                               lt_mem d_weight, bool accumulate);

/* d_x [rows, in] = d_y [rows, out] weight [out, in]. */
void lt_linear_input_gradient(lt_device *device, lt_mem d_y, lt_mem weight, int64_t rows, int64_t in,
                              int64_t out, lt_mem d_x);

#endif
