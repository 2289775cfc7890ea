/* The runner behind tests/gpu/include/cmocka.h. */
#include <cmocka.h>

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>

static jmp_buf failed;

void test_fail(const char *file, int line, const char *format, ...) {
    va_list arguments;
    va_start(arguments, format);
    printf("# %s:%d: ", file, line);
    vprintf(format, arguments);
    printf("\n");
    va_end(arguments);
    longjmp(failed, 1);
}

/* Whether the test, and what goes before and after it, held. */
static int run(const struct CMUnitTest *test, void **state) {
    volatile int bad = 0;
    if (setjmp(failed) != 0)
        bad = 1;
    else if (test->setup_func != NULL && test->setup_func(state) != 0)
        test_fail(test->name, 0, "its setup failed");
    else
        test->test_func(state);
    if (setjmp(failed) != 0) return 0;
    if (test->teardown_func != NULL && test->teardown_func(state) != 0) bad = 1;
    return !bad;
}

int test_run_group(const char *name, const struct CMUnitTest *tests, size_t count, test_fixture setup,
                   test_fixture teardown) {
    const char *share = getenv("TEST_SHARE");
    const size_t every = share != NULL && atoi(share) > 0 ? (size_t)atoi(share) : 1;
    void *group_state = NULL;
    int number = 0, bad = 0;
    printf("# %s\n1..%zu\n", name, (count + every - 1) / every);
    if (setup != NULL && setup(&group_state) != 0) {
        printf("Bail out! the setup failed\n");
        return 1;
    }
    for (size_t i = 0; i < count; i += every) {
        void *state = tests[i].initial_state != NULL ? tests[i].initial_state : group_state;
        const int held = run(&tests[i], &state);
        bad += !held;
        printf("%sok %d - %s\n", held ? "" : "not ", ++number, tests[i].name);
        fflush(stdout);
    }
    if (teardown != NULL && teardown(&group_state) != 0) {
        printf("# the teardown failed\n");
        bad++;
    }
    return bad;
}
