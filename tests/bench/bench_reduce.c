/* The deterministic tree reduction against MPI_Allreduce, and against its halves that a sharded optimiser
 * calls one by one, on the same buffers, in turn. Run by mpirun on 2 ranks. */
#include "comm/reduce.h"

#include <mpi.h>
#include <stdio.h>
#include <stdlib.h>

enum { ROUNDS = 9 };

static int by_value(const void *a, const void *b) {
    const double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static void add(void *context, float *to, const float *from, int64_t count) {
    (void)context;
    for (int64_t i = 0; i < count; i++) to[i] += from[i];
}

static lt_status compare(const lt_grid *grid, int64_t count) {
    float *gradients = calloc((size_t)count, sizeof(float));
    float *scratch = calloc((size_t)lt_reduce_scratch(grid, count) + 1, sizeof(float));
    if (gradients == NULL || scratch == NULL) return lt_fail(LT_IO, "no memory");
    const lt_reduce_device device = {.add = add};
    double tree[ROUNDS], library[ROUNDS], halves[ROUNDS];
    int64_t *cuts = calloc((size_t)grid->ranks + 1, sizeof *cuts);
    if (cuts == NULL) return lt_fail(LT_IO, "no memory");
    for (int i = 0; i <= grid->ranks; i++) cuts[i] = count / grid->ranks * i;
    for (int round = -1; round < ROUNDS; round++) {
        MPI_Barrier(MPI_COMM_WORLD);
        double begin = MPI_Wtime();
        LT_CHECK(lt_reduce_gradients(grid, &device, gradients, count, scratch));
        if (round >= 0) tree[round] = MPI_Wtime() - begin;
        MPI_Barrier(MPI_COMM_WORLD);
        begin = MPI_Wtime();
        MPI_Allreduce(MPI_IN_PLACE, gradients, (int)count, MPI_FLOAT, MPI_SUM, MPI_COMM_WORLD);
        if (round >= 0) library[round] = MPI_Wtime() - begin;
        MPI_Barrier(MPI_COMM_WORLD);
        begin = MPI_Wtime();
        LT_CHECK(lt_reduce_scatter(grid, &device, gradients, cuts, scratch));
        LT_CHECK(lt_all_gather(grid, gradients, cuts));
        if (round >= 0) halves[round] = MPI_Wtime() - begin;
    }
    qsort(tree, ROUNDS, sizeof *tree, by_value);
    qsort(library, ROUNDS, sizeof *library, by_value);
    qsort(halves, ROUNDS, sizeof *halves, by_value);
    if (grid->rank == 0)
        printf("reduction of %lld MiB, %d ranks: tree %.2f ms, MPI_Allreduce %.2f ms, ratio %.2f; "
               "reduce-scatter and "
               "all-gather %.2f of the tree (medians)\n",
               (long long)(count * 4 >> 20), grid->ranks, 1e3 * tree[ROUNDS / 2], 1e3 * library[ROUNDS / 2],
               library[ROUNDS / 2] / tree[ROUNDS / 2], halves[ROUNDS / 2] / tree[ROUNDS / 2]);
    free(cuts);
    free(gradients);
    free(scratch);
    return LT_OK;
}

int main(int argc, char **argv) {
    lt_grid grid;
    lt_status status = lt_grid_open(&argc, &argv, &grid);
    if (status == LT_OK) status = compare(&grid, 1 << 20);
    if (status == LT_OK) status = compare(&grid, 1 << 24);
    if (status != LT_OK) fprintf(stderr, "bench_reduce: %s\n", lt_error_message());
    lt_grid_close(&grid);
    return 0;
}
