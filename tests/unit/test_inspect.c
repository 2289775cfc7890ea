/* lt_shard_inspect() and lt_shard_recognise(): what is printed of shards and text, what is refused. */
#include "data_files.h"

#include "data/dataset.h"

static char report[4096];

static lt_status inspect(const char *path, bool verify, int64_t vocabulary) {
    memset(report, 0, sizeof report);
    FILE *out = fmemopen(report, sizeof report - 1, "w");
    assert_non_null(out);
    lt_status status =
        lt_shard_inspect(path, &(lt_shard_inspection){.verify = verify, .vocabulary = vocabulary}, out);
    fclose(out);
    return status;
}

static void assert_reported(const char *line) {
    if (strstr(report, line) == NULL) fail_msg("expected '%s' in the report:\n%s", line, report);
}

static void shard_of_version_1(void **state) {
    (void)state;
    const char *path = write_shard("a.bin", 2, 3000, 10, 1, 65536);
    assert_int_equal(inspect(path, false, 0), LT_OK);
    assert_reported("format:       token shard, magic 20240520, version 1, uint16 tokens\n");
    assert_reported("bytes:        7024\n");
    assert_reported("tokens:       3000\n");
    assert_reported("documents:    unknown");
    assert_reported("first tokens: 10 11 12 13 14 15 16 17 18 19 20 21 22 23 24 25\n");
    assert_null(strstr(report, "ids:"));
    assert_int_equal(inspect(path, true, 0), LT_OK);
    assert_reported("ids:          10 to 3009\n");
    assert_int_equal(inspect(path, true, 3010), LT_OK);
    assert_reported("outside:      0 ids not below 3010\n");
    assert_int_equal(inspect(path, true, 3000), LT_FAILED);
    assert_reported("outside:      10 ids not below 3000\n");
    assert_message("/a.bin' holds 10 token ids", "the first at byte 7004: 3000", NULL);
}

/* Over one block of a mebibyte, with the last id out of range. */
static void shard_of_version_7(void **state) {
    (void)state;
    const char *path = write_shard("a.bin", 4, 600001, 0, 1, UINT32_MAX);
    assert_int_equal(inspect(path, true, 600000), LT_FAILED);
    assert_reported("version 7, uint32 tokens\n");
    assert_reported("ids:          0 to 600000\n");
    assert_message("holds 1 token ids", "the first at byte 2401024: 600000", NULL);
}

static void small_and_bad_shards(void **state) {
    (void)state;
    assert_int_equal(inspect(write_shard("a.bin", 2, 0, 0, 1, 10), true, 10), LT_OK);
    assert_reported("tokens:       0\n");
    assert_reported("first tokens:\n");
    const char *path = write_shard("b.bin", 2, 3, 7, 1, 10);
    assert_int_equal(inspect(path, true, 10), LT_OK);
    assert_reported("first tokens: 7 8 9\n");
    assert_int_equal(truncate(path, 1028), 0);
    assert_int_equal(inspect(path, false, 0), LT_BAD_INPUT);
    assert_message("inspect: '", "/b.bin' is truncated", "expected; found 1028 bytes", NULL);
    assert_int_equal(inspect(in_folder("none.bin"), false, 0), LT_BAD_INPUT);
    assert_message("inspect: cannot read '", "none.bin': No such file", NULL);
    assert_int_equal(inspect(folder, false, 0), LT_BAD_INPUT);
    assert_message("is a folder", NULL);
    assert_int_equal(inspect(write_text("a.npy", "PAR1"), false, 0), LT_BAD_INPUT);
    assert_message("/a.npy' is a NumPy file", NULL);
}

static void plain_text(void **state) {
    (void)state;
    assert_int_equal(inspect(write_text("a.txt", "one\ntwo\nthree"), false, 0), LT_OK);
    assert_reported("format:       text\nbytes:        13\nlines:        3\nUTF-8:        valid\n");
    assert_reported("tokens:       14 with data.tokenizer: bytes");
    assert_reported("first tokens: 111 110 101 10 116 119 111 10 116 104 114 101 101 256\n");
    assert_int_equal(inspect(write_text("a.txt", "one\ntwo\n"), false, 0), LT_OK);
    assert_reported("lines:        2\n");
    assert_int_equal(inspect(write_text("a.txt", ""), false, 0), LT_OK);
    assert_reported("lines:        0\nUTF-8:        valid\n");
    assert_reported("tokens:       1 with");
    assert_reported("first tokens: 256\n");
}

/* RFC 3629: the shortest and longest character of each length; overlong, surrogate, too large, cut, stray. */
static void utf8_is_told_from_other_bytes(void **state) {
    (void)state;
    static const char *const valid[] = {
        "\xc2\x80\xdf\xbf",
        "\xe0\xa0\x80\xef\xbf\xbf",
        "\xed\x9f\xbf\xee\x80\x80",
        "\xf0\x90\x80\x80\xf4\x8f\xbf\xbf",
        "na\xc3\xafve",
    };
    static const char *const invalid[] = {
        "\x80",
        "\xc0\x80",
        "\xc1\xbf",
        "\xc2",
        "\xc2"
        "A",
        "\xe0\x9f\xbf",
        "\xed\xa0\x80",
        "\xe2\x82",
        "\xe2\x82"
        "A",
        "\xf0\x8f\xbf\xbf",
        "\xf4\x90\x80\x80",
        "\xf5\x80\x80\x80",
        "\xff",
        "\xf0\x9f\x98",
    };
    for (size_t i = 0; i < sizeof valid / sizeof *valid; i++) {
        assert_int_equal(inspect(write_text("a.txt", valid[i]), false, 0), LT_OK);
        assert_reported("UTF-8:        valid\n");
    }
    for (size_t i = 0; i < sizeof invalid / sizeof *invalid; i++) {
        char text[16] = "ok ";
        strcat(text, invalid[i]);
        assert_int_equal(inspect(write_text("a.txt", text), false, 0), LT_OK);
        assert_reported("UTF-8:        invalid from byte 3\n");
    }
}

/* A character that lies across the blocks in which a file is read. */
static void utf8_across_blocks(void **state) {
    (void)state;
    size_t block = 1 << 20, size = block + 100;
    char *text = malloc(size);
    memset(text, 'a', size);
    memcpy(text + block - 1, "\xe2\x82\xac", 3);
    assert_int_equal(inspect(write_file("a.txt", text, size), false, 0), LT_OK);
    assert_reported("UTF-8:        valid\n");
    text[block + 1] = 'a';
    assert_int_equal(inspect(write_file("a.txt", text, size), false, 0), LT_OK);
    assert_reported("UTF-8:        invalid from byte 1048575\n");
    free(text);
}

static void published_text(void **state) {
    (void)state;
    const char *whole = shared_data("text/wagahaiwa_nekodearu.txt");
    const char *cut = shared_data("text/derived/wagahaiwa_cut_10000.txt");
    if (whole == NULL || cut == NULL) {
        print_message("skipped: no text/wagahaiwa_nekodearu.txt in $LAZYTRAIN_TEST_DATA or ../shared/data\n");
        skip();
    }
    assert_int_equal(inspect(whole, false, 0), LT_OK);
    assert_reported("bytes:        1120576\n");
    assert_reported("UTF-8:        valid\n");
    assert_int_equal(inspect(cut, false, 0), LT_OK);
    assert_reported("UTF-8:        invalid from byte 9998\n");
}

static void recognised_by_the_magic_alone(void **state) {
    (void)state;
    assert_true(lt_shard_recognise(write_shard("a", 2, 3, 0, 1, 10)));
    assert_true(lt_shard_recognise(write_shard("b", 4, 3, 0, 1, 10)));
    assert_false(lt_shard_recognise(write_text("c.bin", "abc")));
    assert_false(lt_shard_recognise(write_text("d.bin", "abcdefgh")));
    assert_false(lt_shard_recognise(in_folder("none")));
    assert_false(lt_shard_recognise(folder));
    assert_int_equal(mkfifo(in_folder("pipe"), 0600), 0);
    assert_false(lt_shard_recognise(in_folder("pipe")));
}

static void report_that_cannot_be_written(void **state) {
    (void)state;
    const char *path = write_shard("a.bin", 2, 3, 0, 1, 10);
    FILE *full = fopen("/dev/full", "w");
    if (full == NULL) {
        print_message("skipped: no /dev/full\n");
        skip();
    }
    assert_int_equal(lt_shard_inspect(path, &(lt_shard_inspection){0}, full), LT_IO);
    assert_message("inspect: cannot write the report: No space left", NULL);
    fclose(full);
}

#define DATA_TEST(name) cmocka_unit_test_setup_teardown(name, make_folder, remove_folder)

int main(void) {
    const struct CMUnitTest tests[] = {
        DATA_TEST(shard_of_version_1),
        DATA_TEST(shard_of_version_7),
        DATA_TEST(small_and_bad_shards),
        DATA_TEST(plain_text),
        DATA_TEST(utf8_is_told_from_other_bytes),
        DATA_TEST(utf8_across_blocks),
        DATA_TEST(published_text),
        DATA_TEST(recognised_by_the_magic_alone),
        DATA_TEST(report_that_cannot_be_written),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
