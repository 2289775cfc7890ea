/* Forward through the layers. Each is pre-norm, without biases:
 *   x += o_proj(attention(norm(x)));  x += down(silu(gate(norm(x))) * up(norm(x)))
 * In a tensor-parallel group the stream x, its norms included, has the rank's own rows; what lies between a
 * norm and the next addition has all rows, and the rank's heads and columns (rows.c).
 */
#include "model/plan.h"

lt_attention lt_model_attention(const lt_model *model, int64_t layer, int64_t batch, bool documents) {
    const lt_model_shape *shape = &model->shape;
    const lt_layer_kept *kept = &model->kept[model->options.training ? layer : 0];
    const int64_t head_size = lt_head_size(shape);
    lt_attention attention = {
        .batch = batch,
        .query_length = model->options.sequence_length,
        .key_length = model->options.sequence_length,
        .heads = shape->heads,
        .key_heads = shape->key_heads,
        .head_size = head_size,
        .bias_length = shape->bias_length,
        .q = kept->qkv,
        .k = lt_at(kept->qkv, shape->heads * head_size),
        .v = lt_at(kept->qkv, (shape->heads + shape->key_heads) * head_size),
        .query_stride = model->qkv_width,
        .key_stride = model->qkv_width,
        .document_starts = documents ? model->document_starts : LT_NOWHERE,
        .output = kept->attention,
        .saved = kept->saved,
    };
    if (shape->bias_length > 0) {
        attention.bias = lt_at(model->parameters, model->layers[layer].bias);
        attention.tau = lt_at(model->parameters, model->layers[layer].tau);
    }
    return attention;
}

/* y = residual + x weight^T, where x [rows, width] has this rank's columns: the ranks' products are summed.
 */
static lt_status add_product(lt_model *model, const lt_pass *pass, lt_mem x, lt_mem matrix, int64_t width,
                             lt_mem residual, lt_mem y) {
    lt_device *device = model->device;
    const int64_t hidden = model->shape.hidden;
    if (model->group == NULL) {
        lt_linear(device, x, matrix, pass->rows, width, hidden, residual, y);
        return LT_OK;
    }
    lt_linear(device, x, matrix, pass->rows, width, hidden, LT_NOWHERE, lt_partial_of(model, y));
    LT_CHECK(lt_sum_rows(model, pass, y));
    device->ops->add(device, y, residual, pass->own * hidden);
    return LT_OK;
}

static lt_status attend(lt_model *model, int64_t layer, const lt_layer_kept *kept, const lt_pass *pass,
                        lt_mem statistics) {
    lt_device *device = model->device;
    const lt_ops *ops = device->ops;
    const lt_model_shape *shape = &model->shape;
    const lt_layer_offsets *at = &model->layers[layer];

    LT_CHECK(lt_norm_forward(model, pass, kept->input, at->attn_norm, kept->attn_rms));
    lt_linear(device, model->normed, model->matrices[layer].qkv, pass->rows, shape->hidden, model->qkv_width,
              LT_NOWHERE, kept->qkv);
    ops->rope(device, kept->qkv, model->qkv_width, model->rope_table, pass->rows,
              model->options.sequence_length, 0, shape->heads + shape->key_heads, lt_head_size(shape), false);
    const lt_attention attention = lt_model_attention(model, layer, pass->batch, pass->documents);
    ops->attention_forward(device, &attention);
    if (statistics.address != NULL)
        ops->attention_statistics(device, &attention,
                                  lt_at(statistics, layer * shape->heads * LT_STATISTICS));
    return LT_OK;
}

static lt_status end_attention(lt_model *model, int64_t layer, const lt_layer_kept *kept,
                               const lt_pass *pass) {
    return add_product(model, pass, kept->attention, model->matrices[layer].o_proj, model->attention_width,
                       kept->input, kept->middle);
}

static lt_status open_gates(lt_model *model, int64_t layer, const lt_layer_kept *kept, const lt_pass *pass) {
    LT_CHECK(lt_norm_forward(model, pass, kept->middle, model->layers[layer].mlp_norm, kept->mlp_rms));
    lt_linear(model->device, model->normed, model->matrices[layer].gate_up, pass->rows, model->shape.hidden,
              2 * model->shape.intermediate, LT_NOWHERE, kept->gate_up);
    return LT_OK;
}

static lt_status end_mlp(lt_model *model, int64_t layer, const lt_layer_kept *kept, const lt_pass *pass,
                         lt_mem output) {
    const int64_t ffn = model->shape.intermediate;
    model->device->ops->swiglu_forward(model->device, kept->gate_up, pass->rows, ffn, model->activated);
    return add_product(model, pass, model->activated, model->matrices[layer].down_proj, ffn, kept->middle,
                       output);
}

lt_status lt_recompute_layer(lt_model *model, int64_t layer, const lt_pass *pass) {
    const lt_layer_kept *kept = &model->kept[layer];
    const lt_recompute recompute = model->options.recompute;
    if (recompute == LT_RECOMPUTE_NONE || layer == model->shape.layers - 1) return LT_OK;
    LT_CHECK(attend(model, layer, kept, pass, LT_NOWHERE));
    if (recompute == LT_RECOMPUTE_ATTENTION) return LT_OK;
    LT_CHECK(end_attention(model, layer, kept, pass));
    return open_gates(model, layer, kept, pass);
}

lt_status lt_forward(lt_model *model, const lt_pass *pass, lt_mem statistics) {
    const int64_t layers = model->shape.layers;
    const bool trains = model->options.training;
    const lt_mem first = model->kept[0].input;
    model->device->ops->embedding_forward(model->device, model->inputs, &model->vocabulary,
                                          model->embedding_matrix, pass->rows, model->shape.hidden,
                                          lt_partial_of(model, first));
    LT_CHECK(lt_sum_rows(model, pass, first));
    for (int64_t layer = 0; layer < layers; layer++) {
        const lt_layer_kept *kept = &model->kept[trains ? layer : 0];
        const bool last = layer == layers - 1;
        LT_CHECK(attend(model, layer, kept, pass, statistics));
        LT_CHECK(end_attention(model, layer, kept, pass));
        LT_CHECK(open_gates(model, layer, kept, pass));
        LT_CHECK(end_mlp(model, layer, kept, pass,
                         last     ? model->stream
                         : trains ? model->kept[layer + 1].input
                                  : kept->input));
    }
    return LT_OK;
}
