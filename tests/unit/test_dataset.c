/* data/dataset.h: samples out of shards and text, with values that follow from how the test made the files;
 * and every error that opening and reading can meet.
 */
#include "data_files.h"

#include <dirent.h>
#include <pthread.h>
#include <sys/resource.h>

#include "data/dataset.h"

static lt_dataset *dataset;

static int dataset_teardown(void **state) {
    lt_dataset_close(dataset);
    dataset = NULL;
    return remove_folder(state);
}

static lt_status open_dataset(const char *pattern, const char *tokenizer, int64_t length,
                              int64_t vocabulary) {
    lt_dataset_options options = {.patterns = &pattern,
                                  .pattern_count = 1,
                                  .key = "data.train",
                                  .tokenizer = tokenizer,
                                  .sequence_length = length,
                                  .vocabulary = vocabulary};
    lt_dataset_close(dataset);
    return lt_dataset_open(&options, &dataset);
}

static void open_good(const char *pattern, const char *tokenizer, int64_t length, int64_t vocabulary) {
    lt_status status = open_dataset(pattern, tokenizer, length, vocabulary);
    if (status != LT_OK) fail_msg("%s", lt_error_message());
}

static void assert_refused(lt_status status) {
    assert_int_equal(status, LT_BAD_INPUT);
    assert_null(dataset);
}

/* ---- token shards
 * ----------------------------------------------------------------------------------------------- */

/* Shards of 21, 4, 0 and 9 tokens at T = 4: 5, 0, 0 and 2 samples; ids tell where they come from. */
static void samples_of_both_versions(void **state) {
    (void)state;
    write_shard("s_2.bin", 2, 4, 5000, 1, 65536);
    write_shard("s_10.bin", 2, 0, 0, 1, 65536);
    write_shard("s_1.bin", 2, 21, 65500, 1, 65536);
    write_shard("s_11.bin", 4, 9, 1000000, 1, UINT32_MAX);
    begin_capture();
    lt_status status = open_dataset(in_folder("s_*.bin"), NULL, 4, 2000000);
    const char *warned = end_capture();
    assert_int_equal(status, LT_OK);
    assert_non_null(
        strstr(warned, "warning: data.train: 2 of 4 shards hold no sample, which takes 5 tokens"));
    assert_non_null(strstr(warned, "/s_2.bin'"));
    assert_int_equal(lt_dataset_samples(dataset), 7);
    assert_int_equal(lt_dataset_tokens(dataset), 21 + 4 + 0 + 9);
    assert_int_equal(lt_dataset_files(dataset), 4);
    assert_int_equal(lt_dataset_sequence_length(dataset), 4);
    for (int32_t k = 0; k < 7; k++) {
        int32_t tokens[6] = {0, 0, 0, 0, 0, -7};
        assert_int_equal(lt_dataset_read(dataset, k, tokens), LT_OK);
        for (int32_t t = 0; t <= 4; t++)
            assert_int_equal(tokens[t], k < 5 ? 65500 + 4 * k + t : 1000000 + 4 * (k - 5) + t);
        assert_int_equal(tokens[5], -7);
    }
    int32_t tokens[5];
    assert_int_equal(lt_dataset_read(dataset, 7, tokens), LT_FAILED);
    assert_message("sample 7 ", "0 to 6", NULL);
    assert_int_equal(lt_dataset_read(dataset, -1, tokens), LT_FAILED);
}

/* The last id of the vocabulary is good, the first behind it is not; the samples around it can be read. */
static void id_outside_the_vocabulary(void **state) {
    (void)state;
    write_shard("two.bin", 2, 21, 100, 1, 65536);
    open_good(in_folder("two.bin"), NULL, 4, 110);
    int32_t tokens[5];
    assert_int_equal(lt_dataset_read(dataset, 0, tokens), LT_OK);
    assert_int_equal(lt_dataset_read(dataset, 1, tokens), LT_OK); /* 104 ... 108 */
    assert_int_equal(lt_dataset_read(dataset, 2, tokens), LT_FAILED);
    /* Token 10 of the file, of 2 bytes, behind the header. */
    assert_message("data.train: '", "/two.bin' at byte 1044: token id 110", "less than 110",
                   "model.vocab_size", NULL);

    write_shard("four.bin", 4, 5, 4294967290u, 1, UINT32_MAX); /* would be negative as int32 */
    open_good(in_folder("four.bin"), NULL, 4, INT32_MAX);
    assert_int_equal(lt_dataset_read(dataset, 0, tokens), LT_FAILED);
    assert_message("/four.bin' at byte 1024: token id 4294967290", NULL);
}

static void one_token_short_of_a_sample(void **state) {
    (void)state;
    write_shard("s.bin", 2, 32768, 0, 1, 1000);
    assert_refused(open_dataset(in_folder("s.bin"), NULL, 32768, 1000));
    assert_message("/s.bin' holds 32768 tokens, expected at least 32769", "data.seq_len", NULL);
    write_shard("s.bin", 2, 32769, 0, 1, 1000);
    open_good(in_folder("s.bin"), NULL, 32768, 1000);
    assert_int_equal(lt_dataset_samples(dataset), 1);
    write_shard("a.bin", 2, 40, 0, 1, 1000);
    assert_refused(open_dataset(in_folder("[as].bin"), NULL, 40000, 1000));
    assert_message("/s.bin', the longest shard, holds 32769 tokens, expected at least 40001", NULL);
    write_shard("s.bin", 2, 0, 0, 1, 1000);
    assert_refused(open_dataset(in_folder("s.bin"), NULL, 1, 1000));
    assert_message("/s.bin' holds 0 tokens, expected at least 2", NULL);
}

/* A file of `size` bytes that starts with this header. */
static const char *write_header(int32_t magic, int32_t version, int32_t tokens, size_t size) {
    char *bytes = calloc(1, size < 1024 ? 1024 : size);
    int32_t header[256];
    fill_header(header, magic, version, tokens);
    memcpy(bytes, header, sizeof header);
    const char *path = write_file("bad.bin", bytes, size);
    free(bytes);
    return path;
}

static void damaged_headers_and_sizes(void **state) {
    (void)state;
    assert_refused(open_dataset(write_header(20240520, 1, 100, 1024 + 198), NULL, 4, 100));
    assert_message("data.train: '", "/bad.bin' is truncated", "100 tokens of 2 bytes",
                   "1224 bytes are expected", "found 1222 bytes, which hold 99 tokens;", NULL);
    assert_refused(open_dataset(write_header(20240520, 1, 100, 1024 + 199), NULL, 4, 100));
    assert_message("truncated", "found 1223 bytes, which hold 99 tokens and a part of one", NULL);
    assert_refused(open_dataset(write_header(20240801, 7, 100, 1024 + 404), NULL, 4, 100));
    assert_message("too long", "1424 bytes are expected", "found 1428 bytes, which hold 101 tokens", NULL);
    assert_refused(open_dataset(write_header(20240520, 1, 100, 1024), NULL, 4, 100));
    assert_message("truncated", "found 1024 bytes, which hold 0 tokens", NULL);
    assert_refused(open_dataset(write_header(20240801, 7, INT32_MAX, 2048), NULL, 4, 100));
    assert_message("2147483647 tokens of 4 bytes, so 8589935612 bytes are expected", NULL);
    assert_refused(open_dataset(write_header(20240520, 1, -5, 1024), NULL, 4, 100));
    assert_message("says -5 tokens", "found 1024 bytes", NULL);
    assert_refused(open_dataset(write_header(20240520, 7, 10, 1044), NULL, 4, 100));
    assert_message("version 7, expected version 1 with magic 20240520", NULL);
    assert_refused(open_dataset(write_header(20240801, 1, 10, 1064), NULL, 4, 100));
    assert_message("version 1, expected version 7 with magic 20240801", NULL);
    assert_refused(open_dataset(write_header(12345, 1, 10, 1044), NULL, 4, 100));
    assert_message("not a token shard", "number 12345, expected the magic 20240520", NULL);
    assert_refused(open_dataset(write_header(20240520, 1, 10, 1023), NULL, 4, 100));
    assert_message("/bad.bin' has 1023 bytes, too few for a token shard's header of 1024 bytes", NULL);
    assert_refused(open_dataset(write_header(20240520, 1, 10, 0), NULL, 4, 100));
    assert_message("/bad.bin' has 0 bytes", NULL);
}

/* One bad shard among good ones is found when the dataset is opened, not when it is its turn. */
static void bad_shard_among_good_ones(void **state) {
    (void)state;
    write_shard("a.bin", 2, 100, 0, 1, 100);
    write_header(20240520, 1, 100, 1100);
    assert_refused(open_dataset(in_folder("*.bin"), NULL, 4, 100));
    assert_message("/bad.bin' is truncated", NULL);
}

/* Byte offsets over 2 GiB: a sparse shard of 1.2e9 tokens whose last sample is not zero. */
static void shard_over_two_gibibytes(void **state) {
    (void)state;
    const int32_t count = 1200000001;
    int32_t header[256];
    fill_header(header, 20240520, 1, count);
    const char *path = write_file("large.bin", header, sizeof header);
    int descriptor = open(path, O_WRONLY);
    uint16_t last[5] = {11, 12, 13, 14, 15};
    int64_t size = 1024 + 2 * (int64_t)count;
    assert_int_equal(pwrite(descriptor, last, sizeof last, size - (int64_t)sizeof last), sizeof last);
    close(descriptor);
    open_good(path, NULL, 4, 100);
    assert_int_equal(lt_dataset_samples(dataset), 300000000);
    int32_t tokens[5];
    assert_int_equal(lt_dataset_read(dataset, 299999999, tokens), LT_OK);
    for (int t = 0; t < 5; t++) assert_int_equal(tokens[t], last[t]);
}

/* ---- text
 * ------------------------------------------------------------------------------------------------------- */

/* "hello", "", "abc" and "xy\xff" are the stream h e l l o 256 256 a b c 256 x y 255 256. */
static void text_files_are_one_stream(void **state) {
    (void)state;
    static const int32_t stream[] = {'h', 'e', 'l', 'l', 'o', 256, 256, 'a',
                                     'b', 'c', 256, 'x', 'y', 255, 256};
    write_text("2.txt", "");
    write_text("10.c", "abc");
    write_text("1.md", "hello");
    write_text("11", "xy\xff");
    for (int64_t length = 1; length <= 14; length++) {
        open_good(in_folder("*"), "bytes", length, 257);
        assert_int_equal(lt_dataset_tokens(dataset), 15);
        assert_int_equal(lt_dataset_samples(dataset), 14 / length);
        for (int64_t k = 0; k < 14 / length; k++) {
            int32_t tokens[16];
            tokens[length + 1] = -7;
            assert_int_equal(lt_dataset_read(dataset, k, tokens), LT_OK);
            assert_memory_equal(tokens, stream + k * length, (size_t)(length + 1) * sizeof *tokens);
            assert_int_equal(tokens[length + 1], -7);
        }
    }
    assert_refused(open_dataset(in_folder("*"), "bytes", 15, 257));
    assert_message("data.train", "15 tokens", "expected at least 16", NULL);
}

static void text_needs_the_bytes_tokenizer(void **state) {
    (void)state;
    write_text("a.txt", "some text");
    assert_refused(open_dataset(in_folder("a.txt"), NULL, 4, 257));
    assert_message("data.train", "/a.txt' is text", "`data.tokenizer: bytes`", NULL);
    assert_refused(open_dataset(in_folder("a.txt"), "bytes", 4, 256));
    assert_message("model.vocab_size is 256, expected at least 257", NULL);
}

static void only_empty_text(void **state) {
    (void)state;
    write_text("a.txt", "");
    assert_refused(open_dataset(in_folder("a.txt"), "bytes", 1, 257));
    assert_message("/a.txt' is empty", NULL);
    for (int i = 0; i < 9; i++) write_text((char[]){(char)('b' + i), '.', 't', 'x', 't', '\0'}, "");
    assert_refused(open_dataset(in_folder("*.txt"), "bytes", 4, 257)); /* though 256 comes ten times */
    assert_message("/a.txt' and all other files are empty", NULL);
}

static void text_over_four_gibibytes(void **state) {
    (void)state;
    const char *path = write_text("large.txt", "");
    int64_t size = (int64_t)5 << 30;
    int descriptor = open(path, O_WRONLY);
    assert_int_equal(pwrite(descriptor, "wxyz", 4, size - 4), 4);
    close(descriptor);
    open_good(path, "bytes", 4, 257);
    assert_int_equal(lt_dataset_samples(dataset), size / 4);
    int32_t tokens[5];
    static const int32_t expected[] = {'w', 'x', 'y', 'z', 256};
    assert_int_equal(lt_dataset_read(dataset, size / 4 - 1, tokens), LT_OK);
    assert_memory_equal(tokens, expected, sizeof expected);
}

static void published_text(void **state) {
    (void)state;
    const char *path = shared_data("text/tinyshakespeare.txt");
    if (path == NULL) {
        print_message("skipped: no text/tinyshakespeare.txt in $LAZYTRAIN_TEST_DATA or ../shared/data\n");
        skip();
    }
    open_good(path, "bytes", 256, 257);
    assert_int_equal(lt_dataset_tokens(dataset), 1115394 + 1);
    assert_int_equal(lt_dataset_samples(dataset), 1115394 / 256);
    int32_t tokens[257];
    assert_int_equal(lt_dataset_read(dataset, 0, tokens), LT_OK);
    const char *start = "First Citizen:\n";
    for (size_t t = 0; t < strlen(start); t++) assert_int_equal(tokens[t], start[t]);
}

/* ---- kinds of files
 * --------------------------------------------------------------------------------------------- */

static void shards_and_text_do_not_mix(void **state) {
    (void)state;
    write_shard("a.bin", 2, 100, 0, 1, 100);
    write_text("b.txt", "some text");
    assert_refused(open_dataset(in_folder("*.*"), "bytes", 4, 257));
    assert_message("/a.bin' is a token shard and '", "/b.txt' is a text file", NULL);
}

/* A shard is one by its first bytes, whatever it is called, and its tokens are not text to a tokenizer. */
static void shard_of_another_name(void **state) {
    (void)state;
    write_shard("a.txt", 2, 100, 0, 1, 100);
    open_good(in_folder("a.txt"), "bytes", 4, 257);
    assert_int_equal(lt_dataset_tokens(dataset), 100);
}

static void other_formats_are_refused(void **state) {
    (void)state;
    static const char *const names[][2] = {
        {"a.tar", "tar"},           {"a.arrow", "Arrow"}, {"a.PT", "PyTorch"},
        {"a.safetensors", "safet"}, {"a.npy", "NumPy"},
    };
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        write_text(names[i][0], "some text");
        assert_refused(open_dataset(in_folder(names[i][0]), "bytes", 4, 257));
        assert_message("data.train: '", names[i][0], names[i][1], "a format that this version does not read",
                       NULL);
    }
    static const char *const raw[] = {"a.parquet", "a.PARQUET", "a.jsonl",
                                      "a.json.gz", "a.zst",     "a.jsonl.zst"};
    for (size_t i = 0; i < sizeof raw / sizeof *raw; i++) {
        write_text(raw[i], "some text");
        assert_refused(open_dataset(in_folder(raw[i]), NULL, 4, 257));
        assert_message("data.train: '", raw[i], "is raw text and no tokenizer is given", NULL);
    }
    write_file("unknown", "ab\0cd", 5);
    assert_refused(open_dataset(in_folder("unknown"), "bytes", 4, 257));
    assert_message("/unknown' is neither a token shard", "nor text", NULL);
    write_file("nul.txt", "ab\0cd", 5); /* its name says that it is text */
    open_good(in_folder("nul.txt"), "bytes", 4, 257);
}

static void options_out_of_range(void **state) {
    (void)state;
    write_shard("a.bin", 2, 100, 0, 1, 100);
    assert_refused(open_dataset(in_folder("a.bin"), NULL, 0, 100));
    assert_message("data.seq_len is 0", NULL);
    assert_refused(open_dataset(in_folder("a.bin"), NULL, INT32_MAX, 100));
    assert_refused(open_dataset(in_folder("a.bin"), NULL, 4, 0));
    assert_message("model.vocab_size is 0", NULL);
    assert_refused(open_dataset(in_folder("a.bin"), NULL, 4, (int64_t)INT32_MAX + 1));
    assert_refused(open_dataset(in_folder("none.bin"), NULL, 4, 100));
    assert_message("data.train", "none.bin", NULL);
}

static void unreadable_file(void **state) {
    (void)state;
    if (geteuid() == 0) {
        print_message("skipped: root may read every file\n");
        skip();
    }
    const char *path = write_shard("a.bin", 2, 100, 0, 1, 100);
    chmod(path, 0);
    assert_refused(open_dataset(path, NULL, 4, 100));
    assert_message("data.train: cannot open '", "/a.bin'", "Permission denied", NULL);
}

/* ---- while a run goes on
 * ---------------------------------------------------------------------------------------- */

static void file_shrinks(void **state) {
    (void)state;
    int32_t tokens[5];
    const char *path = write_shard("a.bin", 2, 101, 0, 1, 100);
    open_good(path, NULL, 4, 100);
    assert_int_equal(truncate(path, 1024 + 100), 0);
    assert_int_equal(lt_dataset_read(dataset, 11, tokens), LT_OK);
    assert_int_equal(lt_dataset_read(dataset, 12, tokens), LT_IO);
    assert_message("data.train: '", "/a.bin' shrank", "has 1124 bytes and had 1226", NULL);
    assert_int_equal(lt_dataset_read(dataset, 20, tokens), LT_IO);
    path = write_text("a.txt", "0123456789");
    open_good(path, "bytes", 4, 257);
    assert_int_equal(truncate(path, 6), 0);
    assert_int_equal(lt_dataset_read(dataset, 0, tokens), LT_OK);
    assert_int_equal(lt_dataset_read(dataset, 1, tokens), LT_IO);
    assert_message("/a.txt' shrank", "has 6 bytes and had 10", NULL);
}

static int64_t open_descriptors(void) {
    DIR *stream = opendir("/proc/self/fd");
    int64_t count = 0;
    if (stream == NULL) return 0;
    while (readdir(stream) != NULL) count++;
    closedir(stream);
    return count;
}

/* Shard i of `many_shards()` holds the tokens i, i + 1, ... */
enum { MANY = 300 };

static void many_shards(void) {
    for (uint32_t i = 0; i < MANY; i++) {
        char name[32];
        snprintf(name, sizeof name, "s%u.bin", i);
        write_shard(name, 2, 9, i, 1, 65536);
    }
    open_good(in_folder("s*.bin"), NULL, 4, 1000);
    assert_int_equal(lt_dataset_samples(dataset), 2 * MANY);
}

static void more_files_than_are_kept_open(void **state) {
    (void)state;
    int64_t before = open_descriptors();
    many_shards();
    for (int32_t k = 0; k < 2 * MANY; k++) {
        int32_t sample = k * 7 % (2 * MANY), tokens[5];
        assert_int_equal(lt_dataset_read(dataset, sample, tokens), LT_OK);
        for (int32_t t = 0; t < 5; t++) assert_int_equal(tokens[t], sample / 2 + sample % 2 * 4 + t);
    }
    assert_true(open_descriptors() - before <= 64);
    lt_dataset_close(dataset);
    dataset = NULL;
    assert_int_equal(open_descriptors(), before);
}

/* The first of many files is not among those that are open: it is missed when it is opened again. */
static void file_vanishes(void **state) {
    (void)state;
    int32_t tokens[5];
    many_shards();
    assert_int_equal(unlink(in_folder("s0.bin")), 0);
    assert_int_equal(lt_dataset_read(dataset, 0, tokens), LT_IO);
    assert_message("data.train: cannot open '", "/s0.bin' again: No such file", NULL);
    assert_int_equal(lt_dataset_read(dataset, 2, tokens), LT_OK);
}

/* Where the system allows few open files, fewer are kept. */
static void few_descriptors_left(void **state) {
    (void)state;
    for (uint32_t i = 0; i < 20; i++) write_shard((char[]){(char)('a' + i), '\0'}, 2, 5, i, 1, 100);
    struct rlimit before, few;
    assert_int_equal(getrlimit(RLIMIT_NOFILE, &before), 0);
    few = before;
    few.rlim_cur = 16;
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &few), 0);
    lt_status status = open_dataset(in_folder("[a-t]"), NULL, 4, 100);
    int32_t tokens[5];
    for (int64_t k = 0; k < 20 && status == LT_OK; k++) status = lt_dataset_read(dataset, k, tokens);
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &before), 0);
    assert_int_equal(status, LT_OK);
    assert_int_equal(tokens[0], 19);
}

/* What a reading thread found wrong. */
typedef struct reading {
    pthread_t thread;
    int32_t first;
    int wrong;
} reading;

static void *read_everything(void *argument) {
    reading *mine = argument;
    for (int32_t k = 0; k < 2 * MANY; k++) {
        int32_t sample = (mine->first + k * 11) % (2 * MANY), tokens[5];
        if (lt_dataset_read(dataset, sample, tokens) != LT_OK) mine->wrong++;
        for (int32_t t = 0; t < 5; t++) mine->wrong += tokens[t] != sample / 2 + sample % 2 * 4 + t;
    }
    return NULL;
}

static void threads_read_at_once(void **state) {
    (void)state;
    reading readings[4] = {{.first = 0}, {.first = 5}, {.first = 100}, {.first = 333}};
    many_shards();
    for (int i = 0; i < 4; i++) pthread_create(&readings[i].thread, NULL, read_everything, &readings[i]);
    for (int i = 0; i < 4; i++) {
        pthread_join(readings[i].thread, NULL);
        assert_int_equal(readings[i].wrong, 0);
    }
}

#define DATA_TEST(name) cmocka_unit_test_setup_teardown(name, make_folder, dataset_teardown)

int main(void) {
    const struct CMUnitTest tests[] = {
        DATA_TEST(samples_of_both_versions),
        DATA_TEST(id_outside_the_vocabulary),
        DATA_TEST(one_token_short_of_a_sample),
        DATA_TEST(damaged_headers_and_sizes),
        DATA_TEST(bad_shard_among_good_ones),
        DATA_TEST(shard_over_two_gibibytes),
        DATA_TEST(text_files_are_one_stream),
        DATA_TEST(text_needs_the_bytes_tokenizer),
        DATA_TEST(only_empty_text),
        DATA_TEST(text_over_four_gibibytes),
        DATA_TEST(published_text),
        DATA_TEST(shards_and_text_do_not_mix),
        DATA_TEST(shard_of_another_name),
        DATA_TEST(other_formats_are_refused),
        DATA_TEST(options_out_of_range),
        DATA_TEST(unreadable_file),
        DATA_TEST(file_shrinks),
        DATA_TEST(more_files_than_are_kept_open),
        DATA_TEST(file_vanishes),
        DATA_TEST(few_descriptors_left),
        DATA_TEST(threads_read_at_once),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
