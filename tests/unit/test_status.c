/* The error message: stored a thread, propagated by the macros, safe to wrap and to overrun. */
#include "comm/status.h"

#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

static void stores_message_and_returns_status(void **state) {
    (void)state;
    assert_int_equal(lt_fail(LT_BAD_INPUT, "config.yaml:%d: train.steps: found %s", 3, "-1"), LT_BAD_INPUT);
    assert_string_equal(lt_error_message(), "config.yaml:3: train.steps: found -1");
    assert_int_equal(lt_fail(LT_IO, "second"), LT_IO);
    assert_string_equal(lt_error_message(), "second");
}

static void exit_codes_are_the_contract(void **state) {
    (void)state;
    assert_int_equal(LT_OK, 0);
    assert_int_equal(LT_FAILED, 1);
    assert_int_equal(LT_BAD_INPUT, 2);
    assert_int_equal(LT_IO, 74);
    assert_int_equal(LT_STOPPED, 75);
}

static void message_may_wrap_itself(void **state) {
    (void)state;
    lt_fail(LT_IO, "disk full");
    lt_fail(LT_IO, "a.h5: %s; free some space", lt_error_message());
    assert_string_equal(lt_error_message(), "a.h5: disk full; free some space");
}

static void long_message_is_cut_with_an_ellipsis(void **state) {
    (void)state;
    char *text = malloc(3 * LT_ERROR_MESSAGE_BYTES);
    assert_non_null(text);
    memset(text, 'x', 3 * LT_ERROR_MESSAGE_BYTES);
    text[3 * LT_ERROR_MESSAGE_BYTES - 1] = '\0';
    lt_fail(LT_FAILED, "%s", text);
    assert_int_equal(strlen(lt_error_message()), LT_ERROR_MESSAGE_BYTES - 1);
    assert_string_equal(lt_error_message() + LT_ERROR_MESSAGE_BYTES - 5, "x...");

    text[LT_ERROR_MESSAGE_BYTES - 1] = '\0'; /* the longest that fits */
    lt_fail(LT_FAILED, "%s", text);
    assert_string_equal(lt_error_message(), text);
    free(text);
}

static void *fail_elsewhere(void *seen) {
    *(int *)seen = lt_error_message()[0] == '\0';
    lt_fail(LT_FAILED, "of the other thread");
    return NULL;
}

static void each_thread_has_its_own_message(void **state) {
    (void)state;
    lt_fail(LT_FAILED, "of this thread");
    int empty_at_first = 0;
    pthread_t thread;
    assert_int_equal(pthread_create(&thread, NULL, fail_elsewhere, &empty_at_first), 0);
    pthread_join(thread, NULL);
    assert_true(empty_at_first);
    assert_string_equal(lt_error_message(), "of this thread");
}

static lt_status pass_on(lt_status status, int *reached) {
    LT_CHECK(status);
    *reached = 1;
    return LT_OK;
}

static lt_status pass_on_by_one_exit(lt_status first, int *reached) {
    lt_status status;
    LT_CHECK_DONE(status, first);
    *reached |= 1;
done:
    *reached |= 2;
    return status;
}

static void macros_propagate(void **state) {
    (void)state;
    int reached = 0;
    assert_int_equal(pass_on(LT_IO, &reached), LT_IO);
    assert_int_equal(reached, 0);
    assert_int_equal(pass_on(LT_OK, &reached), LT_OK);
    assert_int_equal(reached, 1);

    reached = 0;
    assert_int_equal(pass_on_by_one_exit(LT_STOPPED, &reached), LT_STOPPED);
    assert_int_equal(reached, 2);
    assert_int_equal(pass_on_by_one_exit(LT_OK, &reached), LT_OK);
    assert_int_equal(reached, 3);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(stores_message_and_returns_status),
        cmocka_unit_test(exit_codes_are_the_contract),
        cmocka_unit_test(message_may_wrap_itself),
        cmocka_unit_test(long_message_is_cut_with_an_ellipsis),
        cmocka_unit_test(each_thread_has_its_own_message),
        cmocka_unit_test(macros_propagate),
    };
    return cmocka_run_group_tests_name("status", tests, NULL, NULL);
}
