/* The memory that is left, from trees of files such as Linux shows them. */
#include "trainer/memory.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include <cmocka.h>

static char root[] = "/tmp/lazytrain_memory_XXXXXX";

static int set_up(void **state) {
    (void)state;
    strcpy(root + strlen(root) - 6, "XXXXXX");
    return mkdtemp(root) == NULL ? -1 : 0;
}

static int tear_down(void **state) {
    (void)state;
    char command[128];
    snprintf(command, sizeof command, "rm -rf '%s'", root);
    return system(command);
}

static void write_file(const char *name, const char *text) {
    char path[512];
    snprintf(path, sizeof path, "%s/%s", root, name);
    for (char *slash = strchr(path + strlen(root) + 1, '/'); slash != NULL; slash = strchr(slash + 1, '/')) {
        *slash = '\0';
        mkdir(path, 0777);
        *slash = '/';
    }
    FILE *file = fopen(path, "w");
    assert_non_null(file);
    fputs(text, file);
    fclose(file);
}

static void nothing_is_said(void **state) {
    (void)state;
    assert_true(lt_memory_available(root) == 0);
}

static void the_system_says(void **state) {
    (void)state;
    write_file("proc/meminfo", "MemTotal:       4000 kB\nMemAvailable:    3000 kB\n");
    write_file("proc/self/cgroup", "0::/\n");
    assert_true(lt_memory_available(root) == 3000.0 * 1024);
}

/* A job's limit stands above the step's group; cache that can be dropped is not in the way. */
static void a_group_above_has_a_limit(void **state) {
    (void)state;
    write_file("proc/meminfo", "MemAvailable:    3000 kB\n");
    write_file("proc/self/cgroup", "0::/slurm/job_7/step_0\n");
    write_file("sys/fs/cgroup/slurm/job_7/step_0/memory.max", "max\n");
    write_file("sys/fs/cgroup/slurm/job_7/step_0/memory.current", "5000\n");
    write_file("sys/fs/cgroup/slurm/job_7/memory.max", "1000000\n");
    write_file("sys/fs/cgroup/slurm/job_7/memory.current", "300000\n");
    write_file("sys/fs/cgroup/slurm/job_7/memory.stat", "anon 100000\ninactive_file 50000\n");
    assert_true(lt_memory_available(root) == 1000000.0 - 300000 + 50000);
}

static void the_first_version(void **state) {
    (void)state;
    write_file("proc/meminfo", "MemAvailable:    3000 kB\n");
    write_file("proc/self/cgroup", "8:pids:/x\n4:memory:/box\n0::/\n");
    write_file("sys/fs/cgroup/memory/memory.limit_in_bytes", "9223372036854771712\n");
    write_file("sys/fs/cgroup/memory/memory.usage_in_bytes", "9000000\n");
    write_file("sys/fs/cgroup/memory/box/memory.limit_in_bytes", "2000000\n");
    write_file("sys/fs/cgroup/memory/box/memory.usage_in_bytes", "500000\n");
    assert_true(lt_memory_available(root) == 1500000);
    write_file("sys/fs/cgroup/memory/box/memory.usage_in_bytes", "2000000\n");
    assert_true(lt_memory_available(root) == 1); /* none left is not the same as not known */
}

/* What this machine says is a number of bytes. */
static void this_machine(void **state) {
    (void)state;
    assert_true(lt_memory_available("") > 0x1p20);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(nothing_is_said, set_up, tear_down),
        cmocka_unit_test_setup_teardown(the_system_says, set_up, tear_down),
        cmocka_unit_test_setup_teardown(a_group_above_has_a_limit, set_up, tear_down),
        cmocka_unit_test_setup_teardown(the_first_version, set_up, tear_down),
        cmocka_unit_test(this_machine),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
