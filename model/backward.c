/* Backward through the layers, the mirror of forward.c. What forward did not keep (norms' outputs, the
 * activation) is computed again, which costs one pass over memory and no product; what
 * model->options.recompute names is computed again as forward does it. d_stream has the rank's own rows
 * between the halves of a layer, all rows within them. */
#include "model/plan.h"

/* Where a layer's gradients go: the same offsets in a gradient array. */
static lt_mem to(lt_mem gradients, int64_t offset) {
    return lt_at(gradients, offset);
}

/* d_stream: gradient of the layer's output in, of the MLP's input out. */
static lt_status mlp_half(lt_model *model, int64_t layer, const lt_pass *pass, lt_mem gradients, bool first) {
    lt_device *device = model->device;
    const lt_layer_offsets *at = &model->layers[layer];
    const lt_layer_kept *kept = &model->kept[layer];
    const int64_t hidden = model->shape.hidden, ffn = model->shape.intermediate, rows = pass->rows;

    LT_CHECK(lt_gather_rows(model, pass, model->d_stream));
    lt_linear_input_gradient(device, model->d_stream, model->matrices[layer].down_proj, rows, ffn, hidden,
                             model->d_activated);
    device->ops->swiglu_backward(device, kept->gate_up, model->d_activated, rows, ffn, model->d_gate_up,
                                 model->activated);
    lt_linear_weight_gradient(device, model->d_stream, model->activated, rows, ffn, hidden,
                              to(gradients, at->down_proj), !first);
    LT_CHECK(lt_norm_forward(model, pass, kept->middle, at->mlp_norm, kept->mlp_rms));
    lt_linear_weight_gradient(device, model->d_gate_up, model->normed, rows, hidden, 2 * ffn,
                              to(gradients, at->gate_up), !first);
    lt_linear_input_gradient(device, model->d_gate_up, model->matrices[layer].gate_up, rows, hidden, 2 * ffn,
                             lt_partial_of(model, model->d_normed));
    return lt_norm_backward(model, pass, kept->middle, at->mlp_norm, kept->mlp_rms, gradients);
}

/* d_stream: gradient of the MLP's input in, of the layer's input out. */
static lt_status attention_half(lt_model *model, int64_t layer, const lt_pass *pass, lt_mem gradients,
                                bool first) {
    lt_device *device = model->device;
    const lt_ops *ops = device->ops;
    const lt_model_shape *shape = &model->shape;
    const lt_layer_offsets *at = &model->layers[layer];
    const lt_layer_kept *kept = &model->kept[layer];
    const int64_t hidden = shape->hidden, width = model->attention_width, rows = pass->rows;
    const int64_t head_size = lt_head_size(shape);

    LT_CHECK(lt_gather_rows(model, pass, model->d_stream));
    lt_linear_weight_gradient(device, model->d_stream, kept->attention, rows, width, hidden,
                              to(gradients, at->o_proj), !first);
    lt_linear_input_gradient(device, model->d_stream, model->matrices[layer].o_proj, rows, width, hidden,
                             model->d_attention);
    const lt_attention attention = lt_model_attention(model, layer, pass->batch, pass->documents);
    lt_attention_gradients attention_gradients = {
        .d_output = model->d_attention,
        .d_q = model->d_qkv,
        .d_k = lt_at(model->d_qkv, shape->heads * head_size),
        .d_v = lt_at(model->d_qkv, (shape->heads + shape->key_heads) * head_size),
    };
    if (shape->bias_length > 0) {
        attention_gradients.d_bias = to(gradients, at->bias);
        attention_gradients.d_tau = to(gradients, at->tau);
    }
    ops->attention_backward(device, &attention, &attention_gradients);
    ops->rope(device, model->d_qkv, model->qkv_width, model->rope_table, rows, model->options.sequence_length,
              0, shape->heads + shape->key_heads, head_size, true);
    LT_CHECK(lt_norm_forward(model, pass, kept->input, at->attn_norm, kept->attn_rms));
    lt_linear_weight_gradient(device, model->d_qkv, model->normed, rows, hidden, model->qkv_width,
                              to(gradients, at->qkv), !first);
    lt_linear_input_gradient(device, model->d_qkv, model->matrices[layer].qkv, rows, hidden, model->qkv_width,
                             lt_partial_of(model, model->d_normed));
    return lt_norm_backward(model, pass, kept->input, at->attn_norm, kept->attn_rms, gradients);
}

lt_status lt_backward(lt_model *model, const lt_pass *pass, lt_mem gradients, bool first,
                      const lt_gradient_watch *watch) {
    int64_t end = model->final_norm; /* of the gradients that are not yet final */
    for (int64_t layer = model->shape.layers - 1; layer >= 0; layer--) {
        const lt_layer_offsets *at = &model->layers[layer];
        LT_CHECK(lt_recompute_layer(model, layer, pass));
        LT_CHECK(mlp_half(model, layer, pass, gradients, first));
        LT_CHECK(lt_gradients_ready(watch, at->mlp_norm, end));
        LT_CHECK(attention_half(model, layer, pass, gradients, first));
        LT_CHECK(lt_gradients_ready(watch, at->attn_norm, at->mlp_norm));
        end = at->attn_norm;
    }
    LT_CHECK(lt_gather_rows(model, pass, model->d_stream));
    model->device->ops->embedding_backward(model->device, model->inputs, &model->vocabulary, model->d_stream,
                                           pass->rows, model->shape.hidden, to(gradients, model->embedding));
    return lt_gradients_ready(watch, 0, end);
}
