#include "comm/reduce.h"
#include "comm/check.h"
#include "comm/tree.h"

enum { TAG = 1 };

/* Doubles that one message of lt_reduce_doubles() holds. */
enum { DOUBLES = 64 };

int lt_reduce_share(const lt_grid *grid) {
    return lt_tree_share(grid->data_rank, grid->data_ranks);
}

lt_status lt_all_gather(const lt_grid *grid, const lt_comm_device *device, float *values,
                        const int64_t *cuts) {
    LT_CHECK(lt_tree_check(grid));
    LT_CALLS(grid, "all-gather of %lld values", (long long)cuts[grid->data_ranks]);
    if (grid->data_ranks == 1) return LT_OK;
    const lt_transport transport = lt_transport_of(device, LT_DATA_RANKS, grid->mpi->data);
    lt_tree tree = {.transport = &transport,
                    .rank = grid->data_rank,
                    .ranks = grid->data_ranks,
                    .tag = TAG,
                    .values = values,
                    .cuts = cuts,
                    .owner = LT_TREE_ALL};
    bool moved;
    LT_CHECK(lt_tree_gather(&tree));
    while (!tree.done) {
        LT_CHECK(lt_transfers_wait(&transport, tree.under_way, 2));
        LT_CHECK(lt_tree_advance(&tree, &moved));
    }
    return LT_OK;
}

static lt_status reduce_few(const lt_grid *grid, double *values, int count) {
    const lt_transport transport = lt_transport_host(grid->mpi->data);
    const int64_t bytes = count * (int64_t)sizeof *values;
    double theirs[DOUBLES];
    lt_transfer exchange[2];
    for (int distance = 1; distance < grid->data_ranks; distance *= 2) {
        const int partner = grid->data_rank ^ distance;
        const bool lower = grid->data_rank < partner;
        LT_CHECK(lt_receive(&transport, partner, TAG, theirs, bytes, &exchange[0]));
        LT_CHECK(lt_send(&transport, partner, TAG, values, bytes, &exchange[1]));
        LT_CHECK(lt_transfers_wait(&transport, exchange, 2));
        /* the lower rank's value first on both sides, so that a NaN's payload is the same too */
        for (int i = 0; i < count; i++) values[i] = lower ? values[i] + theirs[i] : theirs[i] + values[i];
    }
    return LT_OK;
}

lt_status lt_reduce_doubles(const lt_grid *grid, double *values, int count) {
    LT_CHECK(lt_tree_check(grid));
    LT_CALLS(grid, "reduction of %d doubles", count);
    for (int done = 0; done < count; done += DOUBLES)
        LT_CHECK(reduce_few(grid, values + done, count - done < DOUBLES ? count - done : DOUBLES));
    return LT_OK;
}
