#include "comm/reduce.h"
#include "comm/check.h"
#include "comm/grid_mpi.h"

/* The gradients are exchanged in pieces of PIECE floats (2 MiB), DEPTH of them under way, so that a piece is
 * added while the next one travels and is still in the cache when it is added. Two ranks of one host reduced
 * 64 MiB about twice as fast as MPI_Allreduce with pieces of 1 to 16 MiB; pieces of 64 KiB took a third
 * longer than those. */
enum { PIECE = 512 * 1024, DEPTH = 2, TAG = 1 };

/* Elements [first, first + count) of the gradients. */
typedef struct range {
    int64_t first, count;
} range;

static int64_t piece_limit(int64_t count) {
    return lt_mpi_piece(count < PIECE ? count : PIECE);
}

int64_t lt_reduce_scratch(const lt_grid *grid, int64_t count) {
    if (grid->data_ranks == 1 || count <= 0) return 0;
    return DEPTH * piece_limit(count);
}

/* Piece `index` of a range; empty past its end. */
static range piece_of(range whole, int64_t index) {
    range piece = {whole.first, 0};
    int64_t limit = piece_limit(PIECE), skipped = index * limit;
    if (skipped < whole.count) {
        piece.first = whole.first + skipped;
        piece.count = whole.count - skipped < limit ? whole.count - skipped : limit;
    }
    return piece;
}

/* One exchange with one other rank: the range `sent` of the gradients goes there, the range `received` comes
 * from there, either on top of what is there (device NULL) or through `scratch` to be added to it. */
typedef struct exchange {
    MPI_Comm ranks;
    int partner;
    range sent, received;
    float *gradients, *scratch;
    const lt_reduce_device *device;
} exchange;

static lt_status exchange_ranges(const exchange *ex) {
    MPI_Request requests[DEPTH][2];
    int64_t longest = ex->sent.count > ex->received.count ? ex->sent.count : ex->received.count;
    int64_t limit = piece_limit(PIECE), pieces = (longest + limit - 1) / limit;

    for (int64_t i = 0; i < pieces + DEPTH - 1; i++) {
        if (i < pieces) {
            int64_t slot = i % DEPTH;
            range out = piece_of(ex->sent, i), in = piece_of(ex->received, i);
            float *target = ex->device ? ex->scratch + slot * limit : ex->gradients + in.first;
            requests[slot][0] = requests[slot][1] = MPI_REQUEST_NULL;
            if (in.count > 0)
                LT_MPI(MPI_Irecv, target, (int)in.count, MPI_FLOAT, ex->partner, TAG, ex->ranks,
                       &requests[slot][0]);
            if (out.count > 0)
                LT_MPI(MPI_Isend, ex->gradients + out.first, (int)out.count, MPI_FLOAT, ex->partner, TAG,
                       ex->ranks, &requests[slot][1]);
        }
        int64_t finished = i - (DEPTH - 1);
        if (finished < 0) continue;
        int64_t slot = finished % DEPTH;
        range in = piece_of(ex->received, finished);
        /* one by one: MPI_Waitall would say no more than that an error is in some status */
        LT_MPI(MPI_Wait, &requests[slot][0], MPI_STATUS_IGNORE);
        LT_MPI(MPI_Wait, &requests[slot][1], MPI_STATUS_IGNORE);
        if (ex->device && in.count > 0)
            ex->device->add(ex->device->context, ex->gradients + in.first, ex->scratch + slot * limit,
                            in.count);
    }
    return LT_OK;
}

static lt_status check_ranks(const lt_grid *grid) {
    if ((grid->data_ranks & (grid->data_ranks - 1)) == 0) return LT_OK;
    return lt_fail(
        LT_BAD_INPUT,
        "found %d data ranks, expected a power of two (1, 2, 4, 8, ...): gradients are summed along a binary "
        "tree; start another number of ranks",
        grid->data_ranks);
}

/* How `count` elements are cut into shares; cuts NULL: evenly. */
typedef struct cutting {
    int64_t count;
    const int64_t *cuts;
} cutting;

static range shares_range(const lt_grid *grid, const cutting *c, int first, int shares) {
    if (c->cuts != NULL) return (range){c->cuts[first], c->cuts[first + shares] - c->cuts[first]};
    const int64_t from = c->count * first / grid->data_ranks;
    return (range){from, c->count * (first + shares) / grid->data_ranks - from};
}

/* What a rank keeps and what it gives away at `distance`: neighbouring shares, halved at every level, of
 * which the lower rank of the pair keeps the lower half. Both have summed the same elements until then. */
static void aim(exchange *ex, const lt_grid *grid, const cutting *c, int distance, range *kept,
                range *given) {
    const int shares = grid->data_ranks / (2 * distance);
    const int first = lt_reduce_share(grid) / shares * shares;
    *kept = shares_range(grid, c, first, shares);
    *given = shares_range(grid, c, first ^ shares, shares);
    ex->partner = grid->data_rank ^ distance;
}

static lt_status scatter(exchange ex, const lt_grid *grid, const cutting *c) {
    for (int distance = 1; distance < grid->data_ranks; distance *= 2) {
        aim(&ex, grid, c, distance, &ex.received, &ex.sent);
        LT_CHECK(exchange_ranges(&ex));
    }
    return LT_OK;
}

/* Back the same way: what this rank kept is whole by now, and so is what it gave away. */
static lt_status gather(exchange ex, const lt_grid *grid, const cutting *c) {
    ex.device = NULL;
    for (int distance = grid->data_ranks / 2; distance > 0; distance /= 2) {
        aim(&ex, grid, c, distance, &ex.sent, &ex.received);
        LT_CHECK(exchange_ranges(&ex));
    }
    return LT_OK;
}

static exchange exchange_of(const lt_grid *grid, const lt_reduce_device *device, float *values,
                            float *scratch) {
    return (exchange){.ranks = grid->mpi->data, .device = device, .gradients = values, .scratch = scratch};
}

lt_status lt_reduce_gradients(const lt_grid *grid, const lt_reduce_device *device, float *gradients,
                              int64_t count, float *scratch) {
    LT_CHECK(check_ranks(grid));
    LT_CALLS(grid, "reduction of %lld gradients", (long long)count);
    const exchange ex = exchange_of(grid, device, gradients, scratch);
    const cutting even = {.count = count};
    LT_CHECK(scatter(ex, grid, &even));
    return gather(ex, grid, &even);
}

lt_status lt_reduce_scatter(const lt_grid *grid, const lt_reduce_device *device, float *gradients,
                            const int64_t *cuts, float *scratch) {
    LT_CHECK(check_ranks(grid));
    LT_CALLS(grid, "reduce-scatter of %lld gradients", (long long)cuts[grid->data_ranks]);
    return scatter(exchange_of(grid, device, gradients, scratch), grid, &(cutting){.cuts = cuts});
}

lt_status lt_data_copy(const lt_grid *grid, int from, int to, float *values, int64_t count) {
    int piece;
    if (from == to) return LT_OK;
    for (int64_t done = 0; done < count; done += piece) {
        piece = lt_mpi_piece(count - done);
        if (grid->data_rank == from)
            LT_MPI(MPI_Send, values + done, piece, MPI_FLOAT, to, TAG, grid->mpi->data);
        if (grid->data_rank == to)
            LT_MPI(MPI_Recv, values + done, piece, MPI_FLOAT, from, TAG, grid->mpi->data, MPI_STATUS_IGNORE);
    }
    return LT_OK;
}
