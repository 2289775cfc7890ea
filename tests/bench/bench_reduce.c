/* The reducer, tree and fast, against MPI_Allreduce on the same buffers, in turn; to shares and back, as a
 * sharded optimiser does it; and how much of the tree's time hides behind computing that lasts three times as
 * long. What tensor ranks exchange, against the library's. bench_reduce [BUCKET...]: elements of a bucket,
 * each compared. Run by mpirun. */
#include "comm/reduce.h"
#include "comm/reducer.h"
#include "comm/tensor.h"

#include <mpi.h>
#include <stdio.h>
#include <stdlib.h>

enum { ROUNDS = 11, WAYS = 4, RUNS = 32 };

/* One way to sum; NULL: the library's, at once. */
typedef struct way {
    lt_reducer *reducer;
    const int64_t *cuts; /* of the shares that are gathered then, or NULL */
    double ms[ROUNDS];
} way;

static int by_value(const void *a, const void *b) {
    const double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static double median(way *w) {
    qsort(w->ms, ROUNDS, sizeof *w->ms, by_value);
    return w->ms[ROUNDS / 2];
}

static lt_status sum(const lt_grid *grid, const way *w, float *gradients, int64_t count) {
    if (w->reducer == NULL) {
        MPI_Allreduce(MPI_IN_PLACE, gradients, (int)count, MPI_FLOAT, MPI_SUM, MPI_COMM_WORLD);
        return LT_OK;
    }
    LT_CHECK(lt_reducer_begin(w->reducer, gradients, 0, count));
    LT_CHECK(lt_reducer_end(w->reducer, NULL));
    return w->cuts == NULL ? LT_OK : lt_all_gather(grid, NULL, gradients, w->cuts);
}

/* Some computing that stays in the core. */
static void compute(int64_t times) {
    static volatile float value = 1.0f;
    float x[32];
    for (int i = 0; i < 32; i++) x[i] = value;
    for (int64_t n = 0; n < times; n++)
        for (int i = 0; i < 32; i++) x[i] = x[i] * 0.999f + 0.001f;
    for (int i = 0; i < 32; i++) value = x[i];
}

static double now_after_barrier(void) {
    MPI_Barrier(MPI_COMM_WORLD);
    return MPI_Wtime();
}

/* The share of the reduction's `alone_ms` that computing hides while the gradients become final. */
static lt_status measure_hiding(const way *tree, float *gradients, int64_t count, double alone_ms,
                                double *hidden) {
    double begin = now_after_barrier(), shares[ROUNDS];
    compute(1 << 20);
    const double ms_each = 1e3 * (MPI_Wtime() - begin) / (1 << 20);
    int64_t times = (int64_t)(3 * alone_ms / RUNS / ms_each);
    MPI_Bcast(&times, 1, MPI_INT64_T, 0, MPI_COMM_WORLD);
    for (int round = 0; round < ROUNDS; round++) {
        begin = now_after_barrier();
        for (int run = 0; run < RUNS; run++) compute(times);
        const double middle = now_after_barrier();
        for (int run = RUNS - 1; run >= 0; run--) {
            compute(times);
            LT_CHECK(lt_reducer_begin(tree->reducer, gradients, count / RUNS * run, count / RUNS));
        }
        LT_CHECK(lt_reducer_end(tree->reducer, NULL));
        const double end = now_after_barrier();
        shares[round] = 1 - 1e3 * ((end - middle) - (middle - begin)) / alone_ms;
    }
    qsort(shares, ROUNDS, sizeof *shares, by_value);
    *hidden = shares[ROUNDS / 2];
    return LT_OK;
}

static lt_status compare(const lt_grid *grid, int64_t count, int64_t bucket) {
    float *gradients = calloc((size_t)count, sizeof(float));
    int64_t *cuts = calloc((size_t)grid->ranks + 1, sizeof *cuts);
    if (gradients == NULL || cuts == NULL) return lt_fail(LT_IO, "no memory");
    for (int i = 0; i <= grid->ranks; i++) cuts[i] = count / grid->ranks * i;
    way ways[WAYS] = {0}, *library = &ways[0], *tree = &ways[1], *fast = &ways[2], *shares = &ways[3];
    shares->cuts = cuts;
    for (way *w = tree; w < ways + WAYS; w++) {
        const lt_reducer_options options = {.reduction = w == fast ? LT_REDUCTION_FAST : LT_REDUCTION_TREE,
                                            .count = count,
                                            .cuts = w->cuts,
                                            .bucket = bucket};
        LT_CHECK(lt_reducer_open(grid, &options, &w->reducer));
    }
    for (int round = -1; round < ROUNDS; round++)
        for (way *w = ways; w < ways + WAYS; w++) {
            const double begin = now_after_barrier();
            LT_CHECK(sum(grid, w, gradients, count));
            const double end = now_after_barrier();
            if (round >= 0) w->ms[round] = 1e3 * (end - begin);
        }
    const double base = median(library), alone = median(tree);
    double hidden;
    LT_CHECK(measure_hiding(tree, gradients, count, alone, &hidden));
    if (grid->rank == 0) {
        printf("reduction of %lld MiB, %d ranks", (long long)(count * 4 >> 20), grid->ranks);
        if (bucket > 0) printf(", buckets of %lld Ki", (long long)(bucket >> 10));
        printf(": MPI_Allreduce %.2f ms; as many times its speed: tree %.2f, fast %.2f, to shares and back "
               "%.2f; "
               "%.0f%% of the tree hidden behind computing (medians)\n",
               base, base / alone, base / median(fast), base / median(shares), 100 * hidden);
    }
    for (way *w = tree; w < ways + WAYS; w++) lt_reducer_close(w->reducer);
    free(cuts);
    free(gradients);
    return LT_OK;
}

static void add(void *context, float *to, const float *from, int64_t count) {
    (void)context;
    for (int64_t i = 0; i < count; i++) to[i] += from[i];
}

/* Gathers and sums the rows of a micro-batch, all ranks as one tensor group. */
static lt_status compare_tensor(lt_grid *grid) {
    enum { MOST = 512 * 384, TIMES = 20 };
    static float values[MOST], own[MOST], scratch[MOST];
    const lt_comm_device device = {.add = add};
    const int part = MOST / grid->ranks;
    double ours[ROUNDS], library[ROUNDS];
    LT_CHECK(lt_grid_split(grid, grid->ranks));
    int64_t *cuts = calloc((size_t)grid->ranks + 1, sizeof *cuts);
    if (cuts == NULL) return lt_fail(LT_IO, "no memory");
    for (int i = 0; i <= grid->ranks; i++) cuts[i] = i * part;
    for (int round = 0; round < ROUNDS; round++) {
        double begin = now_after_barrier();
        for (int i = 0; i < TIMES; i++) {
            LT_CHECK(lt_tensor_reduce_scatter(grid, &device, values, cuts, scratch, own));
            LT_CHECK(lt_tensor_all_gather(grid, NULL, values, sizeof *values, cuts));
        }
        const double middle = now_after_barrier();
        for (int i = 0; i < TIMES; i++) {
            MPI_Reduce_scatter_block(values, own, part, MPI_FLOAT, MPI_SUM, MPI_COMM_WORLD);
            MPI_Allgather(MPI_IN_PLACE, 0, MPI_FLOAT, values, part, MPI_FLOAT, MPI_COMM_WORLD);
        }
        ours[round] = 1e3 * (middle - begin) / TIMES;
        library[round] = 1e3 * (now_after_barrier() - middle) / TIMES;
    }
    qsort(ours, ROUNDS, sizeof *ours, by_value);
    qsort(library, ROUNDS, sizeof *library, by_value);
    if (grid->rank == 0)
        printf(
            "sum and gathering of %d x 384, %d tensor ranks: %.3f ms, MPI_Reduce_scatter and MPI_Allgather "
            "%.3f ms (medians)\n",
            MOST / 384, grid->ranks, ours[ROUNDS / 2], library[ROUNDS / 2]);
    free(cuts);
    return LT_OK;
}

int main(int argc, char **argv) {
    lt_grid grid;
    lt_status status = lt_grid_open(&argc, &argv, &grid);
    for (int64_t count = 1 << 20; count <= 1 << 24 && status == LT_OK; count *= 16)
        for (int i = 1; (i < argc || i == 1) && status == LT_OK; i++)
            status = compare(&grid, count, i < argc ? strtoll(argv[i], NULL, 10) : 0);
    if (status == LT_OK) status = compare_tensor(&grid);
    if (status != LT_OK) {
        fprintf(stderr, "bench_reduce: %s\n", lt_error_message());
        lt_grid_abort(&grid, status);
    }
    lt_grid_close(&grid);
    return 0;
}
