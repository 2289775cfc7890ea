/* What a resumed run takes from its checkpoint's config, and what it may change. */
#include "tests/unit/config_fixture.h"

/* ---- resume
 * ----------------------------------------------------------------------------------------------------- */

static void unset_keys_take_the_kept_values(void **state) {
    (void)state;
    lt_config c;
    assert_loads(LOAD(&c, "schedule={warmup_steps: 9, min_lr_ratio: 0.2}", "parallel.lanes=2"));
    char *kept = lt_config_print(&c);
    lt_config_free(&c);
    assert_loads(LOAD_KEPT(&c, kept, "train.steps=500"));
    assert_true(c.schedule.warmup_steps == 9 && c.schedule.decay_steps == 100 &&
                c.schedule.min_lr_ratio == 0.2);
    assert_int_equal(c.parallel.lanes, 2);
    lt_config_free(&c);
    assert_loads(LOAD_KEPT(&c, kept, "train.steps=500", "schedule.decay_steps=500", "parallel.lanes=16"));
    assert_true(c.schedule.decay_steps == 500 && c.schedule.warmup_steps == 9 && c.parallel.lanes == 16);
    lt_config_free(&c);
    /* kept lanes that no longer divide the micro-batches resolve anew: 5 micro-batches, one lane */
    assert_loads(LOAD_KEPT(&c, kept, "train.global_batch=5"));
    assert_int_equal(c.parallel.lanes, 1);
    lt_config_free(&c);
    /* the end of a cosine is no length of a final decay: a tenth of 500 */
    assert_loads(LOAD_KEPT(&c, kept, "train.steps=500", "schedule.kind=wsd"));
    assert_int_equal(c.schedule.decay_steps, 50);
    lt_config_free(&c);
    free(kept);

    assert_loads(LOAD(&c, "schedule={kind: wsd}"));
    kept = lt_config_print(&c);
    lt_config_free(&c);
    assert_loads(LOAD_KEPT(&c, kept, "train.steps=2000"));
    assert_string_equal(c.schedule.kind, "wsd");
    assert_int_equal(c.schedule.decay_steps, 10);
    lt_config_free(&c);
    free(kept);

    assert_int_equal(LOAD_KEPT(&c, "model: 5\n", "train.steps=5"), LT_BAD_INPUT);
    assert_non_null(strstr(lt_error_message(), "the checkpoint's config:1: model"));
}

/* Checks a run of the minimal config that goes on, at `step`, with `option`. */
static lt_status resume(int64_t step, const char *option, const char *allow, char *note, size_t size) {
    lt_config saved, resumed;
    assert_loads(LOAD(&saved, "data.shuffle=true"));
    char *kept = lt_config_print(&saved);
    assert_loads(LOAD_KEPT(&resumed, step > 0 ? kept : NULL, option));
    lt_status status = lt_config_check_resume(&saved, step, &resumed, &allow, allow != NULL, note, size);
    free(kept);
    lt_config_free(&saved);
    lt_config_free(&resumed);
    return status;
}

static void free_keys_change_freely(void **state) {
    (void)state;
    static const char *const options[] = {
        "train.steps=200",
        "data.validation=v",
        "train={eval_batches: 3}",
        "log.every=3",
        "log.dir=x",
        "checkpoint.dir=x/y",
        "checkpoint.every=5",
        "checkpoint.keep=1",
        "train.threads=2",
        "train.max_minutes=3",
        "parallel.backend=mpi",
        "parallel.zero=1",
        "train.stall_timeout_s=5",
        "train.nonfinite=skip",
        "checkpoint.keep_every=2",
        "train.device=cpu",
    };
    char note[200];
    for (size_t i = 0; i < sizeof options / sizeof *options; i++) {
        assert_loads(resume(5, options[i], NULL, note, sizeof note));
        assert_string_equal(note, "");
    }
    assert_loads(resume(5, "parallel.lanes=4", NULL, note, sizeof note));
    assert_string_equal(note, "parallel.lanes 4 (was 8)");
    assert_loads(resume(5, "parallel={tensor: 2, reduction: fast}", NULL, note, sizeof note));
    assert_string_equal(note, "parallel.tensor 2 (was 1), parallel.reduction fast (was tree)");
    assert_loads(
        resume(5, "train.micro_batch=4", NULL, note, sizeof note)); /* 4 micro-batches: 8 lanes do not fit */
    assert_string_equal(note, "train.micro_batch 4 (was 1), parallel.lanes 4 (was 8)");
    char small[8];
    assert_loads(resume(5, "train.micro_batch=4", NULL, small, sizeof small));
    assert_string_equal(small, "train.m");
}

static void some_keys_need_to_be_allowed(void **state) {
    (void)state;
    static const char *const cases[][3] = {
        {"optimizer.lr=1", "optimizer.lr", "optimizer"},
        {"optimizer.betas=[0.8, 0.9]", "optimizer.betas", "optimizer"},
        {"optimizer.freeze_lazy_after=5", "optimizer.freeze_lazy_after", "optimizer"},
        {"schedule.warmup_steps=5", "schedule.warmup_steps", "schedule"},
        {"schedule.decay_steps=50", "schedule.decay_steps", "schedule"},
        {"schedule.kind=wsd", "schedule.kind", "schedule"}, /* decay_steps follows it without a word */
        {"data.train=other", "data.train", "data"},
        {"data.train=[train.bin, b]", "data.train", "data"},
        {"data.seed=3", "data.seed", "data"},
        {"data.shuffle=false", "data.shuffle", "data"},
        {"train.global_batch=32", "train.global_batch", "train"},
        {"train.seed=3", "train.seed", "train"},
    };
    char note[200], expected[100];
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        assert_int_equal(resume(5, cases[i][0], NULL, note, sizeof note), LT_BAD_INPUT);
        snprintf(expected, sizeof expected, "add --allow %s to", cases[i][1]);
        assert_non_null(strstr(lt_error_message(), expected));
        assert_int_equal(resume(5, cases[i][0], "log", note, sizeof note), LT_BAD_INPUT);
        assert_loads(resume(5, cases[i][0], cases[i][1], note, sizeof note));
        assert_loads(resume(5, cases[i][0], cases[i][2], note, sizeof note));
    }
    assert_int_equal(resume(5, "optimizer.lr=1", NULL, note, sizeof note), LT_BAD_INPUT);
    assert_string_equal(lt_error_message(),
                        "optimizer.lr: found 1.0, but the checkpoint was trained with 0.001; set it "
                        "back, or add --allow optimizer.lr to go on with the new value");
    assert_int_equal(resume(5, "log.every=3", "optimiser.lr", note, sizeof note), LT_BAD_INPUT);
    assert_string_equal(lt_error_message(),
                        "--allow optimiser.lr: there is no such key; did you mean optimizer.lr?");
    assert_int_equal(resume(5, "log.every=3", "opt", note, sizeof note), LT_BAD_INPUT); /* no whole section */
}

static void some_keys_never_change(void **state) {
    (void)state;
    static const char *const options[] = {
        "model.vocab_size=301",  "model.hidden_size=128",        "model.num_layers=3",
        "model.num_heads=2",     "model.num_kv_heads=2",         "model.intermediate_size=100",
        "model.rope_theta=5000", "model.attention.kind=softmax", "model.tie_embeddings=true",
        "data.seq_len=64",       "data.tokenizer=bytes",
    };
    char note[200];
    for (size_t i = 0; i < sizeof options / sizeof *options; i++) {
        assert_int_equal(resume(5, options[i], "model", note, sizeof note), LT_BAD_INPUT);
        assert_non_null(strstr(lt_error_message(), "never changes in a run"));
        assert_non_null(strstr(lt_error_message(), "--init-from"));
    }
}

/* A tokenizer is what it holds, not where it lies. */
static void tokenizers_are_told_apart_by_their_hash(void **state) {
    (void)state;
    static const struct {
        const char *saved_name, *saved_hash, *name, *hash, *part; /* NULL part: goes on */
    } cases[] = {
        {"a.model", "0123", "a.model", "0123", NULL},
        {"a.model", "0123", "moved/b.model", "0123", NULL},
        {"a.model", "0123", "a.model", "4567",
         "data.tokenizer: found \"a.model\" (hash 4567), but the run in this folder has \"a.model\" (hash "
         "0123), "
         "which never changes in a run"},
        {"a.model", "", "a.model", "4567", NULL}, /* saved without one */
        {"a.model", "", "b.model", "4567",
         "found \"b.model\" (hash 4567), but the run in this folder has \"a.model\","},
        {NULL, "", "a.model", "4567", "found \"a.model\" (hash 4567), but the run in this folder has none,"},
        {"a.model", "0123", NULL, "", "found none, but the run in this folder has \"a.model\" (hash 0123)"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        lt_config saved, resumed;
        char note[200];
        const char *allowed = "data.tokenizer";
        assert_loads(LOAD(&saved, "log.every=3"));
        assert_loads(LOAD(&resumed, "log.every=3"));
        saved.data.tokenizer = cases[i].saved_name == NULL ? NULL : strdup(cases[i].saved_name);
        resumed.data.tokenizer = cases[i].name == NULL ? NULL : strdup(cases[i].name);
        strcpy(saved.tokenizer_hash, cases[i].saved_hash);
        strcpy(resumed.tokenizer_hash, cases[i].hash);
        const lt_status status = lt_config_check_resume(&saved, 5, &resumed, &allowed, 1, note, sizeof note);
        if (cases[i].part == NULL)
            assert_loads(status);
        else if (status != LT_BAD_INPUT || strstr(lt_error_message(), cases[i].part) == NULL)
            fail_msg("case %zu: status %d, \"%s\"", i, status, lt_error_message());
        lt_config_free(&saved);
        lt_config_free(&resumed);
    }
}

/* Data is its files, not where they lie; weights are another matter. */
static void data_is_told_apart_by_its_files(void **state) {
    (void)state;
    static const lt_data_identity two = {"0123", 2, 20}, three = {"4567", 3, 30}, renamed = {"89ab", 2, 20},
                                  unknown = {"", 0, 0};
    static const struct {
        const char *saved_train;
        const lt_data_identity *saved;
        const char *train;
        const lt_data_identity *now;
        const char *part; /* NULL: goes on */
    } cases[] = {
        {"data.train=a", &two, "data.train=a", &two, NULL},
        {"data.train=a", &two, "data.train=[moved/a, moved/b]", &two, NULL},
        {"data.train=a", &two, "data.train=a", &three,
         "data.train: found [\"a\"] of 3 files and 30 bytes, but the checkpoint was trained with [\"a\"] of "
         "2 "
         "files and 20 bytes; put those files back, or add --allow data.train to go on"},
        {"data.train=a", &two, "data.train=b", &renamed, "20 bytes by other names or in another order; put"},
        {"data.train=a", &unknown, "data.train=a", &two, NULL}, /* saved without */
        {"data.train=a", &unknown, "data.train=b", &two,
         "found [\"b\"], but the checkpoint was trained with"},
        {"data.train=[{path: a, weight: 1}, {path: b, weight: 2}]", &two,
         "data.train=[{path: m/a, weight: 1}, {path: m/b, weight: 2}]", &two, NULL},
        {"data.train=[{path: a, weight: 1}, {path: b, weight: 2}]", &two,
         "data.train=[{path: a, weight: 1}, {path: b, weight: 3}]", &two,
         "weight: 3.0}], but the checkpoint was trained with [{path: \"a\", weight: 1.0}, {path: \"b\", "
         "weight: "
         "2.0}]; set it back"},
        {"data.train={path: a, weight: 1}", &two, "data.train=a", &two,
         "set it back, or add --allow data.train"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        for (int allow = 0; allow < 2; allow++) {
            lt_config saved, resumed;
            char note[200];
            const char *allowed = "data.train";
            assert_loads(LOAD(&saved, cases[i].saved_train));
            assert_loads(LOAD(&resumed, cases[i].train));
            saved.identity = *cases[i].saved;
            resumed.identity = *cases[i].now;
            const lt_status status =
                lt_config_check_resume(&saved, 5, &resumed, &allowed, allow, note, sizeof note);
            if (cases[i].part == NULL || allow)
                assert_loads(status);
            else if (status != LT_BAD_INPUT || strstr(lt_error_message(), cases[i].part) == NULL)
                fail_msg("case %zu: status %d, \"%s\"", i, status, lt_error_message());
            lt_config_free(&saved);
            lt_config_free(&resumed);
        }
}

/* A checkpoint of step 0 keeps no schedule, so a changed one asks for nothing. */
static void at_step_0_the_schedule_is_open(void **state) {
    (void)state;
    char note[200];
    assert_loads(resume(0, "train.steps=1000", NULL, note, sizeof note));
    assert_loads(resume(0, "schedule.kind=wsd", NULL, note, sizeof note));
    assert_int_equal(resume(0, "optimizer.lr=1", NULL, note, sizeof note), LT_BAD_INPUT);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        TEST(unset_keys_take_the_kept_values), TEST(free_keys_change_freely),
        TEST(some_keys_need_to_be_allowed),    TEST(some_keys_never_change),
        TEST(at_step_0_the_schedule_is_open),  TEST(tokenizers_are_told_apart_by_their_hash),
        TEST(data_is_told_apart_by_its_files),
    };
    return cmocka_run_group_tests_name("config resume", tests, NULL, NULL);
}
