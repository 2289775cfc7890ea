/* The process grid: who the ranks are, where they sit, and the small collectives that the program needs outside
 * the gradient path (comm/reduce.h has that). MPI is hidden here: no other header includes <mpi.h>.
 *
 * A program started without a launcher is a valid grid of one rank. Every function marked collective is called by
 * all ranks of the grid in the same order.
 */
#ifndef LT_COMM_GRID_H
#define LT_COMM_GRID_H

#include "comm/status.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef struct lt_grid_mpi lt_grid_mpi;

typedef struct lt_grid {
    int rank, ranks;             /* in the world */
    int local_rank, local_ranks; /* on this host */
    int hosts;                   /* number of different hosts */
    int data_rank, data_ranks;   /* ranks = data_ranks x tensor_ranks; tensor ranks are adjacent */
    int tensor_rank, tensor_ranks;
    int cores;         /* cores that this rank may use alone: its affinity mask, shared out among the local ranks
                          that have the same mask; at least 1 */
    bool oversubscribed; /* more ranks on some host than cores in their masks */
    char host[256];    /* this rank's host name */
    char library[128]; /* the MPI library's name and version, one line */
    lt_grid_mpi *mpi;  /* communicators and pending requests */
} lt_grid;

/* Initialises MPI (with threads) and fills the grid with tensor_ranks = 1. Collective on all processes.
 * LT_IO if MPI cannot start. */
lt_status lt_grid_open(int *argc, char ***argv, lt_grid *grid);

/* Finalises MPI. Collective. */
void lt_grid_close(lt_grid *grid);

/* Ends every rank at once with `status` as exit code, without waiting for anybody. Local; does not return. */
_Noreturn void lt_grid_abort(const lt_grid *grid, lt_status status);

/* Copies `bytes` bytes from rank `root` to all. Collective. */
lt_status lt_grid_broadcast(const lt_grid *grid, void *data, size_t bytes, int root);

/* Gathers `bytes` bytes of each rank into `all` [ranks * bytes] on every rank. Collective. */
lt_status lt_grid_all_gather(const lt_grid *grid, const void *mine, void *all, size_t bytes);

/* Element-wise sum of `count` doubles over all ranks, for entries that one rank alone sets and the others leave 0:
 * exact and independent of the order. Collective. */
lt_status lt_grid_sum_disjoint(const lt_grid *grid, double *values, int64_t count);

/* Waits for all. Collective. */
lt_status lt_grid_barrier(const lt_grid *grid);

/* What the ranks agree on at a boundary: the gravest code that any of them brought, and the lowest rank that
 * brought it. Codes are ordered by the caller; 0 is "nothing". */
typedef struct lt_verdict {
    int code;
    int rank;
} lt_verdict;

/* Agrees now. Collective. */
lt_status lt_grid_agree(const lt_grid *grid, int code, lt_verdict *verdict);

/* The same in two halves, so that nobody waits: begin() posts this rank's code, end() returns the verdict of the
 * begin() before it. At most one agreement is under way. Collective. */
lt_status lt_grid_agree_begin(lt_grid *grid, int code);
lt_status lt_grid_agree_end(lt_grid *grid, lt_verdict *verdict);

/* Passes on a status that one rank alone may have: all ranks return the same status, the gravest; on the ranks that
 * had none the error message becomes the failing rank's. Exactly one rank should then print it: `speaker` is true
 * there. Collective; `speaker` may be NULL. */
lt_status lt_grid_share_status(const lt_grid *grid, lt_status mine, bool *speaker);

#endif
