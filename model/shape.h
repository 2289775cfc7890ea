/* The shape of a model: what `model.*` of the config says, and what follows from it. */
#ifndef LT_MODEL_SHAPE_H
#define LT_MODEL_SHAPE_H

#include <stdbool.h>
#include <stdint.h>

typedef enum lt_attention_kind { LT_ATTENTION_LAZY, LT_ATTENTION_SOFTMAX } lt_attention_kind;

typedef struct lt_model_shape {
    int64_t vocabulary, hidden, layers, heads, key_heads, intermediate;
    int64_t head_size; /* 0: hidden / heads */
    double rope_theta, norm_eps, init_std;
    bool tied; /* the head is the embedding */
    lt_attention_kind attention;
    int64_t bias_length; /* W; 0 under softmax */
    double bias_init_std, tau_init;
} lt_model_shape;

static inline int64_t lt_head_size(const lt_model_shape *shape) {
    return shape->head_size > 0 ? shape->head_size : shape->hidden / shape->heads;
}

/* What one of `ranks` tensor-parallel ranks holds of a model: its heads with their key heads, its part of the
 * MLP and of the vocabulary, which is padded to equal parts. `ranks` divides heads and intermediate; it
 * divides key_heads, or is a multiple of them: then neighbouring ranks hold the same one. */
static inline lt_model_shape lt_shape_cut(const lt_model_shape *whole, int ranks) {
    lt_model_shape held = *whole;
    held.head_size = lt_head_size(whole);
    held.heads = whole->heads / ranks;
    held.key_heads = whole->key_heads > ranks ? whole->key_heads / ranks : 1;
    held.intermediate = whole->intermediate / ranks;
    held.vocabulary = (whole->vocabulary + ranks - 1) / ranks;
    return held;
}

#endif
