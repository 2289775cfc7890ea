/* Rows between the ranks of a tensor-parallel group. The stream and its norms lie with the ranks by rows, the
 * matrices by columns or rows of theirs: before a matrix that is cut over its outputs all ranks need all
 * rows, and one that is cut over its inputs gives each rank a part of the sum for all rows. */
#include "model/plan.h"

lt_pass lt_pass_of(const lt_model *model, const lt_tokens *tokens) {
    lt_pass pass = {.batch = tokens->rows,
                    .rows = tokens->rows * model->options.sequence_length,
                    .documents = tokens->document_starts != NULL};
    pass.own_first = pass.rows * model->rank / model->ranks;
    pass.own = pass.rows * (model->rank + 1) / model->ranks - pass.own_first;
    return pass;
}

/* Where the rows of each rank begin in a matrix of `width` columns. */
static const int64_t *cuts_of(lt_model *model, const lt_pass *pass, int64_t width) {
    for (int rank = 0; rank <= model->ranks; rank++)
        model->cuts[rank] = pass->rows * rank / model->ranks * width;
    return model->cuts;
}

lt_mem lt_own_rows(const lt_model *model, const lt_pass *pass, lt_mem matrix) {
    return lt_at(matrix, pass->own_first * model->shape.hidden);
}

lt_status lt_gather_rows(lt_model *model, const lt_pass *pass, lt_mem matrix) {
    const lt_tensor_group *group = model->group;
    if (group == NULL) return LT_OK;
    return group->all_gather(group->context, matrix, cuts_of(model, pass, model->shape.hidden));
}

lt_mem lt_partial_of(const lt_model *model, lt_mem own) {
    return model->group == NULL ? own : model->normed;
}

lt_status lt_sum_rows(lt_model *model, const lt_pass *pass, lt_mem own) {
    const lt_tensor_group *group = model->group;
    if (group == NULL) return LT_OK;
    return group->reduce_scatter(group->context, model->normed, cuts_of(model, pass, model->shape.hidden),
                                 model->arrivals, own);
}

lt_status lt_norm_forward(lt_model *model, const lt_pass *pass, lt_mem x, int64_t weight, lt_mem rms) {
    model->device->ops->rmsnorm_forward(model->device, x, lt_at(model->parameters, weight),
                                        model->shape.norm_eps, pass->own, model->shape.hidden,
                                        lt_own_rows(model, pass, model->normed), rms);
    return lt_gather_rows(model, pass, model->normed);
}

lt_status lt_norm_backward(lt_model *model, const lt_pass *pass, lt_mem x, int64_t weight, lt_mem rms,
                           lt_mem gradients) {
    LT_CHECK(lt_sum_rows(model, pass, model->d_normed));
    model->device->ops->rmsnorm_backward(model->device, x, lt_at(model->parameters, weight), rms,
                                         model->d_normed, pass->own, model->shape.hidden,
                                         lt_own_rows(model, pass, model->d_stream), lt_at(gradients, weight));
    return LT_OK;
}
