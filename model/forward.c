/* Forward through the layers. Each is pre-norm, without biases:
 *   x += o_proj(attention(norm(x)));  x += down(silu(gate(norm(x))) * up(norm(x)))
 */
#include "model/plan.h"

lt_attention lt_model_attention(const lt_model *model, int64_t layer, int64_t batch, bool documents) {
    const lt_model_shape *shape = &model->options.shape;
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

static void attention_half(lt_model *model, int64_t layer, const lt_layer_kept *kept, int64_t batch,
                           bool documents, lt_mem statistics) {
    lt_device *device = model->device;
    const lt_ops *ops = device->ops;
    const lt_model_shape *shape = &model->options.shape;
    const lt_layer_offsets *at = &model->layers[layer];
    const int64_t hidden = shape->hidden, rows = batch * model->options.sequence_length;

    ops->rmsnorm_forward(device, kept->input, lt_at(model->parameters, at->attn_norm), shape->norm_eps, rows,
                         hidden, model->normed, kept->attn_rms);
    lt_linear(device, model->normed, lt_at(model->parameters, at->qkv), rows, hidden, model->qkv_width,
              kept->qkv, false);
    ops->rope(device, kept->qkv, model->qkv_width, model->rope_table, rows, model->options.sequence_length, 0,
              shape->heads + shape->key_heads, lt_head_size(shape), false);
    const lt_attention attention = lt_model_attention(model, layer, batch, documents);
    ops->attention_forward(device, &attention);
    if (statistics.address != NULL)
        ops->attention_statistics(device, &attention,
                                  lt_at(statistics, layer * shape->heads * LT_STATISTICS));
    ops->copy(device, kept->middle, kept->input, rows * hidden);
    lt_linear(device, kept->attention, lt_at(model->parameters, at->o_proj), rows, hidden, hidden,
              kept->middle, true);
}

static void mlp_half(lt_model *model, int64_t layer, const lt_layer_kept *kept, int64_t batch,
                     lt_mem output) {
    lt_device *device = model->device;
    const lt_ops *ops = device->ops;
    const lt_model_shape *shape = &model->options.shape;
    const lt_layer_offsets *at = &model->layers[layer];
    const int64_t hidden = shape->hidden, ffn = shape->intermediate,
                  rows = batch * model->options.sequence_length;

    ops->rmsnorm_forward(device, kept->middle, lt_at(model->parameters, at->mlp_norm), shape->norm_eps, rows,
                         hidden, model->normed, kept->mlp_rms);
    lt_linear(device, model->normed, lt_at(model->parameters, at->gate_up), rows, hidden, 2 * ffn,
              kept->gate_up, false);
    ops->swiglu_forward(device, kept->gate_up, rows, ffn, model->activated);
    ops->copy(device, output, kept->middle, rows * hidden);
    lt_linear(device, model->activated, lt_at(model->parameters, at->down_proj), rows, ffn, hidden, output,
              true);
}

lt_status lt_forward(lt_model *model, int64_t batch, bool documents, lt_mem statistics) {
    const lt_model_shape *shape = &model->options.shape;
    const int64_t rows = batch * model->options.sequence_length;
    const bool trains = model->options.training;
    model->device->ops->embedding_forward(model->device, model->inputs,
                                          lt_at(model->parameters, model->embedding), rows, shape->hidden,
                                          model->kept[0].input);
    for (int64_t layer = 0; layer < shape->layers; layer++) {
        const lt_layer_kept *kept = &model->kept[trains ? layer : 0];
        const bool last = layer == shape->layers - 1;
        attention_half(model, layer, kept, batch, documents, statistics);
        mlp_half(model, layer, kept, batch,
                 last     ? model->stream
                 : trains ? model->kept[layer + 1].input
                          : kept->input);
    }
    return LT_OK;
}
