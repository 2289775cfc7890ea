/* Decoding with a cache: the same layers as forward.c over a few new tokens, whose keys and values join those
 * of all tokens before. A token's cache row holds k then v, as they lie behind q in a row of qkv. */
#include "model/arena.h"
#include "model/plan.h"

#include <stdlib.h>

/* A long prompt goes through in pieces of this many tokens. */
enum { PIECE = 64 };

struct lt_decoder {
    lt_model *model;
    int64_t capacity, length, cache_width;
    lt_mem memory;
    size_t memory_bytes;
    lt_mem cache; /* [layers, capacity, cache_width] */
    lt_mem rope_table, tokens, stream, normed, rms, qkv, attention, gate_up, activated, logits, saved;
};

static lt_attention attention_of(const lt_decoder *decoder, int64_t layer, int64_t position, int64_t count) {
    const lt_model *model = decoder->model;
    const lt_model_shape *shape = &model->options.shape;
    const lt_mem cache = lt_at(decoder->cache, layer * decoder->capacity * decoder->cache_width);
    lt_attention attention = {
        .batch = 1,
        .query_length = count,
        .key_length = position + count,
        .heads = shape->heads,
        .key_heads = shape->key_heads,
        .head_size = lt_head_size(shape),
        .bias_length = shape->bias_length,
        .q = decoder->qkv,
        .k = cache,
        .v = lt_at(cache, decoder->cache_width / 2),
        .query_stride = model->qkv_width,
        .key_stride = decoder->cache_width,
        .output = decoder->attention,
        .saved = decoder->saved,
    };
    if (shape->bias_length > 0) {
        attention.bias = lt_at(model->parameters, model->layers[layer].bias);
        attention.tau = lt_at(model->parameters, model->layers[layer].tau);
    }
    return attention;
}

static void place(lt_decoder *decoder, lt_arena *arena) {
    lt_model *model = decoder->model;
    const lt_model_shape *shape = &model->options.shape;
    const lt_type type = model->device->compute_type;
    decoder->cache = lt_arena_take(arena, type, shape->layers * decoder->capacity * decoder->cache_width);
    decoder->rope_table = lt_arena_take(arena, LT_FLOAT32, decoder->capacity * lt_head_size(shape));
    decoder->tokens = lt_arena_take(arena, LT_INT32, PIECE);
    decoder->stream = lt_arena_take(arena, type, PIECE * shape->hidden);
    decoder->normed = lt_arena_take(arena, type, PIECE * shape->hidden);
    decoder->rms = lt_arena_take(arena, LT_FLOAT32, PIECE);
    decoder->qkv = lt_arena_take(arena, type, PIECE * model->qkv_width);
    decoder->attention = lt_arena_take(arena, type, PIECE * shape->hidden);
    decoder->gate_up = lt_arena_take(arena, type, PIECE * 2 * shape->intermediate);
    decoder->activated = lt_arena_take(arena, type, PIECE * shape->intermediate);
    decoder->logits = lt_arena_take(arena, LT_FLOAT32, shape->vocabulary);
    const lt_attention largest = attention_of(decoder, 0, decoder->capacity, PIECE);
    decoder->saved = lt_arena_take(
        arena, LT_BYTES, (int64_t)model->device->ops->attention_saved_bytes(model->device, &largest));
}

lt_status lt_decoder_create(lt_model *model, int64_t capacity, lt_decoder **result) {
    if (model->group != NULL)
        return lt_fail(LT_BAD_INPUT,
                       "a model that is cut among %d tensor-parallel ranks cannot decode: run on one",
                       model->ranks);
    lt_decoder *decoder = calloc(1, sizeof *decoder);
    float *angles = malloc(sizeof(float) * (size_t)(capacity * lt_head_size(&model->options.shape)));
    if (decoder == NULL || angles == NULL) {
        free(decoder);
        free(angles);
        return lt_fail(LT_IO, "no memory for a decoder of %lld positions", (long long)capacity);
    }
    lt_device *device = model->device;
    decoder->model = model;
    decoder->capacity = capacity;
    decoder->cache_width = 2 * model->options.shape.key_heads * lt_head_size(&model->options.shape);
    lt_arena count = {0};
    place(decoder, &count);
    decoder->memory_bytes = count.used;
    const lt_attention largest = attention_of(decoder, 0, capacity, PIECE);
    lt_status status = device->ops->reserve(
        device, device->ops->scratch_bytes(device, &largest, PIECE, model->options.shape.hidden, 1));
    if (status == LT_OK) status = device->ops->allocate(device, decoder->memory_bytes, &decoder->memory);
    if (status == LT_OK) {
        place(decoder, &(lt_arena){.base = decoder->memory.address});
        lt_rope_angles(&model->options.shape, capacity, angles);
        device->ops->upload(device, decoder->rope_table, angles,
                            capacity * lt_head_size(&model->options.shape));
        *result = decoder;
    } else {
        free(decoder);
    }
    free(angles);
    return status;
}

void lt_decoder_destroy(lt_decoder *decoder) {
    if (decoder == NULL) return;
    decoder->model->device->ops->release(decoder->model->device, decoder->memory, decoder->memory_bytes);
    free(decoder);
}

static void attend(lt_decoder *decoder, int64_t layer, int64_t count) {
    lt_model *model = decoder->model;
    lt_device *device = model->device;
    const lt_ops *ops = device->ops;
    const lt_model_shape *shape = &model->options.shape;
    const lt_layer_offsets *at = &model->layers[layer];
    ops->rmsnorm_forward(device, decoder->stream, lt_at(model->parameters, at->attn_norm), shape->norm_eps,
                         count, shape->hidden, decoder->normed, decoder->rms);
    lt_linear(device, decoder->normed, model->matrices[layer].qkv, count, shape->hidden, model->qkv_width,
              LT_NOWHERE, decoder->qkv);
    ops->rope(device, decoder->qkv, model->qkv_width, decoder->rope_table, count, count, decoder->length,
              shape->heads + shape->key_heads, lt_head_size(shape), false);
    for (int64_t i = 0; i < count; i++)
        ops->copy(
            device,
            lt_at(decoder->cache, (layer * decoder->capacity + decoder->length + i) * decoder->cache_width),
            lt_at(decoder->qkv, i * model->qkv_width + shape->hidden), decoder->cache_width);
    const lt_attention attention = attention_of(decoder, layer, decoder->length, count);
    ops->attention_forward(device, &attention);
    lt_linear(device, decoder->attention, model->matrices[layer].o_proj, count, shape->hidden, shape->hidden,
              decoder->stream, decoder->stream);
}

static void feed_forward(lt_decoder *decoder, int64_t layer, int64_t count) {
    lt_model *model = decoder->model;
    lt_device *device = model->device;
    const lt_model_shape *shape = &model->options.shape;
    const lt_layer_offsets *at = &model->layers[layer];
    device->ops->rmsnorm_forward(device, decoder->stream, lt_at(model->parameters, at->mlp_norm),
                                 shape->norm_eps, count, shape->hidden, decoder->normed, decoder->rms);
    lt_linear(device, decoder->normed, model->matrices[layer].gate_up, count, shape->hidden,
              2 * shape->intermediate, LT_NOWHERE, decoder->gate_up);
    device->ops->swiglu_forward(device, decoder->gate_up, count, shape->intermediate, decoder->activated);
    lt_linear(device, decoder->activated, model->matrices[layer].down_proj, count, shape->intermediate,
              shape->hidden, decoder->stream, decoder->stream);
}

static void append_piece(lt_decoder *decoder, const int32_t *tokens, int64_t count) {
    lt_model *model = decoder->model;
    model->device->ops->upload(model->device, decoder->tokens, tokens, count);
    model->device->ops->embedding_forward(model->device, decoder->tokens, &model->vocabulary,
                                          model->embedding_matrix, count, model->options.shape.hidden,
                                          decoder->stream);
    for (int64_t layer = 0; layer < model->options.shape.layers; layer++) {
        attend(decoder, layer, count);
        feed_forward(decoder, layer, count);
    }
    decoder->length += count;
}

lt_status lt_decoder_append(lt_decoder *decoder, const int32_t *tokens, int64_t count, float *logits) {
    lt_model *model = decoder->model;
    lt_device *device = model->device;
    const lt_model_shape *shape = &model->options.shape;
    if (count < 1 || decoder->length + count > decoder->capacity)
        return lt_fail(LT_BAD_INPUT, "decoder: %lld tokens after %lld do not fit its %lld positions",
                       (long long)count, (long long)decoder->length, (long long)decoder->capacity);
    lt_model_refresh_matrices(model);
    int64_t piece = 0;
    for (int64_t done = 0; done < count; done += piece) {
        piece = count - done < PIECE ? count - done : PIECE;
        append_piece(decoder, tokens + done, piece);
    }
    const lt_mem last = lt_at(decoder->stream, (piece - 1) * shape->hidden);
    device->ops->rmsnorm_forward(device, last, lt_at(model->parameters, model->final_norm), shape->norm_eps,
                                 1, shape->hidden, decoder->normed, decoder->rms);
    lt_linear(device, decoder->normed, model->head_matrix, 1, shape->hidden, shape->vocabulary, LT_NOWHERE,
              decoder->logits);
    return device->ops->download(device, logits, decoder->logits, shape->vocabulary);
}
