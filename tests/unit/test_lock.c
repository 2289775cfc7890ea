/* Who may use a run's folder. */
#define _GNU_SOURCE

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "folder_fixture.h"

#include <signal.h>
#include <sys/wait.h>

/* ---- lock
 * ------------------------------------------------------------------------------------------------------- */

/* A child locks the folder as another run would, and reports its status; it dies at once unless `stay` is
 * given. */
static pid_t lock_in_child(lt_status *status, bool stay) {
    int told[2];
    assert_int_equal(pipe(told), 0);
    pid_t pid = fork();
    if (pid == 0) {
        lt_status mine = lt_folder_lock(folder);
        if (write(told[1], &mine, sizeof mine) != sizeof mine) _exit(1);
        while (stay) pause();
        _exit(0);
    }
    assert_int_equal(read(told[0], status, sizeof *status), sizeof *status);
    close(told[0]);
    close(told[1]);
    if (!stay) waitpid(pid, NULL, 0);
    return pid;
}

static void lock_and_unlock(void **state) {
    (void)state;
    assert_int_equal(lt_folder_lock(folder), LT_OK);
    assert_true(exists("lock"));
    assert_int_equal(lt_folder_check_lock(folder), LT_OK);
    assert_says(lt_folder_lock(folder), LT_IO, "is in use by a run on host");
    lt_folder_unlock(folder);
    assert_false(exists("lock"));
    assert_says(lt_folder_check_lock(folder), LT_IO, "lock is no longer this run's");
    assert_int_equal(lt_folder_lock(folder), LT_OK);
    lt_folder_unlock(folder);
    lt_folder_unlock(folder);
}

static void lock_of_a_live_run(void **state) {
    (void)state;
    lt_status status;
    char expected[64];
    setenv("SLURM_JOB_ID", "77", 1);
    pid_t pid = lock_in_child(&status, true);
    assert_int_equal(status, LT_OK);
    setenv("SLURM_JOB_ID", "78", 1);
    snprintf(expected, sizeof expected, "process %d, SLURM job 77)", (int)pid);
    assert_says(lt_folder_lock(folder), LT_IO, expected);
    assert_non_null(strstr(lt_error_message(), grid.host));
    lt_folder_unlock(folder); /* not ours: stays */
    assert_true(exists("lock"));
    kill(pid, SIGKILL);
    /* A dead process that its parent has not waited for is dead. */
    siginfo_t info;
    waitid(P_PID, (id_t)pid, &info, WEXITED | WNOWAIT);
    assert_int_equal(lt_folder_lock(folder), LT_OK);
    waitpid(pid, NULL, 0);
    lt_folder_unlock(folder);
    assert_false(exists("lock"));
}

static void lock_of_a_dead_run(void **state) {
    (void)state;
    lt_status status;
    lock_in_child(&status, false);
    assert_int_equal(status, LT_OK);
    assert_true(exists("lock"));
    put_text("step_00000009.h5.partial", "half");
    put_text("lock.elsewhere.5.partial", "half");
    put_text("notes.partial", "a user's file");
    assert_int_equal(lt_folder_lock(folder), LT_OK);
    assert_false(exists("step_00000009.h5.partial"));
    assert_false(exists("lock.elsewhere.5.partial"));
    assert_true(exists("notes.partial"));
    lt_folder_unlock(folder);
}

/* The id of the owner lives on in another process: the start time tells. */
static void lock_of_a_reused_id(void **state) {
    (void)state;
    char text[900], boot[64] = "";
    FILE *file = fopen("/proc/sys/kernel/random/boot_id", "r");
    assert_non_null(file);
    assert_int_equal(fscanf(file, "%63s", boot), 1);
    fclose(file);
    snprintf(text, sizeof text, "host=%s\npid=%d\nstarted=1\nboot=%s\njob=\n", grid.host, (int)getppid(),
             boot);
    put_text("lock", text);
    assert_int_equal(lt_folder_lock(folder), LT_OK);
    lt_folder_unlock(folder);
    snprintf(text, sizeof text, "host=%s\npid=1\nstarted=1\nboot=another\njob=\n", grid.host);
    put_text("lock", text);
    assert_int_equal(lt_folder_lock(folder), LT_OK);
    lt_folder_unlock(folder);
}

static void lock_of_another_host(void **state) {
    (void)state;
    static const char text[] = "host=far\npid=1\nstarted=5\nboot=b\njob=42\n";
    put_text("lock", text);
    assert_says(lt_folder_lock(folder), LT_IO, "host far (process 1, SLURM job 42)");
    setenv("SLURM_JOB_ID", "43", 1);
    assert_int_equal(lt_folder_lock(folder), LT_IO);
    setenv("SLURM_JOB_ID", "42", 1);
    assert_int_equal(lt_folder_lock(folder), LT_OK);
    lt_folder_unlock(folder);
    unsetenv("SLURM_JOB_ID");
    put_text("lock", "host=far\npid=1\nstarted=5\nboot=b\njob=\n");
    assert_int_equal(lt_folder_lock(folder), LT_IO);
    assert_true(exists("lock"));
}

static void lock_without_sense(void **state) {
    (void)state;
    put_text("lock", "");
    assert_int_equal(lt_folder_lock(folder), LT_OK);
    lt_folder_unlock(folder);
    put_text("lock", "host=far\npid=");
    assert_int_equal(lt_folder_lock(folder), LT_OK);
    lt_folder_unlock(folder);
}

/* Of many that find a stale lock together exactly one gets it. */
static void lock_race(void **state) {
    (void)state;
    enum { RUNS = 8 };
    for (int round = 0; round < 5; round++) {
        int told[2], go[2], won = 0;
        lt_status status;
        put_text("lock", "host=far\npid=1\nstarted=5\nboot=b\njob=42\n");
        setenv("SLURM_JOB_ID", "42", 1);
        assert_int_equal(pipe(told), 0);
        assert_int_equal(pipe(go), 0);
        pid_t pids[RUNS];
        for (int i = 0; i < RUNS; i++) {
            pids[i] = fork();
            if (pids[i]) continue;
            char byte;
            close(go[1]);
            if (read(go[0], &byte, 1) != 0) _exit(1);
            lt_status mine = lt_folder_lock(folder);
            if (write(told[1], &mine, sizeof mine) != sizeof mine) _exit(1);
            for (;;) pause();
        }
        close(go[1]);
        for (int i = 0; i < RUNS; i++) {
            assert_int_equal(read(told[0], &status, sizeof status), sizeof status);
            won += status == LT_OK;
        }
        for (int i = 0; i < RUNS; i++) kill(pids[i], SIGKILL);
        for (int i = 0; i < RUNS; i++) waitpid(pids[i], NULL, 0);
        close(go[0]);
        close(told[0]);
        close(told[1]);
        assert_int_equal(won, 1);
    }
}

#define TEST(function) cmocka_unit_test_setup_teardown(function, set_up, tear_down)

int main(void) {
    const struct CMUnitTest tests[] = {
        TEST(lock_and_unlock),     TEST(lock_of_a_live_run),   TEST(lock_of_a_dead_run),
        TEST(lock_of_a_reused_id), TEST(lock_of_another_host), TEST(lock_without_sense),
        TEST(lock_race),
    };
    return cmocka_run_group_tests(tests, start, end);
}
