/* Sets of numbers as text. */
#include "comm/ranges.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <cmocka.h>

#define SAYS(expected, size, ...) \
    do { \
        const int numbers[] = {__VA_ARGS__}; \
        char text[65]; \
        memset(text, '#', sizeof text); \
        lt_ranges_text(numbers, sizeof numbers / sizeof *numbers, text, size); \
        assert_string_equal(text, expected); \
        assert_int_equal(text[size], '#'); \
    } while (0)

static void neighbours_are_joined(void **state) {
    (void)state;
    SAYS("0", 64, 0);
    SAYS("7", 64, 7);
    SAYS("0-1", 64, 0, 1);
    SAYS("0-3,8", 64, 0, 1, 2, 3, 8);
    SAYS("0,2,4-6,1023", 64, 0, 2, 4, 5, 6, 1023);
    char none[8];
    lt_ranges_text(NULL, 0, none, sizeof none);
    assert_string_equal(none, "none");
}

/* What does not fit is cut behind a whole range, with room for "...". */
static void long_lists_are_cut(void **state) {
    (void)state;
    SAYS("0,2,4,...", 11, 0, 2, 4, 6, 8, 10);
    SAYS("...", 8, 100000, 200000);
    SAYS("0,2,4,6,8,10", 64, 0, 2, 4, 6, 8, 10);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(neighbours_are_joined),
                                       cmocka_unit_test(long_lists_are_cut)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
