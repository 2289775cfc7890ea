/* The collectives of comm/grid.h. */
#include "comm/check.h"
#include "comm/grid_mpi.h"

#include <limits.h>
#include <stdio.h>
#include <string.h>

enum { TAG = 4 };

/* 64 MiB of bytes, 512 MiB of doubles: MPI libraries keep a copy of a sum's operand, and count bytes in ints
 * here and there. */
static int64_t message_limit = 1 << 26;

void lt_grid_set_message_limit(int64_t elements) {
    message_limit = elements < 1 ? 1 : elements > INT_MAX ? INT_MAX : elements;
}

int lt_mpi_piece(int64_t left) {
    return (int)(left < message_limit ? left : message_limit);
}

static lt_status broadcast(const lt_grid *grid, void *data, size_t bytes, int root) {
    char *at = data;
    for (int64_t left = (int64_t)bytes; left > 0;) {
        int piece = lt_mpi_piece(left);
        LT_MPI(MPI_Bcast, at, piece, MPI_BYTE, root, grid->mpi->world);
        at += piece;
        left -= piece;
    }
    return LT_OK;
}

lt_status lt_grid_broadcast(const lt_grid *grid, void *data, size_t bytes, int root) {
    LT_CALLS(grid, "broadcast of %zu bytes from rank %d", bytes, root);
    return broadcast(grid, data, bytes, root);
}

lt_status lt_grid_all_gather(const lt_grid *grid, const void *mine, void *all, size_t bytes) {
    LT_CALLS(grid, "gathering of %zu bytes a rank", bytes);
    if (bytes == 0) return LT_OK;
    char *slots = all, *own = slots + (size_t)grid->rank * bytes;
    if (own != mine) memcpy(own, mine, bytes);
    int64_t total = (int64_t)bytes * grid->ranks;
    if (lt_mpi_piece(total) == total) { /* the library may count the whole in an int */
        LT_MPI(MPI_Allgather, MPI_IN_PLACE, 0, MPI_BYTE, all, (int)bytes, MPI_BYTE, grid->mpi->world);
        return LT_OK;
    }
    for (int rank = 0; rank < grid->ranks; rank++)
        LT_CHECK(broadcast(grid, slots + (size_t)rank * bytes, bytes, rank));
    return LT_OK;
}

lt_status lt_grid_sum_disjoint(const lt_grid *grid, double *values, int64_t count) {
    LT_CALLS(grid, "sum of %lld doubles", (long long)count);
    while (count > 0) {
        int piece = lt_mpi_piece(count);
        LT_MPI(MPI_Allreduce, MPI_IN_PLACE, values, piece, MPI_DOUBLE, MPI_SUM, grid->mpi->world);
        values += piece;
        count -= piece;
    }
    return LT_OK;
}

lt_status lt_grid_copy(const lt_grid *grid, int from, int to, float *values, int64_t count) {
    int piece;
    if (from == to) return LT_OK;
    for (int64_t done = 0; done < count; done += piece) {
        piece = lt_mpi_piece(count - done);
        if (grid->rank == from) LT_MPI(MPI_Send, values + done, piece, MPI_FLOAT, to, TAG, grid->mpi->world);
        if (grid->rank == to)
            LT_MPI(MPI_Recv, values + done, piece, MPI_FLOAT, from, TAG, grid->mpi->world, MPI_STATUS_IGNORE);
    }
    return LT_OK;
}

lt_status lt_grid_barrier(const lt_grid *grid) {
    LT_CALLS(grid, "barrier");
    LT_MPI(MPI_Barrier, grid->mpi->world);
    return LT_OK;
}

/* ---- agreement ---- */

/* (code, rank) as one number whose maximum is the highest code with its lowest rank. */
static const int64_t ranks_a_code = INT64_C(1) << 32;

static int64_t encode(int code, int rank) {
    return code * ranks_a_code + (INT_MAX - rank);
}

static lt_verdict decode(int64_t number) {
    int64_t low = number & (ranks_a_code - 1);
    return (lt_verdict){.code = (int)((number - low) / ranks_a_code), .rank = INT_MAX - (int)low};
}

static lt_status agree(const lt_grid *grid, MPI_Comm ranks, int code, lt_verdict *verdict) {
    int64_t mine = encode(code, grid->rank), highest = mine;
    LT_MPI(MPI_Allreduce, &mine, &highest, 1, MPI_INT64_T, MPI_MAX, ranks);
    *verdict = decode(highest);
    return LT_OK;
}

lt_status lt_grid_agree(const lt_grid *grid, int code, lt_verdict *verdict) {
    LT_CALLS(grid, "agreement");
    return agree(grid, grid->mpi->world, code, verdict);
}

lt_status lt_tensor_agree(const lt_grid *grid, int code, lt_verdict *verdict) {
    *verdict = (lt_verdict){.code = code, .rank = grid->rank};
    if (grid->tensor_ranks == 1) return LT_OK;
    LT_TENSOR_CALLS(grid, "agreement of a tensor group");
    return agree(grid, grid->mpi->tensor, code, verdict);
}

lt_status lt_grid_agree_begin(lt_grid *grid, int code) {
    lt_grid_mpi *mpi = grid->mpi;
    if (mpi->agreeing)
        return lt_fail(LT_FAILED, "an agreement was begun on rank %d while one is under way", grid->rank);
    LT_CALLS(grid, "begin of an agreement");
    mpi->proposal = encode(code, grid->rank);
    LT_MPI(MPI_Iallreduce, &mpi->proposal, &mpi->agreed, 1, MPI_INT64_T, MPI_MAX, mpi->agreement,
           &mpi->pending);
    mpi->agreeing = true;
    return LT_OK;
}

lt_status lt_grid_agree_end(lt_grid *grid, lt_verdict *verdict) {
    lt_grid_mpi *mpi = grid->mpi;
    if (!mpi->agreeing)
        return lt_fail(LT_FAILED, "an agreement was ended on rank %d before it was begun", grid->rank);
    LT_CALLS(grid, "end of an agreement");
    mpi->agreeing = false;
    LT_MPI(MPI_Wait, &mpi->pending, MPI_STATUS_IGNORE);
    *verdict = decode(mpi->agreed);
    return LT_OK;
}

/* ---- one status for all ---- */

/* Statuses by gravity. 75 and 74 invite a script to start again; 1 says that this is useless; 2 is the user's
 * to mend, so it says most. A value that no lt_status has counts as LT_FAILED. */
static const lt_status by_gravity[] = {LT_OK, LT_STOPPED, LT_IO, LT_FAILED, LT_BAD_INPUT};
enum { GRAVITY_FAILED = 3, GRAVITIES = sizeof by_gravity / sizeof by_gravity[0] };

static int gravity(lt_status status) {
    for (int i = 0; i < GRAVITIES; i++)
        if (by_gravity[i] == status) return i;
    return GRAVITY_FAILED;
}

static lt_status share_message(const lt_grid *grid, lt_status mine, bool *speaker) {
    LT_CALLS(grid, "sharing of a status");
    lt_verdict verdict;
    LT_CHECK(agree(grid, grid->mpi->world, gravity(mine), &verdict));
    lt_status shared = by_gravity[verdict.code];
    *speaker = shared != LT_OK && verdict.rank == grid->rank;
    if (shared == LT_OK) return LT_OK;

    char message[LT_ERROR_MESSAGE_BYTES];
    memset(message, 0, sizeof message);
    snprintf(message, sizeof message, "%s", lt_error_message());
    LT_CHECK(broadcast(grid, message, sizeof message, verdict.rank));
    return lt_fail(shared, "%s", message);
}

lt_status lt_grid_share_status(const lt_grid *grid, lt_status mine, bool *speaker) {
    bool speaks = true; /* stays so where MPI fails */
    lt_status shared = share_message(grid, mine, &speaks);
    if (speaker) *speaker = speaks;
    return shared;
}
