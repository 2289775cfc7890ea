/* Values of the config: overrides, sources, and that what is printed reads back as the same config. */
#include "tests/unit/config_fixture.h"

#include "trainer/config_table.h"
#include "trainer/config_value.h"

/* ---- overrides and sources
 * -------------------------------------------------------------------------------------- */

static void overrides_win_in_order(void **state) {
    (void)state;
    lt_config c;
    assert_loads(
        LOAD(&c, "train.steps=5", "train.steps=7", "checkpoint.dir='a=b'", "schedule={warmup_steps: 2}"));
    assert_int_equal(c.train.steps, 7);
    assert_string_equal(c.checkpoint.dir, "a=b");
    assert_int_equal(c.schedule.warmup_steps, 2);
    lt_config_free(&c);
    assert_loads(
        LOAD(&c, "train.max_minutes=5", "train.max_minutes=none", "train.threads=2", "train.threads=auto"));
    assert_true(c.train.max_minutes == 0 && c.train.threads == 0);
    lt_config_free(&c);
    REFUSES("--set train.steps=[: not valid YAML", "train.steps=[");
    REFUSES("put VALUE in quotes", "data.train=*.bin");
}

static void cache_lies_beside_the_run(void **state) {
    (void)state;
    static const char *const cases[][2] = {
        {"checkpoint.dir=a", "token_cache"},      {"checkpoint.dir=/a", "/token_cache"},
        {"checkpoint.dir=/", "/token_cache"},     {"checkpoint.dir=x/a//", "x/token_cache"},
        {"checkpoint.dir=.", "./../token_cache"}, {"checkpoint.dir=../..", "../../../token_cache"},
        {"checkpoint.dir=..a", "token_cache"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        lt_config c;
        assert_loads(LOAD(&c, cases[i][0]));
        assert_string_equal(c.data.cache_dir, cases[i][1]);
        lt_config_free(&c);
    }
}

static void sources_have_several_shapes(void **state) {
    (void)state;
    lt_config c;
    assert_loads(LOAD(&c, "data.train=[a, {path: b}]", "data.validation={web: w.bin, books: [x, y]}"));
    assert_int_equal(c.data.train.count, 2);
    assert_string_equal(c.data.train.item[1].path, "b");
    assert_int_equal(c.data.validation.count, 3);
    assert_string_equal(c.data.validation.item[0].name, "web");
    assert_string_equal(c.data.validation.item[2].name, "books");
    assert_string_equal(c.data.validation.item[2].path, "y");
    lt_config_free(&c);
    assert_loads(LOAD(&c, "data.validation=[v]", "data.validation=none"));
    assert_int_equal(c.data.validation.count, 0);
    lt_config_free(&c);
    assert_loads(LOAD(&c, "data.train=[{path: a, weight: 0.7}, {weight: 3e-1, path: b}]"));
    assert_int_equal(c.data.train.count, 2);
    assert_string_equal(c.data.train.item[1].path, "b");
    assert_true(c.data.train.item[0].weight == 0.7 && c.data.train.item[1].weight == 0.3);
    lt_config_free(&c);
    assert_loads(LOAD(&c, "data.train={path: a, weight: 2}"));
    assert_true(c.data.train.count == 1 && c.data.train.item[0].weight == 2);
    lt_config_free(&c);
    REFUSES("found 1 entries with a weight and 2 without; give every one a weight, or none",
            "data.train=[{path: a, weight: 1}, b, {path: c}]");
    REFUSES("data.train: found the weight 0, expected a number above 0", "data.train=[{path: a, weight: 0}]");
    REFUSES("the weight -1, expected a number above 0", "data.train=[{path: a, weight: -1}]");
    REFUSES("the weight .inf, expected", "data.train=[{path: a, weight: .inf}]");
    REFUSES("the weight 1e999, expected", "data.train=[{path: a, weight: 1e999}]");
    REFUSES("the weight nan, expected", "data.train=[{path: a, weight: nan}]");
    REFUSES("the weight half, expected", "data.train=[{path: a, weight: half}]");
    REFUSES("the weight 1, expected", "data.train=[{path: a, weight: '1'}]");
    REFUSES("the weight , expected", "data.train=[{path: a, weight: }]");
    REFUSES("a list or map as a weight", "data.train=[{path: a, weight: [1]}]");
    REFUSES("a map without a path", "data.train=[{weight: 1}]");
    REFUSES("a map with more keys", "data.train=[{path: a, weight: 1, weight: 2}]");
    REFUSES("a map with another key", "data.train=[{paht: a, weight: 1}]");
    REFUSES("data.validation: found a weight, but only data.train is a mixture",
            "data.validation=[{path: a, weight: 1}]");
    REFUSES("at least one path", "data.train=[]");
    REFUSES("expected a path", "data.train=[[a]]");
    REFUSES("expected a path", "data.train=[5]");
    REFUSES("{path: P}", "data.train={web: a}");
    REFUSES("{path: P}", "data.train=[{path: a, path: b}]");
    REFUSES("found a map without a path, expected {path: P}", "data.train={}");
    REFUSES("occurs twice", "data.validation={a: x, a: y}");
    REFUSES("proper name", "data.validation={\"a b\": x}");
    REFUSES("proper name", "data.validation={path: x}");
    REFUSES("at least one path", "data.validation={a: []}");
    char many[600] = "data.train=[";
    for (int i = 0; i < 65; i++) strcat(many, "a, ");
    strcat(many, "a]");
    REFUSES("more than 64 paths", many);
}

/* ---- printing
 * --------------------------------------------------------------------------------------------------- */

static void assert_same(const lt_config *a, const lt_config *b) {
    for (int row = 0; row < lt_config_key_count; row++) {
        if (!lt_value_equal(&lt_config_keys[row], a, b)) fail_msg("%s differs", lt_config_keys[row].path);
    }
}

static void assert_reads_back(const lt_config *config) {
    lt_config again;
    char *text = lt_config_print(config);
    assert_non_null(text);
    assert_loads(lt_config_parse(text, "printed", &again));
    assert_same(config, &again);
    char *twice = lt_config_print(&again);
    assert_string_equal(text, twice);
    free(twice);
    free(text);
    lt_config_free(&again);
}

/* A value other than the default for every key that may have one, so that no key prints what does not read
 * back. */
static const char *const other_values[] = {
    "model={vocab_size: 2147483647, hidden_size: 96, num_layers: 3, num_heads: 6, num_kv_heads: 3}",
    "model={intermediate_size: 100, rope_theta: 1e6, norm_eps: 1e-5, init_std: 0.1, tie_embeddings: true}",
    "model.attention={kind: softmax, bias_length: 1, bias_init_std: 0.3333333333333333, tau_init: -1e-300}",
    "data={train: ['none', \"~\", '5', {path: 'true'}], validation: {a: [x, y], b: 'a, b]: \"c\" \\ #'}, "
    "seq_len: 1}",
    "data={shuffle: false, seed: 9223372036854775807, tokenizer: bytes, document_mask: true, document_token: "
    "5}",
    "data={document_token_position: first, cache_dir: ~, cache_bytes: 17179869184, text_key: text, "
    "separator: none}",
    "data.filter={min_int_score: none, language: none, min_chars: none, max_chars: none}",
    "optimizer={lr: 0.1, betas: [0.0, 0.99999999999999989], eps: 1e-15, weight_decay: 0, grad_clip: 0}",
    "optimizer={lazy_lr_multiplier: 100, freeze_lazy_after: 0}",
    "schedule={kind: wsd, warmup_steps: 3, decay_steps: 4, min_lr_ratio: 0}",
    "train={steps: 999999999999, global_batch: 24, micro_batch: 3, seed: 7, device: cpu, threads: 3, "
    "recompute: attention}",
    "train={eval_every: 5, eval_batches: 2, stall_timeout_s: 0, max_minutes: 0.1, nonfinite: skip, "
    "max_skips: 0}",
    "parallel={tensor: 1, zero: 0, lanes: 2, reduction: tree, backend: mpi}",
    "checkpoint={dir: \"caf\\u00e9 \\u2028\\u0085\\x07\\t\\n \\\"'\\U0001F600\\uFEFF: - \", every: 1, keep: "
    "0, keep_every: 2}",
    "checkpoint.async=false",
    "log={dir: none, every: 2, diagnostics_every: 3, tensorboard: false}",
};

static void what_is_printed_reads_back(void **state) {
    (void)state;
    lt_config c;
    enum { COUNT = sizeof other_values / sizeof *other_values };
    const char *options[COUNT + 1] = {NULL};
    memcpy(options, other_values, sizeof other_values);
    assert_loads(LOAD(&c, "train.steps=3"));
    assert_reads_back(&c);
    lt_config_free(&c);
    assert_loads(LOAD(&c, "data.train=[{path: 'a, b]: \"c\" #', weight: 0.1}, {path: x, weight: 1e-9}, "
                          "{path: y, weight: 3}]"));
    assert_reads_back(&c);
    lt_config_free(&c);
    assert_loads(load_kept(&c, NULL, options));
    assert_reads_back(&c);
    for (int row = 0; row < lt_config_key_count; row++) {
        /* cache_dir: null is "not set" */
        if (!c.set[row] && strcmp(lt_config_keys[row].path, "data.cache_dir") != 0) {
            fail_msg("%s is not in other_values", lt_config_keys[row].path);
        }
    }
    lt_config_free(&c);
}

/* Readers of YAML 1.1 know a float by its point. */
static void numbers_are_printed_for_other_readers(void **state) {
    (void)state;
    lt_config c;
    assert_loads(LOAD(&c, "optimizer.lr=3e-4"));
    char *text = lt_config_print(&c);
    assert_non_null(strstr(text, "  lr: 0.0003\n"));
    assert_non_null(strstr(text, "  eps: 1.0e-08\n"));
    assert_non_null(strstr(text, "  rope_theta: 10000.0\n"));
    assert_non_null(strstr(text, "  betas: [0.9, 0.95]\n"));
    assert_non_null(strstr(text, "  attention:\n    kind: lazy\n"));
    free(text);
    lt_config_free(&c);
}

static void help_fits_the_page(void **state) {
    (void)state;
    char *text = NULL;
    size_t size = 0;
    FILE *out = open_memstream(&text, &size);
    assert_non_null(out);
    lt_config_help(out);
    fclose(out);
    for (int row = 0; row < lt_config_key_count; row++) {
        char start[80];
        snprintf(start, sizeof start, " %s ", lt_config_keys[row].path);
        assert_non_null(strstr(text, start));
        assert_true(strlen(lt_config_keys[row].help) > 5);
    }
    for (char *line = text; *line != '\0'; line = strchr(line, '\n') + 1) {
        size_t width = strcspn(line, "\n");
        if (width > 100 || (width > 0 && line[width - 1] == ' ')) fail_msg("%.*s", (int)width, line);
    }
    free(text);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        TEST(overrides_win_in_order),
        TEST(cache_lies_beside_the_run),
        TEST(sources_have_several_shapes),
        TEST(what_is_printed_reads_back),
        TEST(numbers_are_printed_for_other_readers),
        TEST(help_fits_the_page),
    };
    return cmocka_run_group_tests_name("config values", tests, NULL, NULL);
}
