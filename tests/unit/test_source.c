/* data/source.h: patterns become one list of files in natural order; everything that is not a file is
 * refused. */
#include "data_files.h"

#include <sys/socket.h>
#include <sys/un.h>

#include "data/source.h"

static lt_source source;

static int source_teardown(void **state) {
    lt_source_destroy(&source);
    return remove_folder(state);
}

static lt_status expand(const char *pattern) {
    lt_source_destroy(&source);
    return lt_source_expand(&pattern, 1, "data.train", &source);
}

static void assert_names(const char *const *names, int64_t count) {
    assert_int_equal(source.count, count);
    for (int64_t i = 0; i < count; i++) assert_string_equal(source.path[i], in_folder(names[i]));
}

static void natural_order(void **state) {
    (void)state;
    static const char *const sorted[] = {
        "",
        "0",
        "01",
        "1",
        "2",
        "10",
        "A",
        "a",
        "a/1",
        "a/b",
        "a-/b",
        "a-1",
        "a0",
        "a1b2",
        "a01b10",
        "a1b10",
        "a2",
        "a2_1",
        "a18446744073709551616",
        "a18446744073709551617",
        "ab",
        "shard_2.bin",
        "shard_010.bin",
        "shard_10.bin",
        "\xc3\xa9",
    };
    int count = (int)(sizeof sorted / sizeof *sorted);
    for (int i = 0; i < count; i++)
        for (int j = 0; j < count; j++) {
            int order = lt_natural_compare(sorted[i], sorted[j]);
            if ((order > 0) - (order < 0) != (i > j) - (i < j))
                fail_msg("'%s' against '%s' is %d", sorted[i], sorted[j], order);
        }
}

static void globs_folders_and_files_in_one_order(void **state) {
    (void)state;
    mkdir(in_folder("sub"), 0700);
    write_text("shard_10.bin", "x");
    write_text("shard_2.bin", "x");
    write_text("shard_1.bin", "x");
    write_text("other.txt", "x");
    write_text("sub/b", "x");
    write_text("sub/.hidden", "x");
    write_text("sub/a", "x");
    const char *patterns[] = {in_folder("sub"), in_folder("shard_*.bin"), in_folder("other.txt")};
    assert_int_equal(lt_source_expand(patterns, 3, "data.train", &source), LT_OK);
    static const char *const expected[] = {"other.txt",    "shard_1.bin", "shard_2.bin",
                                           "shard_10.bin", "sub/a",       "sub/b"};
    assert_names(expected, 6);
}

static void folder_with_a_slash_at_its_end(void **state) {
    (void)state;
    mkdir(in_folder("sub"), 0700);
    write_text("sub/a", "x");
    assert_int_equal(expand(in_folder("sub/")), LT_OK);
    static const char *const expected[] = {"sub/a"};
    assert_names(expected, 1);
}

static void name_that_looks_like_a_glob_is_taken_literally(void **state) {
    (void)state;
    write_text("a[1].txt", "x");
    write_text("a1.txt", "x");
    assert_int_equal(expand(in_folder("a[1].txt")), LT_OK);
    static const char *const expected[] = {"a[1].txt"};
    assert_names(expected, 1);
}

static void file_listed_twice_is_read_once(void **state) {
    (void)state;
    write_text("a.txt", "x");
    write_text("b.txt", "x");
    assert_int_equal(symlink("a.txt", in_folder("c.txt")), 0);
    const char *patterns[] = {in_folder("*.txt"), in_folder("b.txt"), in_folder("./b.txt")};
    begin_capture();
    lt_status status = lt_source_expand(patterns, 3, "data.train", &source);
    const char *warned = end_capture();
    assert_int_equal(status, LT_OK);
    assert_int_equal(source.count, 2);
    assert_non_null(strstr(warned, "lazytrain: warning: data.train: '"));
    assert_non_null(strstr(warned, "/a.txt' is listed twice (also as '"));
    assert_non_null(strstr(warned, "data.train: 3 files are listed more than once"));
}

static void no_warning_when_each_file_is_listed_once(void **state) {
    (void)state;
    write_text("a.txt", "x");
    write_text("b.txt", "x");
    begin_capture();
    lt_status status = expand(in_folder("*.txt"));
    assert_string_equal(end_capture(), "");
    assert_int_equal(status, LT_OK);
}

static void missing_and_empty(void **state) {
    (void)state;
    assert_int_equal(expand(in_folder("none.bin")), LT_BAD_INPUT);
    assert_message("data.train", "none.bin'", "No such file", NULL);
    assert_int_equal(expand(in_folder("none*.bin")), LT_BAD_INPUT);
    assert_message("data.train: no file matches '", "none*.bin'", NULL);
    assert_int_equal(expand(in_folder("none/*.bin")), LT_BAD_INPUT);
    assert_message("data.train", "none/*.bin'", "No such file", NULL);
    mkdir(in_folder("empty"), 0700);
    assert_int_equal(expand(in_folder("empty")), LT_BAD_INPUT);
    assert_message("data.train: folder '", "/empty' holds no files", NULL);
    assert_int_equal(expand(""), LT_BAD_INPUT);
    assert_message("data.train: an empty path", NULL);
    lt_source_destroy(&source);
    assert_int_equal(lt_source_expand(NULL, 0, "data.train", &source), LT_BAD_INPUT);
    assert_message("data.train: no files are given", NULL);
}

static void folders_in_a_glob_or_a_folder(void **state) {
    (void)state;
    mkdir(in_folder("sub"), 0700);
    mkdir(in_folder("sub/deep"), 0700);
    write_text("sub/a", "x");
    assert_int_equal(expand(in_folder("s*")), LT_BAD_INPUT);
    assert_message("data.train: '", "/sub' is a folder, expected a regular file", NULL);
    assert_int_equal(expand(in_folder("sub")), LT_BAD_INPUT);
    assert_message("data.train: '", "/sub/deep' is a folder, expected a regular file", NULL);
}

/* None of these may be opened: a FIFO would wait for ever. */
static void fifos_sockets_and_devices(void **state) {
    (void)state;
    assert_int_equal(mkfifo(in_folder("pipe"), 0600), 0);
    assert_int_equal(expand(in_folder("pipe")), LT_BAD_INPUT);
    assert_message("data.train: '", "/pipe' is a FIFO", NULL);
    assert_int_equal(expand(in_folder("p*")), LT_BAD_INPUT);
    assert_message("/pipe' is a FIFO", NULL);

    int descriptor = socket(AF_UNIX, SOCK_STREAM, 0);
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    snprintf(address.sun_path, sizeof address.sun_path, "%s/socket", folder);
    assert_int_equal(bind(descriptor, (struct sockaddr *)&address, sizeof address), 0);
    close(descriptor);
    assert_int_equal(expand(in_folder("socket")), LT_BAD_INPUT);
    assert_message("/socket' is a socket", NULL);
    assert_int_equal(expand("/dev/null"), LT_BAD_INPUT);
    assert_message("'/dev/null' is a device", NULL);
}

static void bad_links(void **state) {
    (void)state;
    assert_int_equal(symlink("loop", in_folder("loop")), 0);
    assert_int_equal(symlink("nowhere", in_folder("dangling")), 0);
    assert_int_equal(expand(in_folder("loop")), LT_BAD_INPUT);
    assert_message("data.train", "/loop'", "Too many levels of symbolic links", NULL);
    assert_int_equal(expand(in_folder("l*p")), LT_BAD_INPUT);
    assert_message("data.train", "/loop'", "Too many levels of symbolic links", NULL);
    assert_int_equal(expand(in_folder("loop/*.bin")), LT_BAD_INPUT);
    assert_message("data.train", "/loop", "Too many levels of symbolic links", NULL);
    assert_int_equal(expand(in_folder("dangling")), LT_BAD_INPUT);
    assert_message("/dangling'", "a symbolic link that leads nowhere", NULL);
    assert_int_equal(expand(folder), LT_BAD_INPUT);
}

/* A folder that holds a link to itself ends. */
static void link_to_the_folder_itself(void **state) {
    (void)state;
    assert_int_equal(symlink(".", in_folder("self")), 0);
    write_text("a.txt", "x");
    assert_int_equal(expand(folder), LT_BAD_INPUT);
    assert_message("/self' is a folder", NULL);
}

static void unreadable_folder(void **state) {
    (void)state;
    if (geteuid() == 0) {
        print_message("skipped: root may read every folder\n");
        skip();
    }
    mkdir(in_folder("closed"), 0);
    assert_int_equal(expand(in_folder("closed")), LT_BAD_INPUT);
    assert_message("data.train", "/closed'", "Permission denied", NULL);
    assert_int_equal(expand(in_folder("closed/*")), LT_BAD_INPUT);
    assert_message("data.train", "/closed/*'", "Permission denied", NULL);
    chmod(in_folder("closed"), 0700);
}

#define DATA_TEST(name) cmocka_unit_test_setup_teardown(name, make_folder, source_teardown)

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(natural_order),
        DATA_TEST(globs_folders_and_files_in_one_order),
        DATA_TEST(folder_with_a_slash_at_its_end),
        DATA_TEST(name_that_looks_like_a_glob_is_taken_literally),
        DATA_TEST(file_listed_twice_is_read_once),
        DATA_TEST(no_warning_when_each_file_is_listed_once),
        DATA_TEST(missing_and_empty),
        DATA_TEST(folders_in_a_glob_or_a_folder),
        DATA_TEST(fifos_sockets_and_devices),
        DATA_TEST(bad_links),
        DATA_TEST(link_to_the_folder_itself),
        DATA_TEST(unreadable_folder),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
