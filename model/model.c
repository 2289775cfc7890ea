/* Creation of a model: what lies where. */
#include "model/arena.h"
#include "model/plan.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* Logits are held for about this many elements at a time, but for at least LEAST_HEAD_ROWS tokens, since
 * every piece passes over the head's gradient once. */
enum { LOGITS_ELEMENTS = 4 << 20, LEAST_HEAD_ROWS = 256 };

static int64_t divide_up(int64_t a, int64_t b) {
    return (a + b - 1) / b;
}

/* Pieces of equal size, so that no piece is nearly empty. */
static int64_t head_rows(int64_t rows, int64_t vocabulary) {
    int64_t most = LOGITS_ELEMENTS / vocabulary;
    if (most < LEAST_HEAD_ROWS) most = LEAST_HEAD_ROWS;
    return divide_up(rows, divide_up(rows, most));
}

static void place_kept(lt_model *model, lt_layer_kept *kept, int64_t rows, lt_arena *arena) {
    const lt_model_shape *shape = &model->options.shape;
    const lt_type type = model->device->compute_type;
    lt_attention attention = {.batch = model->options.micro_batch,
                              .query_length = model->options.sequence_length,
                              .key_length = model->options.sequence_length,
                              .heads = shape->heads,
                              .key_heads = shape->key_heads,
                              .head_size = lt_head_size(shape),
                              .bias_length = shape->bias_length};
    kept->input = lt_arena_take(arena, type, rows * shape->hidden);
    kept->attn_rms = lt_arena_take(arena, LT_FLOAT32, rows);
    kept->qkv = lt_arena_take(arena, type, rows * model->qkv_width);
    kept->attention = lt_arena_take(arena, type, rows * shape->hidden);
    kept->saved = lt_arena_take(
        arena, LT_BYTES, (int64_t)model->device->ops->attention_saved_bytes(model->device, &attention));
    kept->middle = lt_arena_take(arena, type, rows * shape->hidden);
    kept->mlp_rms = lt_arena_take(arena, LT_FLOAT32, rows);
    kept->gate_up = lt_arena_take(arena, type, rows * 2 * shape->intermediate);
}

static void place_activations(lt_model *model, lt_arena *arena) {
    const lt_model_shape *shape = &model->options.shape;
    const lt_type type = model->device->compute_type;
    const int64_t rows = model->options.micro_batch * model->options.sequence_length, hidden = shape->hidden;
    const bool trains = model->options.training;

    model->rope_table =
        lt_arena_take(arena, LT_FLOAT32, model->options.sequence_length * lt_head_size(shape));
    model->inputs = lt_arena_take(arena, LT_INT32, rows);
    model->targets = lt_arena_take(arena, LT_INT32, rows);
    model->document_starts = lt_arena_take(arena, LT_INT32, rows);
    for (int64_t layer = 0; layer < (trains ? shape->layers : 1); layer++)
        place_kept(model, &model->kept[layer], rows, arena);
    model->stream = lt_arena_take(arena, type, rows * hidden);
    model->final_rms = lt_arena_take(arena, LT_FLOAT32, rows);
    model->normed = lt_arena_take(arena, type, rows * hidden);
    model->activated = lt_arena_take(arena, type, rows * shape->intermediate);
    model->logits = lt_arena_take(arena, type, model->head_rows * shape->vocabulary);
    model->losses = lt_arena_take(arena, LT_FLOAT64, rows);
    model->row_sums = lt_arena_take(arena, LT_FLOAT64, model->options.micro_batch);
    model->statistics = lt_arena_take(arena, LT_FLOAT64, shape->layers * shape->heads * LT_STATISTICS);
    if (!trains) return;
    model->d_stream = lt_arena_take(arena, type, rows * hidden);
    model->d_normed = lt_arena_take(arena, type, rows * hidden);
    model->d_qkv = lt_arena_take(arena, type, rows * model->qkv_width);
    model->d_gate_up = lt_arena_take(arena, type, rows * 2 * shape->intermediate);
    model->d_activated = lt_arena_take(arena, type, rows * shape->intermediate);
}

static size_t scratch_bytes(const lt_model *model) {
    const lt_attention attention = lt_model_attention(model, 0, model->options.micro_batch, true);
    const int64_t rows = model->options.micro_batch * model->options.sequence_length;
    return model->device->ops->scratch_bytes(model->device, &attention, rows, model->options.shape.hidden,
                                             model->registry.elements);
}

/* Places everything; the difference of `used` before and after each part is the plan. */
static lt_memory_plan place(lt_model *model, lt_arena *arena) {
    lt_memory_plan plan = {0};
    const int64_t elements = model->registry.elements;
    model->parameters = lt_arena_take(arena, LT_FLOAT32, elements);
    plan.parameters = arena->used;
    if (model->options.training) {
        model->moment1 = lt_arena_take(arena, LT_FLOAT32, model->own.end - model->own.first);
        model->moment2 = lt_arena_take(arena, LT_FLOAT32, model->own.end - model->own.first);
        plan.optimizer = arena->used - plan.parameters;
        size_t before = arena->used;
        for (int i = 0; i < model->options.gradient_buffers; i++)
            model->gradients[i] = lt_arena_take(arena, LT_FLOAT32, elements);
        model->loss_slots = lt_arena_take(arena, LT_FLOAT64, model->options.loss_slots);
        model->squares = lt_arena_take(arena, LT_FLOAT64, model->square_sums);
        plan.gradients = arena->used - before;
    }
    size_t before = arena->used;
    place_activations(model, arena);
    plan.activations = arena->used - before;
    plan.scratch = scratch_bytes(model);
    return plan;
}

static int64_t offset_of(const lt_registry *registry, const char *name) {
    const lt_parameter *parameter = lt_registry_find(registry, name);
    return parameter == NULL ? -1 : parameter->offset;
}

/* The registry lists the parameters of a layer in one order, so one layer's places give all. */
static void find_offsets(lt_model *model) {
    const lt_registry *registry = &model->registry;
    model->embedding = offset_of(registry, "model.embeddings.weight");
    model->final_norm = offset_of(registry, "model.norm.weight");
    model->head = model->options.shape.tied ? model->embedding : offset_of(registry, "lm_head.weight");
    const lt_layer_offsets first = {
        .attn_norm = offset_of(registry, "model.layers.0.attn_norm.weight"),
        .qkv = offset_of(registry, "model.layers.0.attn.q_proj.weight"),
        .o_proj = offset_of(registry, "model.layers.0.attn.o_proj.weight"),
        .bias = offset_of(registry, "model.layers.0.attn.learnable_bias_diagonals"),
        .tau = offset_of(registry, "model.layers.0.attn.tau"),
        .mlp_norm = offset_of(registry, "model.layers.0.mlp_norm.weight"),
        .gate_up = offset_of(registry, "model.layers.0.mlp.gate_proj.weight"),
        .down_proj = offset_of(registry, "model.layers.0.mlp.down_proj.weight"),
    };
    const int64_t step = (model->final_norm - first.attn_norm) / model->options.shape.layers;
    for (int64_t layer = 0; layer < model->options.shape.layers; layer++)
        model->layers[layer] = (lt_layer_offsets){
            .attn_norm = first.attn_norm + layer * step,
            .qkv = first.qkv + layer * step,
            .o_proj = first.o_proj + layer * step,
            .bias = first.bias + layer * step,
            .tau = first.tau + layer * step,
            .mlp_norm = first.mlp_norm + layer * step,
            .gate_up = first.gate_up + layer * step,
            .down_proj = first.down_proj + layer * step,
        };
}

static void find_share(lt_model *model) {
    const lt_registry *registry = &model->registry;
    const int share = model->options.share, shares = model->options.shares > 0 ? model->options.shares : 1;
    model->own =
        (lt_span){lt_registry_cut(registry, share, shares), lt_registry_cut(registry, share + 1, shares)};
    for (int i = 0; i < registry->count; i++)
        model->square_sums += lt_flat_pieces(registry->parameters[i].count);
}

/* Everything on the host that does not depend on memory of the device. */
static lt_status prepare(const lt_model_options *options, lt_device *device, lt_model **result) {
    lt_model *model = calloc(1, sizeof *model);
    if (model == NULL) return lt_fail(LT_IO, "no memory for a model");
    *result = model;
    model->device = device;
    model->options = *options;
    if (options->shape.attention == LT_ATTENTION_SOFTMAX) model->options.shape.bias_length = 0;
    const lt_model_shape *shape = &model->options.shape;
    LT_CHECK(lt_registry_create(shape, &model->registry));
    find_share(model);
    model->layers = calloc((size_t)shape->layers, sizeof *model->layers);
    model->kept = calloc((size_t)shape->layers, sizeof *model->kept);
    model->gradients = calloc((size_t)options->gradient_buffers + 1, sizeof *model->gradients);
    if (model->layers == NULL || model->kept == NULL || model->gradients == NULL)
        return lt_fail(LT_IO, "no memory for a model of %lld layers", (long long)shape->layers);
    model->qkv_width = (shape->heads + 2 * shape->key_heads) * lt_head_size(shape);
    model->head_rows = head_rows(options->micro_batch * options->sequence_length, shape->vocabulary);
    find_offsets(model);
    lt_arena count = {0};
    model->plan = place(model, &count);
    model->memory_bytes = count.used;
    return LT_OK;
}

void lt_rope_angles(const lt_model_shape *shape, int64_t positions, float *table) {
    const int64_t size = lt_head_size(shape), half = size / 2;
    for (int64_t position = 0; position < positions; position++)
        for (int64_t d = 0; d < half; d++) {
            const double angle = (double)position * pow(shape->rope_theta, -2.0 * (double)d / (double)size);
            table[position * size + d] = (float)cos(angle);
            table[position * size + half + d] = (float)sin(angle);
        }
}

static lt_status fill_rope_table(lt_model *model) {
    const int64_t length = model->options.sequence_length;
    const int64_t elements = length * lt_head_size(&model->options.shape);
    float *table = malloc(sizeof(float) * (size_t)elements);
    if (table == NULL) return lt_fail(LT_IO, "no memory for %lld rotary angles", (long long)elements);
    lt_rope_angles(&model->options.shape, length, table);
    model->device->ops->upload(model->device, model->rope_table, table, elements);
    free(table);
    return LT_OK;
}

lt_memory_plan lt_model_plan(const lt_model_options *options, lt_device *device) {
    lt_model *model = NULL;
    lt_memory_plan plan = {0};
    if (prepare(options, device, &model) == LT_OK) plan = model->plan;
    lt_model_destroy(model);
    return plan;
}

lt_status lt_model_create(const lt_model_options *options, lt_device *device, lt_model **result) {
    lt_model *model = NULL;
    lt_status status = prepare(options, device, &model);
    if (status == LT_OK) status = device->ops->reserve(device, model->plan.scratch);
    if (status == LT_OK) status = device->ops->allocate(device, model->memory_bytes, &model->memory);
    if (status == LT_OK) {
        place(model, &(lt_arena){.base = model->memory.address});
        status = fill_rope_table(model);
    }
    if (status != LT_OK) {
        lt_model_destroy(model);
        return status;
    }
    *result = model;
    return LT_OK;
}

void lt_model_destroy(lt_model *model) {
    if (model == NULL) return;
    model->device->ops->release(model->device, model->memory, model->memory_bytes);
    lt_registry_destroy(&model->registry);
    free(model->layers);
    free(model->kept);
    free(model->gradients);
    free(model);
}

const lt_registry *lt_model_registry(const lt_model *model) {
    return &model->registry;
}

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
    model->device->ops->upload(model->device, to.at, values + to.skipped, to.count);
    return model->device->ops->synchronise(model->device);
}

lt_status lt_model_initialise(lt_model *model, uint64_t seed) {
    int64_t largest = 1;
    for (int i = 0; i < model->registry.count; i++)
        if (model->registry.parameters[i].count > largest) largest = model->registry.parameters[i].count;
    float *values = malloc(sizeof(float) * (size_t)largest);
    if (values == NULL)
        return lt_fail(LT_IO, "no memory for the initial values of %lld weights", (long long)largest);
    lt_status status = LT_OK;
    for (int i = 0; i < model->registry.count && status == LT_OK; i++) {
        const lt_parameter *parameter = &model->registry.parameters[i];
        lt_parameter_initialise(parameter, seed, 0, parameter->count, values);
        status = lt_model_put(model, LT_ARRAY_PARAMETERS, parameter, 0, parameter->count, values);
    }
    free(values);
    if (model->options.training) {
        model->device->ops->zero(model->device, model->moment1, model->own.end - model->own.first);
        model->device->ops->zero(model->device, model->moment2, model->own.end - model->own.first);
    }
    return status;
}
