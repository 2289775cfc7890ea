/* Inside comm/ only: the MPI side of the grid, shared by the files that call MPI.
 *
 * Every communicator is the program's own and returns its errors; LT_MPI turns them into a status that names
 * the call.
 */
#ifndef LT_COMM_GRID_MPI_H
#define LT_COMM_GRID_MPI_H

#include "comm/grid.h"

#include <mpi.h>

typedef struct lt_check lt_check;
typedef struct lt_transfer lt_transfer;

struct lt_grid_mpi {
    MPI_Comm world;     /* collectives of all ranks, blocking */
    MPI_Comm agreement; /* the pending agreement only, so that it may cross them */
    MPI_Comm data;      /* the data ranks that share this rank's tensor rank, ranked by data_rank */
    MPI_Comm tensor;    /* the tensor ranks that share this rank's data rank, ranked by tensor_rank */
    lt_check *check, *tensor_check; /* comm/check.h; NULL where nothing is compared */
    MPI_Request pending;
    bool agreeing;
    int64_t proposal, agreed; /* buffers of the pending agreement */
    lt_transfer *exchange;    /* [2 * tensor_ranks] and */
    int64_t *even_cuts;       /* [tensor_ranks + 1]: of the exchange between tensor ranks under way */
};

/* LT_OK, or LT_IO with the name of the MPI function, this rank and MPI's reason. */
lt_status lt_mpi_status(int code, const char *function);

/* Calls an MPI function and returns from the enclosing function unless it succeeds. */
#define LT_MPI(function, ...) LT_CHECK(lt_mpi_status(function(__VA_ARGS__), #function))

/* How many of the `left` elements go into the next MPI call, whose counts are ints: every message whose size
 * is not a small constant is cut by this. */
int lt_mpi_piece(int64_t left);

#endif
