/* What a step ends with: the loss sums, the norm of the gradients and the update. Arrays of all parameters go
 * by in one operation each, by a table of pieces that lies on the device. */
#include "model/plan.h"
#include "model/split.h"

#include <string.h>

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

int64_t lt_model_square_sums(const lt_model *model) {
    return model->square_sums;
}

static int64_t smaller(int64_t a, int64_t b) {
    return a < b ? a : b;
}

/* A piece's group says what its parameter is. */
enum { DECAYS = 1, LAZY = 2 };

static int group_of(const lt_parameter *parameter) {
    return (parameter->decays ? DECAYS : 0) | (parameter->lazy ? LAZY : 0);
}

int64_t lt_model_pieces(const lt_model *model, int64_t *before, lt_flat_piece *pieces) {
    int64_t count = 0;
    *before = 0;
    for (int i = 0; i < model->registry.count; i++) {
        const lt_parameter *parameter = &model->registry.parameters[i];
        const lt_span own = lt_model_own(model, parameter, 0, parameter->count);
        if (parameter->offset < model->own.first)
            *before += lt_flat_pieces(smaller(parameter->count, model->own.first - parameter->offset));
        for (int64_t first = own.first; first < own.end; first += LT_FLAT_PIECE, count++) {
            if (pieces == NULL) continue;
            pieces[count] = (lt_flat_piece){.first = first - model->own.first,
                                            .count = (int32_t)smaller(own.end - first, LT_FLAT_PIECE),
                                            .group = group_of(parameter)};
        }
    }
    return count;
}

lt_status lt_model_results(lt_model *model, int64_t count, double *losses, double *squares) {
    double *results = model->results;
    model->device->ops->sum_squares(model->device, lt_at(model->gradients[0], model->own.first),
                                    model->pieces, model->piece_count,
                                    lt_at(model->squares, model->pieces_before));
    LT_CHECK(model->device->ops->download(model->device, results, model->loss_slots,
                                          model->options.loss_slots + model->square_sums));
    if (losses != NULL) memcpy(losses, results, sizeof *losses * (size_t)count);
    if (squares != NULL)
        memcpy(squares, results + model->options.loss_slots, sizeof *squares * (size_t)model->square_sums);
    return LT_OK;
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
    lt_adamw groups[LT_ADAMW_GROUPS], options = {.beta1 = update->beta1,
                                                 .beta2 = update->beta2,
                                                 .epsilon = update->epsilon,
                                                 .bias_correction1 = 1 - power(update->beta1, update->step),
                                                 .bias_correction2 = 1 - power(update->beta2, update->step),
                                                 .gradient_scale = update->gradient_scale};
    for (int group = 0; group < LT_ADAMW_GROUPS; group++) {
        const bool lazy = (group & LAZY) != 0;
        options.learning_rate = lazy ? update->lazy_learning_rate : update->learning_rate;
        options.weight_decay = (group & DECAYS) != 0 ? update->weight_decay : 0;
        options.frozen = lazy && update->freeze_lazy;
        groups[group] = options;
    }
    model->device->ops->adamw(model->device, lt_at(model->parameters, model->own.first),
                              lt_at(model->gradients[0], model->own.first), model->moment1, model->moment2,
                              model->pieces, model->piece_count, groups);
    model->matrices_are_old = true;
}
