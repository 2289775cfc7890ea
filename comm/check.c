#include "comm/check.h"
#include "comm/deadline.h"
#include "comm/log.h"
#include "comm/ranges.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

enum { CALL_BYTES = 80, TAG = 2 };

/* How long the last words of a job may take, and how long the other ranks then wait for the launcher to end
 * them before they end themselves. */
enum { LAST_WORDS_S = 3, END_S = 5 };

/* When rank 0 is late, the first rank below it says so; each leaves the word to those before it for so long.
 */
enum { COURTEOUS_RANKS = 8 };

/* What rank 0 keeps of each rank. */
struct lt_check {
    char (*calls)[CALL_BYTES]; /* [ranks] */
    MPI_Request *requests;     /* [ranks] */
    int *indices;              /* [ranks] scratch */
    int64_t number;            /* of calls compared */
    int late_s;                /* 0: however late */
};

static int seconds_wanted(void) {
    const char *text = getenv("LAZYTRAIN_CHECK_COLLECTIVES");
    char *end;
    if (text == NULL || text[0] == '\0') return 0;
    const long number = strtol(text, &end, 10);
    if (*end != '\0') return 1;
    return number < 0 ? 0 : number > 86400 ? 86400 : (int)number;
}

lt_status lt_check_open(const lt_grid *grid) {
    lt_grid_mpi *mpi = grid->mpi;
    int wanted = seconds_wanted(); /* a launcher may pass the environment to some hosts only */
    LT_MPI(MPI_Bcast, &wanted, 1, MPI_INT, 0, mpi->world);
    if (wanted == 0) return LT_OK;

    const size_t ranks = (size_t)grid->ranks;
    mpi->checked = calloc(1, sizeof *mpi->checked);
    if (mpi->checked == NULL) return lt_fail(LT_IO, "no memory to compare collectives");
    *mpi->checked = (lt_check){.calls = calloc(ranks, CALL_BYTES),
                               .requests = malloc(ranks * sizeof(MPI_Request)),
                               .indices = calloc(ranks, sizeof(int)),
                               .late_s = wanted > 1 ? wanted : 0};
    if (mpi->checked->calls == NULL || mpi->checked->requests == NULL || mpi->checked->indices == NULL)
        return lt_fail(LT_IO, "no memory to compare the collectives of %d ranks", grid->ranks);
    LT_MPI(MPI_Comm_dup, MPI_COMM_WORLD, &mpi->check);
    lt_log_info("checks     collectives are compared between ranks (LAZYTRAIN_CHECK_COLLECTIVES=%d)", wanted);
    return LT_OK;
}

void lt_check_close(lt_grid_mpi *mpi) {
    if (mpi->check != MPI_COMM_NULL) MPI_Comm_free(&mpi->check);
    if (mpi->checked == NULL) return;
    free(mpi->checked->calls);
    free(mpi->checked->requests);
    free(mpi->checked->indices);
    free(mpi->checked);
}

/* Waits until the first `count` requests are done or `late_s` are over (0: never). Done ones become
 * MPI_REQUEST_NULL. */
static lt_status await(lt_check *check, int count, int late_s) {
    const struct timespec pause = {.tv_nsec = 20000};
    const double begin = MPI_Wtime();
    for (int done = 0;;) {
        LT_MPI(MPI_Testsome, count, check->requests, &done, check->indices, MPI_STATUSES_IGNORE);
        if (done == MPI_UNDEFINED) return LT_OK; /* none is left */
        if (late_s > 0 && MPI_Wtime() - begin > late_s) return LT_OK;
        if (done == 0) nanosleep(&pause, NULL);
    }
}

/* ---- what differs ---- */

static bool same_call(const lt_check *check, int a, int b) {
    return strcmp(check->calls[a], check->calls[b]) == 0;
}

/* The ranks that call what rank `first` does, into `members`; how many. 0 where a lower rank calls it too. */
static int group_of(const lt_check *check, int first, int ranks, int *members) {
    int count = 0;
    for (int rank = 0; rank < first; rank++)
        if (same_call(check, rank, first)) return 0;
    for (int rank = first; rank < ranks; rank++)
        if (same_call(check, rank, first)) members[count++] = rank;
    return count;
}

/* "rank 2: barrier; ranks 0-1,3: agreement": the fewest first, who are most likely to be wrong.
 */
static void list_groups(const lt_check *check, int ranks, char *text, size_t size) {
    size_t used = 0;
    for (int wanted = 1; wanted <= ranks; wanted++)
        for (int first = 0; first < ranks && used < size; first++) {
            const int count = group_of(check, first, ranks, check->indices);
            if (count != wanted) continue;
            char list[512];
            lt_ranges_text(check->indices, count, list, sizeof list);
            const char *call = check->calls[first][0] == '\0' ? "missing" : check->calls[first];
            used += (size_t)snprintf(text + used, size - used, "%srank%s %s: %s", used > 0 ? "; " : "",
                                     count == 1 ? "" : "s", list, call);
        }
}

/* Ends the job once `message` is said, which may block. */
static _Noreturn void end_job(const char *message) {
    lt_deadline(LAST_WORDS_S, LT_FAILED);
    lt_log_error(message);
    lt_grid_abort(NULL, LT_FAILED);
}

/* On a rank that knows that another one speaks and ends the job. */
static _Noreturn void await_end(void) {
    lt_deadline(END_S, LT_FAILED);
    for (;;) pause();
}

static _Noreturn void tell_difference(const lt_grid *grid) {
    const lt_check *check = grid->mpi->checked;
    char groups[2048], message[LT_ERROR_MESSAGE_BYTES];
    list_groups(check, grid->ranks, groups, sizeof groups);
    snprintf(
        message, sizeof message,
        "collective %lld is not the same on all ranks: %s; every rank must make the same calls in the same "
        "order: look for what decides on this one and is known to some ranks only",
        (long long)check->number, groups);
    const char differs = 1;
    for (int rank = 1; rank < grid->ranks; rank++)
        if (check->calls[rank][0] != '\0') MPI_Send(&differs, 1, MPI_CHAR, rank, TAG, grid->mpi->check);
    end_job(message);
}

/* ---- the comparison ---- */

/* Rank 0: gathers the lines and answers. */
static lt_status compare(const lt_grid *grid) {
    lt_check *check = grid->mpi->checked;
    for (int rank = 1; rank < grid->ranks; rank++) {
        check->calls[rank][0] = '\0';
        LT_MPI(MPI_Irecv, check->calls[rank], CALL_BYTES, MPI_CHAR, rank, TAG, grid->mpi->check,
               &check->requests[rank - 1]);
    }
    LT_CHECK(await(check, grid->ranks - 1, check->late_s));
    for (int rank = 1; rank < grid->ranks; rank++)
        if (!same_call(check, rank, 0)) tell_difference(grid);
    const char differs = 0;
    for (int rank = 1; rank < grid->ranks; rank++)
        LT_MPI(MPI_Send, &differs, 1, MPI_CHAR, rank, TAG, grid->mpi->check);
    return LT_OK;
}

/* Another rank: asks rank 0. */
static lt_status ask(const lt_grid *grid) {
    lt_check *check = grid->mpi->checked;
    char *call = check->calls[grid->rank], differs = 0;
    const int courtesy = grid->rank < COURTEOUS_RANKS ? grid->rank : COURTEOUS_RANKS;
    LT_MPI(MPI_Isend, call, CALL_BYTES, MPI_CHAR, 0, TAG, grid->mpi->check, &check->requests[0]);
    LT_MPI(MPI_Irecv, &differs, 1, MPI_CHAR, 0, TAG, grid->mpi->check, &check->requests[1]);
    LT_CHECK(await(check, 2, check->late_s > 0 ? check->late_s + courtesy : 0));
    if (check->requests[1] != MPI_REQUEST_NULL) {
        char message[LT_ERROR_MESSAGE_BYTES];
        snprintf(message, sizeof message,
                 "collective %lld is not the same on all ranks: no answer from rank 0 for %d s "
                 "(LAZYTRAIN_CHECK_COLLECTIVES), it or a rank that it waits for is missing; rank %d: %s",
                 (long long)check->number, check->late_s, grid->rank, call);
        end_job(message);
    }
    if (differs) await_end();
    return LT_OK;
}

lt_status lt_check_call(const lt_grid *grid, const char *format, ...) {
    lt_check *check = grid->mpi->checked;
    char *call = check->calls[grid->rank];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(call, CALL_BYTES, format, arguments);
    va_end(arguments);
    check->number++;
    return grid->rank == 0 ? compare(grid) : ask(grid);
}
