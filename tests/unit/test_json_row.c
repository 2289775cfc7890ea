/* The quick reading of rows against jansson's: what it takes, jansson takes, with the same values; and it
 * takes the rows that there are many of. */
#include "data/documents/json_row.h"

#include <jansson.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <setjmp.h>
#include <cmocka.h>

enum { ROW_BYTES = 4096, MUTATIONS = 200000 };

static lt_json_value wanted[2] = {{.key = "text"}, {.key = "n"}};

/* Of a row that was taken: the value is jansson's. */
static void check_value(const lt_json_value *value, const json_t *parsed) {
    char text[ROW_BYTES];
    switch (value->kind) {
    case LT_JSON_MISSING:
        assert_null(parsed);
        return;
    case LT_JSON_NULL:
        assert_true(json_is_null(parsed));
        return;
    case LT_JSON_OTHER:
        assert_true(json_is_object(parsed) || json_is_array(parsed) || json_is_boolean(parsed));
        return;
    case LT_JSON_NUMBER:
        assert_true(json_is_number(parsed));
        assert_true(json_number_value(parsed) == strtod(value->begin, NULL));
        return;
    case LT_JSON_STRING:
        assert_true(json_is_string(parsed));
        const size_t bytes = lt_json_unescape(value, text);
        assert_int_equal(bytes, json_string_length(parsed));
        assert_memory_equal(text, json_string_value(parsed), bytes);
        if (!value->escaped) assert_int_equal(bytes, value->bytes);
    }
}

/* Whether the row was taken. */
static bool check(const char *row, size_t bytes) {
    if (!lt_json_row(row, bytes, wanted, 2)) return false;
    json_error_t error;
    json_t *parsed = json_loadb(row, bytes, JSON_ALLOW_NUL | JSON_DECODE_INT_AS_REAL, &error);
    if (!json_is_object(parsed))
        fail_msg("taken, though it is broken (%s): %.*s", error.text, (int)bytes, row);
    for (int i = 0; i < 2; i++) check_value(&wanted[i], json_object_get(parsed, wanted[i].key));
    json_decref(parsed);
    return true;
}

static const char *const common[] = {
    "{}",
    "{\"text\": \"\"}",
    "{\"text\": \"a plain one, longer than a word\", \"n\": 12}",
    " {\t\"n\":-0.5e+10 ,\"text\":null } \r",
    "{\"text\": \"\\\"quoted\\\" \\\\ \\/ \\b\\f\\n\\r\\t \\u00e9 \\u20AC \\ud83d\\ude00 end\"}",
    "{\"text\": \"\xc3\xa9 \xe2\x82\xac \xf0\x9f\x98\x80\", \"text\": \"the last one counts\"}",
    "{\"id\": {\"text\": [1, [], {}, {\"a\\u0062\": [true, false, null]}]}, \"n\": 0, \"text\": \"x\"}",
    "{\"n\": 12345678901234567890123456789, \"text\": \"y\", \"m\": [0.1, -1, 2E5, 3e-7]}",
};

static const char *const rare[] = {
    "",
    "{",
    "[]",
    "\"text\"",
    "{\"text\": \"a\"",
    "{\"text\": \"a\"}x",
    "{\"text\": \"a\",}",
    "{\"text\" \"a\"}",
    "{\"text\": \"a\nb\"}",
    "{\"text\": \"\\x\"}",
    "{\"text\": \"\\u12g4\"}",
    "{\"text\": \"\\ud83d\"}",
    "{\"text\": \"\\ud83dx\"}",
    "{\"text\": \"\\ude00\"}",
    "{\"text\": \"\xff\"}",
    "{\"text\": \"\xed\xa0\x80\"}",
    "{\"n\": 01}",
    "{\"n\": +1}",
    "{\"n\": .5}",
    "{\"n\": 1.}",
    "{\"n\": 1e}",
    "{\"n\": 1e999}",
    "{\"n\": NaN}",
    "{\"n\": -}",
    "{\"n\": [1,]}",
    "{\"n\": tru}",
    "{'n': 1}",
    "{\"te\\u0078t\": \"a\"}",
    "{\"text\": \"\\u0000\"}",
};

static void test_common_rows_are_taken(void **state) {
    (void)state;
    for (size_t i = 0; i < sizeof common / sizeof *common; i++)
        if (!check(common[i], strlen(common[i]))) fail_msg("not taken: %s", common[i]);
}

static void test_broken_and_rare_rows_are_left(void **state) {
    (void)state;
    for (size_t i = 0; i < sizeof rare / sizeof *rare; i++)
        if (lt_json_row(rare[i], strlen(rare[i]), wanted, 2)) fail_msg("taken: %s", rare[i]);
    char deep[ROW_BYTES];
    memset(deep, '[', sizeof deep);
    memcpy(deep, "{\"n\":", 5);
    assert_false(lt_json_row(deep, sizeof deep, wanted, 2));
}

static uint64_t next_random(uint64_t *state) {
    *state = *state * 6364136223846793005u + 1442695040888963407u;
    return *state >> 33;
}

/* Rows with some bytes changed, cut, or put one behind another: most are broken, some are not. */
static void test_whatever_is_taken_is_what_jansson_reads(void **state) {
    (void)state;
    static const char bytes_of_json[] = "{}[]\",:\\u0123eE+-.tfnabdDxX \x80\xc3\xa9\xed\xf4\x01";
    uint64_t seed = 1;
    int taken = 0;
    for (int i = 0; i < MUTATIONS; i++) {
        const char *from = common[next_random(&seed) % (sizeof common / sizeof *common)];
        size_t bytes = strlen(from);
        char *row = malloc(bytes + 1); /* of its own: nothing behind the end may be read */
        memcpy(row, from, bytes);
        const uint64_t changes = next_random(&seed) % 4;
        for (uint64_t j = 0; j < changes && bytes > 0; j++)
            row[next_random(&seed) % bytes] = bytes_of_json[next_random(&seed) % (sizeof bytes_of_json - 1)];
        if (next_random(&seed) % 8 == 0 && bytes > 0) bytes = next_random(&seed) % bytes;
        char *exact = malloc(bytes + 1);
        memcpy(exact, row, bytes);
        exact[bytes] = ',';
        taken += check(exact, bytes);
        free(exact);
        free(row);
    }
    assert_in_range(taken, MUTATIONS / 10, MUTATIONS);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_common_rows_are_taken),
        cmocka_unit_test(test_broken_and_rare_rows_are_left),
        cmocka_unit_test(test_whatever_is_taken_is_what_jansson_reads),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
