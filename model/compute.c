/* What a model does with a micro-batch. */
#include "model/plan.h"

#include <string.h>

/* Readies the model and the device for a pass over `tokens`, which go to the device in one copy. */
static lt_pass upload(lt_model *model, const lt_tokens *tokens) {
    lt_device *device = model->device;
    const lt_pass pass = lt_pass_of(model, tokens);
    lt_model_refresh_matrices(model);
    const int32_t *parts[] = {tokens->inputs, tokens->targets, tokens->document_starts};
    const int count = pass.documents ? 3 : 2;
    for (int i = 0; i < count; i++)
        memcpy(model->tokens + i * model->most_rows, parts[i], sizeof *parts[i] * (size_t)pass.rows);
    device->ops->upload(device, model->inputs, model->tokens, (count - 1) * model->most_rows + pass.rows);
    return pass;
}

/* A first micro-batch's matrix products overwrite their gradients; what is only ever added to starts at 0. */
static void clear_sums(lt_model *model, lt_mem gradients) {
    const lt_ops *ops = model->device->ops;
    const lt_model_shape *shape = &model->shape;
    for (int64_t layer = 0; layer < shape->layers; layer++) {
        const lt_layer_offsets *at = &model->layers[layer];
        ops->zero(model->device, lt_at(gradients, at->attn_norm), shape->hidden);
        ops->zero(model->device, lt_at(gradients, at->mlp_norm), shape->hidden);
        if (shape->bias_length == 0) continue;
        ops->zero(model->device, lt_at(gradients, at->bias), shape->heads * shape->bias_length);
        ops->zero(model->device, lt_at(gradients, at->tau), shape->heads);
    }
    ops->zero(model->device, lt_at(gradients, model->final_norm), shape->hidden);
    if (!shape->tied)
        ops->zero(model->device, lt_at(gradients, model->embedding), shape->vocabulary * shape->hidden);
}

lt_status lt_model_forward_backward(lt_model *model, const lt_tokens *tokens, double scale, int buffer,
                                    bool first, int64_t slot, const lt_gradient_watch *watch) {
    const lt_ops *ops = model->device->ops;
    const lt_mem gradients = model->gradients[buffer];
    const lt_pass pass = upload(model, tokens);
    if (first) clear_sums(model, gradients);
    LT_CHECK(lt_forward(model, &pass, LT_NOWHERE));
    LT_CHECK(lt_head_loss(model, &pass, scale, &gradients, first));
    ops->sum_segments(model->device, model->losses, tokens->rows, model->options.sequence_length,
                      lt_at(model->loss_slots, slot));
    LT_CHECK(lt_gradients_ready(watch, model->final_norm, model->registry.elements));
    return lt_backward(model, &pass, gradients, first, watch);
}

lt_status lt_model_evaluate(lt_model *model, const lt_tokens *tokens, double *sums) {
    lt_device *device = model->device;
    const lt_pass pass = upload(model, tokens);
    LT_CHECK(lt_forward(model, &pass, LT_NOWHERE));
    LT_CHECK(lt_head_loss(model, &pass, 0, NULL, false));
    device->ops->sum_segments(device, model->losses, tokens->rows, model->options.sequence_length,
                              model->row_sums);
    return device->ops->download(device, sums, model->row_sums, tokens->rows);
}

lt_status lt_model_statistics(lt_model *model, const lt_tokens *tokens, double *statistics) {
    lt_device *device = model->device;
    const int64_t layers = model->shape.layers, ranks = model->ranks;
    const int64_t row = model->shape.heads * LT_STATISTICS, count = layers * row; /* of this rank's heads */
    double *own = model->exchanged + model->rank * count;
    const lt_pass pass = upload(model, tokens);
    device->ops->zero(device, model->statistics, count);
    LT_CHECK(lt_forward(model, &pass, model->statistics));
    LT_CHECK(device->ops->download(device, own, model->statistics, count));
    if (model->group != NULL)
        LT_CHECK(model->group->all_gather_host(model->group->context, model->exchanged, count));
    for (int64_t i = 0; i < ranks * count; i++)
        statistics[(i % count / row * ranks + i / count) * row + i % row] += model->exchanged[i];
    return LT_OK;
}

/* N counts each matrix once for a token: the head is one, the embedding is a table. */
double lt_model_flops_per_token(const lt_model_shape *shape, int64_t sequence_length) {
    const double hidden = (double)shape->hidden, ffn = (double)shape->intermediate;
    const double key_width = (double)(shape->key_heads * lt_head_size(shape));
    const double layer = 2 * hidden * hidden + 2 * key_width * hidden + 3 * ffn * hidden;
    const double matrices = (double)shape->layers * layer + (double)shape->vocabulary * hidden;
    return 6 * matrices + 6 * (double)sequence_length * hidden * (double)shape->layers;
}
