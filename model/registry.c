#include "model/registry.h"
#include "model/ops.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Appends one parameter; `layer` < 0 means that the name has no layer in it. */
static lt_parameter *append(lt_registry *registry, int64_t layer, const char *name, int64_t rows,
                            int64_t columns) {
    lt_parameter *parameter = &registry->parameters[registry->count++];
    memset(parameter, 0, sizeof *parameter);
    if (layer < 0)
        snprintf(parameter->name, sizeof parameter->name, "%s", name);
    else
        snprintf(parameter->name, sizeof parameter->name, "model.layers.%lld.%s", (long long)layer, name);
    parameter->dimensions = columns > 0 ? 2 : 1;
    parameter->shape[0] = rows;
    parameter->shape[1] = columns > 0 ? columns : 1;
    parameter->count = rows * parameter->shape[1];
    parameter->offset = registry->elements;
    parameter->parts = 1;
    registry->elements += parameter->count;
    return parameter;
}

static void append_norm(lt_registry *registry, int64_t layer, const char *name, int64_t hidden) {
    lt_parameter *parameter = append(registry, layer, name, hidden, 0);
    parameter->init = LT_INIT_ONE;
}

static void append_matrix(lt_registry *registry, int64_t layer, const char *name, int64_t rows,
                          int64_t columns, lt_split split, int parts, double std) {
    lt_parameter *parameter = append(registry, layer, name, rows, columns);
    parameter->split = split;
    parameter->parts = parts;
    parameter->init = LT_INIT_NORMAL;
    parameter->init_value = std;
    parameter->decays = true;
}

static void append_lazy(lt_registry *registry, int64_t layer, const lt_model_shape *shape, int parts) {
    lt_parameter *bias =
        append(registry, layer, "attn.learnable_bias_diagonals", shape->heads, shape->bias_length);
    bias->split = LT_SPLIT_ROWS;
    bias->parts = parts;
    bias->init = LT_INIT_NORMAL;
    bias->init_value = shape->bias_init_std;
    bias->lazy = true;
    lt_parameter *tau = append(registry, layer, "attn.tau", shape->heads, 0);
    tau->split = LT_SPLIT_ROWS;
    tau->parts = parts;
    tau->init = LT_INIT_VALUE;
    tau->init_value = shape->tau_init;
    tau->lazy = true;
}

lt_status lt_registry_create_cut(const lt_model_shape *whole, int ranks, lt_registry *registry) {
    enum { PER_LAYER = 11, OUTSIDE = 3 };
    const lt_model_shape shape = lt_shape_cut(whole, ranks);
    const int64_t hidden = shape.hidden, ffn = shape.intermediate;
    const int64_t width = shape.heads * shape.head_size, key_width = shape.key_heads * shape.head_size;
    const int key_parts = whole->key_heads < ranks ? (int)whole->key_heads : ranks;
    const double std = shape.init_std;
    *registry = (lt_registry){0};
    registry->parameters = malloc(sizeof(lt_parameter) * (size_t)(shape.layers * PER_LAYER + OUTSIDE));
    if (registry->parameters == NULL) return lt_fail(LT_IO, "no memory for the list of parameters");

    append_matrix(registry, -1, "model.embeddings.weight", shape.vocabulary, hidden, LT_SPLIT_ROWS, ranks,
                  std);
    registry->parameters[0].decays = false;
    for (int64_t layer = 0; layer < shape.layers; layer++) {
        append_norm(registry, layer, "attn_norm.weight", hidden);
        append_matrix(registry, layer, "attn.q_proj.weight", width, hidden, LT_SPLIT_ROWS, ranks, std);
        append_matrix(registry, layer, "attn.k_proj.weight", key_width, hidden, LT_SPLIT_ROWS, key_parts,
                      std);
        append_matrix(registry, layer, "attn.v_proj.weight", key_width, hidden, LT_SPLIT_ROWS, key_parts,
                      std);
        append_matrix(registry, layer, "attn.o_proj.weight", hidden, width, LT_SPLIT_COLUMNS, ranks, std);
        if (shape.attention == LT_ATTENTION_LAZY) append_lazy(registry, layer, &shape, ranks);
        append_norm(registry, layer, "mlp_norm.weight", hidden);
        append_matrix(registry, layer, "mlp.gate_proj.weight", ffn, hidden, LT_SPLIT_ROWS, ranks, std);
        append_matrix(registry, layer, "mlp.up_proj.weight", ffn, hidden, LT_SPLIT_ROWS, ranks, std);
        append_matrix(registry, layer, "mlp.down_proj.weight", hidden, ffn, LT_SPLIT_COLUMNS, ranks, std);
    }
    append_norm(registry, -1, "model.norm.weight", hidden);
    if (!shape.tied)
        append_matrix(registry, -1, "lm_head.weight", shape.vocabulary, hidden, LT_SPLIT_ROWS, ranks, std);
    return LT_OK;
}

lt_status lt_registry_create(const lt_model_shape *shape, lt_registry *registry) {
    return lt_registry_create_cut(shape, 1, registry);
}

void lt_registry_destroy(lt_registry *registry) {
    free(registry->parameters);
    *registry = (lt_registry){0};
}

const lt_parameter *lt_registry_find(const lt_registry *registry, const char *name) {
    for (int i = 0; i < registry->count; i++)
        if (strcmp(registry->parameters[i].name, name) == 0) return &registry->parameters[i];
    return NULL;
}

int64_t lt_registry_cut(const lt_registry *registry, int share, int shares) {
    const int64_t even = registry->elements / shares * share + registry->elements % shares * share / shares;
    const lt_parameter *p = registry->parameters, *last = p + registry->count - 1;
    while (p < last && even >= p->offset + p->count) p++;
    const int64_t inside = even - p->offset, below = inside / LT_FLAT_PIECE * LT_FLAT_PIECE;
    const int64_t above = below + LT_FLAT_PIECE < p->count ? below + LT_FLAT_PIECE : p->count;
    return p->offset + (inside - below < above - inside ? below : above);
}

/* The finaliser of SplitMix64 (Steele, Lea, Flood 2014): every output bit depends on every input bit. */
static uint64_t mix(uint64_t x) {
    x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9u;
    x = (x ^ (x >> 27)) * 0x94d049bb133111ebu;
    return x ^ (x >> 31);
}

static uint64_t name_key(const char *name, uint64_t seed) {
    uint64_t key = 0xcbf29ce484222325u; /* FNV-1a */
    for (; *name != '\0'; name++) key = (key ^ (unsigned char)*name) * 0x100000001b3u;
    return mix(key ^ mix(seed + 0x9e3779b97f4a7c15u));
}

/* A uniform double in (0, 1] from the counter. */
static double uniform(uint64_t key, uint64_t counter) {
    uint64_t bits = mix(key + (counter + 1) * 0x9e3779b97f4a7c15u);
    return (double)((bits >> 11) + 1) * 0x1p-53;
}

/* Elements 2p and 2p + 1 are the two values of the Box-Muller transform of counters 2p and 2p + 1. */
void lt_parameter_initialise(const lt_parameter *parameter, uint64_t seed, int64_t first, int64_t count,
                             float *values) {
    if (parameter->init != LT_INIT_NORMAL) {
        float value = parameter->init == LT_INIT_ONE ? 1.0f : (float)parameter->init_value;
        for (int64_t i = 0; i < count; i++) values[i] = value;
        return;
    }
    const uint64_t key = name_key(parameter->name, seed);
    const int64_t end = first + count;
    for (int64_t i = first / 2 * 2; i < end; i += 2) {
        double radius = parameter->init_value * sqrt(-2.0 * log(uniform(key, (uint64_t)i)));
        double angle = 6.283185307179586 * uniform(key, (uint64_t)i + 1);
        if (i >= first) values[i - first] = (float)(radius * cos(angle));
        if (i + 1 < end) values[i + 1 - first] = (float)(radius * sin(angle));
    }
}
