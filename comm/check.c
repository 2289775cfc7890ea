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

/* One set of ranks whose calls are compared. */
struct lt_check {
    MPI_Comm comm;
    int rank, ranks;           /* in it */
    int first;                 /* of the world: its ranks are neighbours */
    char (*calls)[CALL_BYTES]; /* [ranks], what its rank 0 keeps of each */
    MPI_Request *requests;     /* [ranks] */
    int *members;              /* [ranks] scratch */
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

static lt_status create(MPI_Comm ranks, int first, int late_s, lt_check **check) {
    int rank, count;
    LT_MPI(MPI_Comm_rank, ranks, &rank);
    LT_MPI(MPI_Comm_size, ranks, &count);
    lt_check *made = *check = calloc(1, sizeof **check);
    if (made == NULL) return lt_fail(LT_IO, "no memory to compare collectives");
    *made = (lt_check){.comm = MPI_COMM_NULL,
                       .rank = rank,
                       .ranks = count,
                       .first = first,
                       .calls = calloc((size_t)count, CALL_BYTES),
                       .requests = calloc((size_t)count + 1, sizeof(MPI_Request)),
                       .members = calloc((size_t)count, sizeof(int)),
                       .late_s = late_s};
    if (made->calls == NULL || made->requests == NULL || made->members == NULL)
        return lt_fail(LT_IO, "no memory to compare the collectives of %d ranks", count);
    LT_MPI(MPI_Comm_dup, ranks, &made->comm);
    return LT_OK;
}

lt_status lt_check_open(const lt_grid *grid) {
    int wanted = seconds_wanted(); /* a launcher may pass the environment to some hosts only */
    LT_MPI(MPI_Bcast, &wanted, 1, MPI_INT, 0, grid->mpi->world);
    if (wanted == 0) return LT_OK;
    LT_CHECK(create(grid->mpi->world, 0, wanted > 1 ? wanted : 0, &grid->mpi->check));
    lt_log_info("checks     collectives are compared between ranks (LAZYTRAIN_CHECK_COLLECTIVES=%d)", wanted);
    return LT_OK;
}

lt_status lt_check_split(const lt_grid *grid) {
    if (grid->mpi->check == NULL) return LT_OK;
    return create(grid->mpi->tensor, grid->rank - grid->tensor_rank, grid->mpi->check->late_s,
                  &grid->mpi->tensor_check);
}

void lt_check_close(lt_check **check) {
    if (*check == NULL) return;
    if ((*check)->comm != MPI_COMM_NULL) MPI_Comm_free(&(*check)->comm);
    free((*check)->calls);
    free((*check)->requests);
    free((*check)->members);
    free(*check);
    *check = NULL;
}

/* Waits until the first `count` requests are done or `late_s` are over (0: never). Done ones become
 * MPI_REQUEST_NULL. */
static lt_status await(lt_check *check, int count, int late_s) {
    const struct timespec pause = {.tv_nsec = 20000};
    const double begin = MPI_Wtime();
    for (int first = 0; first < count;) { /* those before `first` are done */
        int done = 0;
        LT_MPI(MPI_Test, &check->requests[first], &done, MPI_STATUS_IGNORE);
        first += done;
        if (done) continue;
        if (late_s > 0 && MPI_Wtime() - begin > late_s) break;
        nanosleep(&pause, NULL);
    }
    for (int i = 0, done; i < count; i++) LT_MPI(MPI_Test, &check->requests[i], &done, MPI_STATUS_IGNORE);
    return LT_OK;
}

/* ---- what differs ---- */

static bool same_call(const lt_check *check, int a, int b) {
    return strcmp(check->calls[a], check->calls[b]) == 0;
}

/* The ranks that call what rank `first` does, as those of the world, into the check's members; how many. 0
 * where a lower rank calls it too. */
static int group_of(const lt_check *check, int first) {
    int count = 0;
    for (int rank = 0; rank < first; rank++)
        if (same_call(check, rank, first)) return 0;
    for (int rank = first; rank < check->ranks; rank++)
        if (same_call(check, rank, first)) check->members[count++] = check->first + rank;
    return count;
}

/* "rank 2: barrier; ranks 0-1,3: agreement": the fewest first, who are most likely to be wrong.
 */
static void list_groups(const lt_check *check, char *text, size_t size) {
    size_t used = 0;
    for (int wanted = 1; wanted <= check->ranks; wanted++)
        for (int first = 0; first < check->ranks && used < size; first++) {
            const int count = group_of(check, first);
            if (count != wanted) continue;
            char list[512];
            lt_ranges_text(check->members, count, list, sizeof list);
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

static _Noreturn void tell_difference(const lt_check *check) {
    char groups[2048], message[LT_ERROR_MESSAGE_BYTES];
    list_groups(check, groups, sizeof groups);
    snprintf(
        message, sizeof message,
        "collective %lld is not the same on all ranks: %s; every rank must make the same calls in the same "
        "order: look for what decides on this one and is known to some ranks only",
        (long long)check->number, groups);
    const char differs = 1;
    for (int rank = 1; rank < check->ranks; rank++)
        if (check->calls[rank][0] != '\0') MPI_Send(&differs, 1, MPI_CHAR, rank, TAG, check->comm);
    end_job(message);
}

/* ---- the comparison ---- */

/* Rank 0: gathers the lines and answers. */
static lt_status compare(lt_check *check) {
    for (int rank = 1; rank < check->ranks; rank++) {
        check->calls[rank][0] = '\0';
        LT_MPI(MPI_Irecv, check->calls[rank], CALL_BYTES, MPI_CHAR, rank, TAG, check->comm,
               &check->requests[rank - 1]);
    }
    LT_CHECK(await(check, check->ranks - 1, check->late_s));
    for (int rank = 1; rank < check->ranks; rank++)
        if (!same_call(check, rank, 0)) tell_difference(check);
    const char differs = 0;
    for (int rank = 1; rank < check->ranks; rank++)
        LT_MPI(MPI_Send, &differs, 1, MPI_CHAR, rank, TAG, check->comm);
    return LT_OK;
}

/* Another rank: asks rank 0. */
static lt_status ask(lt_check *check) {
    char *call = check->calls[check->rank], differs = 0;
    const int courtesy = check->rank < COURTEOUS_RANKS ? check->rank : COURTEOUS_RANKS;
    LT_MPI(MPI_Isend, call, CALL_BYTES, MPI_CHAR, 0, TAG, check->comm, &check->requests[0]);
    LT_MPI(MPI_Irecv, &differs, 1, MPI_CHAR, 0, TAG, check->comm, &check->requests[1]);
    LT_CHECK(await(check, 2, check->late_s > 0 ? check->late_s + courtesy : 0));
    if (check->requests[1] != MPI_REQUEST_NULL) {
        char message[LT_ERROR_MESSAGE_BYTES];
        snprintf(message, sizeof message,
                 "collective %lld is not the same on all ranks: no answer from rank %d for %d s "
                 "(LAZYTRAIN_CHECK_COLLECTIVES), it or a rank that it waits for is missing; rank %d: %s",
                 (long long)check->number, check->first, check->late_s, check->first + check->rank, call);
        end_job(message);
    }
    if (differs) await_end();
    return LT_OK;
}

lt_status lt_check_call(lt_check *check, const char *format, ...) {
    char *call = check->calls[check->rank];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(call, CALL_BYTES, format, arguments);
    va_end(arguments);
    check->number++;
    return check->rank == 0 ? compare(check) : ask(check);
}
