#include "model/step.h"

#include <math.h>

int64_t lt_step_workspace(const lt_model *model, int64_t rows) {
    return rows + lt_model_square_sums(model) + lt_model_whole_squares_count(model);
}

/* Sums over lanes grow like a binary counter: buffer `height` - 1 holds the last lane; after lane i, as many
 * neighbours are merged as i + 1 has trailing zero bits. So lanes 0..3 give (0 + 1) + (2 + 3) in three
 * buffers. */
typedef struct lane_stack {
    lt_model *model;
    const lt_exchange *exchange;
    int height;
    bool asked, dropped; /* what should_drop() finally said */
} lane_stack;

static void merge_lanes(lane_stack *stack, int64_t lanes_done) {
    for (; lanes_done % 2 == 0; lanes_done /= 2) {
        lt_model_add_gradients(stack->model, stack->height - 2, stack->height - 1, 0,
                               lt_model_registry(stack->model)->elements);
        stack->height--;
    }
}

static lt_status ask_finally(lane_stack *stack) {
    const lt_exchange *exchange = stack->exchange;
    stack->asked = true;
    return exchange->should_drop == NULL ? LT_OK
                                         : exchange->should_drop(exchange->context, true, &stack->dropped);
}

/* The last lane merges the whole stack, run by run as its gradients become final, and sends each run out. */
static lt_status send_gradients(void *context, int64_t first, int64_t count) {
    lane_stack *stack = context;
    const lt_exchange *exchange = stack->exchange;
    if (!stack->asked) LT_CHECK(ask_finally(stack));
    if (stack->dropped) return LT_OK;
    for (int top = stack->height - 1; top > 0; top--)
        lt_model_add_gradients(stack->model, top - 1, top, first, count);
    if (exchange->reduce_begin == NULL) return LT_OK;
    return exchange->reduce_begin(exchange->context, lt_model_gradients(stack->model), first, count);
}

/* Forward and backward of one micro-batch; `index` counts those of this rank. */
static lt_status run_batch(lane_stack *stack, const lt_step_options *options, int64_t index) {
    const lt_exchange *exchange = stack->exchange;
    const lt_gradient_watch watch = {.context = stack, .ready = send_gradients};
    const bool last = index == options->lanes * options->batches_per_lane - 1;
    lt_tokens tokens;
    LT_CHECK(exchange->next_batch(exchange->context, last, &tokens));
    if (tokens.rows > 0)
        return lt_model_forward_backward(stack->model, &tokens, 1.0 / (double)options->targets,
                                         stack->height - 1, index % options->batches_per_lane == 0,
                                         index * options->micro_batch, last ? &watch : NULL);
    return last ? ask_finally(stack) : LT_OK;
}

/* Forward and backward of every micro-batch of this rank; the sum of its lanes ends in buffer 0. */
static lt_status accumulate(lt_model *model, const lt_step_options *options, const lt_exchange *exchange,
                            bool *dropped) {
    lane_stack stack = {.model = model, .exchange = exchange};
    const int64_t batches = options->lanes * options->batches_per_lane;
    for (int64_t index = 0; index < batches && !stack.dropped; index++) {
        if (index % options->batches_per_lane == 0) {
            if (index > 0) merge_lanes(&stack, index / options->batches_per_lane);
            stack.height++;
        }
        if (exchange->should_drop != NULL)
            LT_CHECK(exchange->should_drop(exchange->context, false, &stack.dropped));
        if (!stack.dropped) LT_CHECK(run_batch(&stack, options, index));
    }
    *dropped = stack.dropped;
    return LT_OK;
}

/* The loss sum of this rank: rows of a lane in order, lanes along the tree. */
static double sum_losses(const lt_step_options *options, const double *sums) {
    const int64_t rows_per_lane = options->batches_per_lane * options->micro_batch;
    double stack[64] = {0};
    int height = 0;
    for (int64_t lane = 0; lane < options->lanes; lane++) {
        double sum = 0;
        for (int64_t row = 0; row < rows_per_lane; row++) sum += sums[lane * rows_per_lane + row];
        stack[height++] = sum;
        for (int64_t done = lane + 1; done % 2 == 0; done /= 2, height--)
            stack[height - 2] += stack[height - 1];
    }
    return stack[0];
}

/* Norm over all trained parameters; finds the first one that is not finite. Of sharded sums each is one
 * rank's and 0 elsewhere, so that reducing them is exact. */
static lt_status measure_gradients(lt_model *model, const lt_step_options *options,
                                   const lt_exchange *exchange, double *sums, lt_step_result *result) {
    const lt_registry *registry = lt_model_registry(model);
    double *squares = sums + lt_model_square_sums(model);
    if (exchange->gather_parameters != NULL && exchange->reduce_doubles != NULL)
        LT_CHECK(exchange->reduce_doubles(exchange->context, sums, lt_model_square_sums(model)));
    LT_CHECK(lt_model_whole_squares(model, sums, squares));
    double sum = 0;
    for (int i = 0; i < registry->count; i++) {
        const lt_parameter *parameter = &registry->parameters[i];
        if (parameter->lazy && options->update.freeze_lazy) continue;
        if (!isfinite(squares[i]) && result->first_nonfinite == NULL) result->first_nonfinite = parameter;
        sum += squares[i];
    }
    result->gradient_norm = sqrt(sum);
    return LT_OK;
}

lt_status lt_step_run(lt_model *model, const lt_step_options *options, const lt_exchange *exchange,
                      lt_step_result *result) {
    *result = (lt_step_result){.outcome = LT_STEP_DROPPED};
    bool dropped = false;
    LT_CHECK(accumulate(model, options, exchange, &dropped));
    if (dropped) return LT_OK;

    if (exchange->reduce_end != NULL) LT_CHECK(exchange->reduce_end(exchange->context));
    LT_CHECK(lt_model_sum_copies(model));
    const int64_t rows = options->lanes * options->batches_per_lane * options->micro_batch;
    double *losses = options->workspace, *squares = losses + rows;
    LT_CHECK(lt_model_results(model, rows, losses, squares));
    result->own_loss_sum = sum_losses(options, losses);
    double loss_sum = result->own_loss_sum;
    if (exchange->reduce_doubles != NULL) LT_CHECK(exchange->reduce_doubles(exchange->context, &loss_sum, 1));
    result->loss = loss_sum / (double)options->targets;
    LT_CHECK(measure_gradients(model, options, exchange, squares, result));

    if (!isfinite(result->loss) || !isfinite(result->gradient_norm)) {
        result->outcome = LT_STEP_NONFINITE;
        return LT_OK;
    }
    lt_update update = options->update;
    update.gradient_scale = 1.0;
    if (options->gradient_clip > 0)
        update.gradient_scale = fmin(1.0, options->gradient_clip / (result->gradient_norm + 1e-6));
    lt_model_update(model, &update);
    if (exchange->gather_parameters != NULL)
        LT_CHECK(exchange->gather_parameters(exchange->context, lt_model_parameters(model)));
    result->outcome = LT_STEP_UPDATED;
    return LT_OK;
}
