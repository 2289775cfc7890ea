/* metrics.jsonl: what is written reads back, and what a killed run leaves behind is cut back to its
 * checkpoint. */
#include "trainer/metrics.h"

#include <fcntl.h>
#include <jansson.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <signal.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

static char folder[64], path[96];

static int make_folder(void **state) {
    (void)state;
    strcpy(folder, "/tmp/lt_metrics_XXXXXX");
    if (mkdtemp(folder) == NULL) return -1;
    snprintf(path, sizeof path, "%s/metrics.jsonl", folder);
    return 0;
}

/* Also proves that nothing else was left in the folder. */
static int remove_folder(void **state) {
    (void)state;
    unlink(path);
    rmdir(path);
    return rmdir(folder);
}

static void put(const char *text, size_t length) {
    FILE *file = fopen(path, "w");
    assert_non_null(file);
    assert_int_equal(fwrite(text, 1, length, file), length);
    assert_int_equal(fclose(file), 0);
}

static void assert_file(const char *expected) {
    static char text[1 << 16];
    FILE *file = fopen(path, "r");
    assert_non_null(file);
    size_t length = fread(text, 1, sizeof text - 1, file);
    text[length] = '\0';
    fclose(file);
    assert_string_equal(text, expected);
}

static void open_and_close(int64_t last_step) {
    lt_metrics *metrics = NULL;
    assert_int_equal(lt_metrics_open(folder, last_step, &metrics), LT_OK);
    lt_metrics_close(metrics);
}

static lt_metrics_step sample(int64_t step) {
    lt_metrics_step values = {
        .step = step,
        .tokens = 5000000000,
        .loss = 1.0 / 3,
        .learning_rate = 3e-4,
        .gradient_norm = INFINITY,
        .step_ms = 12.5,
        .tokens_per_s = 1e6,
        .tokens_per_s_per_rank = 5e5,
        .data_wait_ms = 0,
        .comm_wait_ms = NAN,
        .comm_ms = 12.5,
        .slowest_rank = 1,
        .slowest_excess_ms = 2.5,
        .flops_utilisation = 0.55,
    };
    return values;
}

/* Field names and order are a public contract; 9 significant digits; no Infinity or NaN, which JSON has not.
 */
static void a_step_is_one_object(void **state) {
    (void)state;
    lt_metrics *metrics = NULL;
    lt_metrics_step values = sample(7);
    assert_int_equal(lt_metrics_open(folder, 0, &metrics), LT_OK);
    assert_int_equal(lt_metrics_write_step(metrics, &values), LT_OK);
    assert_int_equal(lt_metrics_sync(metrics), LT_OK);
    lt_metrics_close(metrics);
    assert_file(
        "{\"step\":7,\"tokens\":5000000000,\"loss\":0.333333333,\"lr\":0.0003,\"grad_norm\":null,"
        "\"step_ms\":12.5,\"tokens_per_s\":1000000,\"tokens_per_s_per_rank\":500000,\"data_wait_ms\":0,"
        "\"comm_wait_ms\":null,\"comm_ms\":12.5,\"slowest_rank\":1,\"slowest_excess_ms\":2.5,\"flops_"
        "utilisation\":0.55}\n");
}

/* One source: its epoch and documents. Several: the least epoch, all documents, and each by itself. Without a
 * document token there are no documents. */
static void sources_are_flat_and_apart(void **state) {
    (void)state;
    static const lt_metrics_source sources[] = {{3, 5000000000, 7}, {2, 24, 0}, {4, 0, 5}},
                                   plain = {6, 48, -1}, two_plain[] = {{1, 2, -1}, {0, 3, -1}};
    static const struct {
        const lt_metrics_source *sources;
        int count;
        const char *expected;
    } cases[] = {
        {sources, 1, ",\"epoch\":3,\"documents\":7}\n"},
        {&plain, 1, ",\"epoch\":6}\n"},
        {sources, 3,
         ",\"epoch\":2,\"documents\":12,\"sources\":[{\"epoch\":3,\"tokens\":5000000000,\"documents\":7},"
         "{\"epoch\":2,\"tokens\":24,\"documents\":0},{\"epoch\":4,\"tokens\":0,\"documents\":5}]}\n"},
        {two_plain, 2, ",\"epoch\":0,\"sources\":[{\"epoch\":1,\"tokens\":2},{\"epoch\":0,\"tokens\":3}]}\n"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        lt_metrics *metrics = NULL;
        lt_metrics_step values = sample(7);
        values.sources = cases[i].sources;
        values.source_count = cases[i].count;
        assert_int_equal(lt_metrics_open(folder, 0, &metrics), LT_OK);
        assert_int_equal(lt_metrics_write_step(metrics, &values), LT_OK);
        lt_metrics_close(metrics);
        char line[1024] = "";
        FILE *file = fopen(path, "r");
        assert_non_null(file);
        assert_non_null(fgets(line, sizeof line, file));
        fclose(file);
        const char *rest = strstr(line, "\"flops_utilisation\":0.55");
        assert_non_null(rest);
        assert_string_equal(rest + strlen("\"flops_utilisation\":0.55"), cases[i].expected);
    }
}

static void diagnostics_follow(void **state) {
    (void)state;
    enum { LAYERS = 300 }; /* long lines grow the buffer */
    double sparsity[LAYERS];
    for (int i = 0; i < LAYERS; i++) sparsity[i] = i / 300.0;
    lt_metrics_diagnostics diagnostics = {.sparsity = 0.5, .sink = 0.25, .sink_heads = 0.125, .mass = 0.75};
    diagnostics.tau_mean = -1;
    diagnostics.live_tiles = 1;
    diagnostics.layers = LAYERS;
    diagnostics.layer_sparsity = sparsity;
    lt_metrics_step values = sample(7);
    values.diagnostics = &diagnostics;
    lt_metrics *metrics = NULL;
    assert_int_equal(lt_metrics_open(folder, 0, &metrics), LT_OK);
    assert_int_equal(lt_metrics_write_step(metrics, &values), LT_OK);
    lt_metrics_close(metrics);
    json_t *object = json_load_file(path, 0, NULL);
    assert_non_null(object);
    assert_true(json_real_value(json_object_get(object, "sparsity")) == 0.5);
    assert_true(json_real_value(json_object_get(object, "sink")) == 0.25);
    assert_true(json_real_value(json_object_get(object, "sink_heads")) == 0.125);
    assert_true(json_real_value(json_object_get(object, "mass")) == 0.75);
    assert_int_equal(json_integer_value(json_object_get(object, "tau_mean")), -1);
    assert_int_equal(json_integer_value(json_object_get(object, "live_tiles")), 1);
    json_t *layers = json_object_get(object, "layer_sparsity");
    assert_int_equal(json_array_size(layers), LAYERS);
    assert_true(fabs(json_real_value(json_array_get(layers, 299)) - 299 / 300.0) < 1e-9);
    assert_null(json_object_get(object, "layer_tau"));
    json_decref(object);
}

static void validation_has_lines_of_its_own(void **state) {
    (void)state;
    lt_metrics *metrics = NULL;
    assert_int_equal(lt_metrics_open(folder, 0, &metrics), LT_OK);
    assert_int_equal(lt_metrics_write_validation(metrics, 5, NULL, 2.5), LT_OK);
    assert_int_equal(lt_metrics_write_validation(metrics, 5, "a\"b\\\n", NAN), LT_OK);
    lt_metrics_close(metrics);
    assert_file(
        "{\"step\":5,\"val_loss\":2.5}\n{\"step\":5,\"val_loss\":null,\"name\":\"a\\\"b\\\\\\u000a\"}\n");
}

static void lines_past_the_checkpoint_go(void **state) {
    (void)state;
    static const char old[] = "{\"step\": 10}\n{\"step\":20}\n{\"step\":20,\"val_loss\":1}\n{\"step\":30}\n";
    put(old, sizeof old - 1);
    open_and_close(30);
    assert_file(old);
    open_and_close(20);
    assert_file("{\"step\": 10}\n{\"step\":20}\n{\"step\":20,\"val_loss\":1}\n");
    lt_metrics *metrics = NULL;
    assert_int_equal(lt_metrics_open(folder, 20, &metrics), LT_OK);
    assert_int_equal(lt_metrics_write_validation(metrics, 25, NULL, 1), LT_OK);
    lt_metrics_close(metrics);
    assert_file(
        "{\"step\": 10}\n{\"step\":20}\n{\"step\":20,\"val_loss\":1}\n{\"step\":25,\"val_loss\":1}\n");
}

/* A line cut off at any byte goes; one that only lost its newline stays. */
static void a_torn_last_line_goes(void **state) {
    (void)state;
    static const char text[] = "{\"step\":1}\n{\"step\":2}\n";
    for (size_t length = 12; length < sizeof text - 2; length++) {
        put(text, length);
        open_and_close(9);
        assert_file("{\"step\":1}\n");
    }
    put(text, sizeof text - 2);
    open_and_close(9);
    assert_file(text);
}

/* What a power cut leaves: blocks of zeros. And a last line that is whole but no metrics. */
static void an_unreadable_last_line_goes(void **state) {
    (void)state;
    static const char *const tails[] = {"\0\0\0\0\0\0",
                                        "[3]\n",
                                        "7\n",
                                        "{\"step\":\"3\"}\n",
                                        "{\"loss\":3}\n",
                                        "\n",
                                        "{\"step\":3.5}\n",
                                        "{\"step\":99999999999999999999}\n",
                                        "{\"step\":3}}\n"};
    for (size_t i = 0; i < sizeof tails / sizeof *tails; i++) {
        char text[64] = "{\"step\":1}\n";
        size_t length = i == 0 ? 6 : strlen(tails[i]);
        memcpy(text + 11, tails[i], length);
        put(text, 11 + length);
        open_and_close(9);
        assert_file("{\"step\":1}\n");
    }
}

static void unreadable_lines_in_the_middle_stay(void **state) {
    (void)state;
    static const char text[] = "garbage\n{\"step\":1}\n\n# note\n{\"step\":2}\n{\"step\":3}\n";
    put(text, sizeof text - 1);
    open_and_close(2);
    assert_file("garbage\n{\"step\":1}\n\n# note\n{\"step\":2}\n");
}

static void a_fresh_run_starts_empty(void **state) {
    (void)state;
    put("{\"step\":0}\n{\"step\":1}\n", 22);
    open_and_close(0);
    assert_file("");
    unlink(path);
    open_and_close(5);
    assert_file("");
}

static void what_cannot_be_written_is_an_input_error(void **state) {
    (void)state;
    lt_metrics *metrics = NULL;
    assert_int_equal(mkdir(path, 0777), 0);
    assert_int_equal(lt_metrics_open(folder, 3, &metrics), LT_BAD_INPUT);
    assert_null(metrics);
    assert_int_equal(rmdir(path), 0);
    assert_int_equal(mkfifo(path, 0666), 0); /* must not wait for a reader */
    assert_int_equal(lt_metrics_open(folder, 0, &metrics), LT_BAD_INPUT);
    assert_int_equal(unlink(path), 0);
    assert_int_equal(lt_metrics_open("/nonexistent/folder", 0, &metrics), LT_BAD_INPUT);
    assert_non_null(strstr(lt_error_message(), "/nonexistent/folder"));
    lt_metrics_close(NULL);
}

/* A disk that fills up in the middle of a line: the part is taken back, and the next line stands alone. */
static void a_failed_write_leaves_no_part(void **state) {
    (void)state;
    lt_metrics *metrics = NULL;
    lt_metrics_step values = sample(1);
    struct rlimit old, small;
    assert_int_equal(lt_metrics_open(folder, 0, &metrics), LT_OK);
    assert_int_equal(lt_metrics_write_validation(metrics, 1, NULL, 1), LT_OK);
    void (*handler)(int) = signal(SIGXFSZ, SIG_IGN);
    getrlimit(RLIMIT_FSIZE, &old);
    small = old;
    small.rlim_cur = 60;
    setrlimit(RLIMIT_FSIZE, &small);
    lt_status status = lt_metrics_write_step(metrics, &values);
    setrlimit(RLIMIT_FSIZE, &old);
    signal(SIGXFSZ, handler);
    assert_int_equal(status, LT_IO);
    assert_file("{\"step\":1,\"val_loss\":1}\n");
    assert_int_equal(lt_metrics_write_validation(metrics, 2, NULL, 2), LT_OK);
    assert_file("{\"step\":1,\"val_loss\":1}\n{\"step\":2,\"val_loss\":2}\n");
    lt_metrics_close(metrics);
}

int main(void) {
#define TEST(function) cmocka_unit_test_setup_teardown(function, make_folder, remove_folder)
    const struct CMUnitTest tests[] = {
        TEST(a_step_is_one_object),
        TEST(sources_are_flat_and_apart),
        TEST(diagnostics_follow),
        TEST(validation_has_lines_of_its_own),
        TEST(lines_past_the_checkpoint_go),
        TEST(a_torn_last_line_goes),
        TEST(an_unreadable_last_line_goes),
        TEST(unreadable_lines_in_the_middle_stay),
        TEST(a_fresh_run_starts_empty),
        TEST(what_cannot_be_written_is_an_input_error),
        TEST(a_failed_write_leaves_no_part),
    };
    return cmocka_run_group_tests_name("metrics", tests, NULL, NULL);
}
