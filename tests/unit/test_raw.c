/* Raw files as samples: every sample once an epoch, in one order whatever the cache holds and whoever fills
 * it. */
#include "data_files.h"

#include "data/dataset.h"
#include "data/documents.h"

#include <pthread.h>
#include <sys/wait.h>
#include <time.h>

enum { T = 8, FILES = 5, PIECE_TOKENS = 8 * 16 };
#define CACHE_BYTES (INT64_C(1) << 30)

static lt_tokenizer *bytes;
static int32_t *stream[FILES]; /* the tokens of each file */
static int64_t length[FILES];

static int open_tokenizer(void **state) {
    (void)state;
    return lt_tokenizer_open("bytes", "data.tokenizer", &bytes) != LT_OK;
}

static int close_tokenizer(void **state) {
    (void)state;
    lt_tokenizer_close(bytes);
    return 0;
}

static char random_letter(void) {
    static uint64_t state = 1;
    state = state * 6364136223846793005U + 1442695040888963407U;
    return (char)('a' + (state >> 40) % 26);
}

/* Files of JSON Lines in which no eight neighbouring bytes occur twice. */
static int make_files(void **state) {
    if (make_folder(state) != 0) return 1;
    for (int f = 0; f < FILES; f++) {
        char name[32];
        snprintf(name, sizeof name, "part_%d.jsonl", f);
        FILE *file = fopen(in_folder(name), "w");
        stream[f] = malloc(sizeof(int32_t) * 20000);
        length[f] = 0;
        for (int d = 0; d < 20 + 30 * f; d++) {
            char text[64];
            const int size = 6 + d % 37;
            for (int i = 0; i < size; i++) text[i] = random_letter();
            text[size] = '\0';
            fprintf(file, "{\"text\": \"%s\"}\n", text);
            for (int i = 0; i < size; i++) stream[f][length[f]++] = (unsigned char)text[i];
            stream[f][length[f]++] = 256;
        }
        fclose(file);
    }
    return 0;
}

static int drop_files(void **state) {
    for (int f = 0; f < FILES; f++) free(stream[f]);
    return remove_folder(state);
}

static int64_t samples_of(int file) {
    return (length[file] - 1) / T;
}

static int64_t all_samples(void) {
    int64_t all = 0;
    for (int f = 0; f < FILES; f++) all += samples_of(f);
    return all;
}

static lt_status open_raw(const char *cache, int64_t cache_bytes, lt_dataset **dataset) {
    const char *pattern = in_folder("part_*.jsonl");
    const lt_raw_options raw = {.tokenizer = bytes,
                                .document_token = 256,
                                .cache_folder = in_folder(cache),
                                .cache_bytes = cache_bytes,
                                .piece_tokens = PIECE_TOKENS};
    return lt_dataset_open(&(lt_dataset_options){.patterns = &pattern,
                                                 .pattern_count = 1,
                                                 .key = "data.train",
                                                 .tokenizer = "bytes",
                                                 .raw = &raw,
                                                 .sequence_length = T,
                                                 .vocabulary = 257},
                           dataset);
}

static lt_dataset *opened(const char *cache, int64_t cache_bytes) {
    lt_dataset *dataset;
    if (open_raw(cache, cache_bytes, &dataset) != LT_OK) fail_msg("%s", lt_error_message());
    return dataset;
}

/* A sample as file * 100000 + index, found by its tokens. */
static int64_t identify(const int32_t *tokens) {
    for (int f = 0; f < FILES; f++)
        for (int64_t k = 0; k < samples_of(f); k++)
            if (memcmp(tokens, stream[f] + k * T, sizeof(int32_t) * (T + 1)) == 0) return f * 100000 + k;
    fail_msg("no such sample");
    return -1;
}

static const lt_shuffle shuffled = {.shuffle = true, .seed = 11};

static int64_t item(const lt_dataset *dataset, int64_t index, int64_t *epoch) {
    int32_t tokens[T + 1];
    if (lt_dataset_read_item(dataset, &shuffled, index, tokens, epoch) != LT_OK)
        fail_msg("%s", lt_error_message());
    return identify(tokens);
}

/* Items 0 to count - 1, by one reader with a cache of its own; the caller frees. */
static int64_t *reference(int64_t count) {
    lt_dataset *dataset = opened("reference_cache", CACHE_BYTES);
    int64_t *items = malloc(sizeof *items * (size_t)count);
    for (int64_t i = 0; i < count; i++) items[i] = item(dataset, i, NULL);
    lt_dataset_close(dataset);
    return items;
}

static int by_value(const void *left, const void *right) {
    const int64_t a = *(const int64_t *)left, b = *(const int64_t *)right;
    return a < b ? -1 : a > b;
}

static void test_every_sample_once_an_epoch(void **state) {
    (void)state;
    const int64_t n = all_samples();
    int64_t *items = reference(3 * n), *sorted = malloc(sizeof *sorted * (size_t)n);
    lt_dataset *dataset = opened("reference_cache", CACHE_BYTES);
    for (int64_t epoch = 0; epoch < 3; epoch++) {
        memcpy(sorted, items + epoch * n, sizeof *sorted * (size_t)n);
        qsort(sorted, (size_t)n, sizeof *sorted, by_value);
        int64_t at = 0;
        for (int f = 0; f < FILES; f++)
            for (int64_t k = 0; k < samples_of(f); k++) assert_int_equal(sorted[at++], f * 100000 + k);
        int64_t found;
        item(dataset, epoch * n, &found);
        assert_int_equal(found, epoch);
        item(dataset, epoch * n + n - 1, &found);
        assert_int_equal(found, epoch);
    }
    assert_memory_not_equal(items, items + n, sizeof *items * (size_t)n); /* another order */
    lt_dataset_close(dataset);
    free(sorted);
    free(items);
}

/* Files one after another, pieces in order, samples of a piece permuted. */
static void test_what_is_shuffled(void **state) {
    (void)state;
    const int64_t n = all_samples(), piece = PIECE_TOKENS / T;
    int64_t *items = reference(n), in_place = 0;
    for (int64_t i = 0; i < n;) {
        const int file = (int)(items[i] / 100000);
        for (int64_t k = 0; k < samples_of(file); k++, i++) {
            assert_int_equal(items[i] / 100000, file);
            assert_int_equal(items[i] % 100000 / piece, k / piece);
            in_place += items[i] % 100000 == k;
        }
    }
    assert_true(in_place < n / 4);
    free(items);
}

/* The order does not depend on what is in the cache: nothing, little room, someone's leftovers, damage. */
static void test_any_cache(void **state) {
    (void)state;
    const int64_t n = 2 * all_samples();
    int64_t *items = reference(n);
    lt_dataset *dataset = opened("small", 3000);
    for (int64_t i = 0; i < n; i++) assert_int_equal(item(dataset, i, NULL), items[i]);
    lt_dataset_close(dataset);
    dataset = opened("small", 3000); /* counts are known, tokens are gone */
    for (int64_t i = n - 30; i < n; i++) assert_int_equal(item(dataset, i, NULL), items[i]);
    for (int64_t i = 0; i < 30; i++) assert_int_equal(item(dataset, i, NULL), items[i]);
    lt_dataset_close(dataset);

    char command[1024];
    const char *cache = in_folder("reference_cache");
    snprintf(command, sizeof command,
             "cd %s && ls -1 *.bin | head -n 2 | while read -r f; do s=$(stat -c %%s $f); rm $f;"
             " truncate -s $s ${f%%.bin}.partial; done &&" /* as a power cut leaves it */
             " truncate -s 1100 $(ls -1 *.bin | head -n 1) && rm $(ls -1 *.count | tail -n 3)",
             cache);
    assert_int_equal(system(command), 0);
    dataset = opened("reference_cache", CACHE_BYTES);
    for (int64_t i = 0; i < n; i++) assert_int_equal(item(dataset, i, NULL), items[i]);
    lt_dataset_close(dataset);
    free(items);
}

/* A resume in the middle of the second epoch with an empty cache: the files before are counted again. */
static void test_resume_without_counts(void **state) {
    (void)state;
    const int64_t n = 2 * all_samples();
    int64_t *items = reference(n);
    lt_dataset *dataset = opened("other", CACHE_BYTES);
    for (int64_t i = n - 40; i < n; i++) assert_int_equal(item(dataset, i, NULL), items[i]);
    lt_dataset_close(dataset);
    free(items);
}

/* Several processes share a cache, each reading its own items, some killed in the midst. */
static void test_processes(void **state) {
    (void)state;
    enum { RANKS = 4 };
    const int64_t n = 2 * all_samples();
    int64_t *items = reference(n);
    for (int round = 0; round < 6; round++) {
        pid_t child[RANKS];
        for (int rank = 0; rank < RANKS; rank++) {
            child[rank] = fork();
            if (child[rank] != 0) continue;
            lt_dataset *dataset = opened("shared", 4000);
            for (int64_t i = rank; i < n; i += RANKS)
                if (item(dataset, i, NULL) != items[i]) _exit(1);
            lt_dataset_close(dataset);
            _exit(0);
        }
        if (round < 5) {
            nanosleep(&(struct timespec){.tv_nsec = 3000000L * (round + 1)}, NULL);
            kill(child[round % RANKS], SIGKILL);
        }
        for (int rank = 0; rank < RANKS; rank++) {
            int how;
            assert_int_equal(waitpid(child[rank], &how, 0), child[rank]);
            if (WIFEXITED(how)) assert_int_equal(WEXITSTATUS(how), 0);
        }
    }
    free(items);
}

static void test_natural_order_and_count(void **state) {
    (void)state;
    lt_dataset *dataset = opened("natural", CACHE_BYTES);
    int64_t samples;
    int32_t tokens[T + 1];
    assert_int_equal(lt_dataset_samples(dataset), -1);
    assert_int_equal(lt_dataset_count_samples(dataset, 10, &samples), LT_OK);
    assert_int_equal(samples, 10);
    assert_int_equal(lt_dataset_count_samples(dataset, 1000000, &samples), LT_OK);
    assert_int_equal(samples, all_samples());
    for (int64_t i = 0; i < samples_of(0) + 3; i++) {
        assert_int_equal(lt_dataset_read_item(dataset, &(lt_shuffle){0}, i, tokens, NULL), LT_OK);
        assert_int_equal(identify(tokens), i < samples_of(0) ? i : 100000 + i - samples_of(0));
    }
    lt_dataset_close(dataset);
}

/* Names, times and inodes of what a cache holds whole. */
static void list_cache(const char *cache, char *list, size_t size) {
    char command[700];
    snprintf(command, sizeof command, "stat -c '%%n %%i %%W' %s/*.bin", in_folder(cache));
    FILE *output = popen(command, "r");
    assert_non_null(output);
    list[fread(list, 1, size - 1, output)] = '\0';
    pclose(output);
}

/* Datasets that read ahead in one cache, which has no room for all, do not tokenise again and again. */
static void test_sharers_come_to_rest(void **state) {
    (void)state;
    enum { SHARERS = 2 };
    lt_dataset *dataset[SHARERS];
    char before[4096] = "", now[4096];
    for (int i = 0; i < SHARERS; i++) {
        const char *pattern = in_folder(i == 0 ? "part_[0-2].jsonl" : "part_[34].jsonl");
        const lt_raw_options raw = {.tokenizer = bytes,
                                    .document_token = 256,
                                    .cache_folder = in_folder("cache"),
                                    .cache_bytes = 4 * length[2],
                                    .sharers = SHARERS,
                                    .piece_tokens = PIECE_TOKENS};
        const lt_dataset_options options = {.patterns = &pattern,
                                            .pattern_count = 1,
                                            .key = "data.train",
                                            .tokenizer = "bytes",
                                            .raw = &raw,
                                            .sequence_length = T,
                                            .vocabulary = 257};
        assert_int_equal(lt_dataset_open(&options, &dataset[i]), LT_OK);
        item(dataset[i], 0, NULL);
    }
    for (int tries = 0;; tries++) {
        list_cache("cache", now, sizeof now);
        if (strcmp(now, before) == 0) break;
        assert_true(tries < 10);
        memcpy(before, now, sizeof now);
        nanosleep(&(struct timespec){.tv_sec = 2}, NULL); /* workers look every second */
    }
    for (int i = 0; i < SHARERS; i++) lt_dataset_close(dataset[i]);
}

/* ---- what goes wrong ---- */

/* What cannot be written before it is its turn, as on a full disk, is tried again. */
static void test_room_comes_back(void **state) {
    (void)state;
    lt_dataset *dataset = opened("cache", CACHE_BYTES);
    const int64_t last = all_samples() - 1, first_file = item(dataset, 0, NULL) / 100000;
    item(dataset, last, NULL);
    lt_dataset_close(dataset);
    char command[1024];
    snprintf(command, sizeof command,
             "cd %s && for f in $(grep -Lx '%d tokens' *.count); do rm ${f%%.count}.bin && mkdir "
             "${f%%.count}.partial; done",
             in_folder("cache"), (int)length[first_file]);
    assert_int_equal(system(command), 0);
    dataset = opened("cache", CACHE_BYTES);
    item(dataset, 0, NULL);
    nanosleep(&(struct timespec){.tv_nsec = 100000000}, NULL); /* the worker reads ahead */
    snprintf(command, sizeof command, "rmdir %s/*.partial", in_folder("cache"));
    assert_int_equal(system(command), 0);
    item(dataset, last, NULL);
    lt_dataset_close(dataset);
}

static void test_changed_file(void **state) {
    (void)state;
    lt_dataset *dataset = opened("cache", CACHE_BYTES);
    FILE *file = fopen(in_folder("part_3.jsonl"), "a");
    fprintf(file, "{\"text\": \"more\"}\n");
    fclose(file);
    int32_t tokens[T + 1];
    lt_status status = LT_OK;
    for (int64_t i = 0; i < all_samples() && status == LT_OK; i++)
        status = lt_dataset_read_item(dataset, &shuffled, i, tokens, NULL);
    assert_int_equal(status, LT_IO);
    assert_message("data.train: '", "part_3.jsonl' changed in mid-run", NULL);
    lt_dataset_close(dataset);
}

static void test_broken_file(void **state) {
    (void)state;
    FILE *file = fopen(in_folder("part_3.jsonl"), "a");
    fprintf(file, "{\"text\": \"mor\n");
    fclose(file);
    lt_dataset *dataset = opened("cache", CACHE_BYTES);
    int32_t tokens[T + 1];
    lt_status status = LT_OK;
    int64_t i = 0;
    while (i < all_samples() && status == LT_OK)
        status = lt_dataset_read_item(dataset, &shuffled, i++, tokens, NULL);
    assert_int_equal(status, LT_BAD_INPUT);
    assert_message("part_3.jsonl' line 111: broken JSON", NULL);
    lt_dataset_close(dataset);
}

static void test_no_sample(void **state) {
    (void)state;
    for (int f = 0; f < FILES; f++) {
        char name[32];
        snprintf(name, sizeof name, "part_%d.jsonl", f);
        write_file(name, "{\"text\": \"abc\"}\n", 16);
    }
    lt_dataset *dataset = opened("cache", CACHE_BYTES);
    int32_t tokens[T + 1];
    assert_int_equal(lt_dataset_read_item(dataset, &shuffled, 0, tokens, NULL), LT_BAD_INPUT);
    assert_message("part_0.jsonl' and the other files hold no sample of 9 tokens", NULL);
    lt_dataset_close(dataset);
}

static void *stop_later(void *dataset) {
    nanosleep(&(struct timespec){.tv_nsec = 20000000}, NULL);
    lt_dataset_stop(dataset, true);
    return NULL;
}

/* What someone else writes, and never finishes, is waited for until the dataset is stopped. */
static void test_stop(void **state) {
    (void)state;
    lt_dataset *dataset = opened("cache", CACHE_BYTES);
    const int64_t last = all_samples() - 1;
    item(dataset, last, NULL);
    lt_dataset_close(dataset);
    char command[700];
    snprintf(
        command, sizeof command,
        "cd %s && for f in *.bin; do mv $f ${f%%.bin}.partial && truncate -s 1024 ${f%%.bin}.partial; done",
        in_folder("cache"));
    assert_int_equal(system(command), 0);
    snprintf(command, sizeof command,
             "cd %s && exec flock -x -o . sh -c 'for f in *.partial; do flock -x $f sleep 60 & done; wait'",
             in_folder("cache"));
    const pid_t holder = fork();
    if (holder == 0) {
        setpgid(0, 0);
        execl("/bin/sh", "sh", "-c", command, (char *)NULL);
        _exit(127);
    }
    setpgid(holder, holder);
    nanosleep(&(struct timespec){.tv_nsec = 200000000}, NULL);
    dataset = opened("cache", CACHE_BYTES);
    pthread_t thread;
    pthread_create(&thread, NULL, stop_later, dataset);
    int32_t tokens[T + 1];
    assert_int_equal(lt_dataset_read_item(dataset, &shuffled, last, tokens, NULL), LT_STOPPED);
    pthread_join(thread, NULL);
    kill(-holder, SIGKILL);
    waitpid(holder, NULL, 0);
    lt_dataset_stop(dataset, false);
    assert_int_equal(lt_dataset_read_item(dataset, &shuffled, last, tokens, NULL), LT_OK);
    lt_dataset_close(dataset);
}

static void test_bad_folder(void **state) {
    (void)state;
    write_file("file", "x", 1);
    lt_dataset *dataset;
    assert_int_equal(open_raw("file", CACHE_BYTES, &dataset), LT_BAD_INPUT);
    assert_message("data.cache_dir: cannot use '", "/file' for the cache", "it is no folder", NULL);
    assert_int_equal(open_raw("file/b/c", CACHE_BYTES, &dataset), LT_BAD_INPUT);
    assert_message("data.cache_dir: cannot use '", "Not a directory", NULL);
    assert_int_equal(open_raw("a/b/c", CACHE_BYTES, &dataset), LT_OK);
    item(dataset, 0, NULL);
    lt_dataset_close(dataset);
}

#define RAW_TEST(test) cmocka_unit_test_setup_teardown(test, make_files, drop_files)

int main(void) {
    const struct CMUnitTest tests[] = {
        RAW_TEST(test_every_sample_once_an_epoch),
        RAW_TEST(test_what_is_shuffled),
        RAW_TEST(test_any_cache),
        RAW_TEST(test_resume_without_counts),
        RAW_TEST(test_processes),
        RAW_TEST(test_natural_order_and_count),
        RAW_TEST(test_sharers_come_to_rest),
        RAW_TEST(test_room_comes_back),
        RAW_TEST(test_changed_file),
        RAW_TEST(test_broken_file),
        RAW_TEST(test_no_sample),
        RAW_TEST(test_stop),
        RAW_TEST(test_bad_folder),
    };
    return cmocka_run_group_tests(tests, open_tokenizer, close_tokenizer);
}
