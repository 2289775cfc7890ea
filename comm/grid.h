/* The process grid: who the ranks are, where they sit, and the small collectives that the program needs
 * outside the gradient path (comm/reducer.h has that). MPI is hidden here: no public header includes <mpi.h>.
 *
 * A program started without a launcher is a valid grid of one rank. Every function marked collective is
 * called by all ranks of the grid in the same order. A failed MPI call is LT_IO with the call's name and
 * MPI's reason; after it the grid is good for lt_grid_abort() only. LAZYTRAIN_CHECK_COLLECTIVES=1 in the
 * environment makes ranks compare what they call before they do (comm/check.h).
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
    int host_first;              /* the lowest rank on this host */
    int data_rank, data_ranks;   /* ranks = data_ranks x tensor_ranks; tensor ranks are adjacent */
    int tensor_rank, tensor_ranks;
    int cores;      /* cores that this rank may use alone: its affinity mask, shared out among the local ranks
                       that have the same mask; at least 1 */
    char host[256]; /* this rank's host name */
    char library[128]; /* the MPI library's name and version, one line */
    lt_grid_mpi *mpi;  /* communicators and pending requests */
} lt_grid;

/* Whether the MPI library says that it reads and writes a GPU's memory (Open MPI built with CUDA); the
 * environment's LAZYTRAIN_CUDA_AWARE_MPI, 0 or 1, knows better. After MPI has started; local. */
bool lt_mpi_reaches_gpus(void);

/* The rank that a launcher gave this process, as the environment says before MPI starts; 0 without one.
 * Local. */
int lt_grid_launched_rank(void);

/* Initialises MPI (with threads), fills the grid with tensor_ranks = 1 and tells the log this process's rank.
 * Collective on all processes. LT_IO if MPI cannot start; LT_BAD_INPUT if it can but would not serve: a
 * library without threads, or a launcher that started several tasks as separate runs. */
lt_status lt_grid_open(int *argc, char ***argv, lt_grid *grid);

/* Makes groups of `tensor_ranks` neighbouring ranks, which share one copy of the model; ranks of the same
 * number in their groups are data ranks of each other. May be called again. LT_BAD_INPUT, naming the widths
 * that would do, unless `tensor_ranks` divides the ranks. Collective. */
lt_status lt_grid_split(lt_grid *grid, int tensor_ranks);

/* Finalises MPI. Collective. */
void lt_grid_close(lt_grid *grid);

/* Ends every rank at once with `status` as exit code, without waiting for anybody: MPI_Abort, and _exit() of
 * this process should that not be over in three seconds. `grid` may be NULL or one that failed to open. Any
 * thread may call it. Local; does not return. */
_Noreturn void lt_grid_abort(const lt_grid *grid, lt_status status);

/* Copies `bytes` bytes from rank `root` to all. Collective. */
lt_status lt_grid_broadcast(const lt_grid *grid, void *data, size_t bytes, int root);

/* Gathers `bytes` bytes of each rank into `all` [ranks * bytes] on every rank. `mine` is apart from `all`, or
 * this rank's place in it. Collective. */
lt_status lt_grid_all_gather(const lt_grid *grid, const void *mine, void *all, size_t bytes);

/* Element-wise sum of `count` doubles over all ranks, for entries that one rank alone sets and the others
 * leave 0: exact and independent of the order. Collective. */
lt_status lt_grid_sum_disjoint(const lt_grid *grid, double *values, int64_t count);

/* Copies `values` [count] of rank `from` to rank `to`. Collective on these two; any other rank that calls it
 * does nothing, and neither do these where they are one. */
lt_status lt_grid_copy(const lt_grid *grid, int from, int to, float *values, int64_t count);

/* Waits for all. Collective. */
lt_status lt_grid_barrier(const lt_grid *grid);

/* What the ranks agree on at a boundary: the highest code that any of them brought, and the lowest rank that
 * brought it. The caller numbers codes by gravity; 0 is "nothing". */
typedef struct lt_verdict {
    int code;
    int rank;
} lt_verdict;

/* Agrees now. Collective. */
lt_status lt_grid_agree(const lt_grid *grid, int code, lt_verdict *verdict);

/* The same of the ranks of one tensor group. Collective: every group agrees by itself. */
lt_status lt_tensor_agree(const lt_grid *grid, int code, lt_verdict *verdict);

/* lt_grid_agree() in two halves, so that nobody waits: begin() posts this rank's code, end() returns the
 * verdict of the begin() before it. At most one agreement is under way; other collectives may come between.
 * Collective.
 */
lt_status lt_grid_agree_begin(lt_grid *grid, int code);
lt_status lt_grid_agree_end(lt_grid *grid, lt_verdict *verdict);

/* Passes on a status that one rank alone may have: all ranks return the same status, the gravest, and the
 * error message of every rank becomes that of the lowest rank that brought it. Exactly one rank should then
 * print it: `speaker` is true there. Gravity rises in the order LT_OK, LT_STOPPED, LT_IO, LT_FAILED,
 * LT_BAD_INPUT: a script requeues on the first ones, so any rank that knows a restart to be useless overrules
 * those that hope. Should MPI itself fail, every rank that notices is a speaker. Collective; `speaker` may be
 * NULL. */
lt_status lt_grid_share_status(const lt_grid *grid, lt_status mine, bool *speaker);

/* The most elements that go into one MPI call (2^26 unless set); longer counts are cut. Tests lower it to
 * exercise the cutting. Local, and the same on all ranks. */
void lt_grid_set_message_limit(int64_t elements);

#endif
