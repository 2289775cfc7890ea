#define _GNU_SOURCE

#include "checkpoints/probe.h"

#include "checkpoints/checkpoint.h"
#include "checkpoints/child.h"
#include "checkpoints/walk.h"
#include "comm/interrupt.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

/* A walk takes milliseconds; a tenth of a second for 100,000 chunks. */
enum { PROCESSOR_SECONDS = 10, WAIT_SECONDS = 120 };
static const size_t MOST_ANSWER_BYTES = (size_t)256 << 20; /* 32 million chunks */

/* What ends the answer: status, newer, and that the walk came to its end. */
typedef struct trailer {
    uint64_t magic;
    int32_t status, newer;
} trailer;
static const uint64_t TRAILER_MAGIC = 0x6c617a7970726f62;

/* ---- child
 * ----------------------------------------------------------------------------------------------------- */

_Noreturn static void child(const char *path, int answer_to) {
    lt_pack answer = {0};
    bool newer = false;
    lt_status status = lt_walk(path, &answer, &newer);
    if (status != LT_OK) {
        lt_pack_free(&answer);
        lt_pack_put(&answer, lt_error_message(), strlen(lt_error_message()) + 1);
    }
    trailer end = {TRAILER_MAGIC, (int32_t)status, newer};
    lt_pack_put(&answer, &end, sizeof end);
    for (size_t sent = 0; sent < answer.used && !answer.failed;) {
        ssize_t n = write(answer_to, answer.bytes + sent, answer.used - sent);
        if (n < 0 && errno == EINTR) continue;
        if (n <= 0) _exit(1);
        sent += (size_t)n;
    }
    _exit(0);
}

/* ---- parent
 * ---------------------------------------------------------------------------------------------------- */

static double seconds(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + 1e-9 * (double)now.tv_nsec;
}

typedef enum reception { RECEIVED, TOO_LATE, TOO_LONG, INTERRUPTED } reception;

static const char DOING[] = "reading the structure of a checkpoint";

static reception receive(int from, lt_pack *answer) {
    double end = seconds() + WAIT_SECONDS;
    for (;;) {
        double left = end - seconds();
        if (left <= 0) return TOO_LATE;
        if (lt_interrupt_check(DOING) != LT_OK) return INTERRUPTED;
        struct pollfd wait = {.fd = from, .events = POLLIN};
        if (poll(&wait, 1, (int)(left * 1000) + 1) <= 0) continue;
        unsigned char *room = lt_pack_reserve(answer, 64 << 10);
        if (!room || answer->used > MOST_ANSWER_BYTES) return TOO_LONG;
        ssize_t n = read(from, room, 64 << 10);
        if (n < 0 && errno == EINTR) continue;
        if (n <= 0) return RECEIVED;
        answer->used += (size_t)n;
    }
}

static lt_status judge(const char *path, reception received, int ended, lt_pack *answer, bool *newer) {
    trailer end = {0};
    if (received == INTERRUPTED) return lt_interrupt_check(DOING);
    if (received == TOO_LATE)
        return lt_fail(LT_IO, "%s: reading its structure took more than %d s: does the file system answer?",
                       path, WAIT_SECONDS);
    if (received == TOO_LONG)
        return lt_fail(LT_BAD_INPUT, "%s: has too many chunks to be a checkpoint", path);
    if (answer->used >= sizeof end) memcpy(&end, answer->bytes + answer->used - sizeof end, sizeof end);
    if (end.magic == TRAILER_MAGIC) {
        answer->used -= sizeof end;
        if (end.status == LT_OK) return LT_OK;
        const int length = (int)strnlen((const char *)answer->bytes, answer->used);
        if ((end.status == LT_IO || end.status == LT_BAD_INPUT) && length > 0) {
            *newer = end.newer != 0;
            return lt_fail((lt_status)end.status, "%.*s", length, (const char *)answer->bytes);
        }
    }
    int killed_by = WIFSIGNALED(ended) ? WTERMSIG(ended) : 0;
    if (killed_by == SIGXCPU)
        return lt_fail(LT_BAD_INPUT,
                       "%s: the HDF5 library worked on it for %d s without an end: the file is damaged", path,
                       PROCESSOR_SECONDS);
    if (killed_by == SIGKILL)
        return lt_fail(LT_IO,
                       "%s: the process that reads its structure was killed: is the machine out of memory?",
                       path);
    return lt_fail(LT_BAD_INPUT, "%s: the HDF5 library crashed on it (%s): the file is damaged", path,
                   lt_child_reason(ended));
}

static lt_status check_kind(const char *path) {
    struct stat about;
    if (stat(path, &about) != 0) {
        lt_status status = errno == EIO || errno == ESTALE || errno == ENOMEM ? LT_IO : LT_BAD_INPUT;
        return lt_fail(status, "%s: cannot open the checkpoint: %s", path, strerror(errno));
    }
    if (!S_ISREG(about.st_mode)) return lt_fail(LT_BAD_INPUT, "%s: not a file: expected a checkpoint", path);
    if (!lt_checkpoint_recognise(path))
        return lt_fail(LT_BAD_INPUT, "%s: not an HDF5 file (it does not start like one), so no checkpoint",
                       path);
    return LT_OK;
}

lt_status lt_probe(const char *path, lt_pack *answer, bool *newer) {
    int ends[2];
    *newer = false;
    LT_CHECK(check_kind(path));
    if (pipe2(ends, O_CLOEXEC) != 0)
        return lt_fail(LT_IO, "%s: cannot create a pipe: %s", path, strerror(errno));
    pid_t pid = lt_child_fork(PROCESSOR_SECONDS);
    if (pid == 0) child(path, ends[1]);
    int fork_error = errno;
    close(ends[1]);
    if (pid < 0) {
        close(ends[0]);
        return lt_fail(LT_IO, "%s: cannot start a process to read it: %s", path, strerror(fork_error));
    }
    reception received = receive(ends[0], answer);
    close(ends[0]);
    if (received != RECEIVED) kill(pid, SIGKILL);
    int ended;
    lt_child_wait(pid, &ended);
    return judge(path, received, ended, answer, newer);
}
