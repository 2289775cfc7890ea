/* UTF-8: what is well-formed, and what stands for what is not, against Python's errors="replace". */
#include "data_files.h"

#include "data/tokenizers/utf8.h"

/* Bytes that sequences begin with or break at come up often. */
static void fill(unsigned char *text, size_t bytes) {
    static const unsigned char often[] = {0x00, 0x41, 0x7f, 0x80, 0x8f, 0x90, 0x9f, 0xa0, 0xbf, 0xc1, 0xc2,
                                          0xdf, 0xe0, 0xe1, 0xed, 0xef, 0xf0, 0xf1, 0xf4, 0xf5, 0xff};
    for (size_t i = 0; i < bytes; i++)
        text[i] = rand() % 4 == 0 ? (unsigned char)rand() : often[(size_t)rand() % sizeof often];
}

static void random_bytes_as_python_replaces_them(void **state) {
    (void)state;
    FILE *file = fopen(in_folder("pairs"), "wb");
    assert_non_null(file);
    srand(1);
    for (int i = 0; i < 20000; i++) {
        unsigned char text[40];
        char out[LT_REPLACEMENT_BYTES * sizeof text];
        const size_t bytes = (size_t)rand() % (sizeof text + 1);
        int64_t replaced = 0;
        fill(text, bytes);
        const size_t written = lt_utf8_replace((char *)text, bytes, out, &replaced);
        assert_int_equal(lt_utf8_valid(out, written), written);
        assert_true((replaced == 0) == (lt_utf8_valid((char *)text, bytes) == bytes));
        fputc((int)bytes, file), fputc((int)written, file), fputc((int)replaced, file);
        fwrite(text, 1, bytes, file);
        fwrite(out, 1, written, file);
    }
    assert_int_equal(fclose(file), 0);
    char command[1024];
    snprintf(command, sizeof command,
             "exec /usr/bin/python3 -c 'import sys\n"
             "data = open(sys.argv[1], \"rb\").read(); at = pairs = 0\n"
             "while at < len(data):\n"
             "    size, written, replaced = data[at:at + 3]; middle = at + 3 + size; end = middle + written\n"
             "    text = data[at + 3:middle].decode(\"utf-8\", \"replace\")\n"
             "    own = data[at + 3:middle].count(b\"\\xef\\xbf\\xbd\")\n"
             "    assert data[middle:end] == text.encode(), data[at + 3:middle]\n"
             "    assert replaced == text.count(\"\\ufffd\") - own, data[at + 3:middle]\n"
             "    at = end; pairs += 1\n"
             "assert pairs == 20000' %s",
             in_folder("pairs"));
    assert_int_equal(system(command), 0);
}

/* Table 3-7 of the Unicode standard, first and last of each row; what is beside them is no character. */
static void ends_of_the_ranges(void **state) {
    (void)state;
    static const struct {
        const char *text;
        lt_utf8 is;
        size_t length;
    } cases[] = {
        {"\x7f", LT_UTF8_CHARACTER, 1},
        {"\x80", LT_UTF8_ILL, 1},
        {"\xc1\xbf", LT_UTF8_ILL, 1},
        {"\xc2\x80", LT_UTF8_CHARACTER, 2},
        {"\xdf\xbf", LT_UTF8_CHARACTER, 2},
        {"\xe0\x9f\xbf", LT_UTF8_ILL, 1},
        {"\xe0\xa0\x80", LT_UTF8_CHARACTER, 3},
        {"\xed\x9f\xbf", LT_UTF8_CHARACTER, 3},
        {"\xed\xa0\x80", LT_UTF8_ILL, 1},
        {"\xee\x80\x80", LT_UTF8_CHARACTER, 3},
        {"\xf0\x8f\xbf\xbf", LT_UTF8_ILL, 1},
        {"\xf0\x90\x80\x80", LT_UTF8_CHARACTER, 4},
        {"\xf4\x8f\xbf\xbf", LT_UTF8_CHARACTER, 4},
        {"\xf4\x90\x80\x80", LT_UTF8_ILL, 1},
        {"\xf5\x80\x80\x80", LT_UTF8_ILL, 1},
        {"\xf0\x9f\x98", LT_UTF8_CUT, 3},
        {"\xf0\x9f\x98g", LT_UTF8_ILL, 3},
        {"\xe3\x81", LT_UTF8_CUT, 2},
        {"\xe3g", LT_UTF8_ILL, 1},
        {"\xc3", LT_UTF8_CUT, 1},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        size_t length;
        assert_int_equal(lt_utf8_next(cases[i].text, strlen(cases[i].text), &length), cases[i].is);
        assert_int_equal(length, cases[i].length);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(random_bytes_as_python_replaces_them, make_folder, remove_folder),
        cmocka_unit_test(ends_of_the_ranges),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
