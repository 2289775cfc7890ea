#include "comm/grid.h"
#include "comm/check.h"
#include "comm/deadline.h"
#include "comm/grid_mpi.h"
#include "comm/log.h"
#include "comm/topology.h"
#include "comm/transport.h"

#ifdef OPEN_MPI
#include <mpi-ext.h>
#endif
#include <stdlib.h>
#include <string.h>
#include <stdio.h>
#include <unistd.h>

/* How long MPI_Abort may take: it asks the launcher, which a broken network may have cut off. */
enum { ABORT_S = 3 };

lt_status lt_mpi_status(int code, const char *function) {
    if (code == MPI_SUCCESS) return LT_OK;
    char reason[MPI_MAX_ERROR_STRING + 1] = "";
    int length = 0, rank = -1;
    if (MPI_Error_string(code, reason, &length) != MPI_SUCCESS)
        snprintf(reason, sizeof reason, "code %d", code);
    MPI_Comm_rank(MPI_COMM_WORLD, &rank);
    return lt_fail(LT_IO, "%s failed on rank %d: %s (a peer or the network may be lost; start the job again)",
                   function, rank, reason);
}

/* ---- data and tensor ranks ---- */

static lt_status check_width(const lt_grid *grid, int tensor_ranks) {
    if (tensor_ranks > 0 && grid->ranks % tensor_ranks == 0) return LT_OK;
    char widths[256];
    size_t used = 0;
    for (int width = 1; width <= grid->ranks && used < sizeof widths; width++)
        if (grid->ranks % width == 0)
            used +=
                (size_t)snprintf(widths + used, sizeof widths - used, "%s%d", used > 0 ? ", " : "", width);
    return lt_fail(LT_BAD_INPUT, "parallel.tensor: found %d, expected a divisor of the %d ranks: %s",
                   tensor_ranks, grid->ranks, widths);
}

static void free_groups(lt_grid_mpi *mpi) {
    lt_check_close(&mpi->tensor_check);
    if (mpi->data != MPI_COMM_NULL) MPI_Comm_free(&mpi->data);
    if (mpi->tensor != MPI_COMM_NULL) MPI_Comm_free(&mpi->tensor);
    free(mpi->exchange);
    free(mpi->even_cuts);
    mpi->exchange = NULL;
    mpi->even_cuts = NULL;
}

static lt_status split(lt_grid *grid, int tensor_ranks) {
    lt_grid_mpi *mpi = grid->mpi;
    free_groups(mpi);
    grid->tensor_ranks = tensor_ranks;
    grid->data_ranks = grid->ranks / tensor_ranks;
    grid->tensor_rank = grid->rank % tensor_ranks;
    grid->data_rank = grid->rank / tensor_ranks;
    mpi->exchange = calloc(2 * (size_t)tensor_ranks, sizeof *mpi->exchange);
    mpi->even_cuts = calloc((size_t)tensor_ranks + 1, sizeof *mpi->even_cuts);
    if (mpi->exchange == NULL || mpi->even_cuts == NULL)
        return lt_fail(LT_IO, "no memory for the exchanges of %d tensor ranks", tensor_ranks);
    for (int i = 0; i < 2 * tensor_ranks; i++) mpi->exchange[i].request = MPI_REQUEST_NULL;
    LT_MPI(MPI_Comm_split, mpi->world, grid->tensor_rank, grid->data_rank, &mpi->data);
    LT_MPI(MPI_Comm_split, mpi->world, grid->data_rank, grid->tensor_rank, &mpi->tensor);
    return lt_check_split(grid);
}

lt_status lt_grid_split(lt_grid *grid, int tensor_ranks) {
    LT_CHECK(check_width(grid, tensor_ranks));
    LT_CALLS(grid, "splitting into tensor groups of %d", tensor_ranks);
    return split(grid, tensor_ranks);
}

/* ---- start ---- */

int lt_grid_launched_rank(void) {
    static const char *const names[] = {"OMPI_COMM_WORLD_RANK", "PMI_RANK", "PMIX_RANK", "SLURM_PROCID"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        const char *rank = getenv(names[i]);
        if (rank) return (int)strtol(rank, NULL, 10);
    }
    return 0;
}

/* srun without MPI support starts each task as a run of its own, and all would write to one folder. */
static lt_status check_launcher(const lt_grid *grid) {
    const char *tasks = getenv("SLURM_STEP_NUM_TASKS");
    bool by_mpi = getenv("OMPI_COMM_WORLD_SIZE") || getenv("PMI_SIZE");
    if (grid->ranks > 1 || by_mpi || !tasks || strtol(tasks, NULL, 10) <= 1) return LT_OK;
    return lt_fail(
        LT_BAD_INPUT,
        "srun started %s tasks but MPI (%s) sees each as a run of its own: start them with "
        "`srun --mpi=pmix` (or pmi2 for MPICH; `srun --mpi=list` shows what there is), or with mpirun",
        tasks, grid->library);
}

bool lt_mpi_reaches_gpus(void) {
    const char *said = getenv("LAZYTRAIN_CUDA_AWARE_MPI");
    if (said != NULL) return strcmp(said, "1") == 0;
#if defined(OMPI_HAVE_MPI_EXT_CUDA) && OMPI_HAVE_MPI_EXT_CUDA
    return MPIX_Query_cuda_support() == 1;
#else
    return false;
#endif
}

/* The library's version as one short line: "Open MPI v4.1.4", "MPICH Version: 4.0.2". */
static lt_status name_library(lt_grid *grid) {
    char version[MPI_MAX_LIBRARY_VERSION_STRING + 1] = "";
    int length = 0;
    LT_MPI(MPI_Get_library_version, version, &length);
    version[strcspn(version, "\r\n,")] = '\0'; /* Open MPI adds packager and dates after a comma */
    for (char *tab = version; (tab = strchr(tab, '\t'));) *tab = ' ';
    snprintf(grid->library, sizeof grid->library, "%.*s", (int)sizeof grid->library - 1, version);
    return LT_OK;
}

/* Shares the host's cores out among its ranks; `cores` has room for one set a local rank. */
static lt_status share_cores(lt_grid *grid, MPI_Comm host, lt_cores *cores) {
    const lt_cores mine = lt_cores_own();
    LT_MPI(MPI_Allgather, &mine, sizeof mine, MPI_BYTE, cores, sizeof mine, MPI_BYTE, host);
    int same = 0;
    for (int rank = 0; rank < grid->local_ranks; rank++)
        if (memcmp(&cores[rank], &mine, sizeof mine) == 0) same++;
    grid->cores = same > 0 ? lt_cores_count(&mine) / same : 1;
    if (grid->cores < 1) grid->cores = 1;
    return LT_OK;
}

/* Fills what depends on the hosts: local ranks, cores, number of hosts. Collective. */
static lt_status survey_hosts(lt_grid *grid) {
    MPI_Comm host = MPI_COMM_NULL;
    LT_MPI(MPI_Comm_split_type, grid->mpi->world, MPI_COMM_TYPE_SHARED, grid->rank, MPI_INFO_NULL, &host);
    LT_MPI(MPI_Comm_rank, host, &grid->local_rank);
    LT_MPI(MPI_Comm_size, host, &grid->local_ranks);

    lt_cores *cores = malloc((size_t)grid->local_ranks * sizeof *cores);
    if (!cores) return lt_fail(LT_IO, "no memory for the cores of %d local ranks", grid->local_ranks);
    lt_status status = share_cores(grid, host, cores);
    free(cores);
    LT_CHECK(status);
    grid->host_first = grid->rank;
    LT_MPI(MPI_Bcast, &grid->host_first, 1, MPI_INT, 0, host);
    LT_MPI(MPI_Comm_free, &host);

    const int first = grid->local_rank == 0;
    LT_MPI(MPI_Allreduce, &first, &grid->hosts, 1, MPI_INT, MPI_SUM, grid->mpi->world);
    return LT_OK;
}

lt_status lt_grid_open(int *argc, char ***argv, lt_grid *grid) {
    memset(grid, 0, sizeof *grid);
    grid->ranks = grid->local_ranks = grid->hosts = grid->data_ranks = grid->tensor_ranks = grid->cores = 1;
    if (gethostname(grid->host, sizeof grid->host - 1) != 0)
        snprintf(grid->host, sizeof grid->host, "unknown");

    int threads = MPI_THREAD_SINGLE;
    int code = MPI_Init_thread(argc, argv, MPI_THREAD_MULTIPLE, &threads);
    if (code != MPI_SUCCESS)
        return lt_fail(
            LT_IO,
            "MPI_Init_thread failed on host %s with code %d: MPI cannot start here; start the job again",
            grid->host, code);
    /* what the predefined communicators' errors do is inherited by their copies */
    LT_MPI(MPI_Comm_set_errhandler, MPI_COMM_WORLD, MPI_ERRORS_RETURN);
    LT_MPI(MPI_Comm_set_errhandler, MPI_COMM_SELF, MPI_ERRORS_RETURN);
    LT_MPI(MPI_Comm_rank, MPI_COMM_WORLD, &grid->rank);
    LT_MPI(MPI_Comm_size, MPI_COMM_WORLD, &grid->ranks);
    lt_log_set_rank(grid->rank);
    LT_CHECK(name_library(grid));
    LT_CHECK(check_launcher(grid));
    /* Only the main thread calls MPI, but it is not the only thread. */
    if (threads < MPI_THREAD_FUNNELED)
        return lt_fail(LT_BAD_INPUT,
                       "MPI library %s offers no threads: found level %d, expected MPI_THREAD_FUNNELED; "
                       "build with a library that has them",
                       grid->library, threads);

    grid->mpi = calloc(1, sizeof *grid->mpi);
    if (!grid->mpi) return lt_fail(LT_IO, "no memory for the process grid");
    grid->mpi->world = grid->mpi->agreement = MPI_COMM_NULL;
    grid->mpi->data = grid->mpi->tensor = MPI_COMM_NULL;
    grid->mpi->pending = MPI_REQUEST_NULL;
    LT_MPI(MPI_Comm_dup, MPI_COMM_WORLD, &grid->mpi->world);
    LT_MPI(MPI_Comm_dup, MPI_COMM_WORLD, &grid->mpi->agreement);
    LT_CHECK(lt_check_open(grid));
    LT_CHECK(survey_hosts(grid));
    return split(grid, 1);
}

/* ---- the end ---- */

/* Leaving is a collective too: others may wait for one that this rank does not call. */
static lt_status compare_leaving(const lt_grid *grid) {
    LT_CALLS(grid, "leaving");
    return LT_OK;
}

void lt_grid_close(lt_grid *grid) {
    if (grid->mpi) {
        (void)compare_leaving(grid);
        if (grid->mpi->agreeing) MPI_Wait(&grid->mpi->pending, MPI_STATUS_IGNORE);
        lt_check_close(&grid->mpi->check);
        free_groups(grid->mpi);
        if (grid->mpi->agreement != MPI_COMM_NULL) MPI_Comm_free(&grid->mpi->agreement);
        if (grid->mpi->world != MPI_COMM_NULL) MPI_Comm_free(&grid->mpi->world);
        free(grid->mpi);
        grid->mpi = NULL;
    }
    int started = 0, finished = 0;
    MPI_Initialized(&started);
    MPI_Finalized(&finished);
    if (started && !finished) MPI_Finalize();
}

void lt_grid_abort(const lt_grid *grid, lt_status status) {
    (void)grid;
    int started = 0, finished = 0, main_thread = 0, threads = MPI_THREAD_SINGLE;
    lt_deadline(ABORT_S, status);
    MPI_Initialized(&started);
    MPI_Finalized(&finished);
    if (started && !finished) {
        MPI_Is_thread_main(&main_thread);
        MPI_Query_thread(&threads);
        if (main_thread || threads == MPI_THREAD_MULTIPLE) MPI_Abort(MPI_COMM_WORLD, (int)status);
    }
    _exit((int)status);
}
