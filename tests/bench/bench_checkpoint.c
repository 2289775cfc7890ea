/* Saving and loading a checkpoint of about 1.5 GB, in turn with dd of as many bytes to the same folder.
 *
 *   bench_checkpoint FOLDER */
#include "checkpoints/checkpoint.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

enum { ROUNDS = 3 };

static double now_s(void) {
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return (double)time.tv_sec + 1e-9 * (double)time.tv_nsec;
}

static int by_value(const void *a, const void *b) {
    const double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static lt_status get(void *context, lt_tensor_kind kind, const lt_parameter *parameter, int64_t first,
                     int64_t count, float *values) {
    (void)kind;
    memcpy(values, (const float *)context + parameter->offset + first, sizeof(float) * (size_t)count);
    return LT_OK;
}

static lt_status put(void *context, lt_tensor_kind kind, const lt_parameter *parameter, int64_t first,
                     int64_t count, const float *values) {
    (void)kind;
    memcpy((float *)context + parameter->offset + first, values, sizeof(float) * (size_t)count);
    return LT_OK;
}

static double dd_seconds(const char *folder, long long mib) {
    char command[4096];
    snprintf(command, sizeof command,
             "dd if=/dev/zero of='%s/dd.bin' bs=1M count=%lld conv=fsync 2>/dev/null", folder, mib);
    const double begin = now_s();
    if (system(command) != 0) return 0;
    const double seconds = now_s() - begin;
    snprintf(command, sizeof command, "%s/dd.bin", folder);
    unlink(command);
    return seconds;
}

static lt_status bench(const lt_grid *grid, const char *folder) {
    const lt_model_shape shape = {.vocabulary = 32000,
                                  .hidden = 768,
                                  .layers = 11,
                                  .heads = 12,
                                  .key_heads = 12,
                                  .intermediate = 2048,
                                  .bias_length = 512,
                                  .attention = LT_ATTENTION_LAZY};
    lt_registry registry;
    LT_CHECK(lt_registry_create(&shape, &registry));
    float *values = malloc(sizeof(float) * (size_t)registry.elements);
    if (values == NULL) return lt_fail(LT_IO, "no memory");
    for (int64_t i = 0; i < registry.elements; i++) values[i] = (float)(i % 1000) * 1e-3f;
    char config[] = "a: 1\n", path[4096];
    const lt_checkpoint_header header = {.step = 1, .config = config, .sources = 1};
    const lt_tensor_access access = {.context = values, .get = get, .put = put};
    lt_layout *layout = NULL;
    if (grid->rank == 0) LT_CHECK(lt_layout_create(&header, &registry, &layout));
    snprintf(path, sizeof path, "%s/step_00000001.h5", folder);
    double save[ROUNDS], load[ROUNDS], dd[ROUNDS];
    struct stat info = {0};
    for (int round = 0; round < ROUNDS; round++) {
        double begin = now_s();
        LT_CHECK(lt_checkpoint_save(grid, layout, folder, &header, &registry, &access));
        save[round] = now_s() - begin;
        begin = now_s();
        LT_CHECK(lt_checkpoint_load(path, &registry, true, &access));
        load[round] = now_s() - begin;
        stat(path, &info);
        unlink(path);
        dd[round] = dd_seconds(folder, (long long)info.st_size >> 20);
    }
    lt_layout_free(layout);
    qsort(save, ROUNDS, sizeof *save, by_value);
    qsort(load, ROUNDS, sizeof *load, by_value);
    qsort(dd, ROUNDS, sizeof *dd, by_value);
    const double megabytes = 1e-6 * (double)info.st_size, share = dd[ROUNDS / 2] / save[ROUNDS / 2];
    printf("checkpoint of %.0f MB with fsync: save %.0f MB/s, dd conv=fsync %.0f MB/s, share %.2f  goal "
           "0.90: %s; load "
           "(cached) %.0f MB/s (medians)\n",
           megabytes, megabytes / save[ROUNDS / 2], megabytes / dd[ROUNDS / 2], share,
           share >= 0.9 ? "hit" : "miss", megabytes / load[ROUNDS / 2]);
    free(values);
    lt_registry_destroy(&registry);
    return LT_OK;
}

int main(int argc, char **argv) {
    if (argc != 2) {
        fprintf(stderr, "usage: bench_checkpoint FOLDER\n");
        return LT_BAD_INPUT;
    }
    const char *folder = argv[1];
    lt_grid grid;
    lt_status status = lt_grid_open(&argc, &argv, &grid);
    if (status == LT_OK) status = bench(&grid, folder);
    if (status != LT_OK) fprintf(stderr, "bench_checkpoint: %s\n", lt_error_message());
    lt_grid_close(&grid);
    return 0;
}
