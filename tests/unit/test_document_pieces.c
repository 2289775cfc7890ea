/* A file read in pieces gives the documents that it gives as a whole, wherever it is cut. */
#include "document_reading.h"

/* Reads all pieces of a file one after another: places from the file's beginning. */
static lt_status read_pieces(const char *path, lt_documents_options options, int64_t bytes, int64_t *pieces) {
    lt_source source;
    lt_files *files = NULL;
    lt_document_borders borders = {0};
    int64_t lines = 0;
    given[0] = '\0';
    count = without_key = nulls = 0;
    assert_int_equal(lt_source_single(path, "data.train", &source), LT_OK);
    assert_int_equal(lt_files_open(&source, "data.train", &files), LT_OK);
    lt_status status = lt_documents_cut(files, 0, &options, bytes, &borders);
    *pieces = borders.count - 1;
    for (int64_t i = 0; status == LT_OK && i < *pieces; i++) {
        lt_documents *documents;
        lt_document document;
        bool found = true;
        options.begin = borders.at[i];
        options.end = borders.at[i + 1];
        status = lt_documents_open(files, 0, &options, &documents);
        while (status == LT_OK && found) {
            status = lt_documents_next(documents, &document, &found);
            document.place += lines;
            if (status == LT_OK && found && count++ < 8) note(&document);
        }
        if (documents == NULL) continue;
        lines += documents->lines;
        without_key += documents->without_key;
        nulls += documents->null;
        lt_documents_close(documents);
    }
    free(borders.at);
    lt_files_close(files);
    return status;
}

static const char rows[] = "{\"text\": \"one\"}\n"
                           "\n"
                           "{\"text\": null}\r\n"
                           "{\"text\": \"a longer one, which lies in several pieces\"}\n"
                           "{\"id\": 1}\n"
                           "\n"
                           "{\"text\": \"\"}\n"
                           "{\"text\": \"the last one\"}";

static void test_rows_cut_anywhere(void **state) {
    (void)state;
    const lt_documents_options options = {0};
    for (int ending = 0; ending < 2; ending++) { /* without and with a last line end */
        char text[sizeof rows + 1], whole[sizeof given];
        snprintf(text, sizeof text, "%s%s", rows, ending == 0 ? "" : "\n");
        const char *path = write_text("rows.jsonl", text);
        assert_int_equal(read_all(path, &options), LT_OK);
        assert_int_equal(count, 4);
        strcpy(whole, given);
        for (int64_t bytes = 1; bytes <= (int64_t)strlen(text); bytes++) {
            int64_t pieces;
            assert_int_equal(read_pieces(path, options, bytes, &pieces), LT_OK);
            assert_int_equal(pieces, ((int64_t)strlen(text) + bytes - 1) / bytes);
            assert_string_equal(given, whole);
            assert_int_equal(without_key, 1);
            assert_int_equal(nulls, 1);
        }
    }
}

static void test_errors_name_the_line_of_the_file(void **state) {
    (void)state;
    const char *path =
        write_text("rows.jsonl", "{\"text\": \"\"}\n{\"text\": \"\"}\n\n{\"text\": \"\"}\n{\"text\": 5}\n");
    for (int64_t bytes = 1; bytes < 60; bytes++) {
        int64_t pieces;
        assert_int_equal(read_pieces(path, (lt_documents_options){0}, bytes, &pieces), LT_BAD_INPUT);
        assert_message("rows.jsonl' line 5: 'text' is a number", NULL);
    }
    path = write_text("rows.jsonl", "{\"text\": \"\"}\n{\"text\": \"0123456789\"}\n");
    int64_t pieces;
    assert_int_equal(read_pieces(path, (lt_documents_options){.limit_bytes = 15}, 3, &pieces), LT_BAD_INPUT);
    assert_message("rows.jsonl' line 2 has more than 15 bytes", NULL);
}

/* That no row has the key is said of the file, not of a piece. */
static void test_keys_of_a_piece(void **state) {
    (void)state;
    int64_t pieces;
    const char *path = write_text("rows.jsonl", "{\"a\": 1}\n{\"a\": 2}\n{\"text\": \"x\"}\n");
    assert_int_equal(read_pieces(path, (lt_documents_options){0}, 9, &pieces), LT_OK);
    assert_string_equal(given, "3:x|");
    const lt_document_filter filter = {.min_int_score = 3, .min_chars = -1, .max_chars = -1};
    const lt_documents_options plain = {0}, filtered = {.filter = &filter};
    const lt_documents_seen nothing = {0}, text = {.key = true, .text = true},
                            score = {true, true, true, false};
    assert_true(lt_documents_lack_keys(&plain, &nothing, 2));
    assert_false(lt_documents_lack_keys(&plain, &nothing, 0));
    assert_false(lt_documents_lack_keys(&plain, &text, 2));
    assert_true(lt_documents_lack_keys(&filtered, &text, 0));
    assert_false(lt_documents_lack_keys(&filtered, &score, 0));
}

static void test_what_cannot_be_cut_is_one_piece(void **state) {
    (void)state;
    int64_t pieces;
    assert_int_equal(read_pieces(write_text("a.txt", "some text"), (lt_documents_options){0}, 3, &pieces),
                     LT_OK);
    assert_int_equal(pieces, 1);
    assert_string_equal(given, "0:some text|");
    assert_int_equal(read_pieces(write_text("empty.jsonl", ""), (lt_documents_options){0}, 3, &pieces),
                     LT_OK);
    assert_int_equal(pieces, 1);
    gzFile file = gzopen(in_folder("rows.jsonl.gz"), "wb");
    assert_int_equal(gzwrite(file, rows, sizeof rows - 1), sizeof rows - 1);
    gzclose(file);
    assert_int_equal(read_pieces(in_folder("rows.jsonl.gz"), (lt_documents_options){0}, 3, &pieces), LT_OK);
    assert_int_equal(pieces, 1);
    assert_int_equal(count, 4);
}

/* Row groups are the borders of Parquet; of pieces of them all, places are rows of the file. */
static void test_parquet(void **state) {
    (void)state;
    char command[1024], whole[sizeof given];
    const char *venv = getenv("VENV");
    snprintf(command, sizeof command,
             "%s/bin/python -c 'import pyarrow as pa, pyarrow.parquet as pq\n"
             "pq.write_table(pa.table({\"text\": [str(i) for i in range(40)]}), \"%s\", row_group_size=3)' "
             "2>/dev/null",
             venv == NULL ? "build/venv" : venv, in_folder("a.parquet"));
    if (system(command) != 0) {
        print_message("# skip: no pyarrow in $VENV (build/venv)\n");
        skip();
    }
    assert_int_equal(read_all(in_folder("a.parquet"), &(lt_documents_options){0}), LT_OK);
    assert_int_equal(count, 40);
    strcpy(whole, given);
    for (int64_t bytes = 1; bytes < 1500; bytes += 50) {
        int64_t pieces;
        assert_int_equal(read_pieces(in_folder("a.parquet"), (lt_documents_options){0}, bytes, &pieces),
                         LT_OK);
        assert_int_equal(count, 40);
        assert_string_equal(given, whole);
        if (bytes == 1) assert_int_equal(pieces, 14);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_rows_cut_anywhere, make_folder, remove_folder),
        cmocka_unit_test_setup_teardown(test_errors_name_the_line_of_the_file, make_folder, remove_folder),
        cmocka_unit_test_setup_teardown(test_keys_of_a_piece, make_folder, remove_folder),
        cmocka_unit_test_setup_teardown(test_what_cannot_be_cut_is_one_piece, make_folder, remove_folder),
        cmocka_unit_test_setup_teardown(test_parquet, make_folder, remove_folder),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
