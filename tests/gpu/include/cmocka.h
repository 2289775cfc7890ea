/* The words of cmocka that tests of operations and of the model use, for machines without it: found before
 * the real one where a GPU's tests are built. Reports TAP. TEST_SHARE=N in the environment runs the first of
 * every N tests of a program. */
#ifndef LT_TESTS_CMOCKA_H
#define LT_TESTS_CMOCKA_H

#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

typedef int (*test_fixture)(void **state);

/* A test, what runs before and after it, and what all of them get. */
struct CMUnitTest {
    const char *name;
    void (*test_func)(void **state);
    test_fixture setup_func, teardown_func;
    void *initial_state;
};

#ifdef __cplusplus
extern "C" {
#endif

/* Ends the running test, with a line that says where and why. */
#ifdef __cplusplus
[[noreturn]]
#else
_Noreturn
#endif
void test_fail(const char *file, int line, const char *format, ...) __attribute__((format(printf, 3, 4)));

/* Gives the number of tests that failed. */
int test_run_group(const char *name, const struct CMUnitTest *tests, size_t count, test_fixture setup,
                   test_fixture teardown);

#ifdef __cplusplus
}
#endif

/* clang-format off */
#define fail_msg(...) test_fail(__FILE__, __LINE__, __VA_ARGS__)
#define print_message(...) printf(__VA_ARGS__)
#define test_assert(condition, ...) ((condition) ? (void)0 : test_fail(__FILE__, __LINE__, __VA_ARGS__))
#define assert_true(condition) test_assert((condition), "not so: %s", #condition)
#define assert_non_null(pointer) test_assert((pointer) != NULL, "NULL: %s", #pointer)
#define assert_int_equal(a, b) \
    test_assert((uintmax_t)(a) == (uintmax_t)(b), "%s is %#jx, not %#jx", #a, (uintmax_t)(a), (uintmax_t)(b))
#define assert_ptr_equal(a, b) test_assert((a) == (b), "%s is not %s", #a, #b)
#define assert_string_equal(a, b) test_assert(strcmp((a), (b)) == 0, "\"%s\" is not \"%s\"", (a), (b))
#define assert_memory_equal(a, b, bytes) \
    test_assert(memcmp((a), (b), (bytes)) == 0, "%s has other bytes than %s", #a, #b)
#define cmocka_unit_test(test) {#test, test, NULL, NULL, NULL}
#define cmocka_unit_test_teardown(test, teardown) {#test, test, NULL, teardown, NULL}
#define cmocka_run_group_tests_name(name, tests, setup, teardown) \
    test_run_group(name, tests, sizeof(tests) / sizeof((tests)[0]), setup, teardown)
#define _cmocka_run_group_tests test_run_group
/* clang-format on */

#endif
