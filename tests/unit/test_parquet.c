/* Documents out of Parquet files: what is given, filtered and refused. The files are write_parquet.py's, by
 * the Python that Arrow came with. */
#include "document_reading.h"

static bool no_pyarrow;

static int make_files(void **state) {
    const char *venv = getenv("VENV");
    char command[1024];
    if (make_folder(state) != 0) return -1;
    if (venv == NULL) venv = "build/venv";
    snprintf(command, sizeof command, "'%s/bin/python' -c 'import pyarrow' 2>/dev/null", venv);
    no_pyarrow = system(command) != 0;
    snprintf(command, sizeof command, "'%s/bin/python' tests/unit/write_parquet.py '%s'", venv, folder);
    return no_pyarrow ? 0 : system(command);
}

static void need_files(void) {
    if (!no_pyarrow) return;
    print_message("skipped: no pyarrow in $VENV (build/venv); `make deps` installs it\n");
    skip();
}

static void read_column(const char *name, const char *column, const char *expected) {
    const lt_documents_options options = {.text_key = column};
    if (read_all(in_folder(name), &options) != LT_OK) fail_msg("%s: %s", name, lt_error_message());
    assert_string_equal(given, expected);
}

/* Whatever Arrow type the strings had, in two row groups, the null in the middle. */
static void string_types(void **state) {
    (void)state;
    need_files();
    static const char *const columns[] = {"string", "large", "binary", "view", "words", "large_words"};
    for (size_t i = 0; i < sizeof columns / sizeof *columns; i++) {
        read_column("types.parquet", columns[i],
                    "0:one|2:|3:zwei \u00e9\n|4:tr\u00e8s long tr\u00e8s long tr\u00e8s long |5:one|");
        assert_int_equal(count, 5);
        assert_int_equal(nulls, 1);
    }
    read_column("nested.parquet", "row.text", "0:a|2:b|");
    assert_int_equal(nulls, 1);
    read_column("control.parquet", "te?xt", "0:a|");
}

static void codecs_and_encodings(void **state) {
    (void)state;
    need_files();
    static const char *const names[] = {
        "codec_none",
        "codec_snappy",
        "codec_gzip",
        "codec_brotli",
        "codec_zstd",
        "codec_lz4",
        "encoding_PLAIN_1.0",
        "encoding_PLAIN_2.0",
        "encoding_DELTA_BYTE_ARRAY_1.0",
        "encoding_DELTA_BYTE_ARRAY_2.0",
        "encoding_DELTA_LENGTH_BYTE_ARRAY_1.0",
        "encoding_DELTA_LENGTH_BYTE_ARRAY_2.0",
    };
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        char name[64];
        snprintf(name, sizeof name, "%s.parquet", names[i]);
        read_column(name, NULL,
                    "0:|1:row 1 |2:row 2 row 2 |3:row 3 row 3 row 3 |4:row 4 row 4 row 4 row 4 |"
                    "5:row 5 row 5 row 5 row 5 row 5 |6:row 6 row 6 row 6 row 6 row 6 row 6 |"
                    "7:row 7 row 7 row 7 row 7 row 7 row 7 row 7 |");
        assert_int_equal(count, 3000);
    }
}

static void without_rows(void **state) {
    (void)state;
    need_files();
    read_column("no_rows.parquet", NULL, "");
    read_column("no_groups.parquet", NULL, "");
    read_column("nulls.parquet", NULL, "");
    assert_int_equal(nulls, 2);
}

static void assert_filtered(const char *name, lt_document_filter filter, const char *expected,
                            lt_document_drops drops) {
    const lt_documents_options options = {.filter = &filter};
    if (read_all(in_folder(name), &options) != LT_OK) fail_msg("%s", lt_error_message());
    assert_string_equal(given, expected);
    assert_memory_equal(&dropped, &drops, sizeof drops);
}
#define FILTERED(name, expected, drops, ...) \
    assert_filtered(name, (lt_document_filter){__VA_ARGS__}, expected, drops)
#define DROPS(...) ((lt_document_drops){__VA_ARGS__})

static void filters(void **state) {
    (void)state;
    need_files();
    FILTERED("scored.parquet", "0:a|1:bb|2:\u00e9\u00e9\u00e9|4:dddd|5:eeeee|6:ffffff|", DROPS(0, 0, 0, 0),
             -1, NULL, -1, -1);
    assert_int_equal(nulls, 1);
    FILTERED("scored.parquet", "1:bb|2:\u00e9\u00e9\u00e9|5:eeeee|6:ffffff|", DROPS(2, 0, 0, 0), 3, NULL, -1,
             -1);
    FILTERED("scored.parquet", "0:a|1:bb|4:dddd|6:ffffff|", DROPS(0, 2, 0, 0), -1, "en", -1, -1);
    FILTERED("scored.parquet", "1:bb|6:ffffff|", DROPS(2, 2, 0, 0), 3, "en", -1, -1);
    FILTERED("scored.parquet", "1:bb|2:\u00e9\u00e9\u00e9|4:dddd|", DROPS(0, 0, 1, 2), -1, NULL, 2, 4);
    FILTERED("float_score.parquet", "2:c|", DROPS(2, 0, 0, 0), 3, NULL, -1, -1);
    FILTERED("scored.parquet", "", DROPS(6, 0, 0, 0), 6, NULL, -1, -1);
}

#define REFUSES(name, options, ...) \
    do { \
        const lt_documents_options given_options = options; \
        assert_int_equal(read_all(in_folder(name), &given_options), LT_BAD_INPUT); \
        assert_message("data.train: '", "/" name "'", __VA_ARGS__, NULL); \
    } while (0)
#define WITH(...) ((lt_documents_options){__VA_ARGS__})

static void filters_without_their_column(void **state) {
    (void)state;
    need_files();
    static const lt_document_filter score = {3, NULL, -1, -1}, language = {-1, "en", -1, -1};
    REFUSES("codec_none.parquet", WITH(.filter = &score),
            "has no column 'int_score' (data.filter.min_int_score); its number columns: id");
    REFUSES("codec_none.parquet", WITH(.filter = &language),
            "has no column 'language' (data.filter.language); its string columns: text");
    REFUSES("word_score.parquet", WITH(.filter = &score),
            "column 'int_score' (data.filter.min_int_score) is BYTE_ARRAY, String, expected a number");
}

static void refused_columns(void **state) {
    (void)state;
    need_files();
    REFUSES("no_text.parquet", WITH(0),
            "has no column 'text' (data.text_key); its string columns: body, title");
    REFUSES("only_numbers.parquet", WITH(0), "its string columns: none");
    REFUSES("number.parquet", WITH(0), "column 'text' (data.text_key) is INT64, expected a string",
            "its string columns: body");
    REFUSES("listed.parquet", WITH(0), "has no column 'text'", "its string columns: none");
    REFUSES("listed.parquet", WITH(.text_key = "text.list.element"), "is a list of BYTE_ARRAY, String");
    REFUSES("scored.parquet", WITH(.limit_bytes = 4), "row 2 has 6 bytes of text, at most 4 are read");
    assert_string_equal(given, "0:a|1:bb|");
}

/* A checksum alone tells that the text of a page has other bytes. */
static void page_checksums(void **state) {
    (void)state;
    need_files();
    read_column("checked.parquet", NULL, "0:the quick brown fox|");
    REFUSES("checked_damaged.parquet", WITH(0), "row group 0, column 'text', page 0: ", "CRC");
    read_column("unchecked_damaged.parquet", NULL, "0:the quack brown fox|");
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(string_types),
        cmocka_unit_test(codecs_and_encodings),
        cmocka_unit_test(without_rows),
        cmocka_unit_test(filters),
        cmocka_unit_test(filters_without_their_column),
        cmocka_unit_test(refused_columns),
        cmocka_unit_test(page_checksums),
    };
    return cmocka_run_group_tests(tests, make_files, remove_folder);
}
