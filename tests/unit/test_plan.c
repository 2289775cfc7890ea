/* Memory: what the plan promises, and that a step asks for none. */
#include "model/step.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>

#include <cmocka.h>

/* glibc's own allocator, counted. The sanitizers bring theirs, so there the count stays 0 and proves nothing.
 */
#if defined(__GLIBC__) && !defined(__SANITIZE_ADDRESS__)
#define LT_COUNTS_ALLOCATIONS 1
extern void *__libc_malloc(size_t size);
extern void *__libc_calloc(size_t count, size_t size);
extern void *__libc_realloc(void *old, size_t size);
static _Atomic long allocations;

void *malloc(size_t size) {
    allocations++;
    return __libc_malloc(size);
}

void *calloc(size_t count, size_t size) {
    allocations++;
    return __libc_calloc(count, size);
}

void *realloc(void *old, size_t size) {
    allocations++;
    return __libc_realloc(old, size);
}
#endif

static lt_device *device;

static lt_model_options options_of(int64_t sequence_length, int64_t vocabulary) {
    return (lt_model_options){.shape = {.vocabulary = vocabulary,
                                        .hidden = 32,
                                        .layers = 2,
                                        .heads = 2,
                                        .key_heads = 2,
                                        .intermediate = 48,
                                        .rope_theta = 10000,
                                        .norm_eps = 1e-6,
                                        .init_std = 0.02,
                                        .bias_length = 16,
                                        .tau_init = -1},
                              .sequence_length = sequence_length,
                              .micro_batch = 2,
                              .training = true,
                              .gradient_buffers = 1,
                              .loss_slots = 2};
}

static double working_bytes(const lt_model_options *options) {
    const lt_memory_plan plan = lt_model_plan(options, device);
    return (double)plan.activations + (double)plan.scratch;
}

/* Twice the tokens take about twice the memory; T x T would take four times as much. Logits are held for a
 * bounded number of tokens, so they drop out of the growth. */
static void memory_grows_with_the_length(void **state) {
    (void)state;
    for (int64_t length = 8192; length <= 65536; length *= 2) {
        const lt_model_options one = options_of(length, 64), two = options_of(2 * length, 64);
        const double ratio = working_bytes(&two) / working_bytes(&one);
        assert_true(ratio > 1.8 && ratio < 2.2);
    }
}

static void logits_of_a_batch_are_never_held_at_once(void **state) {
    (void)state;
    const int64_t vocabulary = 50257, length = 4096;
    const lt_model_options options = options_of(length, vocabulary);
    assert_true(working_bytes(&options) < 0.2 * 4.0 * (double)(2 * length * vocabulary));
}

static void gradient_buffers_are_planned_by_lane(void **state) {
    (void)state;
    lt_model_options options = options_of(64, 64);
    const lt_memory_plan one = lt_model_plan(&options, device);
    options.gradient_buffers = 4; /* eight lanes on one rank */
    const lt_memory_plan four = lt_model_plan(&options, device);
    assert_true(four.gradients > 3 * one.gradients && four.gradients <= 4 * one.gradients);
    assert_int_equal(four.activations, one.activations);
}

static lt_status next_batch(void *context, bool last, lt_tokens *tokens) {
    (void)last;
    *tokens = *(const lt_tokens *)context;
    return LT_OK;
}

static void step_allocates_nothing(void **state) {
    (void)state;
    enum { T = 70 };
    static int32_t tokens[2 * T + 1];
    static double workspace[64];
    for (int i = 0; i <= 2 * T; i++) tokens[i] = i % 64;
    lt_tokens batch = {.rows = 2, .inputs = tokens, .targets = tokens + 1};
    const lt_model_options options = options_of(T, 64);
    lt_model *model;
    assert_int_equal(lt_model_create(&options, device, &model), LT_OK);
    assert_int_equal(lt_model_initialise(model, 1), LT_OK);
    assert_in_range(lt_step_workspace(model, 2), 1, 64);
    const lt_step_options step = {.lanes = 1,
                                  .batches_per_lane = 1,
                                  .micro_batch = 2,
                                  .targets = 2 * T,
                                  .workspace = workspace,
                                  .update = {.step = 1, .learning_rate = 1e-3, .epsilon = 1e-8}};
    const lt_exchange exchange = {.context = &batch, .next_batch = next_batch};
    lt_step_result result;
    assert_int_equal(lt_step_run(model, &step, &exchange, &result), LT_OK); /* the BLAS sets itself up */
#ifdef LT_COUNTS_ALLOCATIONS
    const long before = allocations;
    for (int i = 0; i < 5; i++) assert_int_equal(lt_step_run(model, &step, &exchange, &result), LT_OK);
    assert_int_equal(allocations - before, 0);
#else
    skip();
#endif
    lt_model_destroy(model);
}

static int setup(void **state) {
    (void)state;
    return lt_cpu_device_create(2, &device) == LT_OK ? 0 : -1;
}

static int teardown(void **state) {
    (void)state;
    device->ops->destroy(device);
    return 0;
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(memory_grows_with_the_length),
        cmocka_unit_test(logits_of_a_batch_are_never_held_at_once),
        cmocka_unit_test(gradient_buffers_are_planned_by_lane),
        cmocka_unit_test(step_allocates_nothing),
    };
    return cmocka_run_group_tests_name("memory", tests, setup, teardown);
}
