/* Final norm, head and cross entropy. The logits of head_rows tokens are held at a time and become their
 * gradients in place, so that the logits of a whole batch never exist. */
#include "model/plan.h"

static lt_mem row_of(lt_mem matrix, int64_t row, int64_t width) {
    return lt_at(matrix, row * width);
}

lt_status lt_head_loss(lt_model *model, int64_t batch, double scale, const lt_mem *gradients, bool first) {
    lt_device *device = model->device;
    const lt_ops *ops = device->ops;
    const lt_model_shape *shape = &model->options.shape;
    const int64_t hidden = shape->hidden, vocabulary = shape->vocabulary;
    const int64_t rows = batch * model->options.sequence_length;
    const lt_mem weight = lt_at(model->parameters, model->head),
                 norm = lt_at(model->parameters, model->final_norm);

    ops->rmsnorm_forward(device, model->stream, norm, shape->norm_eps, rows, hidden, model->normed,
                         model->final_rms);
    for (int64_t begin = 0; begin < rows; begin += model->head_rows) {
        const int64_t count = rows - begin < model->head_rows ? rows - begin : model->head_rows;
        const lt_mem normed = row_of(model->normed, begin, hidden);
        lt_linear(device, normed, weight, count, hidden, vocabulary, model->logits, false);
        ops->cross_entropy(device, model->logits, lt_at(model->targets, begin), count, vocabulary, scale,
                           gradients != NULL, lt_at(model->losses, begin));
        if (gradients == NULL) continue;
        lt_linear_weight_gradient(device, model->logits, normed, count, hidden, vocabulary,
                                  lt_at(*gradients, model->head), !first || begin > 0);
        lt_linear_input_gradient(device, model->logits, weight, count, hidden, vocabulary,
                                 row_of(model->d_normed, begin, hidden));
    }
    if (gradients == NULL) return LT_OK;
    ops->zero(device, model->d_stream, rows * hidden);
    ops->rmsnorm_backward(device, model->stream, norm, model->final_rms, model->d_normed, rows, hidden,
                          model->d_stream, lt_at(*gradients, model->final_norm));
    return LT_OK;
}
