#include "comm/reduce.h"
#include "comm/check.h"
#include "comm/grid_mpi.h"

/* The gradients are exchanged in pieces of PIECE floats (2 MiB), DEPTH of them under way, so that a piece is
 * added while the next one travels and is still in the cache when it is added. Two ranks of one host reduced
 * 64 MiB about twice as fast as MPI_Allreduce with pieces of 1 to 16 MiB; pieces of 64 KiB took a third
 * longer than those. */
enum { PIECE = 512 * 1024, DEPTH = 2, TAG = 1 };

/* Doubles that one message of lt_reduce_doubles() holds. */
enum { DOUBLES = 64 };

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

/* Which half a rank keeps and which it gives away at `distance`: the lower rank of the pair keeps the lower
 * half. Both have summed the same range until then. */
static void halve(range whole, bool lower, range *kept, range *given) {
    range low = {whole.first, whole.count / 2}, high = {whole.first + low.count, whole.count - low.count};
    *kept = lower ? low : high;
    *given = lower ? high : low;
}

lt_status lt_reduce_gradients(const lt_grid *grid, const lt_reduce_device *device, float *gradients,
                              int64_t count, float *scratch) {
    LT_CHECK(check_ranks(grid));
    LT_CALLS(grid, "reduction of %lld gradients", (long long)count);
    range kept[32], given[32], whole = {0, count};
    exchange ex = {.ranks = grid->mpi->data, .gradients = gradients, .scratch = scratch};
    int levels = 0;

    for (int distance = 1; distance < grid->data_ranks; distance *= 2, levels++) {
        halve(whole, (grid->data_rank & distance) == 0, &kept[levels], &given[levels]);
        ex.partner = grid->data_rank ^ distance;
        ex.sent = given[levels];
        ex.received = kept[levels];
        ex.device = device;
        LT_CHECK(exchange_ranges(&ex));
        whole = kept[levels];
    }
    /* back the same way: what this rank kept is summed over all ranks by now, and so is what it gave away */
    while (levels-- > 0) {
        ex.partner = grid->data_rank ^ (1 << levels);
        ex.sent = kept[levels];
        ex.received = given[levels];
        ex.device = NULL;
        LT_CHECK(exchange_ranges(&ex));
    }
    return LT_OK;
}

static lt_status reduce_few(const lt_grid *grid, double *values, int count) {
    double theirs[DOUBLES];
    for (int distance = 1; distance < grid->data_ranks; distance *= 2) {
        int partner = grid->data_rank ^ distance;
        LT_MPI(MPI_Sendrecv, values, count, MPI_DOUBLE, partner, TAG, theirs, count, MPI_DOUBLE, partner, TAG,
               grid->mpi->data, MPI_STATUS_IGNORE);
        /* the lower rank's value first on both sides, so that a NaN's payload is the same too */
        bool lower = grid->data_rank < partner;
        for (int i = 0; i < count; i++) values[i] = lower ? values[i] + theirs[i] : theirs[i] + values[i];
    }
    return LT_OK;
}

lt_status lt_reduce_doubles(const lt_grid *grid, double *values, int count) {
    LT_CHECK(check_ranks(grid));
    LT_CALLS(grid, "reduction of %d doubles", count);
    for (int done = 0; done < count; done += DOUBLES)
        LT_CHECK(reduce_few(grid, values + done, count - done < DOUBLES ? count - done : DOUBLES));
    return LT_OK;
}
