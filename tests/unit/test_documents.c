/* Readers of documents: JSON Lines, plain text, gzip and Zstandard; what is given, skipped and refused. */
#include "document_reading.h"

#include <zlib.h>
#include <zstd.h>

static const lt_documents_options defaults;

static void assert_read(const char *name, const void *data, size_t size, const char *expected) {
    if (read_all(write_file(name, data, size), &defaults) != LT_OK) fail_msg("%s", lt_error_message());
    assert_string_equal(given, expected);
}
#define READS(name, text, expected) assert_read(name, text, sizeof(text) - 1, expected)
#define REFUSES(name, text, ...) \
    do { \
        assert_int_equal(read_all(write_file(name, text, sizeof(text) - 1), &defaults), LT_BAD_INPUT); \
        assert_message("data.train: '", "/" name "'", __VA_ARGS__, NULL); \
    } while (0)

/* One gzip member or Zstandard frame; malloc'ed. */
static char *squeeze(lt_compression compression, const void *data, size_t size, size_t *squeezed) {
    const size_t room = compression == LT_ZSTD ? ZSTD_compressBound(size) : size / 100 + size / 8 + 1024;
    char *to = malloc(room);
    assert_non_null(to);
    if (compression == LT_ZSTD) {
        ZSTD_CCtx *context = ZSTD_createCCtx();
        assert_false(ZSTD_isError(ZSTD_CCtx_setParameter(context, ZSTD_c_checksumFlag, 1)));
        *squeezed = ZSTD_compress2(context, to, room, data, size);
        assert_false(ZSTD_isError(*squeezed));
        ZSTD_freeCCtx(context);
        return to;
    }
    z_stream stream = {.next_in = (Bytef *)(uintptr_t)data, .avail_in = (uInt)size};
    stream.next_out = (Bytef *)to;
    stream.avail_out = (uInt)room;
    assert_int_equal(deflateInit2(&stream, 1, Z_DEFLATED, MAX_WBITS + 16, 8, Z_DEFAULT_STRATEGY), Z_OK);
    assert_int_equal(deflate(&stream, Z_FINISH), Z_STREAM_END);
    *squeezed = stream.total_out;
    deflateEnd(&stream);
    return to;
}

static void rows(void **state) {
    (void)state;
    READS("a.jsonl", "{\"text\": \"one\", \"id\": 1}\n{\"id\": 2, \"text\": \"two\"}\n", "1:one|2:two|");
    READS("a.jsonl", "{\"text\": \"no line end\"}", "1:no line end|");
    READS("a.jsonl", "{\"text\": \"a\"}\r\n\r\n \t\n{\"text\": \"b\"}\r\n", "1:a|4:b|");
    READS("a.jsonl", "\xef\xbb\xbf{\"text\": \"bom\"}\n", "1:bom|");
    READS("a.ndjson", "{\"text\": \"\"}\n{\"text\": \"x\"}\n", "1:|2:x|");
    READS("a.json", "{\"text\": \"\"}\n{\"text\": \"\"}\n", "1:|2:|");
    READS("a.jsonl", "{\"text\": \"a\\u0000b\\n\\\"\\u00e9\\ud83d\\ude00\"}\n",
          "1:a@b\n\"\xc3\xa9\xf0\x9f\x98\x80|");
    READS("a.jsonl", "{\"text\": \"first\", \"text\": \"last\"}\n", "1:last|");
    READS("a.jsonl", "{\"text\": \"a\", \"hash\": 18446744073709551615, \"x\": -1e300}\n", "1:a|");
    READS("a.jsonl", "", "");
    READS("a.jsonl", "\n\n", "");
    READS("a.JSONL", "{\"text\": \"capitals\"}\n", "1:capitals|");
}

static void skipped_rows(void **state) {
    (void)state;
    READS("a.jsonl", "{\"id\": 1}\n{\"text\": null}\n{\"text\": \"c\"}\n{}\n", "3:c|");
    assert_int_equal(without_key, 2);
    assert_int_equal(nulls, 1);
    READS("a.jsonl", "{\"text\": null}\n", "");
    assert_int_equal(nulls, 1);
    REFUSES("a.jsonl", "{\"query\": \"q\", \"gold\": 1}\n{\"a\": 2}\n",
            "none of its 2 rows has the key 'text'", "data.text_key", "the first one has: query, gold");
    REFUSES("a.jsonl", "{}\n", "the first one has: none");
    const lt_documents_options query = {.text_key = "query"};
    assert_int_equal(read_all(write_text("a.jsonl", "{\"query\": \"q\", \"text\": 1}\n"), &query), LT_OK);
    assert_string_equal(given, "1:q|");
}

static void bad_rows(void **state) {
    (void)state;
    REFUSES("a.jsonl", "{\"text\": \"a\"}\n{\"text\": 5}\n", "line 2: 'text' is a number, expected a string");
    REFUSES("a.jsonl", "{\"text\": [\"a\"]}\n", "line 1: 'text' is a list");
    REFUSES("a.jsonl", "{\"text\": {}}\n", "line 1: 'text' is an object");
    REFUSES("a.jsonl", "{\"text\": true}\n", "line 1: 'text' is a boolean");
    REFUSES("a.jsonl", "[1, 2]\n", "line 1 is a list, expected a JSON object a line");
    REFUSES("a.jsonl", "\"text\"\n", "line 1 is a string");
    REFUSES("a.jsonl", "{\"text\": \"a\"} x\n", "line 1: broken JSON at byte");
    REFUSES("a.jsonl", "{\"text\": \"a\"\n", "line 1: broken JSON");
    REFUSES("a.jsonl", "{\"text\": \"caf\xe9\"}\n", "line 1: broken JSON", "0xe9");
    REFUSES("a.jsonl", "{\"text\": \"\\ud800\"}\n", "line 1: broken JSON", "\\uD800");
    REFUSES("a.jsonl", "{\"text\": \"a\", \"x\": 1e400}\n", "line 1: broken JSON", "overflow");
    REFUSES("a.jsonl", "{\"text\": NaN}\n", "line 1: broken JSON");
    REFUSES("a.jsonl", "{\"text\": \"a\0b\"}\n", "line 1: broken JSON");
    REFUSES("a.jsonl", "\xff\xfe{\0", "line 1: broken JSON"); /* UTF-16 */
    assert_string_equal(given, "");

    char many[8192] = "";
    for (int i = 1; i <= 60; i++)
        strcat(many, i == 57 ? "{\"text\" \"no colon\"}\n" : "{\"text\": \"good\"}\n");
    assert_int_equal(read_all(write_text("a.jsonl", many), &defaults), LT_BAD_INPUT);
    assert_message("/a.jsonl' line 57: broken JSON at byte", NULL);
    assert_int_equal(count, 56);
}

static void names(void **state) {
    (void)state;
    assert_true(lt_documents_recognise("a/b.jsonl") && lt_documents_recognise("b.json.gz"));
    assert_true(lt_documents_recognise("b.jsonl.zst") && lt_documents_recognise("b.txt.gz"));
    assert_false(lt_documents_recognise("b.txt") || lt_documents_recognise("b.jsonl.gz.gz"));
    assert_false(lt_documents_recognise("b.tar.gz") || lt_documents_recognise(".gz") ||
                 lt_documents_recognise(""));
    REFUSES("a.orc", "PAR1", "no file of documents by its name; expected .parquet");
    REFUSES("a.jsonl.gz", "{\"text\": \"a\"}\n", "is no gzip file, as its name says", "7b 22 74 65");
    REFUSES("a.jsonl.zst", "\x1f\x8b\x08\0\0", "is no Zstandard file, as its name says", "1f 8b 08 00");
    REFUSES("a.jsonl", "\x1f\x8b\x08\0\0", "is a gzip file by its first bytes; add .gz");
    REFUSES("a.txt", "\x28\xb5\x2f\xfd", "is a Zstandard file by its first bytes; add .zst");
    REFUSES("a.jsonl.gz", "", "is empty, expected a gzip file");
    REFUSES("a.jsonl.zst", "", "is empty, expected a Zstandard file");
}

static const char two[] = "{\"text\": \"one\"}\n{\"text\": \"two\"}\n";

/* Several members or frames, one of them empty, a row that lies across two; then each cut and each flipped.
 */
static void compressed(void **state) {
    const lt_compression compression = *(lt_compression *)*state;
    const char *name = compression == LT_GZIP ? "a.jsonl.gz" : "a.jsonl.zst";
    char all[1024];
    size_t sizes[3], size = 0;
    const struct {
        const char *text;
        size_t bytes;
    } parts[] = {{two, 20}, {"", 0}, {two + 20, sizeof two - 21}};
    for (int i = 0; i < 3; i++) {
        char *part = squeeze(compression, parts[i].text, parts[i].bytes, &sizes[i]);
        memcpy(all + size, part, sizes[i]);
        size += sizes[i];
        free(part);
    }
    assert_read(name, all, size, "1:one|2:two|");

    for (size_t cut = 1; cut < size; cut++) {
        const lt_status status = read_all(write_file(name, all, cut), &defaults);
        assert_int_equal(status, LT_BAD_INPUT);
        if (cut == sizes[0] || cut == sizes[0] + sizes[1])
            assert_message("line 2: broken JSON", NULL); /* whole, and ends within a row */
        else if (cut >= 4)
            assert_message(name, "is truncated: its", "end inside a", "(while reading line ", NULL);
    }
    for (size_t at = 0; at < size; at++) {
        all[at] ^= 0x10;
        const lt_status status = read_all(write_file(name, all, size), &defaults);
        if (status == LT_OK) /* a bit that carries nothing, such as gzip's time */
            assert_string_equal(given, "1:one|2:two|");
        else
            assert_int_equal(status, LT_BAD_INPUT);
        all[at] ^= 0x10;
    }
    memcpy(all + size, "rubbish", 7);
    assert_int_equal(read_all(write_file(name, all, size + 7), &defaults), LT_BAD_INPUT);
    assert_message(name, "is damaged near byte", NULL);
}

static void what_may_stand_beside(void **state) {
    (void)state;
    size_t size;
    char *part = squeeze(LT_GZIP, two, sizeof two - 1, &size);
    part = realloc(part, size + 1000); /* zeros, as tar and tape leave them */
    memset(part + size, 0, 1000);
    assert_read("a.json.gz", part, size + 1000, "1:one|2:two|");
    part[size + 500] = 1;
    assert_int_equal(read_all(write_file("a.json.gz", part, size + 1000), &defaults), LT_BAD_INPUT);
    free(part);

    char frames[512] = "\x53\x2a\x4d\x18\x03\0\0\0abc"; /* a skippable frame of 3 bytes */
    part = squeeze(LT_ZSTD, two, sizeof two - 1, &size);
    memcpy(frames + 11, part, size);
    assert_read("a.jsonl.zst", frames, 11 + size, "1:one|2:two|");
    free(part);
    part = squeeze(LT_GZIP, "", 0, &size);
    assert_read("a.jsonl.gz", part, size, "");
    free(part);
}

/* A row over many blocks of each layer, between two small ones; then one that is longer than may be. */
static void long_lines(void **state) {
    const lt_compression compression = *(lt_compression *)*state;
    const char *name = compression == LT_GZIP   ? "l.jsonl.gz"
                       : compression == LT_ZSTD ? "l.jsonl.zst"
                                                : "l.jsonl";
    const size_t word = 10000000;
    char *text = malloc(word + 64), *end = stpcpy(text, "{\"text\": \"a\"}\n{\"text\": \""), expected[64];
    for (size_t i = 0; i < word; i++) *end++ = (char)('a' + i * i % 23);
    sprintf(expected, "1:a|2:<%zu %lx>|3:z|", word, crc32_z(0, (Bytef *)end - word, word));
    end = stpcpy(end, "\"}\n{\"text\": \"z\"}\n");
    size_t size = (size_t)(end - text);
    char *data = compression == LT_UNCOMPRESSED ? text : squeeze(compression, text, size, &size);
    const char *path = write_file(name, data, size);
    const lt_documents_options enough = {.limit_bytes = word + 12}, less = {.limit_bytes = word + 11};
    assert_int_equal(read_all(path, &defaults), LT_OK);
    assert_string_equal(given, expected);
    assert_int_equal(read_all(path, &enough), LT_OK);
    assert_string_equal(given, expected);
    assert_int_equal(read_all(path, &less), LT_BAD_INPUT);
    assert_message(name, "line 2 has more than 10000011 bytes", NULL);
    assert_string_equal(given, "1:a|");
    if (data != text) free(data);
    free(text);
}

/* 200 MB, out of a file of some 200 KB: refused at the limit, whatever would follow. */
static void a_line_of_200_mb(void **state) {
    (void)state;
    const size_t size = 200000000;
    char *text = malloc(size);
    memset(text, 'a', size);
    memcpy(text, "{\"text\": \"a\"}\n{\"text\": \"", 24);
    size_t squeezed;
    char *data = squeeze(LT_ZSTD, text, size, &squeezed);
    free(text);
    assert_int_equal(read_all(write_file("a.jsonl.zst", data, squeezed), &defaults), LT_BAD_INPUT);
    assert_message("/a.jsonl.zst' line 2 has more than 134217728 bytes, the longest that is read", NULL);
    assert_string_equal(given, "1:a|");
    free(data);
}

static void plain_text(void **state) {
    (void)state;
    READS("a.txt", "one\r\ntwo", "0:one\r\ntwo|");
    READS("a.md", "", "0:|");
    READS("a.text", "\xef\xbb\xbf\xff\0", "0:\xef\xbb\xbf\xff@|");
    const lt_documents_options cut = {.separator = "<|end|>"}, none = {.separator = ""};
    assert_int_equal(read_all(write_text("a.txt", "one<|end|>two<|end|"), &cut), LT_OK);
    assert_string_equal(given, "0:one|10:two<|end||");
    assert_int_equal(read_all(write_text("a.txt", "<|end|><|end|>b<|end|>"), &cut), LT_OK);
    assert_string_equal(given, "0:|7:|14:b|");
    assert_int_equal(read_all(write_text("a.txt", ""), &cut), LT_OK);
    assert_string_equal(given, "");
    assert_int_equal(read_all(write_text("a.txt", "ab"), &none), LT_OK);
    assert_string_equal(given, "0:ab|");
    const lt_documents_options three = {.limit_bytes = 3}, lines = {.separator = "\n", .limit_bytes = 3};
    assert_int_equal(read_all(write_text("a.txt", "abc"), &three), LT_OK);
    assert_int_equal(read_all(write_text("a.txt", "abcd"), &three), LT_BAD_INPUT);
    assert_message("/a.txt': the document at byte 0 has more than 3 bytes", "data.separator", NULL);
    assert_int_equal(read_all(write_text("a.txt", "abc\nabc\n"), &lines), LT_OK);
    assert_int_equal(read_all(write_text("a.txt", "abc\nabcd\n"), &lines), LT_BAD_INPUT);
    assert_message("the document at byte 4 has", NULL);
}

/* A separator at every place about the end of the block that is read first. */
static void separators_across_blocks(void **state) {
    (void)state;
    enum { BLOCK = 1 << 18 };
    static char text[BLOCK + 60];
    const lt_documents_options cut = {.separator = "=+="};
    for (size_t at = BLOCK - 4; at <= BLOCK + 1; at++) {
        memset(text, '=', sizeof text);
        memcpy(text + at, "=+=", 3);
        const size_t rest = sizeof text - at - 3;
        char expected[128];
        int used = sprintf(expected, "0:<%zu %lx>|%zu:", at, crc32_z(0, (Bytef *)text, at), at + 3);
        snprintf(expected + used, sizeof expected - (size_t)used, "%.*s|", (int)rest, text + at + 3);
        assert_int_equal(read_all(write_file("a.txt", text, sizeof text), &cut), LT_OK);
        assert_string_equal(given, expected);
    }
}

/* The counts are those of shared data's README. */
static void published_files(void **state) {
    (void)state;
    static const struct {
        const char *name, *key;
        int documents;
    } files[] = {
        {"web/c4_guardian_10.jsonl.gz", "text", 10},
        {"web/dolma_cc_en_head_0091.jsonl", "text", 10},
        {"web/fineweb_10.expect.jsonl", "text", 10},
        {"eval/hellaswag.jsonl", "query", 1000},
        {"eval/lambada_openai.jsonl", "context", 5153},
        {"text/multilingual_bigbench_langid.jsonl", "query", 10000},
    };
    for (size_t i = 0; i < sizeof files / sizeof *files; i++) {
        const char *path = shared_data(files[i].name);
        if (path == NULL) {
            print_message("skipped: no %s in $LAZYTRAIN_TEST_DATA or ../shared/data\n", files[i].name);
            skip();
        }
        const lt_documents_options options = {.text_key = files[i].key};
        lt_documents_inspection inspection = {.text_key = options.text_key, .verify = true};
        char report[4096] = "", wanted[64];
        FILE *out = fmemopen(report, sizeof report - 1, "w");
        assert_int_equal(lt_documents_inspect(path, &inspection, out), LT_OK);
        fclose(out);
        snprintf(wanted, sizeof wanted, "documents:    %d\n", files[i].documents);
        if (strstr(report, wanted) == NULL) fail_msg("expected '%s' in:\n%s", wanted, report);
    }
}

static void report_that_cannot_be_written(void **state) {
    (void)state;
    const char *path = write_text("a.jsonl", "{\"text\": \"a\"}\n");
    FILE *full = fopen("/dev/full", "w");
    if (full == NULL) {
        print_message("skipped: no /dev/full\n");
        skip();
    }
    assert_int_equal(lt_documents_inspect(path, &(lt_documents_inspection){0}, full), LT_IO);
    assert_message("inspect: cannot write the report: No space left", NULL);
    fclose(full);
}

/* What is left of rows, and for which of the filter's reasons the others are not. */
#define LEAVES(name, text, filtered, expected, ...) \
    do { \
        const lt_document_filter filter = filtered; \
        const lt_documents_options options = {.filter = &filter}; \
        const lt_document_drops drops = {__VA_ARGS__}; \
        if (read_all(write_text(name, text), &options) != LT_OK) fail_msg("%s", lt_error_message()); \
        assert_string_equal(given, expected); \
        assert_memory_equal(&dropped, &drops, sizeof drops); \
    } while (0)
#define FILTER(...) ((lt_document_filter){__VA_ARGS__})

static void filters(void **state) {
    (void)state;
    static const char scored[] = "{\"text\": \"a\", \"int_score\": 2, \"language\": \"en\"}\n"
                                 "{\"text\": \"b\", \"int_score\": 3, \"language\": \"english\"}\n"
                                 "{\"text\": \"c\", \"int_score\": null, \"language\": \"en\"}\n"
                                 "{\"text\": \"d\", \"int_score\": 4.0}\n"
                                 "{\"text\": null, \"int_score\": 5}\n"
                                 "{\"text\": \"e\", \"int_score\": 5, \"language\": \"en\"}\n"
                                 "{\"text\": \"f\", \"language\": null}\n";
    LEAVES("a.jsonl", scored, FILTER(-1, NULL, -1, -1), "1:a|2:b|3:c|4:d|6:e|7:f|", 0, 0, 0, 0);
    LEAVES("a.jsonl", scored, FILTER(3, NULL, -1, -1), "2:b|4:d|6:e|", 3, 0, 0, 0);
    LEAVES("a.jsonl", scored, FILTER(0, NULL, -1, -1), "1:a|2:b|4:d|6:e|", 2, 0, 0, 0);
    LEAVES("a.jsonl", scored, FILTER(-1, "en", -1, -1), "1:a|3:c|6:e|", 0, 3, 0, 0);
    LEAVES("a.jsonl", scored, FILTER(3, "en", -1, -1), "6:e|", 3, 2, 0, 0);
    LEAVES("a.jsonl", scored, FILTER(6, NULL, -1, -1), "", 6, 0, 0, 0);
    assert_int_equal(nulls, 1);

    /* Characters, not bytes: 2, 0, 3 and 4 of them. */
    static const char texts[] = "{\"text\": \"\u00e9\u00e9\"}\n{\"text\": \"\"}\n{\"text\": \"abc\"}\n"
                                "{\"text\": \"a\u20ac\U0001f600b\"}\n";
    LEAVES("a.jsonl", texts, FILTER(-1, NULL, 3, -1), "3:abc|4:a\u20ac\U0001f600b|", 0, 0, 2, 0);
    LEAVES("a.jsonl", texts, FILTER(-1, NULL, -1, 2), "1:\u00e9\u00e9|2:|", 0, 0, 0, 2);
    LEAVES("a.jsonl", texts, FILTER(-1, NULL, 1, 3), "1:\u00e9\u00e9|3:abc|", 0, 0, 1, 1);
    LEAVES("a.jsonl", texts, FILTER(-1, NULL, 0, 0), "2:|", 0, 0, 0, 3);
    LEAVES("a.txt", "four", FILTER(-1, NULL, 4, 4), "0:four|", 0, 0, 0, 0);
    LEAVES("a.txt", "four", FILTER(-1, NULL, 5, -1), "", 0, 0, 1, 0);
    LEAVES("a.txt", "", FILTER(-1, NULL, 1, -1), "", 0, 0, 1, 0);
}

static void filters_without_their_key(void **state) {
    (void)state;
    static const lt_document_filter score = {3, NULL, -1, -1}, language = {-1, "en", -1, -1},
                                    both = {3, "en", -1, -1};
    static const lt_documents_options scores = {.filter = &score}, languages = {.filter = &language},
                                      both_of_them = {.filter = &both};
#define REFUSES_FILTER(name, text, options, ...) \
    do { \
        assert_int_equal(read_all(write_text(name, text), &options), LT_BAD_INPUT); \
        assert_message("data.train: '", "/" name "'", __VA_ARGS__, NULL); \
    } while (0)
    REFUSES_FILTER("a.jsonl", "{\"text\": \"a\"}\n{\"text\": \"b\"}\n", scores,
                   "none of its rows has the key 'int_score'", "data.filter.min_int_score");
    REFUSES_FILTER("a.jsonl", "{\"text\": \"a\", \"int_score\": 1}\n", languages,
                   "none of its rows has the key 'language'", "data.filter.language");
    REFUSES_FILTER("a.jsonl", "{\"text\": \"a\", \"int_score\": 1}\n", both_of_them, "the key 'language'");
    REFUSES_FILTER("a.jsonl", "{\"text\": \"a\", \"int_score\": \"3\"}\n", scores,
                   "line 1: 'int_score' is a string, expected a number");
    REFUSES_FILTER("a.jsonl", "{\"text\": \"a\", \"language\": 3}\n", languages,
                   "line 1: 'language' is a number, expected a string");
    REFUSES_FILTER("a.txt", "text", scores,
                   "is plain text, which has no int_score for data.filter.min_int_score");
    REFUSES_FILTER("a.txt", "text", languages,
                   "is plain text, which has no language for data.filter.language");
    assert_int_equal(read_all(write_text("a.jsonl", "{\"text\": \"a\", \"int_score\": null}\n"), &scores),
                     LT_OK);
    assert_int_equal(read_all(write_text("a.jsonl", "{\"text\": null}\n"), &scores), LT_OK);
    assert_int_equal(read_all(write_text("a.jsonl", ""), &scores), LT_OK);
}

#define DATA_TEST(name) cmocka_unit_test_setup_teardown(name, make_folder, remove_folder)

int main(void) {
    static lt_compression all[] = {LT_UNCOMPRESSED, LT_GZIP, LT_ZSTD};
#define COMPRESSED(name, index) \
    { #name " " #index, name, make_folder, remove_folder, &all[index] }
    const struct CMUnitTest tests[] = {
        DATA_TEST(rows),
        DATA_TEST(skipped_rows),
        DATA_TEST(bad_rows),
        DATA_TEST(names),
        COMPRESSED(compressed, 1),
        COMPRESSED(compressed, 2),
        DATA_TEST(what_may_stand_beside),
        COMPRESSED(long_lines, 0),
        COMPRESSED(long_lines, 1),
        COMPRESSED(long_lines, 2),
        DATA_TEST(a_line_of_200_mb),
        DATA_TEST(plain_text),
        DATA_TEST(separators_across_blocks),
        DATA_TEST(filters),
        DATA_TEST(filters_without_their_key),
        DATA_TEST(published_files),
        DATA_TEST(report_that_cannot_be_written),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
