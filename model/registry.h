/* The parameter registry: every trained tensor of a model, by the name that the authors' published
 * checkpoints give it, with its shape (as in PyTorch, [out, in]) and where it lies in the one flat array that
 * holds all parameters. Gradients and both AdamW moments are arrays of the same layout. Order: embedding,
 * layers, final norm, head; q, k, v of a layer are neighbours, and so are gate and up, so that each group is
 * one matrix product.
 */
#ifndef LT_MODEL_REGISTRY_H
#define LT_MODEL_REGISTRY_H

#include "comm/status.h"
#include "model/shape.h"

#include <stdbool.h>
#include <stdint.h>

/* How tensor parallelism cuts a parameter (model/split.h has the arithmetic). */
typedef enum lt_split {
    LT_SPLIT_NONE,    /* replicated */
    LT_SPLIT_ROWS,    /* over the first dimension: vocabulary, heads, ffn */
    LT_SPLIT_COLUMNS, /* over the second dimension: o_proj, down_proj */
} lt_split;

/* How its initial values are drawn. */
typedef enum lt_init {
    LT_INIT_ONE,    /* norms */
    LT_INIT_NORMAL, /* N(0, std) */
    LT_INIT_VALUE,  /* tau: the constant std holds */
} lt_init;

typedef struct lt_parameter {
    char name[96];
    int dimensions; /* 1 or 2 */
    int64_t shape[2];
    int64_t offset, count; /* in the flat array, in elements */
    lt_split split;
    int parts; /* different ones among the ranks of a cut registry, neighbours holding the same; else 1 */
    lt_init init;
    double init_value; /* std of LT_INIT_NORMAL, the constant of LT_INIT_VALUE */
    bool decays;       /* weight decay applies: matrices only */
    bool lazy;         /* tau or distance bias: rate times lazy_lr_multiplier, frozen by freeze_lazy_after */
} lt_parameter;

typedef struct lt_registry {
    int count;
    int64_t elements; /* of the flat array */
    lt_parameter *parameters;
} lt_registry;

/* Elements [first, end). */
typedef struct lt_span {
    int64_t first, end;
} lt_span;

/* Lists the parameters of `shape`. LT_IO without memory. Local. */
lt_status lt_registry_create(const lt_model_shape *shape, lt_registry *registry);

/* Lists what one of `ranks` tensor-parallel ranks holds of them: names, order and layout are the same on all,
 * and names and order those of the whole. Errors as above. Local. */
lt_status lt_registry_create_cut(const lt_model_shape *whole, int ranks, lt_registry *registry);
void lt_registry_destroy(lt_registry *registry);

/* The flat array in `shares` contiguous shares, as even as the cuts allow: where share `share` begins; for
 * `share` = `shares`, the number of elements. A cut lies a multiple of LT_FLAT_PIECE elements behind the
 * start of a parameter, or at one: so sums of squares and AdamW work at the same pieces in shares as in the
 * whole, and have the same bits. The shares of a small model may be empty. Local. */
int64_t lt_registry_cut(const lt_registry *registry, int share, int shares);

/* The parameter called `name`, or NULL. */
const lt_parameter *lt_registry_find(const lt_registry *registry, const char *name);

/* Draws the initial values of elements [first, first + count) of `parameter`, a whole one, into `values` with
 * a counter generator keyed by (seed, name, element): the same whatever the layout. */
void lt_parameter_initialise(const lt_parameter *parameter, uint64_t seed, int64_t first, int64_t count,
                             float *values);

#endif
