/* Final norm, head and cross entropy. The logits of head_rows tokens are held at a time and become their
 * gradients in place, so that the logits of a whole batch never exist. */
#include "model/plan.h"

static lt_mem row_of(lt_mem matrix, int64_t row, int64_t width) {
    return lt_at(matrix, row * width);
}

/* Losses of `count` rows from `begin` on, and with `gradient` their logits' gradients. In a group each rank
 * has the logits of its part of the vocabulary, and all get all losses. */
static lt_status lose(lt_model *model, int64_t begin, int64_t count, double scale, bool gradient) {
    lt_device *device = model->device;
    const lt_ops *ops = device->ops;
    const lt_tensor_group *group = model->group;
    const lt_mem targets = lt_at(model->targets, begin), losses = lt_at(model->losses, begin);
    if (group == NULL) {
        ops->cross_entropy(device, model->logits, targets, count, model->shape.vocabulary,
                           model->logits_width, scale, gradient, losses);
        return LT_OK;
    }
    const lt_cut_loss loss = {
        .rows = count,
        .rank = model->rank,
        .ranks = model->ranks,
        .vocabulary = {model->vocabulary.first, model->vocabulary.count, model->logits_width},
        .logits = model->logits,
        .targets = targets,
        .parts = model->loss_parts,
        .gradient = gradient,
        .scale = scale,
        .losses = losses};
    for (int rank = 0; rank <= model->ranks; rank++) model->cuts[rank] = rank * count * LT_LOSS_PARTS;
    ops->cross_entropy_part(device, &loss);
    LT_CHECK(group->all_gather(group->context, model->loss_parts, model->cuts));
    ops->cross_entropy_join(device, &loss);
    return LT_OK;
}

/* logits = normed weight^T, `count` rows of them. */
static void multiply(const lt_model *model, int64_t count, lt_mem normed) {
    const int64_t hidden = model->shape.hidden;
    model->device->ops->gemm(model->device, &(lt_gemm){.m = count,
                                                       .n = model->shape.vocabulary,
                                                       .k = hidden,
                                                       .a = normed,
                                                       .lda = hidden,
                                                       .b = model->head_matrix,
                                                       .ldb = hidden,
                                                       .b_transposed = true,
                                                       .c = model->logits,
                                                       .ldc = model->logits_width});
}

/* From the gradients of logits those of the weight, added where `accumulate`, and of what was normed. */
static void multiply_back(const lt_model *model, int64_t count, lt_mem normed, lt_mem d_weight,
                          bool accumulate, lt_mem d_normed) {
    const int64_t hidden = model->shape.hidden;
    const lt_ops *ops = model->device->ops;
    ops->gemm(model->device, &(lt_gemm){.m = model->shape.vocabulary,
                                        .n = hidden,
                                        .k = count,
                                        .a = model->logits,
                                        .lda = model->logits_width,
                                        .a_transposed = true,
                                        .b = normed,
                                        .ldb = hidden,
                                        .c = d_weight,
                                        .ldc = hidden,
                                        .addend = accumulate ? d_weight : LT_NOWHERE});
    ops->gemm(model->device, &(lt_gemm){.m = count,
                                        .n = hidden,
                                        .k = model->shape.vocabulary,
                                        .a = model->logits,
                                        .lda = model->logits_width,
                                        .b = model->head_matrix,
                                        .ldb = hidden,
                                        .c = d_normed,
                                        .ldc = hidden});
}

lt_status lt_head_loss(lt_model *model, const lt_pass *pass, double scale, const lt_mem *gradients,
                       bool first) {
    lt_device *device = model->device;
    const int64_t hidden = model->shape.hidden;

    LT_CHECK(lt_norm_forward(model, pass, model->stream, model->final_norm, model->final_rms));
    for (int64_t begin = 0; begin < pass->rows; begin += model->head_rows) {
        const int64_t rest = pass->rows - begin, count = rest < model->head_rows ? rest : model->head_rows;
        const lt_mem normed = row_of(model->normed, begin, hidden);
        multiply(model, count, normed);
        LT_CHECK(lose(model, begin, count, scale, gradients != NULL));
        if (gradients == NULL) continue;
        multiply_back(model, count, normed, lt_at(*gradients, model->head), !first || begin > 0,
                      row_of(lt_partial_of(model, model->d_normed), begin, hidden));
    }
    if (gradients == NULL) return LT_OK;
    device->ops->zero(device, lt_own_rows(model, pass, model->d_stream), pass->own * hidden);
    return lt_norm_backward(model, pass, model->stream, model->final_norm, model->final_rms, *gradients);
}
