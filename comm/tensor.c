#include "comm/tensor.h"
#include "comm/check.h"
#include "comm/transport.h"

enum { TAG = 3 };

static int64_t part(const int64_t *cuts, int rank) {
    return cuts[rank + 1] - cuts[rank];
}

/* What goes to and comes from each peer: sends, then receives; those of this rank itself stay empty. */
static lt_transfer *sending(const lt_grid *grid, int peer) {
    return &grid->mpi->exchange[peer];
}

static lt_transfer *receiving(const lt_grid *grid, int peer) {
    return &grid->mpi->exchange[grid->tensor_ranks + peer];
}

/* The peer of round 1, 2, ...: neighbours first, so that not all ranks turn to rank 0 at once. */
static int peer_of(const lt_grid *grid, int round) {
    return (grid->tensor_rank + round) % grid->tensor_ranks;
}

lt_status lt_tensor_all_gather(const lt_grid *grid, const lt_comm_device *device, void *values,
                               size_t element_bytes, const int64_t *cuts) {
    LT_TENSOR_CALLS(grid, "tensor all-gather of %lld elements of %zu bytes",
                    (long long)cuts[grid->tensor_ranks], element_bytes);
    const lt_transport t = lt_transport_of(device, LT_TENSOR_RANKS, grid->mpi->tensor);
    const int64_t size = (int64_t)element_bytes;
    const int own = grid->tensor_rank;
    char *bytes = values;
    for (int round = 1; round < grid->tensor_ranks; round++) {
        const int peer = peer_of(grid, round);
        LT_CHECK(lt_receive(&t, peer, TAG, bytes + cuts[peer] * size, part(cuts, peer) * size,
                            receiving(grid, peer)));
        LT_CHECK(
            lt_send(&t, peer, TAG, bytes + cuts[own] * size, part(cuts, own) * size, sending(grid, peer)));
    }
    return lt_transfers_wait(&t, grid->mpi->exchange, 2 * grid->tensor_ranks);
}

int64_t lt_tensor_scratch(const lt_grid *grid, int64_t count) {
    return grid->tensor_ranks > 2 ? (grid->tensor_ranks - 2) * count : 0;
}

/* Where a peer's partial sum arrives: the first in rank order in `own`, the others behind each other. */
static char *place_of(const lt_grid *grid, int peer, int64_t bytes, char *scratch, char *own) {
    const int before = peer - (peer > grid->tensor_rank ? 1 : 0);
    return before == 0 ? own : scratch + (before - 1) * bytes;
}

/* In rank order. The sum of the first two commutes, so it does not matter which of them lies in `own`. */
static lt_status add_up(const lt_grid *grid, const lt_transport *t, const lt_comm_device *device,
                        const void *mine, int64_t count, void *scratch, void *own) {
    const int first = grid->tensor_rank == 0 ? 1 : 0;
    if (device->add_up != NULL) {
        LT_CHECK(lt_transfers_wait(t, receiving(grid, 0), grid->tensor_ranks));
        device->add_up(device->context, own, mine, scratch, count, grid->tensor_rank, grid->tensor_ranks);
        return LT_OK;
    }
    LT_CHECK(t->wait(t, receiving(grid, first)));
    for (int rank = 0; rank < grid->tensor_ranks; rank++) {
        if (rank == first) continue;
        const void *partial = mine;
        if (rank != grid->tensor_rank) {
            LT_CHECK(t->wait(t, receiving(grid, rank)));
            partial = place_of(grid, rank, count * (int64_t)sizeof(float), scratch, own);
        }
        device->add(device->context, own, partial, count);
    }
    return LT_OK;
}

lt_status lt_tensor_reduce_scatter(const lt_grid *grid, const lt_comm_device *device, const void *partial,
                                   const int64_t *cuts, void *scratch, void *own) {
    LT_TENSOR_CALLS(grid, "tensor reduce-scatter of %lld elements", (long long)cuts[grid->tensor_ranks]);
    const lt_transport t = lt_transport_of(device, LT_TENSOR_RANKS, grid->mpi->tensor);
    const int64_t size = (int64_t)(device->add_up != NULL ? device->sum_bytes : sizeof(float)),
                  count = part(cuts, grid->tensor_rank);
    const char *parts = partial;
    for (int round = 1; round < grid->tensor_ranks; round++) {
        const int peer = peer_of(grid, round);
        LT_CHECK(lt_receive(&t, peer, TAG, place_of(grid, peer, count * size, scratch, own), count * size,
                            receiving(grid, peer)));
        LT_CHECK(
            lt_send(&t, peer, TAG, parts + cuts[peer] * size, part(cuts, peer) * size, sending(grid, peer)));
    }
    LT_CHECK(lt_transfers_post(&t, grid->mpi->exchange, 2 * grid->tensor_ranks));
    LT_CHECK(add_up(grid, &t, device, parts + cuts[grid->tensor_rank] * size, count, scratch, own));
    return lt_transfers_wait(&t, sending(grid, 0), grid->tensor_ranks);
}

lt_status lt_tensor_all_gather_doubles(const lt_grid *grid, double *values, int64_t count) {
    int64_t *cuts = grid->mpi->even_cuts;
    for (int rank = 0; rank <= grid->tensor_ranks; rank++) cuts[rank] = rank * count;
    return lt_tensor_all_gather(grid, NULL, values, sizeof *values, cuts);
}
