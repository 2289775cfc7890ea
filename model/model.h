/* One model on one device: parameters, activations, gradients, optimiser, in memory that is planned once.
 *
 * No MPI, HDF5 or YAML is needed to build or use it. A model made for training serves micro-batches of up to
 * `micro_batch` rows of `sequence_length` tokens; nothing is allocated after creation.
 *
 * With a group of tensor-parallel ranks each of them holds a part: the registry, all arrays and shares are
 * those of lt_registry_create_cut(), and "collective" below means on the group, with the same micro-batch,
 * options and order of calls on all its ranks. Everything else is local. LT_IO where the group failed.
 */
#ifndef LT_MODEL_MODEL_H
#define LT_MODEL_MODEL_H

#include "model/ops.h"
#include "model/registry.h"
#include "model/tensor_group.h"

/* What a layer's backward pass computes again, with the same bits, instead of having kept it. */
typedef enum lt_recompute {
    LT_RECOMPUTE_NONE,
    LT_RECOMPUTE_ATTENTION, /* queries, keys, values and attention's output */
    LT_RECOMPUTE_FULL,      /* all but the layer's input */
} lt_recompute;

typedef struct lt_model_options {
    lt_model_shape shape;    /* of the whole model */
    int64_t sequence_length; /* T */
    int64_t micro_batch;     /* rows at a time */
    bool training;           /* gradients, optimiser state and kept activations */
    int gradient_buffers;    /* of a training model: 1 + log2(lanes of this rank) */
    int64_t loss_slots;      /* of a training model: rows (sequences) of one step on this rank */
    int share, shares;       /* of a training model: it has the moments of share `share` of `shares` of the
                                parameters (lt_registry_cut()) and updates these; `shares` 0: of all */
    const lt_tensor_group *group; /* outlives the model; NULL: one rank holds all */
    lt_recompute recompute;       /* of a training model */
} lt_model_options;

/* What the memory is for, in bytes, as printed before the start. */
typedef struct lt_memory_plan {
    size_t parameters, optimizer, gradients, activations, scratch;
    int64_t elements; /* of a flat array of parameters or gradients */
} lt_memory_plan;

typedef struct lt_model lt_model;

/* Plans without allocating. */
lt_memory_plan lt_model_plan(const lt_model_options *options, lt_device *device);

/* Allocates and zeroes everything. As lt_ops.allocate where memory is missing. The device
 * outlives the model. Parameters are zero until lt_model_initialise() or lt_model_put(). */
lt_status lt_model_create(const lt_model_options *options, lt_device *device, lt_model **model);
void lt_model_destroy(lt_model *model);

/* What this rank holds. */
const lt_registry *lt_model_registry(const lt_model *model);

/* Draws the initial weights that this rank holds, and zeroes the optimiser's moments. */
lt_status lt_model_initialise(lt_model *model, uint64_t seed);

/* The arrays that a tensor can be read from or written to. */
typedef enum lt_array {
    LT_ARRAY_PARAMETERS,
    LT_ARRAY_FIRST_MOMENT,
    LT_ARRAY_SECOND_MOMENT,
    LT_ARRAY_GRADIENTS
} lt_array;

/* Elements [first, first + count) of a parameter (GRADIENTS: of gradient buffer 0), to or from the host. Of
 * moments those in this model's share; `values` of others are left alone, or not read. */
lt_status lt_model_get(lt_model *model, lt_array array, const lt_parameter *parameter, int64_t first,
                       int64_t count, float *values);
lt_status lt_model_put(lt_model *model, lt_array array, const lt_parameter *parameter, int64_t first,
                       int64_t count, const float *values);

/* One micro-batch on the host, row-major [rows, T]. */
typedef struct lt_tokens {
    int64_t rows; /* at most micro_batch */
    const int32_t *inputs, *targets;
    const int32_t *document_starts; /* NULL: no document mask */
} lt_tokens;

/* Is told, from the backward pass, that elements [first, first + count) of the gradient buffer are final for
 * this micro-batch. The runs are adjacent, descend, and cover the array. On a device with a stream the
 * operations that make them final are queued. */
typedef struct lt_gradient_watch {
    void *context;
    lt_status (*ready)(void *context, int64_t first, int64_t count);
} lt_gradient_watch;

/* Forward and backward of one micro-batch. Gradients of loss_sum * scale are added to gradient buffer
 * `buffer` (`first`: they replace what is there). The loss sums of the rows (nats, over T targets each) go to
 * loss slots `slot`, `slot` + 1, ... `watch` may be NULL; its errors are passed on. Collective. */
lt_status lt_model_forward_backward(lt_model *model, const lt_tokens *tokens, double scale, int buffer,
                                    bool first, int64_t slot, const lt_gradient_watch *watch);

/* to += from, elements [first, first + count) of two gradient buffers: one node of the lane tree. */
void lt_model_add_gradients(lt_model *model, int to, int from, int64_t first, int64_t count);

/* The flat float32 gradient buffer 0 and the parameters on the device, for the exchange between ranks. */
lt_mem lt_model_gradients(lt_model *model);
lt_mem lt_model_parameters(lt_model *model);

/* Once the gradients of buffer 0 are summed over data ranks: those that several ranks of the group hold are
 * summed over them, in this model's share. Nothing to do without a group. Collective. */
lt_status lt_model_sum_copies(lt_model *model);

/* What a step's end needs of the device, in one copy: the first `count` loss slots to `losses`, and to
 * `squares` [lt_model_square_sums()] sums of squares of the gradients in buffer 0, one for each LT_FLAT_PIECE
 * elements of each parameter in registry order, 0 outside this model's share. Added up in order they have the
 * same bits whatever the shares. Either may be NULL. Waits. */
int64_t lt_model_square_sums(const lt_model *model);
lt_status lt_model_results(lt_model *model, int64_t count, double *losses, double *squares);

/* From such sums, over all shares, those of whole parameters: [registry's count] at the start of `whole`,
 * which has lt_model_whole_squares_count() places. Each part of a parameter counts once, and all ranks of a
 * group get the same bits. Collective. */
int64_t lt_model_whole_squares_count(const lt_model *model);
lt_status lt_model_whole_squares(lt_model *model, const double *sums, double *whole);

typedef struct lt_update {
    int64_t step; /* s = 1, 2, ...: of the bias correction */
    double learning_rate, lazy_learning_rate;
    bool freeze_lazy;
    double beta1, beta2, epsilon, weight_decay;
    double gradient_scale; /* of clipping */
} lt_update;

/* AdamW with the gradients of buffer 0, on this model's share of the parameters. */
void lt_model_update(lt_model *model, const lt_update *update);

/* Forward only: loss sums of the rows to `sums` [rows]. Waits. Collective. */
lt_status lt_model_evaluate(lt_model *model, const lt_tokens *tokens, double *sums);

/* Attention statistics of a forward pass over `tokens`, added to `statistics` [layers, heads, LT_STATISTICS]
 * of the whole model. Collective. */
lt_status lt_model_statistics(lt_model *model, const lt_tokens *tokens, double *statistics);

/* Decoding with a key and value cache, on one rank: a model with a group is refused (LT_BAD_INPUT). */
typedef struct lt_decoder lt_decoder;

/* A decoder of up to `capacity` positions over the model's weights. */
lt_status lt_decoder_create(lt_model *model, int64_t capacity, lt_decoder **decoder);
void lt_decoder_destroy(lt_decoder *decoder);

/* Appends `count` tokens and gives the logits [vocabulary] after the last one. LT_BAD_INPUT beyond the
 * capacity. */
lt_status lt_decoder_append(lt_decoder *decoder, const int32_t *tokens, int64_t count, float *logits);

/* Floating-point operations of forward and backward for one token (contracts.md, "Metrics"): 6 N, the head in
 * N and the embedding not, plus 6 products of causal attention. */
double lt_model_flops_per_token(const lt_model_shape *shape, int64_t sequence_length);

#endif
