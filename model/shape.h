/* The shape of a model: what `model.*` of the config says, and what follows from it. */
#ifndef LT_MODEL_SHAPE_H
#define LT_MODEL_SHAPE_H

#include <stdbool.h>
#include <stdint.h>

typedef enum lt_attention_kind { LT_ATTENTION_LAZY, LT_ATTENTION_SOFTMAX } lt_attention_kind;

typedef struct lt_model_shape {
    int64_t vocabulary, hidden, layers, heads, key_heads, intermediate;
    double rope_theta, norm_eps, init_std;
    bool tied; /* the head is the embedding */
    lt_attention_kind attention;
    int64_t bias_length; /* W; 0 under softmax */
    double bias_init_std, tau_init;
} lt_model_shape;

static inline int64_t lt_head_size(const lt_model_shape *shape) {
    return shape->hidden / shape->heads;
}

#endif
