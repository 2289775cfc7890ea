/* The watchdog in forked children, whose exit code and stderr are the result. Times are generous: the machine
 * may be busy. */
#include "comm/interrupt.h"
#include "comm/log.h"
#include "comm/watchdog.h"

#include <fcntl.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>
#include <cmocka.h>

enum { FINISHED = 9 };

static void sleep_ms(long ms) {
    struct timespec time = {ms / 1000, ms % 1000 * 1000000};
    while (nanosleep(&time, &time) != 0) {
    }
}

static lt_grid grid_of(int rank) {
    lt_grid grid = {.rank = rank, .ranks = 16};
    snprintf(grid.host, sizeof grid.host, "node7");
    return grid;
}

typedef struct child {
    pid_t process;
    int output;
} child;

static child run(void (*body)(void)) {
    int ends[2];
    assert_int_equal(pipe(ends), 0);
    pid_t process = fork();
    assert_true(process >= 0);
    if (process == 0) {
        dup2(ends[1], STDERR_FILENO);
        close(ends[0]);
        close(ends[1]);
        body();
        _exit(FINISHED);
    }
    close(ends[1]);
    return (child){process, ends[0]};
}

/* Waits for the child and reads what it wrote; returns its exit code. */
static int finish(child ran, char *text, size_t size) {
    size_t length = 0;
    ssize_t count;
    while (length < size - 1 && (count = read(ran.output, text + length, size - 1 - length)) > 0)
        length += (size_t)count;
    text[length] = '\0';
    close(ran.output);
    int status = 0;
    assert_int_equal(waitpid(ran.process, &status, 0), ran.process);
    assert_true(WIFEXITED(status));
    return WEXITSTATUS(status);
}

static void hang(void) {
    lt_grid grid = grid_of(1);
    if (lt_watchdog_start(&grid, 0.2) != LT_OK) _exit(1);
    lt_watchdog_file("shards/a.bin");
    lt_watchdog_tick("gradient reduction", 42);
    sleep_ms(20000);
}

/* What the rank waits for, then one line of an error. */
static void a_hang_ends_with_74_and_one_error(void **state) {
    (void)state;
    char text[4096];
    assert_int_equal(finish(run(hang), text, sizeof text), LT_IO);
    assert_ptr_equal(strstr(text, "lazytrain: rank 1 on host node7 waits for "), text);
    assert_non_null(strstr(text, "phase \"gradient reduction\" of step 42 (last file: shards/a.bin)\n"));
    const char *error = strchr(text, '\n') + 1;
    assert_ptr_equal(strstr(text, "lazytrain: error: rank 1 on host node7 has not moved for "), error);
    assert_non_null(strstr(error, "phase \"gradient reduction\" of step 42"));
    assert_ptr_equal(strchr(error, '\n'), text + strlen(text) - 1);
}

static void hang_and_be_told_to_stop(void) {
    lt_grid grid = grid_of(0);
    if (lt_watchdog_start(&grid, 1) != LT_OK) _exit(1);
    lt_watchdog_tick("gradient reduction", 42);
    sleep_ms(1500);
    lt_interrupt("SIGTERM");
    sleep_ms(20000);
}

/* One second until it speaks, one to be heard, and one for the launcher that seems to end it. */
static void a_rank_told_to_stop_leaves_the_launcher_time(void **state) {
    (void)state;
    char text[4096];
    double waited_s = 0;
    assert_int_equal(finish(run(hang_and_be_told_to_stop), text, sizeof text), LT_IO);
    const char *error = strstr(text, "has not moved for ");
    assert_non_null(error);
    assert_int_equal(sscanf(error, "has not moved for %lf s", &waited_s), 1);
    assert_true(waited_s >= 3);
}

static void save_for_long(void) {
    lt_grid grid = grid_of(0);
    if (lt_watchdog_start(&grid, 0.2) != LT_OK) _exit(1);
    lt_watchdog_tick("saving", 3);
    lt_watchdog_grant(60);
    sleep_ms(3000);
    if (write(STDERR_FILENO, "saved\n", 6) != 6) _exit(2);
    lt_watchdog_grant(0);
    sleep_ms(20000);
}

/* A grant holds until it is taken back; then the timeout counts from the last tick, long past. */
static void a_grant_is_kept_and_ends(void **state) {
    (void)state;
    char text[4096];
    assert_int_equal(finish(run(save_for_long), text, sizeof text), LT_IO);
    assert_ptr_equal(strstr(text, "saved\nlazytrain: rank 0 "), text);
}

static void wait_then_move(void) {
    lt_grid grid = grid_of(8); /* a courtesy of 8 x 0.2 s and one more */
    if (lt_watchdog_start(&grid, 0.2) != LT_OK) _exit(1);
    lt_watchdog_tick("gradient reduction", 7);
    sleep_ms(900);
    lt_watchdog_stop();
}

/* A wait that ends after all was worth a remark and nothing else. */
static void a_wait_that_ends_is_no_error(void **state) {
    (void)state;
    char text[4096];
    assert_int_equal(finish(run(wait_then_move), text, sizeof text), FINISHED);
    assert_ptr_equal(strstr(text, "lazytrain: rank 8 on host node7 waits for "), text);
    assert_null(strstr(text, "error"));
}

static void keep_ticking(void) {
    lt_grid grid = grid_of(0);
    if (lt_watchdog_start(&grid, 1.0) != LT_OK) _exit(1);
    for (int i = 0; i < 40; i++) {
        lt_watchdog_tick("forward", i);
        sleep_ms(50);
    }
}

static void ticks_keep_it_quiet(void **state) {
    (void)state;
    char text[4096];
    assert_int_equal(finish(run(keep_ticking), text, sizeof text), FINISHED);
    assert_string_equal(text, "");
}

static void stop_and_off(void) {
    lt_grid grid = grid_of(0);
    lt_watchdog_stop();
    if (lt_watchdog_start(&grid, 0.3) != LT_OK) _exit(1);
    if (lt_watchdog_start(&grid, 0.3) != LT_BAD_INPUT) _exit(2);
    lt_watchdog_stop();
    if (lt_watchdog_start(&grid, 0) != LT_OK) _exit(3);
    if (lt_watchdog_start(&grid, -1) != LT_BAD_INPUT) _exit(4);
    lt_watchdog_tick("idle", 0);
    sleep_ms(700);
    lt_watchdog_stop();
}

static void stopped_or_off_it_does_nothing(void **state) {
    (void)state;
    char text[4096];
    assert_int_equal(finish(run(stop_and_off), text, sizeof text), FINISHED);
    assert_string_equal(text, "");
}

static void pause_then_move(void) {
    lt_grid grid = grid_of(0);
    if (lt_watchdog_start(&grid, 1.0) != LT_OK) _exit(1);
    lt_watchdog_tick("forward", 1);
    if (write(STDERR_FILENO, "ready\n", 6) != 6) _exit(2);
    sleep_ms(100);
    raise(SIGSTOP);
    sleep_ms(300);
}

static void a_stopped_process_is_forgiven(void **state) {
    (void)state;
    char text[4096];
    child ran = run(pause_then_move);
    int status = 0;
    assert_int_equal(waitpid(ran.process, &status, WUNTRACED), ran.process);
    assert_true(WIFSTOPPED(status));
    sleep_ms(2800); /* past the limit of 1 s and the lateness of 1.1 s */
    kill(ran.process, SIGCONT);
    assert_int_equal(finish(ran, text, sizeof text), FINISHED);
    assert_string_equal(text, "ready\n");
}

/* stderr is a pipe that is full and that nobody reads, and another thread waits for it inside the log's lock.
 */
static void hang_without_a_reader(void) {
    int ends[2];
    if (pipe(ends) != 0) _exit(1);
    fcntl(ends[1], F_SETFL, O_NONBLOCK);
    char filler[4096] = {0};
    while (write(ends[1], filler, sizeof filler) > 0) {
    }
    fcntl(ends[1], F_SETFL, 0);
    dup2(ends[1], STDERR_FILENO);
    lt_grid grid = grid_of(0);
    if (lt_watchdog_start(&grid, 0.2) != LT_OK) _exit(2);
    lt_log_info("never read");
}

static void a_blocked_stderr_does_not_save_it(void **state) {
    (void)state;
    char text[16];
    assert_int_equal(finish(run(hang_without_a_reader), text, sizeof text), LT_IO);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_hang_ends_with_74_and_one_error),
        cmocka_unit_test(a_rank_told_to_stop_leaves_the_launcher_time),
        cmocka_unit_test(a_grant_is_kept_and_ends),
        cmocka_unit_test(a_wait_that_ends_is_no_error),
        cmocka_unit_test(ticks_keep_it_quiet),
        cmocka_unit_test(stopped_or_off_it_does_nothing),
        cmocka_unit_test(a_stopped_process_is_forgiven),
        cmocka_unit_test(a_blocked_stderr_does_not_save_it),
    };
    return cmocka_run_group_tests_name("watchdog", tests, NULL, NULL);
}
