/* Creation of a model: what lies where. */
#include "model/arena.h"
#include "model/plan.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* Logits are held for about this many elements at a time, but for at least LEAST_HEAD_ROWS tokens, since
 * every piece passes over the head's gradient once: a CPU should find them in its cache, a GPU's memory is
 * 300 operations of tensor cores away, and 2 x 2048 for each of that gradient's elements hide its 8 bytes. */
enum { LOGITS_ELEMENTS = 4 << 20, LEAST_HEAD_ROWS = 256, LEAST_DEVICE_HEAD_ROWS = 2048 };

static int64_t divide_up(int64_t a, int64_t b) {
    return (a + b - 1) / b;
}

static int64_t larger(int64_t a, int64_t b) {
    return a > b ? a : b;
}

static int64_t smaller(int64_t a, int64_t b) {
    return a < b ? a : b;
}

/* A row of so many elements of 2 bytes begins where 16 can be moved at a time, as tensor cores want it. */
enum { ALIGNED = 8 };

/* Pieces of equal size, so that no piece is nearly empty. */
static int64_t head_rows(const lt_model *model) {
    const int64_t rows = model->most_rows;
    const int64_t least = model->device->in_host_memory ? LEAST_HEAD_ROWS : LEAST_DEVICE_HEAD_ROWS;
    return divide_up(rows, divide_up(rows, larger(LOGITS_ELEMENTS / model->shape.vocabulary, least)));
}

/* What layer `layer` keeps. What is recomputed has one place, that of the first layer, for all. */
static void place_kept(lt_model *model, int64_t layer, int64_t own_rows, lt_arena *arena) {
    const lt_model_shape *shape = &model->shape;
    const int64_t rows = model->most_rows;
    const lt_type type = model->device->compute_type;
    lt_attention attention = {.batch = model->options.micro_batch,
                              .query_length = model->options.sequence_length,
                              .key_length = model->options.sequence_length,
                              .heads = shape->heads,
                              .key_heads = shape->key_heads,
                              .head_size = lt_head_size(shape),
                              .bias_length = shape->bias_length};
    const lt_recompute recompute = model->options.recompute;
    lt_layer_kept *kept = &model->kept[layer];
    *kept = model->kept[0];
    kept->input = lt_arena_take(arena, type, own_rows * shape->hidden);
    if (layer == 0 || recompute == LT_RECOMPUTE_NONE) {
        kept->attn_rms = lt_arena_take(arena, LT_FLOAT32, own_rows);
        kept->qkv = lt_arena_take(arena, type, rows * model->qkv_width);
        kept->attention = lt_arena_take(arena, type, rows * model->attention_width);
        kept->saved = lt_arena_take(
            arena, LT_BYTES, (int64_t)model->device->ops->attention_saved_bytes(model->device, &attention));
    }
    if (layer == 0 || recompute != LT_RECOMPUTE_FULL) {
        kept->middle = lt_arena_take(arena, type, own_rows * shape->hidden);
        kept->mlp_rms = lt_arena_take(arena, LT_FLOAT32, own_rows);
        kept->gate_up = lt_arena_take(arena, type, rows * 2 * shape->intermediate);
    }
}

static void place_activations(lt_model *model, lt_arena *arena) {
    const lt_model_shape *shape = &model->shape;
    const lt_type type = model->device->compute_type;
    const int64_t rows = model->most_rows, hidden = shape->hidden;
    const int64_t own_rows = divide_up(rows, model->ranks);
    const bool trains = model->options.training;

    model->rope_table =
        lt_arena_take(arena, LT_FLOAT32, model->options.sequence_length * lt_head_size(shape));
    model->inputs = lt_arena_take(arena, LT_INT32, 3 * rows);
    model->targets = lt_at(model->inputs, rows);
    model->document_starts = lt_at(model->targets, rows);
    for (int64_t layer = 0; layer < (trains ? shape->layers : 1); layer++)
        place_kept(model, layer, own_rows, arena);
    model->stream = lt_arena_take(arena, type, own_rows * hidden);
    model->final_rms = lt_arena_take(arena, LT_FLOAT32, own_rows);
    model->normed = lt_arena_take(arena, type, rows * hidden);
    model->arrivals = lt_arena_take(arena, type, (model->ranks - 1) * own_rows * hidden);
    model->activated = lt_arena_take(arena, type, rows * shape->intermediate);
    model->logits = lt_arena_take(arena, type, model->head_rows * model->logits_width);
    if (model->group != NULL)
        model->loss_parts = lt_arena_take(arena, LT_FLOAT64, model->ranks * model->head_rows * LT_LOSS_PARTS);
    model->losses = lt_arena_take(arena, LT_FLOAT64, rows);
    model->row_sums = lt_arena_take(arena, LT_FLOAT64, model->options.micro_batch);
    model->statistics = lt_arena_take(arena, LT_FLOAT64, shape->layers * shape->heads * LT_STATISTICS);
    if (!trains) return;
    model->d_stream = lt_arena_take(arena, type, rows * hidden);
    model->d_normed = model->d_attention =
        lt_arena_take(arena, type, larger(own_rows * hidden, rows * model->attention_width));
    model->d_qkv = lt_arena_take(arena, type, rows * model->qkv_width);
    model->d_gate_up = lt_arena_take(arena, type, rows * 2 * shape->intermediate);
    model->d_activated = lt_arena_take(arena, type, rows * shape->intermediate);
}

/* Where a matrix of `count` elements lies in the compute type. */
static lt_mem place_matrix(const lt_model *model, lt_arena *arena, int64_t offset, int64_t count) {
    const lt_type type = model->device->compute_type;
    return type == LT_FLOAT32 ? lt_at(model->parameters, offset) : lt_arena_take(arena, type, count);
}

static void place_matrices(lt_model *model, lt_arena *arena) {
    const lt_model_shape *shape = &model->shape;
    const int64_t hidden = shape->hidden, ffn = shape->intermediate, table = shape->vocabulary * hidden;
    model->embedding_matrix = model->head_matrix = place_matrix(model, arena, model->embedding, table);
    if (!shape->tied) model->head_matrix = place_matrix(model, arena, model->head, table);
    for (int64_t layer = 0; layer < shape->layers; layer++) {
        const lt_layer_offsets *at = &model->layers[layer];
        model->matrices[layer] = (lt_layer_matrices){
            .qkv = place_matrix(model, arena, at->qkv, model->qkv_width * hidden),
            .o_proj = place_matrix(model, arena, at->o_proj, hidden * model->attention_width),
            .gate_up = place_matrix(model, arena, at->gate_up, 2 * ffn * hidden),
            .down_proj = place_matrix(model, arena, at->down_proj, hidden * ffn),
        };
    }
}

static size_t scratch_bytes(const lt_model *model) {
    const lt_attention attention = lt_model_attention(model, 0, model->options.micro_batch, true);
    return model->device->ops->scratch_bytes(model->device, &attention, model->most_rows, model->shape.hidden,
                                             model->registry.elements);
}

/* Places everything; the difference of `used` before and after each part is the plan. */
static lt_memory_plan place(lt_model *model, lt_arena *arena) {
    const int64_t elements = model->registry.elements;
    lt_memory_plan plan = {.elements = elements};
    model->parameters = lt_arena_take(arena, LT_FLOAT32, elements);
    place_matrices(model, arena);
    plan.parameters = arena->used;
    if (model->options.training) {
        model->moment1 = lt_arena_take(arena, LT_FLOAT32, model->own.end - model->own.first);
        model->moment2 = lt_arena_take(arena, LT_FLOAT32, model->own.end - model->own.first);
        model->pieces = lt_arena_take(arena, LT_BYTES, model->piece_count * (int64_t)sizeof(lt_flat_piece));
        plan.optimizer = arena->used - plan.parameters;
        size_t before = arena->used;
        for (int i = 0; i < model->options.gradient_buffers; i++)
            model->gradients[i] = lt_arena_take(arena, LT_FLOAT32, elements);
        model->loss_slots = lt_arena_take(arena, LT_FLOAT64, model->options.loss_slots + model->square_sums);
        model->squares = lt_at(model->loss_slots, model->options.loss_slots);
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
    model->head = model->shape.tied ? model->embedding : offset_of(registry, "lm_head.weight");
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
    const int64_t step = (model->final_norm - first.attn_norm) / model->shape.layers;
    for (int64_t layer = 0; layer < model->shape.layers; layer++)
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
    model->piece_count = lt_model_pieces(model, &model->pieces_before, NULL);
}

/* What this rank of a group holds. */
static void find_part(lt_model *model) {
    lt_model_shape *whole = &model->options.shape;
    const lt_tensor_group *group = model->options.group;
    if (whole->attention == LT_ATTENTION_SOFTMAX) whole->bias_length = 0;
    model->group = group != NULL && group->ranks > 1 ? group : NULL;
    model->rank = model->group == NULL ? 0 : group->rank;
    model->ranks = model->group == NULL ? 1 : group->ranks;
    model->shape = lt_shape_cut(whole, model->ranks);
    const int64_t width = model->shape.vocabulary, first = model->rank * width;
    model->vocabulary = (lt_vocabulary){
        .first = first, .count = larger(0, smaller(width, whole->vocabulary - first)), .width = width};
    model->most_rows = model->options.micro_batch * model->options.sequence_length;
    model->attention_width = model->shape.heads * lt_head_size(&model->shape);
    model->qkv_width = (model->shape.heads + 2 * model->shape.key_heads) * lt_head_size(&model->shape);
    model->head_rows = head_rows(model);
    model->logits_width = lt_type_bytes(model->device->compute_type) < sizeof(float)
                              ? divide_up(width, ALIGNED) * ALIGNED
                              : width;
}

/* Everything on the host that does not depend on memory of the device. */
static lt_status prepare(const lt_model_options *options, lt_device *device, lt_model **result) {
    lt_model *model = calloc(1, sizeof *model);
    if (model == NULL) return lt_fail(LT_IO, "no memory for a model");
    *result = model;
    model->device = device;
    model->options = *options;
    find_part(model);
    const lt_model_shape *whole = &model->options.shape, *shape = &model->shape;
    LT_CHECK(lt_registry_create_cut(whole, model->ranks, &model->registry));
    find_share(model);
    model->layers = calloc((size_t)shape->layers, sizeof *model->layers);
    model->matrices = calloc((size_t)shape->layers, sizeof *model->matrices);
    model->kept = calloc((size_t)shape->layers, sizeof *model->kept);
    model->gradients = calloc((size_t)options->gradient_buffers + 1, sizeof *model->gradients);
    model->cuts = calloc((size_t)model->ranks + 1, sizeof *model->cuts);
    model->exchanged =
        calloc((size_t)(whole->layers * whole->heads * LT_STATISTICS), sizeof *model->exchanged);
    if (model->layers == NULL || model->matrices == NULL || model->kept == NULL || model->gradients == NULL ||
        model->cuts == NULL || model->exchanged == NULL)
        return lt_fail(LT_IO, "no memory for a model of %lld layers", (long long)shape->layers);
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
    const int64_t elements = length * lt_head_size(&model->shape);
    float *table = malloc(sizeof(float) * (size_t)elements);
    if (table == NULL) return lt_fail(LT_IO, "no memory for %lld rotary angles", (long long)elements);
    lt_rope_angles(&model->shape, length, table);
    model->device->ops->upload(model->device, model->rope_table, table, elements);
    free(table);
    return LT_OK;
}

static lt_status fill_pieces(lt_model *model) {
    if (!model->options.training) return LT_OK;
    const int64_t bytes = model->piece_count * (int64_t)sizeof(lt_flat_piece);
    lt_flat_piece *pieces = malloc((size_t)bytes + 1);
    if (pieces == NULL) return lt_fail(LT_IO, "no memory for %lld pieces", (long long)model->piece_count);
    lt_model_pieces(model, &model->pieces_before, pieces);
    model->device->ops->upload(model->device, model->pieces, pieces, bytes);
    free(pieces);
    return LT_OK;
}

/* What passes between host and device. */
static lt_status allocate_on_host(lt_model *model) {
    const int64_t results = model->options.loss_slots + model->square_sums;
    model->tokens = calloc((size_t)(3 * model->most_rows), sizeof *model->tokens);
    model->results = calloc((size_t)results, sizeof *model->results);
    if (model->tokens == NULL || model->results == NULL)
        return lt_fail(LT_IO, "no memory for %lld tokens and %lld sums", (long long)model->most_rows,
                       (long long)results);
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
    if (status == LT_OK) status = allocate_on_host(model);
    if (status == LT_OK) {
        place(model, &(lt_arena){.base = model->memory.address});
        status = fill_rope_table(model);
        if (status == LT_OK) status = fill_pieces(model);
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
    free(model->matrices);
    free(model->kept);
    free(model->gradients);
    free(model->cuts);
    free(model->exchanged);
    free(model->tokens);
    free(model->results);
    free(model);
}

const lt_registry *lt_model_registry(const lt_model *model) {
    return &model->registry;
}
