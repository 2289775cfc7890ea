/* What a model does with a micro-batch, and the update. */
#include "model/plan.h"
#include "model/split.h"

#include <string.h>

/* Readies the model and the device for a pass over `tokens`. */
static lt_pass upload(lt_model *model, const lt_tokens *tokens) {
    lt_device *device = model->device;
    const lt_pass pass = lt_pass_of(model, tokens);
    lt_model_refresh_matrices(model);
    device->ops->upload(device, model->inputs, tokens->inputs, pass.rows);
    device->ops->upload(device, model->targets, tokens->targets, pass.rows);
    if (pass.documents)
        device->ops->upload(device, model->document_starts, tokens->document_starts, pass.rows);
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

void lt_model_add_gradients(lt_model *model, int to, int from, int64_t first, int64_t count) {
    model->device->ops->add(model->device, lt_at(model->gradients[to], first),
                            lt_at(model->gradients[from], first), count);
}

lt_mem lt_model_gradients(lt_model *model) {
    return model->gradients[0];
}

lt_mem lt_model_parameters(lt_model *model) {
    return model->parameters;
}

lt_status lt_model_losses(lt_model *model, int64_t count, double *sums) {
    return model->device->ops->download(model->device, sums, model->loss_slots, count);
}

int64_t lt_model_square_sums(const lt_model *model) {
    return model->square_sums;
}

lt_status lt_model_gradient_squares(lt_model *model, double *sums) {
    lt_mem to = model->squares;
    for (int i = 0; i < model->registry.count; i++) {
        const lt_parameter *parameter = &model->registry.parameters[i];
        const lt_span own = lt_model_own(model, parameter, 0, parameter->count);
        if (own.first < own.end)
            model->device->ops->sum_squares(model->device, lt_at(model->gradients[0], own.first),
                                            own.end - own.first,
                                            lt_at(to, (own.first - parameter->offset) / LT_FLAT_PIECE));
        to = lt_at(to, lt_flat_pieces(parameter->count));
    }
    return model->device->ops->download(model->device, sums, model->squares, model->square_sums);
}

int64_t lt_model_whole_squares_count(const lt_model *model) {
    return model->ranks * model->registry.count;
}

lt_status lt_model_whole_squares(lt_model *model, const double *sums, double *whole) {
    const int count = model->registry.count;
    double *own = whole + model->rank * count;
    for (int i = 0; i < count; i++) {
        own[i] = 0;
        for (int64_t pieces = lt_flat_pieces(model->registry.parameters[i].count); pieces > 0; pieces--)
            own[i] += *sums++;
    }
    if (model->group == NULL) return LT_OK;
    LT_CHECK(model->group->all_gather_host(model->group->context, whole, count));
    for (int i = 0; i < count; i++) {
        const lt_parameter *parameter = &model->registry.parameters[i];
        double sum = 0;
        for (int part = 0; part < parameter->parts; part++)
            sum += whole[lt_split_holder(parameter, part, model->ranks) * count + i];
        whole[i] = sum;
    }
    return LT_OK;
}

/* base^exponent for a whole exponent >= 1, by squaring: the same bits on every C library. */
static double power(double base, int64_t exponent) {
    double result = 1;
    for (; exponent > 0; exponent /= 2, base *= base)
        if (exponent % 2 == 1) result *= base;
    return result;
}

void lt_model_update(lt_model *model, const lt_update *update) {
    lt_adamw options = {.beta1 = update->beta1,
                        .beta2 = update->beta2,
                        .epsilon = update->epsilon,
                        .bias_correction1 = 1 - power(update->beta1, update->step),
                        .bias_correction2 = 1 - power(update->beta2, update->step),
                        .gradient_scale = update->gradient_scale};
    for (int i = 0; i < model->registry.count; i++) {
        const lt_parameter *parameter = &model->registry.parameters[i];
        const lt_span own = lt_model_own(model, parameter, 0, parameter->count);
        if (own.first >= own.end || (parameter->lazy && update->freeze_lazy)) continue;
        options.learning_rate = parameter->lazy ? update->lazy_learning_rate : update->learning_rate;
        options.weight_decay = parameter->decays ? update->weight_decay : 0;
        const int64_t at = own.first - model->own.first;
        model->device->ops->adamw(model->device, lt_at(model->parameters, own.first),
                                  lt_at(model->gradients[0], own.first), lt_at(model->moment1, at),
                                  lt_at(model->moment2, at), own.end - own.first, &options);
    }
    model->matrices_are_old = true;
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
