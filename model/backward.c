/* Backward through the layers, the mirror of forward.c. What forward did not keep (norms' outputs, the
 * activation) is computed again, which costs one pass over memory and no product. */
#include "model/plan.h"

/* Where a layer's gradients go: the same offsets in a gradient array. */
static lt_mem to(lt_mem gradients, int64_t offset) {
    return lt_at(gradients, offset);
}

/* d_stream: gradient of the layer's output in, of the MLP's input out. */
static void mlp_half(lt_model *model, int64_t layer, int64_t rows, lt_mem gradients, bool first) {
    lt_device *device = model->device;
    const lt_ops *ops = device->ops;
    const lt_model_shape *shape = &model->options.shape;
    const lt_layer_offsets *at = &model->layers[layer];
    const lt_layer_kept *kept = &model->kept[layer];
    const int64_t hidden = shape->hidden, ffn = shape->intermediate;

    lt_linear_input_gradient(device, model->d_stream, to(model->parameters, at->down_proj), rows, ffn, hidden,
                             model->d_activated);
    ops->swiglu_backward(device, kept->gate_up, model->d_activated, rows, ffn, model->d_gate_up,
                         model->activated);
    lt_linear_weight_gradient(device, model->d_stream, model->activated, rows, ffn, hidden,
                              to(gradients, at->down_proj), !first);
    ops->rmsnorm_forward(device, kept->middle, to(model->parameters, at->mlp_norm), shape->norm_eps, rows,
                         hidden, model->normed, kept->mlp_rms);
    lt_linear_weight_gradient(device, model->d_gate_up, model->normed, rows, hidden, 2 * ffn,
                              to(gradients, at->gate_up), !first);
    lt_linear_input_gradient(device, model->d_gate_up, to(model->parameters, at->gate_up), rows, hidden,
                             2 * ffn, model->d_normed);
    ops->rmsnorm_backward(device, kept->middle, to(model->parameters, at->mlp_norm), kept->mlp_rms,
                          model->d_normed, rows, hidden, model->d_stream, to(gradients, at->mlp_norm));
}

/* d_stream: gradient of the MLP's input in, of the layer's input out. */
static void attention_half(lt_model *model, int64_t layer, int64_t batch, bool documents, lt_mem gradients,
                           bool first) {
    lt_device *device = model->device;
    const lt_ops *ops = device->ops;
    const lt_model_shape *shape = &model->options.shape;
    const lt_layer_offsets *at = &model->layers[layer];
    const lt_layer_kept *kept = &model->kept[layer];
    const int64_t hidden = shape->hidden, length = model->options.sequence_length, rows = batch * length;
    const int64_t head_size = lt_head_size(shape);

    lt_linear_weight_gradient(device, model->d_stream, kept->attention, rows, hidden, hidden,
                              to(gradients, at->o_proj), !first);
    lt_linear_input_gradient(device, model->d_stream, to(model->parameters, at->o_proj), rows, hidden, hidden,
                             model->d_normed);
    const lt_attention attention = lt_model_attention(model, layer, batch, documents);
    lt_attention_gradients attention_gradients = {
        .d_output = model->d_normed,
        .d_q = model->d_qkv,
        .d_k = lt_at(model->d_qkv, shape->heads * head_size),
        .d_v = lt_at(model->d_qkv, (shape->heads + shape->key_heads) * head_size),
    };
    if (shape->bias_length > 0) {
        attention_gradients.d_bias = to(gradients, at->bias);
        attention_gradients.d_tau = to(gradients, at->tau);
    }
    ops->attention_backward(device, &attention, &attention_gradients);
    ops->rope(device, model->d_qkv, model->qkv_width, model->rope_table, rows, length, 0,
              shape->heads + shape->key_heads, head_size, true);
    ops->rmsnorm_forward(device, kept->input, to(model->parameters, at->attn_norm), shape->norm_eps, rows,
                         hidden, model->normed, kept->attn_rms);
    lt_linear_weight_gradient(device, model->d_qkv, model->normed, rows, hidden, model->qkv_width,
                              to(gradients, at->qkv), !first);
    lt_linear_input_gradient(device, model->d_qkv, to(model->parameters, at->qkv), rows, hidden,
                             model->qkv_width, model->d_normed);
    ops->rmsnorm_backward(device, kept->input, to(model->parameters, at->attn_norm), kept->attn_rms,
                          model->d_normed, rows, hidden, model->d_stream, to(gradients, at->attn_norm));
}

lt_status lt_backward(lt_model *model, int64_t batch, bool documents, lt_mem gradients, bool first,
                      const lt_gradient_watch *watch) {
    const int64_t rows = batch * model->options.sequence_length;
    int64_t end = model->final_norm; /* of the gradients that are not yet final */
    for (int64_t layer = model->options.shape.layers - 1; layer >= 0; layer--) {
        const lt_layer_offsets *at = &model->layers[layer];
        mlp_half(model, layer, rows, gradients, first);
        LT_CHECK(lt_gradients_ready(watch, at->mlp_norm, end));
        attention_half(model, layer, batch, documents, gradients, first);
        LT_CHECK(lt_gradients_ready(watch, at->attn_norm, at->mlp_norm));
        end = at->attn_norm;
    }
    model->device->ops->embedding_backward(model->device, model->inputs, model->d_stream, rows,
                                           model->options.shape.hidden, to(gradients, model->embedding));
    return lt_gradients_ready(watch, 0, end);
}
