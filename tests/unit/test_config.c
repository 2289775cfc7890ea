/* The config as it is read: defaults, and every refusal with its message. Expected values are those of the
 * table in the public documentation. */
#include "tests/unit/config_fixture.h"

/* ---- defaults
 * --------------------------------------------------------------------------------------------------- */

static void defaults_are_the_documented_ones(void **state) {
    (void)state;
    lt_config c;
    assert_loads(LOAD(&c, "data.shuffle=true"));
    assert_int_equal(c.model.num_kv_heads, 4);
    assert_true(c.model.rope_theta == 10000 && c.model.norm_eps == 1e-6 && c.model.init_std == 0.02);
    assert_false(c.model.tie_embeddings);
    assert_string_equal(c.model.attention.kind, "lazy");
    assert_int_equal(c.model.attention.bias_length, 512);
    assert_true(c.model.attention.bias_init_std == 0.001 && c.model.attention.tau_init == -1.0);
    assert_int_equal(c.data.train.count, 1);
    assert_string_equal(c.data.train.item[0].path, "train.bin");
    assert_int_equal(c.data.validation.count, 0);
    assert_true(c.data.shuffle && c.data.seed == 0 && c.data.tokenizer == NULL && !c.data.document_mask);
    assert_int_equal(c.data.document_token, -1);
    assert_string_equal(c.data.document_token_position, "last");
    assert_string_equal(c.data.cache_dir, "runs/token_cache");
    assert_true(c.data.cache_bytes == INT64_C(17179869184));
    assert_string_equal(c.data.text_key, "text");
    assert_null(c.data.separator);
    assert_null(c.data.filter.language);
    assert_true(c.data.filter.min_int_score == -1 && c.data.filter.min_chars == -1 &&
                c.data.filter.max_chars == -1);
    assert_true(c.optimizer.betas[0] == 0.9 && c.optimizer.betas[1] == 0.95 && c.optimizer.eps == 1e-8);
    assert_true(c.optimizer.weight_decay == 0.1 && c.optimizer.grad_clip == 1 &&
                c.optimizer.lazy_lr_multiplier == 1);
    assert_int_equal(c.optimizer.freeze_lazy_after, -1);
    assert_string_equal(c.schedule.kind, "cosine");
    assert_true(c.schedule.warmup_steps == 0 && c.schedule.decay_steps == 100 &&
                c.schedule.min_lr_ratio == 0.1);
    assert_true(c.train.micro_batch == 1 && c.train.seed == 0 && c.train.threads == 0 &&
                c.train.eval_every == 0);
    assert_string_equal(c.train.device, "auto");
    assert_string_equal(c.train.recompute, "none");
    assert_true(c.train.eval_batches == 16 && c.train.stall_timeout_s == 600 && c.train.max_minutes == 0);
    assert_string_equal(c.train.nonfinite, "stop");
    assert_int_equal(c.train.max_skips, 3);
    assert_true(c.parallel.tensor == 1 && c.parallel.zero == 0 && c.parallel.lanes == 8);
    assert_string_equal(c.parallel.reduction, "tree");
    assert_string_equal(c.parallel.backend, "auto");
    assert_true(c.checkpoint.every == 1000 && c.checkpoint.keep == 3 && c.checkpoint.keep_every == 0);
    assert_false(c.checkpoint.async);
    assert_string_equal(c.log.dir, "runs/a");
    assert_true(c.log.every == 10 && c.log.diagnostics_every == 0 && !c.log.tensorboard);
    assert_true(lt_config_is_set(&c, "optimizer.lr") && !lt_config_is_set(&c, "optimizer.eps"));
    assert_false(lt_config_is_set(&c, "no.such.key"));
    lt_config_free(&c);
}

static void the_model_shape_follows(void **state) {
    (void)state;
    lt_config c;
    assert_loads(LOAD(&c, "model.num_kv_heads=2", "model.tie_embeddings=true"));
    lt_model_shape shape = lt_config_model_shape(&c);
    assert_true(shape.vocabulary == 300 && shape.hidden == 64 && shape.layers == 2 && shape.heads == 4);
    assert_true(shape.key_heads == 2 && shape.intermediate == 96 && shape.tied && shape.bias_length == 512);
    assert_true(shape.attention == LT_ATTENTION_LAZY && shape.tau_init == -1);
    lt_config_free(&c);
    assert_loads(LOAD(&c, "model.attention.kind=softmax"));
    shape = lt_config_model_shape(&c);
    assert_true(shape.attention == LT_ATTENTION_SOFTMAX && shape.bias_length == 0);
    lt_config_free(&c);
}

/* ---- refusals
 * --------------------------------------------------------------------------------------------------- */

static void numbers_are_checked(void **state) {
    (void)state;
    REFUSES("train.steps: found 1.5, expected an integer", "train.steps=1.5");
    REFUSES("expected an integer", "train.steps=1e3");
    REFUSES("expected an integer", "train.steps=0x10");
    REFUSES("expected an integer", "train.steps=010");
    REFUSES("expected an integer", "train.steps=true");
    REFUSES("found the text \"5\"", "train.steps='5'");
    REFUSES("expected an integer from 0 to 1000000000000", "train.steps=9223372036854775808");
    REFUSES("expected an integer from 0 to", "train.steps=-1");
    REFUSES("found nothing", "train.steps=");
    REFUSES("found a list", "train.steps=[1]");
    REFUSES("found a map", "train.steps={a: 1}");
    REFUSES("found 0,", "optimizer.lr=0");
    REFUSES("found -1", "optimizer.lr=-1");
    REFUSES("found nan", "optimizer.lr=nan");
    REFUSES("found .inf", "optimizer.lr=.inf");
    REFUSES("found 1e999", "optimizer.lr=1e999");
    REFUSES("found 0x1p3", "optimizer.lr=0x1p3");
    REFUSES("found 1e", "optimizer.lr=1e");
    REFUSES("found abc", "optimizer.lr=abc");
    REFUSES("optimizer.betas: found 1, expected a list of two numbers from 0 to below 1",
            "optimizer.betas=[0.9, 1]");
    REFUSES("found a list of 3", "optimizer.betas=[0.9, 0.9, 0.9]");
    REFUSES("list of two numbers", "optimizer.betas=0.9");
    REFUSES("list of two numbers", "optimizer.betas=[0.9, [0.9]]");
    REFUSES("schedule.min_lr_ratio", "schedule.min_lr_ratio=1.1");
    REFUSES("checkpoint.every", "checkpoint.every=0");
    REFUSES("log.every", "log.every=0");
    REFUSES("true or false", "data.shuffle=yes");
    REFUSES("true or false", "data.shuffle=1");
    REFUSES("lazy or softmax", "model.attention.kind=linear");
    REFUSES("cosine, wsd or constant", "schedule.kind=cos");
    REFUSES("put it in quotes", "checkpoint.dir=5");
    REFUSES("found nothing", "checkpoint.dir=''");
    REFUSES("NUL", "checkpoint.dir=\"a\\0b\"");
    REFUSES("data.seed", "data.seed=9223372036854775808");
    lt_config c;
    assert_loads(
        LOAD(&c, "data.seed=9223372036854775807", "optimizer.betas=[0, 0.999]", "optimizer.lr=+1.E-3"));
    assert_true(c.data.seed == INT64_MAX && c.optimizer.betas[0] == 0 && c.optimizer.lr == 0.001);
    lt_config_free(&c);
}

static void unknown_keys_name_the_nearest(void **state) {
    (void)state;
    REFUSES(
        "--set model.vocab_sise=1: model.vocab_sise: there is no such key; did you mean model.vocab_size?",
        "model.vocab_sise=1");
    REFUSES("did you mean optimizer.lr?", "train.lr=1");
    REFUSES("did you mean model.num_heads?", "model.heads=1");
    REFUSES("did you mean optimizer?", "optimiser={lr: 1}");
    REFUSES("did you mean schedule.warmup_steps?", "schedule.warmup=1");
    REFUSES("`lazytrain train --help` lists them", "quite.another.thing=1");
    REFUSES("expected KEY.PATH=VALUE", "train.steps");
    REFUSES("expected KEY.PATH=VALUE", "=1");
    char text[512];
    int length = snprintf(text, sizeof text, "%strain2:\n  x: 1\n", minimal);
    refuses_text(text, (size_t)length, "run.yaml:6: train2: there is no such key; did you mean train?");
}

/* One line each: where, which key, what was found, what is expected. */
static void files_are_checked(void **state) {
    (void)state;
    lt_config c;
    REFUSES_TEXT("", "run.yaml: missing: model.vocab_size, model.hidden_size");
    REFUSES_TEXT("# nothing\n---\n", "missing: model.vocab_size");
    REFUSES_TEXT("- 1\n", "found a list");
    REFUSES_TEXT("hello\n", "found a single value");
    REFUSES_TEXT("model: [1\n", "not valid YAML");
    REFUSES_TEXT("model:\n\thidden_size: 64\n",
                 "run.yaml:2: not valid YAML: found character that cannot start any token "
                 "while scanning for the next token; indent with spaces");
    REFUSES_TEXT("model:\n  a: \xff\xfe\n", "run.yaml:2: not valid YAML");
    REFUSES_TEXT("model: \x01\n", "UTF-8 text without control characters");
    REFUSES_TEXT("model:\n  num_layers: 2\n  num_heads: 2\n  num_layers: 3\n",
                 "run.yaml:4: model.num_layers: the key occurs twice (the first time in line 2)");
    REFUSES_TEXT("model:\n  num_layers: 2\nmodel:\n  num_layers: 2\n",
                 "run.yaml:3: model: the key occurs twice");
    REFUSES_TEXT("model:\n  num_layers: many\n",
                 "run.yaml:2: model.num_layers: found many, expected an integer");
    REFUSES_TEXT("model:\n  num_layers:\n", "run.yaml:2: model.num_layers: found nothing");
    REFUSES_TEXT("model.num_layers: 2\n", "write model: and, indented below it, num_layers:");
    REFUSES_TEXT("model: 3\n", "run.yaml:1: model: found a value, expected keys below it");
    REFUSES_TEXT("model: [3]\n", "model: found a list");
    REFUSES_TEXT("base: &b {num_layers: 2}\nmodel:\n  <<: *b\n", "base: there is no such key");
    REFUSES_TEXT("model: &b\n  num_layers: 2\nlog:\n  <<: *b\n",
                 "run.yaml:4: log: merge keys (<<) are not supported");
    REFUSES_TEXT("model: !!python/object:os.system\n", "tags are not supported");
    REFUSES_TEXT("model: {num_layers: 2}\n---\ntrain: {steps: 3}\n",
                 "run.yaml:2: found another YAML document");
    REFUSES_TEXT("? [a]\n: b\n", "expected a key");
    REFUSES_TEXT("model: &a {attention: *a}\n", "model.attention.attention: there is no such key");
    REFUSES_TEXT("train: {threads: 5000}\n", "expected an integer from 0 to 4096, or auto");

    /* Both would take the YAML library minutes. */
    size_t length = (1 << 20);
    char *large = malloc(length + 1);
    assert_non_null(large);
    memset(large, '[', length);
    refuses_text(large, length, "nested more than 16 deep");
    for (size_t at = 0; at < length; at += 16)
        snprintf(large + at, 17, "- &a%07zu xxx\n", at / 16 % 10000000);
    refuses_text(large, length, "found more than 4096 keys and values");
    memset(large, '#', length + 1);
    refuses_text(large, length + 1, "over 1048576 bytes");
    free(large);

    unlink(path);
    assert_int_equal(lt_config_load(path, NULL, NULL, NULL, &c), LT_BAD_INPUT);
    assert_non_null(strstr(lt_error_message(), "No such file"));
    assert_int_equal(lt_config_load(folder, NULL, NULL, NULL, &c), LT_BAD_INPUT);
    assert_non_null(strstr(lt_error_message(), "found a folder"));
    assert_int_equal(mkfifo(path, 0666), 0); /* must not wait for a writer */
    assert_int_equal(lt_config_load(path, NULL, NULL, NULL, &c), LT_BAD_INPUT);
    assert_non_null(strstr(lt_error_message(), "found a pipe"));
}

static void sound_files_load(void **state) {
    (void)state;
    lt_config c;
    char text[1024];
    int length =
        snprintf(text, sizeof text, "\xEF\xBB\xBF---\n%slog:\nschedule: {decay_steps: ~}\n", minimal);
    put(text, (size_t)length);
    assert_loads(lt_config_load(path, NULL, NULL, NULL, &c));
    assert_int_equal(c.schedule.decay_steps, 100);
    assert_false(lt_config_is_set(&c, "schedule.decay_steps"));
    lt_config_free(&c);
    length = snprintf(text, sizeof text, "%slog: {dir: &d \"caf\\u00e9\"}\ndata2: 1\n", minimal);
    refuses_text(text, (size_t)length, "run.yaml:7: data2");
    length = snprintf(text, sizeof text, "%slog: {every: &n 7, diagnostics_every: *n}\n", minimal);
    put(text, (size_t)length);
    assert_loads(lt_config_load(path, NULL, NULL, NULL, &c));
    assert_true(c.log.every == 7 && c.log.diagnostics_every == 7);
    lt_config_free(&c);
}

static void sharding_of_gradients_is_refused(void **state) {
    (void)state;
    lt_config c;
    REFUSES("parallel.zero: found 2, expected 0 or 1: gradients are summed whole", "parallel.zero=2");
    REFUSES("parallel.zero: found 4, expected an integer from 0 to 3", "parallel.zero=4");
    assert_loads(LOAD(&c, "parallel.zero=1", "parallel.reduction=fast"));
    assert_string_equal(c.parallel.reduction, "fast");
    lt_config_free(&c);
}

/* What lt_config_check_width() says of 12 heads, 4 key heads and an MLP of 96. */
static void assert_width(const char *width, int64_t ranks, const char *says) {
    lt_config c;
    assert_loads(LOAD(&c, "model.hidden_size=96", "model.num_heads=12", "model.num_kv_heads=4", width));
    const lt_status status = lt_config_check_width(&c, ranks);
    if (status != (says == NULL ? LT_OK : LT_BAD_INPUT)) fail_msg("%s: status %d", width, status);
    if (says != NULL) assert_string_equal(lt_error_message(), says);
    lt_config_free(&c);
}

static void widths_of_tensor_parallelism(void **state) {
    (void)state;
    assert_width("parallel.tensor=1", 7, NULL);
    assert_width("parallel.tensor=2", 24, NULL);
    assert_width("parallel.tensor=4", 24, NULL);
    assert_width("parallel.tensor=12", 24, NULL); /* three copies of a key head */
    assert_width(
        "parallel.tensor=4", 6,
        "parallel.tensor: found 4, expected a divisor of the number of ranks 6; widths that fit this "
        "model and 6 ranks: 1, 2");
    assert_width(
        "parallel.tensor=8", 8,
        "parallel.tensor: found 8, expected a divisor of model.num_heads 12; widths that fit this model "
        "and 8 ranks: 1, 2, 4");
    assert_width("parallel.tensor=6", 12,
                 "parallel.tensor: found 6, expected a divisor or a multiple of model.num_kv_heads 4; widths "
                 "that fit this model and 12 ranks: 1, 2, 4, 12");
    assert_width(
        "parallel.tensor=2", 1,
        "parallel.tensor: found 2, expected a divisor of the number of ranks 1; widths that fit this "
        "model and 1 rank: 1");
    lt_config c;
    assert_loads(LOAD(&c, "model.intermediate_size=97", "parallel.tensor=2"));
    assert_int_equal(lt_config_check_width(&c, 4), LT_BAD_INPUT);
    assert_non_null(strstr(lt_error_message(),
                           "a divisor of model.intermediate_size 97; widths that fit this "
                           "model and 4 ranks: 1"));
    lt_config_free(&c);
}

static void capabilities_to_come_are_refused(void **state) {
    (void)state;
    REFUSES("which this version does not have", "log.tensorboard=true");
    static const char *const fine[] = {
        "parallel.backend=nccl",
        "train.recompute=full",
        "checkpoint.async=true",
        "log.tensorboard=false",
        "data.tokenizer=bytes",
        "data.tokenizer=none",
        "data.text_key=body",
        "data.separator=\"\\n\"",
        "data.filter.min_int_score=3",
        "data.filter.language=en",
        "data.filter.min_chars=1",
        "data.filter.max_chars=9",
        "data.cache_bytes=1 GiB",
        "data.cache_dir=other",
        "data.text_key=text",
        "data.separator=none",
        "data.filter.min_int_score=none",
        "train.device=cpu",
        "data.filter.language=~",
        "data.cache_bytes=16 GiB",
        "data.train={path: a}",
        "data.cache_dir=runs/token_cache",
    };
    for (size_t i = 0; i < sizeof fine / sizeof *fine; i++) {
        lt_config c;
        assert_loads(LOAD(&c, fine[i]));
        lt_config_free(&c);
    }
}

static void combinations_are_checked(void **state) {
    (void)state;
    REFUSES("model.num_heads: found 3, expected a divisor of model.hidden_size 64 that leaves an even head "
            "size; 2 or 4",
            "model.num_heads=3");
    REFUSES("32 would do", "model.num_heads=64");
    REFUSES("expected an even number", "model.hidden_size=63");
    REFUSES("model.num_kv_heads: found 3, expected a divisor of model.num_heads 4; 2 or 4",
            "model.num_kv_heads=3");
    REFUSES("4 would do", "model.num_kv_heads=8");
    REFUSES("train.micro_batch: found 3, expected a divisor of train.global_batch 16; 2 or 4",
            "train.micro_batch=3");
    REFUSES(
        "power of two that divides the 12 micro-batches (train.global_batch / train.micro_batch): 1, 2, 4",
        "parallel.lanes=8", "train.global_batch=12");
    REFUSES("parallel.lanes: found 3", "parallel.lanes=3");
    REFUSES("data.document_mask: true needs a document token", "data.document_mask=true");
    REFUSES("data.document_token: found 300, expected a token id below model.vocab_size 300",
            "data.document_token=300");
    REFUSES("model.vocab_size: found 256, expected at least 257, the vocabulary of data.tokenizer 'bytes'",
            "data.tokenizer=bytes", "model.vocab_size=256");
    REFUSES("schedule.warmup_steps: found 101, expected at most schedule.decay_steps 100",
            "schedule.warmup_steps=101");
    REFUSES("schedule.decay_steps: found 101, expected at most train.steps 100", "schedule.kind=wsd",
            "schedule.decay_steps=101");
    REFUSES("schedule.warmup_steps: found 91, expected at most 90", "schedule.kind=wsd",
            "schedule.warmup_steps=91");
    REFUSES("nothing to evaluate on", "train.eval_every=10");
    REFUSES("more tokens than 64 bits count", "train.steps=1000000000000", "train.global_batch=16777216",
            "data.seq_len=16777216");
    lt_config c;
    assert_loads(LOAD(&c, "train.steps=0", "schedule.warmup_steps=101")); /* only saves the initial weights */
    lt_config_free(&c);
    assert_loads(LOAD(&c, "data.tokenizer=bytes", "data.document_mask=true"));
    assert_int_equal(c.data.document_token, 256);
    lt_config_free(&c);
    assert_loads(LOAD(&c, "parallel.lanes=16"));
    assert_int_equal(c.parallel.lanes, 16);
    lt_config_free(&c);
    assert_loads(LOAD(&c, "train.global_batch=12", "schedule.kind=wsd"));
    assert_int_equal(c.parallel.lanes, 4);
    assert_int_equal(c.schedule.decay_steps, 10);
    lt_config_free(&c);
}

/* The first error is the tokenizer's own: it is opened while the config is read. */
static void tokenizers_are_opened(void **state) {
    (void)state;
    REFUSES("--set data.tokenizer=no/such.model: data.tokenizer: cannot read 'no/such.model': No such file",
            "data.tokenizer=no/such.model");
    REFUSES("data.tokenizer: cannot read 'no/a.json'", "data.tokenizer={vocab: no/a.json, merges: no/b.bpe}");
    REFUSES("data.tokenizer: cannot read 'no/a.json'", "data.tokenizer={merges: no/b.bpe, vocab: no/a.json}");
    REFUSES("data.tokenizer: found another map, expected {vocab:", "data.tokenizer={vocab: a}");
    REFUSES("data.tokenizer: found another map, expected {vocab:", "data.tokenizer={vocab: a, vocab: b}");
    REFUSES("data.tokenizer: found another map, expected {vocab:",
            "data.tokenizer={vocab: a, merges: b, c: d}");
    REFUSES("data.tokenizer: found another map, expected {vocab:", "data.tokenizer={vocab: a, merges: [b]}");
    REFUSES("data.tokenizer: found 5, expected a file", "data.tokenizer={vocab: 5, merges: b}");
    REFUSES("a comma in its name", "data.tokenizer={vocab: 'a,b', merges: b}");
    REFUSES("data.tokenizer: found a list", "data.tokenizer=[a, b]");

    char text[700];
    snprintf(text, sizeof text,
             "model: {vocab_size: 300, hidden_size: 64, num_layers: 2, num_heads: 4, intermediate_size: 96}\n"
             "data:\n  train: a\n  tokenizer: %s/none.json\n  seq_len: 3\n"
             "optimizer: {lr: 1}\ntrain: {steps: 1, global_batch: 1}\ncheckpoint: {dir: x}\n",
             folder);
    refuses_text(text, strlen(text), "run.yaml:4: data.tokenizer: cannot read '");

    lt_config c, again;
    lt_tokenizer *tokenizer = NULL;
    put(minimal, sizeof minimal - 1);
    const char *const option = "data.tokenizer=bytes";
    const lt_config_overrides overrides = {&option, 1};
    assert_loads(lt_config_load(path, &overrides, NULL, &tokenizer, &c));
    assert_string_equal(lt_tokenizer_name(tokenizer), "bytes");
    assert_string_equal(c.tokenizer_hash, lt_tokenizer_hash(tokenizer));
    assert_int_equal(c.data.document_token, 256);
    const lt_tokenizer *first = tokenizer;
    assert_loads(lt_config_load(path, &overrides, NULL, &tokenizer, &again)); /* not opened again */
    assert_ptr_equal(tokenizer, first);
    assert_string_equal(again.tokenizer_hash, c.tokenizer_hash);
    lt_tokenizer_close(tokenizer);
    lt_config_free(&again);

    /* A resolved config is read without the file. */
    free(c.data.tokenizer);
    c.data.tokenizer = strdup("gone/vocab.json,gone/merges.txt");
    char *printed = lt_config_print(&c);
    assert_loads(lt_config_parse(printed, "resolved", &again));
    assert_string_equal(again.data.tokenizer, "gone/vocab.json,gone/merges.txt");
    assert_string_equal(again.tokenizer_hash, "");
    assert_int_equal(again.data.document_token, 256);
    free(printed);
    lt_config_free(&again);
    lt_config_free(&c);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        TEST(defaults_are_the_documented_ones),
        TEST(the_model_shape_follows),
        TEST(numbers_are_checked),
        TEST(unknown_keys_name_the_nearest),
        TEST(files_are_checked),
        TEST(sound_files_load),
        TEST(sharding_of_gradients_is_refused),
        TEST(widths_of_tensor_parallelism),
        TEST(capabilities_to_come_are_refused),
        TEST(combinations_are_checked),
        TEST(tokenizers_are_opened),
    };
    return cmocka_run_group_tests_name("config", tests, NULL, NULL);
}
