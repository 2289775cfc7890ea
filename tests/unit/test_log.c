/* What the log writes, byte for byte. A datagram socket stands for stderr: it keeps each write(2) apart, so a
 * test sees that a line is one write. */
#include "comm/log.h"
#include "comm/status.h"

#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>
#include <cmocka.h>

static int saved_stderr, ends[2];
static char seen[65536];

static int capture(void **state) {
    (void)state;
    saved_stderr = dup(STDERR_FILENO);
    if (saved_stderr < 0 || socketpair(AF_UNIX, SOCK_DGRAM, 0, ends) != 0) return -1;
    return dup2(ends[1], STDERR_FILENO) < 0 ? -1 : 0;
}

static int release(void **state) {
    (void)state;
    lt_log_progress(NULL);
    lt_log_set_rank(0);
    dup2(saved_stderr, STDERR_FILENO);
    close(saved_stderr);
    close(ends[0]);
    close(ends[1]);
    return 0;
}

/* The next write, or "" where there was none. */
static const char *next_write(void) {
    ssize_t length = recv(ends[0], seen, sizeof seen - 1, MSG_DONTWAIT);
    seen[length > 0 ? length : 0] = '\0';
    return seen;
}

static void lines_have_their_prefix(void **state) {
    (void)state;
    lt_log_info("step %d", 7);
    assert_string_equal(next_write(), "step 7\n");
    lt_log_warning("%s is damaged", "a.h5");
    assert_string_equal(next_write(), "lazytrain: warning: a.h5 is damaged\n");
    lt_log_error("100% wrong %s");
    assert_string_equal(next_write(), "lazytrain: error: 100% wrong %s\n");
    assert_string_equal(next_write(), "");
}

static void only_rank_0_informs_but_any_rank_errs(void **state) {
    (void)state;
    lt_log_set_rank(3);
    lt_log_info("no");
    lt_log_warning("no");
    lt_log_progress("no");
    assert_string_equal(next_write(), "");
    lt_log_error("yes");
    assert_string_equal(next_write(), "lazytrain: error: yes\n");
}

static void control_characters_are_escaped(void **state) {
    (void)state;
    lt_log_error("a\nb\tc\r\033[31m\x7F");
    assert_string_equal(next_write(), "lazytrain: error: a\\x0Ab\\x09c\\x0D\\x1B[31m\\x7F\n");
    lt_log_error("gr\xC3\xBC\xC3\x9F \xC2\xA7"); /* UTF-8 text stays */
    assert_string_equal(next_write(), "lazytrain: error: gr\xC3\xBC\xC3\x9F \xC2\xA7\n");
    lt_log_error("\xC2\x9B"
                 "2J \xC2"); /* U+009B is a terminal's escape too; a lone lead byte ends the text */
    assert_string_equal(next_write(), "lazytrain: error: \\xC2\\x9B2J \\xC2\n");
    lt_log_error("\xFF \xE2\x82 \xE2\x82\xAC \xF0\x9F\x98\x80"); /* of Latin-1; cut off; whole */
    assert_string_equal(next_write(), "lazytrain: error: \\xFF \\xE2\\x82 \xE2\x82\xAC \xF0\x9F\x98\x80\n");
    lt_log_info("%s", "two\nlines");
    assert_string_equal(next_write(), "two\\x0Alines\n");
}

static void longest_message_is_one_line_and_one_write(void **state) {
    (void)state;
    char text[LT_ERROR_MESSAGE_BYTES];
    memset(text, '\n', sizeof text - 1);
    text[sizeof text - 1] = '\0';
    lt_log_error(text);
    const char *line = next_write();
    assert_int_equal(strlen(line), strlen("lazytrain: error: ") + 4 * (sizeof text - 1) + 1);
    assert_ptr_equal(strchr(line, '\n'), line + strlen(line) - 1);
    assert_string_equal(next_write(), "");
}

static void overlong_text_is_cut_and_still_a_line(void **state) {
    (void)state;
    size_t size = 20 * LT_ERROR_MESSAGE_BYTES;
    char *text = malloc(size);
    assert_non_null(text);
    memset(text, '\n', size - 1);
    text[size - 1] = '\0';
    lt_log_error(text);
    const char *line = next_write();
    assert_true(strlen(line) < size);
    assert_ptr_equal(strchr(line, '\n'), line + strlen(line) - 1);
    free(text);
}

static void progress_stays_at_the_foot(void **state) {
    (void)state;
    lt_log_progress("1 of 9");
    assert_string_equal(next_write(), "\r\033[K1 of 9");
    lt_log_progress("2 of\n9");
    assert_string_equal(next_write(), "\r\033[K2 of\\x0A9");
    lt_log_info("saved");
    assert_string_equal(next_write(), "\r\033[Ksaved\n2 of\\x0A9");
    lt_log_error("bad");
    assert_string_equal(next_write(), "\r\033[Klazytrain: error: bad\n2 of\\x0A9");
    lt_log_progress(NULL);
    assert_string_equal(next_write(), "\n");
    lt_log_progress(NULL);
    assert_string_equal(next_write(), "");
    lt_log_info("after");
    assert_string_equal(next_write(), "after\n");
}

enum { WRITERS = 4, LINES = 50 };

static void *write_lines(void *letter) {
    char text[200];
    memset(text, *(char *)letter, sizeof text - 1);
    text[sizeof text - 1] = '\0';
    for (int i = 0; i < LINES; i++) lt_log_error(text);
    return NULL;
}

static void threads_do_not_mix_lines(void **state) {
    (void)state;
    char letters[] = "abcd";
    pthread_t threads[WRITERS];
    for (int i = 0; i < WRITERS; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, write_lines, &letters[i]), 0);
    /* read along: the socket holds few datagrams */
    for (int i = 0; i < WRITERS * LINES; i++) {
        ssize_t length = recv(ends[0], seen, sizeof seen - 1, 0);
        size_t prefix = strlen("lazytrain: error: ");
        assert_int_equal(length, prefix + 199 + 1);
        for (size_t at = prefix; at < prefix + 199; at++) assert_int_equal(seen[at], seen[prefix]);
    }
    for (int i = 0; i < WRITERS; i++) pthread_join(threads[i], NULL);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(lines_have_their_prefix, capture, release),
        cmocka_unit_test_setup_teardown(only_rank_0_informs_but_any_rank_errs, capture, release),
        cmocka_unit_test_setup_teardown(control_characters_are_escaped, capture, release),
        cmocka_unit_test_setup_teardown(longest_message_is_one_line_and_one_write, capture, release),
        cmocka_unit_test_setup_teardown(overlong_text_is_cut_and_still_a_line, capture, release),
        cmocka_unit_test_setup_teardown(progress_stays_at_the_foot, capture, release),
        cmocka_unit_test_setup_teardown(threads_do_not_mix_lines, capture, release),
    };
    return cmocka_run_group_tests_name("log", tests, NULL, NULL);
}
