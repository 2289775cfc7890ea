/* Reading and writing a model's arrays, and the initial weights. */
#include "model/plan.h"
#include "model/split.h"

#include <stdlib.h>

lt_span lt_model_own(const lt_model *model, const lt_parameter *parameter, int64_t first, int64_t count) {
    const int64_t from = parameter->offset + first, to = from + count;
    return (lt_span){from > model->own.first ? from : model->own.first,
                     to < model->own.end ? to : model->own.end};
}

/* Where elements of a parameter lie, and how many of them there are; `skipped` of those before are elsewhere.
 */
typedef struct place_in {
    lt_mem at;
    int64_t skipped, count;
} place_in;

static place_in find(const lt_model *model, lt_array array, const lt_parameter *parameter, int64_t first,
                     int64_t count) {
    const int64_t from = parameter->offset + first;
    if (array == LT_ARRAY_PARAMETERS) return (place_in){lt_at(model->parameters, from), 0, count};
    if (array == LT_ARRAY_GRADIENTS) return (place_in){lt_at(model->gradients[0], from), 0, count};
    const lt_span own = lt_model_own(model, parameter, first, count);
    const lt_mem moments = array == LT_ARRAY_FIRST_MOMENT ? model->moment1 : model->moment2;
    if (own.first >= own.end) return (place_in){.count = 0};
    return (place_in){lt_at(moments, own.first - model->own.first), own.first - from, own.end - own.first};
}

lt_status lt_model_get(lt_model *model, lt_array array, const lt_parameter *parameter, int64_t first,
                       int64_t count, float *values) {
    const place_in from = find(model, array, parameter, first, count);
    if (from.count == 0) return LT_OK;
    return model->device->ops->download(model->device, values + from.skipped, from.at, from.count);
}

lt_status lt_model_put(lt_model *model, lt_array array, const lt_parameter *parameter, int64_t first,
                       int64_t count, const float *values) {
    const place_in to = find(model, array, parameter, first, count);
    if (to.count == 0) return LT_OK;
    if (array == LT_ARRAY_PARAMETERS) model->matrices_are_old = true;
    model->device->ops->upload(model->device, to.at, values + to.skipped, to.count);
    return model->device->ops->synchronise(model->device);
}

/* One matrix, or several that are neighbours, of `count` elements from `offset` on. */
static void refresh(lt_model *model, lt_mem matrix, int64_t offset, int64_t count) {
    model->device->ops->round_to(model->device, matrix, lt_at(model->parameters, offset), count);
}

void lt_model_refresh_matrices(lt_model *model) {
    const lt_model_shape *shape = &model->shape;
    const int64_t hidden = shape->hidden, ffn = shape->intermediate;
    if (!model->matrices_are_old) return;
    model->matrices_are_old = false;
    if (model->embedding_matrix.type == LT_FLOAT32) return; /* they are the parameters */
    refresh(model, model->embedding_matrix, model->embedding, shape->vocabulary * hidden);
    if (!shape->tied) refresh(model, model->head_matrix, model->head, shape->vocabulary * hidden);
    for (int64_t layer = 0; layer < shape->layers; layer++) {
        const lt_layer_offsets *at = &model->layers[layer];
        const lt_layer_matrices *to = &model->matrices[layer];
        refresh(model, to->qkv, at->qkv, model->qkv_width * hidden);
        refresh(model, to->o_proj, at->o_proj, hidden * model->attention_width);
        refresh(model, to->gate_up, at->gate_up, 2 * ffn * hidden);
        refresh(model, to->down_proj, at->down_proj, hidden * ffn);
    }
}

/* Draws what this rank holds of a parameter: of columns row by row, of rows all at once, the padding 0. */
static void draw(const lt_model *model, const lt_parameter *whole, const lt_parameter *held, uint64_t seed,
                 float *values) {
    const int part = lt_split_part(held, model->rank, model->ranks);
    const bool columns = held->split == LT_SPLIT_COLUMNS;
    const int64_t stretch = columns ? held->shape[1] : held->count;
    const int64_t stride = columns ? whole->shape[1] : whole->count;
    for (int64_t done = 0; done < held->count; done += stretch) {
        const int64_t first = done / stretch * stride + part * stretch;
        const int64_t rest = whole->count - first, count = rest < stretch ? (rest > 0 ? rest : 0) : stretch;
        lt_parameter_initialise(whole, seed, first, count, values + done);
        for (int64_t i = count; i < stretch; i++) values[done + i] = 0.0f;
    }
}

static lt_status draw_all(lt_model *model, const lt_registry *whole, uint64_t seed, float *values) {
    for (int i = 0; i < whole->count; i++) {
        const lt_parameter *held = &model->registry.parameters[i];
        draw(model, &whole->parameters[i], held, seed, values);
        LT_CHECK(lt_model_put(model, LT_ARRAY_PARAMETERS, held, 0, held->count, values));
    }
    return LT_OK;
}

lt_status lt_model_initialise(lt_model *model, uint64_t seed) {
    lt_registry whole;
    int64_t largest = 1;
    for (int i = 0; i < model->registry.count; i++)
        if (model->registry.parameters[i].count > largest) largest = model->registry.parameters[i].count;
    LT_CHECK(lt_registry_create(&model->options.shape, &whole));
    float *values = malloc(sizeof(float) * (size_t)largest);
    const lt_status status =
        values != NULL
            ? draw_all(model, &whole, seed, values)
            : lt_fail(LT_IO, "no memory for the initial values of %lld weights", (long long)largest);
    free(values);
    lt_registry_destroy(&whole);
    if (model->options.training) {
        model->device->ops->zero(model->device, model->moment1, model->own.end - model->own.first);
        model->device->ops->zero(model->device, model->moment2, model->own.end - model->own.first);
    }
    return status;
}
