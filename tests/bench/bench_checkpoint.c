/* Saving and loading a checkpoint of about 1.5 GB, in turn with dd of as many bytes in the same folder.
 * Shares are of dd's speed in the same round; a loaded or a written file is dropped from the page cache
 * before it is read.
 *
 *   bench_checkpoint FOLDER */
#define _GNU_SOURCE

#include "checkpoints/save.h"

#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

enum { ROUNDS = 7 };

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
                     int64_t count, int writer, float *values) {
    (void)kind, (void)writer;
    memcpy(values, (const float *)context + parameter->offset + first, sizeof(float) * (size_t)count);
    return LT_OK;
}

static lt_status put(void *context, lt_tensor_kind kind, const lt_parameter *parameter, int64_t first,
                     int64_t count, const float *values) {
    (void)kind;
    memcpy((float *)context + parameter->offset + first, values, sizeof(float) * (size_t)count);
    return LT_OK;
}

/* ---- what dd needs ---- */

static double command_seconds(const char *format, const char *folder, long long mib) {
    char command[4096];
    snprintf(command, sizeof command, format, folder, mib);
    const double begin = now_s();
    return system(command) == 0 ? now_s() - begin : 0;
}

static void drop_from_cache(const char *path) {
    const int file = open(path, O_RDONLY);
    if (file < 0) return;
    fsync(file);
    posix_fadvise(file, 0, 0, POSIX_FADV_DONTNEED);
    close(file);
}

/* ---- one thing each ---- */

typedef struct subject {
    const lt_grid *grid;
    lt_layout *layout;
    lt_checkpoint_header header;
    lt_registry registry;
    lt_tensor_access access;
    const char *folder;
    char path[4096];
    float *values;
    unsigned char *snapshot;
} subject;

/* Seconds of each round. */
typedef struct times {
    double save[ROUNDS], dd_write[ROUNDS];
    double stall[ROUNDS], copy[ROUNDS], background[ROUNDS];
    double load[ROUNDS], dd_read[ROUNDS];
} times;

static void *write_in_thread(void *context) {
    lt_save_write(context);
    return NULL;
}

/* A plain copy of as many bytes as a snapshot. Like a snapshot it finds memory that other work has made cold.
 */
static double copy_seconds(const subject *s) {
    const size_t third = sizeof(float) * (size_t)s->registry.elements;
    const double begin = now_s();
    for (int i = 0; i < 3; i++) memcpy(s->snapshot + (size_t)i * third, s->values, third);
    return now_s() - begin;
}

/* A save from a copy: how long steps wait, and how long the thread works; a plain copy of as much beside it.
 */
static lt_status time_background(subject *s, times *t, int round) {
    pthread_t thread;
    lt_save *save;
    const double begin = now_s();
    LT_CHECK(lt_save_begin(s->grid, s->layout, s->folder, &s->header, &s->registry, &s->access, s->snapshot,
                           &save));
    t->stall[round] = now_s() - begin;
    if (pthread_create(&thread, NULL, write_in_thread, save) != 0) return lt_fail(LT_IO, "no thread");
    pthread_join(thread, NULL);
    LT_CHECK(lt_save_publish(save));
    t->background[round] = now_s() - begin - t->stall[round];
    lt_save_end(save);
    return LT_OK;
}

static lt_status time_round(subject *s, times *t, int round) {
    struct stat info;
    t->copy[round] = copy_seconds(s);
    double begin = now_s();
    LT_CHECK(lt_checkpoint_save(s->grid, s->layout, s->folder, &s->header, &s->registry, &s->access));
    t->save[round] = now_s() - begin;
    stat(s->path, &info);
    const long long mib = (long long)info.st_size >> 20;
    unlink(s->path);
    t->dd_write[round] = command_seconds(
        "dd if=/dev/zero of='%s/dd.bin' bs=1M count=%lld conv=fsync 2>/dev/null", s->folder, mib);
    command_seconds("rm '%s/dd.bin' # %lld", s->folder, 0);
    LT_CHECK(time_background(s, t, round));

    drop_from_cache(s->path);
    t->dd_read[round] = command_seconds(
        "dd if='%s/step_00000001.h5' of=/dev/null bs=1M count=%lld 2>/dev/null", s->folder, mib);
    drop_from_cache(s->path);
    begin = now_s();
    LT_CHECK(lt_checkpoint_load(s->path, &s->registry, true, &s->access));
    t->load[round] = now_s() - begin;
    unlink(s->path);
    return LT_OK;
}

/* ---- report ---- */

static double median(const double *values) {
    double sorted[ROUNDS];
    memcpy(sorted, values, sizeof sorted);
    qsort(sorted, ROUNDS, sizeof *sorted, by_value);
    return sorted[ROUNDS / 2];
}

/* Best and median over the rounds of dd's time over ours. */
static void report(const char *what, const double *ours, const double *dd, double megabytes) {
    double shares[ROUNDS];
    for (int i = 0; i < ROUNDS; i++) shares[i] = dd[i] / ours[i];
    qsort(shares, ROUNDS, sizeof *shares, by_value);
    const double share = shares[ROUNDS / 2];
    printf("%s of %.0f MB: %.0f MB/s, dd %.0f MB/s; share of dd: best %.2f, median %.2f  goal 0.90: %s\n",
           what, megabytes, megabytes / median(ours), megabytes / median(dd), shares[ROUNDS - 1], share,
           share >= 0.9 ? "hit" : "miss");
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
    static char config[] = "a: 1\n";
    subject s = {.grid = grid, .header = {.step = 1, .config = config, .sources = 1}, .folder = folder};
    times t;
    LT_CHECK(lt_registry_create(&shape, &s.registry));
    const size_t bytes = lt_save_snapshot_bytes(grid, &s.registry, &s.access);
    s.values = malloc(sizeof(float) * (size_t)s.registry.elements);
    s.snapshot = malloc(bytes);
    if (s.values == NULL || s.snapshot == NULL) return lt_fail(LT_IO, "no memory");
    for (int64_t i = 0; i < s.registry.elements; i++) s.values[i] = (float)(i % 1000) * 1e-3f;
    memset(s.snapshot, 1, bytes);
    s.access = (lt_tensor_access){.context = s.values, .get = get, .put = put};
    LT_CHECK(lt_layout_create(&s.header, &s.registry, &s.layout));
    snprintf(s.path, sizeof s.path, "%s/step_00000001.h5", folder);
    for (int round = 0; round < ROUNDS; round++) LT_CHECK(time_round(&s, &t, round));

    const double megabytes = 1e-6 * (double)bytes;
    report("checkpoint save with fsync", t.save, t.dd_write, megabytes);
    report("checkpoint save in the background", t.background, t.dd_write, megabytes);
    report("checkpoint load, cold", t.load, t.dd_read, megabytes);
    printf("steps wait %.2f s for a save in the background; copying as many bytes takes %.2f s (medians)\n",
           median(t.stall), median(t.copy));
    lt_layout_free(s.layout);
    free(s.values);
    free(s.snapshot);
    lt_registry_destroy(&s.registry);
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
