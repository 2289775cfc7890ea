/* The reducer, tree and fast, against MPI_Allreduce on the same buffers, in turn; to shares and back, as a
 * sharded optimiser does it. bench_reduce [BUCKET...]: elements of a bucket, each compared. Run by mpirun. */
#include "comm/reduce.h"
#include "comm/reducer.h"

#include <mpi.h>
#include <stdio.h>
#include <stdlib.h>

enum { ROUNDS = 11, WAYS = 4 };

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
    return w->cuts == NULL ? LT_OK : lt_all_gather(grid, gradients, w->cuts);
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
            MPI_Barrier(MPI_COMM_WORLD);
            const double begin = MPI_Wtime();
            LT_CHECK(sum(grid, w, gradients, count));
            MPI_Barrier(MPI_COMM_WORLD);
            if (round >= 0) w->ms[round] = 1e3 * (MPI_Wtime() - begin);
        }
    const double base = median(library);
    if (grid->rank == 0) {
        printf("reduction of %lld MiB, %d ranks", (long long)(count * 4 >> 20), grid->ranks);
        if (bucket > 0) printf(", buckets of %lld Ki", (long long)(bucket >> 10));
        printf(
            ": MPI_Allreduce %.2f ms; as many times its speed: tree %.2f, fast %.2f, to shares and back %.2f "
            "(medians)\n",
            base, base / median(tree), base / median(fast), base / median(shares));
    }
    for (way *w = tree; w < ways + WAYS; w++) lt_reducer_close(w->reducer);
    free(cuts);
    free(gradients);
    return LT_OK;
}

int main(int argc, char **argv) {
    lt_grid grid;
    lt_status status = lt_grid_open(&argc, &argv, &grid);
    for (int64_t count = 1 << 20; count <= 1 << 24 && status == LT_OK; count *= 16)
        for (int i = 1; (i < argc || i == 1) && status == LT_OK; i++)
            status = compare(&grid, count, i < argc ? strtoll(argv[i], NULL, 10) : 0);
    if (status != LT_OK) {
        fprintf(stderr, "bench_reduce: %s\n", lt_error_message());
        lt_grid_abort(&grid, status);
    }
    lt_grid_close(&grid);
    return 0;
}
