/* Whole training steps, each of so many micro-batches that the update is as small a part as in training. */
#include "model/step.h"
#include "tests/gpu/bench.h"

#include <stdio.h>
#include <stdlib.h>

typedef struct steps {
    lt_tokens tokens;
    lt_model *model;
    lt_step_options options;
} steps;

enum { BATCHES = 8 };

static lt_status next_batch(void *context, bool last, lt_tokens *tokens) {
    (void)last;
    *tokens = ((const steps *)context)->tokens;
    return LT_OK;
}

static void step(bench *b, void *context) {
    (void)b;
    steps *s = context;
    lt_step_result result;
    const lt_exchange exchange = {.context = s, .next_batch = next_batch};
    bench_check(lt_step_run(s->model, &s->options, &exchange, &result));
    s->options.update.step++;
}

static double mib(size_t bytes) {
    return (double)bytes / 1048576.0;
}

/* The GPU as a run finds it: nothing is held. */
static void reopen(bench *b) {
    b->device->ops->destroy(b->device);
    bench_check(lt_cuda_device_create(0, &b->device));
    bench_check(lt_cuda_device_describe(b->device, &b->chip));
}

static void measure(bench *b, const char *name, lt_model_shape shape, int64_t length, int64_t micro_batch) {
    bench_entry(b);
    printf("{\"steps\": \"%s\", \"T\": %lld, \"micro_batch\": %lld, \"micro_batches\": %d", name,
           (long long)length, (long long)micro_batch, BATCHES);
    if (b->list) {
        printf("}");
        return;
    }
    reopen(b);
    const lt_model_options options = {.shape = shape,
                                      .sequence_length = length,
                                      .micro_batch = micro_batch,
                                      .training = true,
                                      .gradient_buffers = 1,
                                      .loss_slots = BATCHES * micro_batch};
    const lt_memory_plan plan = lt_model_plan(&options, b->device);
    const double needed =
        mib(plan.parameters + plan.optimizer + plan.gradients + plan.activations + plan.scratch);
    if (needed > mib(b->chip.available)) {
        printf(", \"refused\": \"needs %.0f MiB, of which %.0f are free\"}", needed, mib(b->chip.available));
        fprintf(stderr, "%-8s needs %.0f MiB, of which %.0f are free\n", name, needed,
                mib(b->chip.available));
        return;
    }
    const int64_t rows = micro_batch * length;
    int32_t *ids = bench_memory((size_t)(2 * rows) * sizeof *ids);
    for (int64_t i = 0; i < 2 * rows; i++) ids[i] = (int32_t)(bench_random() % (uint64_t)shape.vocabulary);
    steps s = {.tokens = {.rows = micro_batch, .inputs = ids, .targets = ids + rows}};
    bench_check(lt_model_create(&options, b->device, &s.model));
    bench_check(lt_model_initialise(s.model, 1));
    s.options = (lt_step_options){
        .lanes = 1,
        .batches_per_lane = BATCHES,
        .micro_batch = micro_batch,
        .targets = BATCHES * rows,
        .gradient_clip = 1,
        .workspace = bench_memory(sizeof(double) * (size_t)lt_step_workspace(s.model, BATCHES * micro_batch)),
        .update = {.step = 1,
                   .learning_rate = 1e-4,
                   .lazy_learning_rate = 1e-4,
                   .beta1 = 0.9,
                   .beta2 = 0.95,
                   .epsilon = 1e-8,
                   .weight_decay = 0.1}};
    const double seconds = bench_seconds(b, step, &s), rate = (double)(BATCHES * rows) / seconds;
    const double flops = 1e-12 * rate * lt_model_flops_per_token(&shape, length);
    const double peak = b->chip.peak_tflops > 0 ? b->chip.peak_tflops : b->gemm_tflops;
    lt_cuda_description held;
    bench_check(lt_cuda_device_describe(b->device, &held));
    const double taken = mib(b->chip.available - held.available);
    printf(", \"tokens_per_s\": %.6g, \"tflops\": %.4g, \"utilisation\": %.4g, \"share_of_products\": %.4g, "
           "\"planned_mib\": %.1f, \"memory_mib\": %.1f}",
           rate, flops, flops / peak, flops / b->gemm_tflops, needed, taken);
    fprintf(stderr,
            "%-8s %d x %lld x %lld  %9.0f tokens/s  %6.1f Tflop/s, %.2f of the %s peak, %.2f of the best "
            "product; %.0f MiB, %.0f planned\n",
            name, BATCHES, (long long)micro_batch, (long long)length, rate, flops, flops / peak,
            b->chip.peak_tflops > 0 ? "stated" : "measured", flops / b->gemm_tflops, taken, needed);
    lt_model_destroy(s.model);
    free(s.options.workspace);
    free(ids);
}

static lt_model_shape shape_of(int64_t hidden, int64_t layers, int64_t heads, int64_t ffn,
                               int64_t vocabulary) {
    return (lt_model_shape){.vocabulary = vocabulary,
                            .hidden = hidden,
                            .layers = layers,
                            .heads = heads,
                            .key_heads = heads,
                            .intermediate = ffn,
                            .rope_theta = 10000,
                            .norm_eps = 1e-6,
                            .init_std = 0.02,
                            .tied = true,
                            .attention = LT_ATTENTION_LAZY,
                            .bias_length = 512,
                            .bias_init_std = 0.001,
                            .tau_init = -1};
}

void bench_steps(bench *b) {
    if (b->smoke) {
        measure(b, "tiny", shape_of(64, 1, 1, 64, 64), 64, 1);
    } else {
        measure(b, "124M", shape_of(768, 12, 12, 2048, 50304), 1024, 16);
        measure(b, "340M", shape_of(1024, 24, 16, 2816, 32000), 4096, 4);
    }
    measure(b, "760M", shape_of(1536, 24, 16, 4096, 32000), 4096, 4); /* too large to emulate */
}
