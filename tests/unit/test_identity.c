/* data/identity.h: files are the same wherever they lie, and others by any name, size, number, order or count
 * of tokens that differs; a file under two names is one.
 */
#include "data_files.h"

#include <xxhash.h>

#include "data/identity.h"

static lt_dataset *open_files(const char *key, const char *pattern) {
    const lt_dataset_options options = {.patterns = &pattern,
                                        .pattern_count = 1,
                                        .key = key,
                                        .tokenizer = "bytes",
                                        .sequence_length = 2,
                                        .vocabulary = 300};
    lt_dataset *dataset;
    if (lt_dataset_open(&options, &dataset) != LT_OK) fail_msg("%s", lt_error_message());
    return dataset;
}

/* Of the folders or files of the test's folder, each a source; NULL ends them. */
static lt_data_identity identify(const char *first, const char *second) {
    lt_dataset *datasets[2];
    const int count = second == NULL ? 1 : 2;
    lt_data_identity identity;
    datasets[0] = open_files("data.train", in_folder(first));
    if (second != NULL) datasets[1] = open_files("data.train", in_folder(second));
    assert_int_equal(lt_data_identify(datasets, count, &identity), LT_OK);
    for (int i = 0; i < count; i++) lt_dataset_close(datasets[i]);
    return identity;
}

static void make(const char *name) {
    assert_int_equal(mkdir(in_folder(name), 0700), 0);
}

static void assert_same(const lt_data_identity *identity, const char *first, const char *second) {
    const lt_data_identity other = identify(first, second);
    assert_string_equal(identity->hash, other.hash);
    assert_true(identity->files == other.files && identity->bytes == other.bytes);
}

static void assert_other(const lt_data_identity *identity, const char *first, const char *second) {
    assert_string_not_equal(identity->hash, identify(first, second).hash);
}

static void files_are_their_names_and_sizes(void **state) {
    (void)state;
    make("a"), make("b");
    write_text("a/1.txt", "one"), write_text("a/2.txt", "four");
    const lt_data_identity a = identify("a", NULL);
    assert_true(a.files == 2 && a.bytes == 7);

    /* the bytes that FORMAT.md names, put together by hand */
    static const unsigned char hashed[] = "\2\0\0\0\0\0\0\0"
                                          "1.txt\0"
                                          "\3\0\0\0\0\0\0\0"
                                          "\377\377\377\377\377\377\377\377"
                                          "2.txt\0"
                                          "\4\0\0\0\0\0\0\0"
                                          "\377\377\377\377\377\377\377\377";
    const XXH128_hash_t hash = XXH3_128bits(hashed, sizeof hashed - 1);
    char text[33];
    snprintf(text, sizeof text, "%016llx%016llx", (unsigned long long)hash.high64,
             (unsigned long long)hash.low64);
    assert_string_equal(a.hash, text);

    write_text("b/1.txt", "two"), write_text("b/2.txt", "five"); /* contents are not looked at */
    assert_same(&a, "b", NULL);
    assert_int_equal(rename(in_folder("a"), in_folder("moved")), 0);
    assert_same(&a, "moved", NULL);
    assert_other(&a, "b/1.txt", "b/2.txt"); /* two sources are not one */
    assert_other(&a, "b/1.txt", NULL);
    write_text("b/2.txt", "three");
    assert_other(&a, "b", NULL);
    assert_int_equal(rename(in_folder("moved/2.txt"), in_folder("moved/3.txt")), 0);
    assert_other(&a, "moved", NULL);
    write_text("moved/2.txt", "four");
    assert_other(&a, "moved", NULL);
}

static void sources_have_an_order(void **state) {
    (void)state;
    write_text("a.txt", "one"), write_text("b.txt", "two");
    const lt_data_identity both = identify("a.txt", "b.txt");
    assert_same(&both, "a.txt", "b.txt");
    assert_other(&both, "b.txt", "a.txt");
}

/* Two shards of one name and size: 200 tokens of two bytes, and 100 of four. */
static void shards_are_their_tokens_too(void **state) {
    (void)state;
    make("a"), make("b");
    write_shard("a/s.bin", 2, 200, 1, 1, 100);
    write_shard("b/s.bin", 4, 100, 1, 1, 100);
    const lt_data_identity a = identify("a", NULL);
    assert_int_equal(a.bytes, identify("b", NULL).bytes);
    assert_other(&a, "b", NULL);
}

static void a_held_out_file_is_not_trained_on(void **state) {
    (void)state;
    make("train"), make("held_out");
    for (int i = 0; i < 20; i++) {
        char name[32];
        snprintf(name, sizeof name, "train/%d.txt", i);
        write_text(name, "text");
    }
    write_text("held_out/a.txt", "text"), write_text("held_out/b.txt", "text");
    lt_dataset *train = open_files("data.train", in_folder("train"));
    lt_dataset *held_out = open_files("data.validation", in_folder("held_out"));
    assert_int_equal(lt_data_check_apart(train, held_out), LT_OK);
    lt_dataset_close(held_out);
    for (int hard = 0; hard < 2; hard++) {
        const char *name = in_folder("held_out/c.txt"), *file = in_folder("train/13.txt");
        assert_int_equal(hard ? link(file, name) : symlink(file, name), 0);
        held_out = open_files("data.validation", in_folder("held_out"));
        assert_int_equal(lt_data_check_apart(train, held_out), LT_BAD_INPUT);
        assert_message("data.validation: '", "/held_out/c.txt' is also in data.train, as '", "/train/13.txt'",
                       NULL);
        lt_dataset_close(held_out);
        unlink(name);
    }
    lt_dataset_close(train);
}

#define DATA_TEST(name) cmocka_unit_test_setup_teardown(name, make_folder, remove_folder)

int main(void) {
    const struct CMUnitTest tests[] = {
        DATA_TEST(files_are_their_names_and_sizes),
        DATA_TEST(sources_have_an_order),
        DATA_TEST(shards_are_their_tokens_too),
        DATA_TEST(a_held_out_file_is_not_trained_on),
    };
    return cmocka_run_group_tests_name("identity", tests, NULL, NULL);
}
