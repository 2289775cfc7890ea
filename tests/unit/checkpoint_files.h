/* A small model with known contents, saved and loaded by the tests of checkpoints/. */
#ifndef LT_TESTS_CHECKPOINT_FILES_H
#define LT_TESTS_CHECKPOINT_FILES_H

#include "checkpoints/checkpoint.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef struct test_model {
    lt_registry registry;
    float *values[3]; /* by kind, registry order */
    int64_t gets;     /* elements wanted of get() here */
    uint64_t asked;   /* of all get()s and their order */
    int fail_after;   /* number of the get() wanted here that fails; -1: none */
} test_model;

/* A vocabulary of 300 and width 24 give chunks of less than a page and of more than one. `scale` widens both.
 */
static inline lt_model_shape test_shape(int64_t scale) {
    return (lt_model_shape){.vocabulary = 300 * scale,
                            .hidden = 24 * scale,
                            .layers = 2,
                            .heads = 3,
                            .key_heads = 3,
                            .intermediate = 40 * scale,
                            .rope_theta = 10000,
                            .norm_eps = 1e-6,
                            .init_std = 0.02,
                            .attention = LT_ATTENTION_LAZY,
                            .bias_length = 8,
                            .bias_init_std = 0.001,
                            .tau_init = -1};
}

/* Element i of kind k: distinct, reproducible, exact in float32 for the sizes used here. */
static inline float test_value(int kind, int64_t i) {
    uint32_t mixed = (uint32_t)((uint64_t)i * 2654435761u + (uint64_t)kind * 40503u);
    return (float)(mixed >> 8) / 4194304.0f - 1.0f;
}

static inline void test_model_create(test_model *m, const lt_model_shape *shape, bool filled) {
    memset(m, 0, sizeof *m);
    m->fail_after = -1;
    if (lt_registry_create(shape, &m->registry) != LT_OK) abort();
    for (int kind = 0; kind < 3; kind++) {
        m->values[kind] = calloc((size_t)m->registry.elements, sizeof(float));
        for (int64_t i = 0; filled && i < m->registry.elements; i++) m->values[kind][i] = test_value(kind, i);
    }
}

static inline void test_model_destroy(test_model *m) {
    for (int kind = 0; kind < 3; kind++) free(m->values[kind]);
    lt_registry_destroy(&m->registry);
}

static inline lt_status test_get(void *context, lt_tensor_kind kind, const lt_parameter *p, int64_t first,
                                 int64_t count, int writer, float *values) {
    test_model *m = context;
    m->asked = m->asked * 31 + (uint64_t)kind * 7 + (uint64_t)(p->offset + first) * 5 + (uint64_t)count * 3 +
               (uint64_t)writer;
    if (values == NULL) return LT_OK;
    if (m->fail_after >= 0 && m->fail_after-- == 0)
        return lt_fail(LT_IO, "the device failed to give %s", p->name);
    memcpy(values, m->values[kind] + p->offset + first, (size_t)count * sizeof(float));
    m->gets += count;
    return LT_OK;
}

static inline lt_status test_put(void *context, lt_tensor_kind kind, const lt_parameter *p, int64_t first,
                                 int64_t count, const float *values) {
    test_model *m = context;
    if (first < 0 || count < 1 || first + count > p->count)
        return lt_fail(LT_FAILED, "put() outside %s", p->name);
    memcpy(m->values[kind] + p->offset + first, values, (size_t)count * sizeof(float));
    return LT_OK;
}

static inline lt_tensor_access test_access(test_model *m) {
    return (lt_tensor_access){.context = m, .get = test_get, .put = test_put};
}

static inline lt_checkpoint_header test_header(int64_t step) {
    static char config[] = "model:\n  hidden_size: 24\ndata:\n  train: [\"na\xc3\xafve.bin\"]\n";
    return (lt_checkpoint_header){.step = step,
                                  .tokenizer_hash = "00112233445566778899aabbccddeeff",
                                  .data_hash = "ffeeddccbbaa99887766554433221100",
                                  .data_files = 3,
                                  .data_bytes = INT64_C(1) << 41,
                                  .tokens = step * 1000,
                                  .config = config,
                                  .sources = 2,
                                  .samples_consumed = {step * 3, INT64_C(1) << 40},
                                  .provenance = {.version = "0.1.0",
                                                 .commit = "abc",
                                                 .instruction_set = "avx2",
                                                 .blas_kernel = "Zen",
                                                 .mpi = "Open MPI",
                                                 .hosts = "a,b",
                                                 .ranks = 2,
                                                 .threads = 3}};
}

/* Lays a checkpoint out and saves it; collective. */
static inline lt_status test_save(const lt_grid *grid, const char *directory,
                                  const lt_checkpoint_header *header, const lt_registry *registry,
                                  const lt_tensor_access *access) {
    lt_layout *layout = NULL;
    lt_status status = grid->rank == 0 ? lt_layout_create(header, registry, &layout) : LT_OK;
    status = lt_grid_share_status(grid, status, NULL);
    if (status == LT_OK) status = lt_checkpoint_save(grid, layout, directory, header, registry, access);
    lt_layout_free(layout);
    return status;
}

/* Whether a loaded model holds what a saved one held; moments too where `kinds` is 3. */
static inline bool test_same(const test_model *a, const test_model *b, int kinds) {
    for (int kind = 0; kind < kinds; kind++)
        if (memcmp(a->values[kind], b->values[kind], (size_t)a->registry.elements * sizeof(float)) != 0)
            return false;
    return true;
}

static inline void test_folder(char path[256]) {
    const char *base = getenv("TMPDIR");
    snprintf(path, 256, "%s/lazytrain-test-XXXXXX", base && *base ? base : "/tmp");
    if (!mkdtemp(path)) abort();
}

static inline void test_remove_folder(const char *path) {
    char command[512];
    snprintf(command, sizeof command, "rm -rf '%s'", path);
    if (system(command) != 0) abort();
}

#endif
