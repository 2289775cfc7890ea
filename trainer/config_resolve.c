/* What depends on several keys: values that follow others, and combinations that cannot be. */
#include "trainer/config_yaml.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static bool unset(const lt_config_reading *reading, const char *key) {
    return !lt_config_is_set(reading->config, key);
}

static bool is(const char *value, const char *word) {
    return value != NULL && strcmp(value, word) == 0;
}

static lt_status check_required(const lt_config_reading *reading) {
    char missing[1024] = "";
    size_t used = 0;
    for (int row = 0; row < lt_config_key_count; row++) {
        if (!lt_config_keys[row].required || reading->config->set[row]) continue;
        used += (size_t)snprintf(missing + used, sizeof missing - used, "%s%s", used > 0 ? ", " : "",
                                 lt_config_keys[row].path);
    }
    if (used == 0) return LT_OK;
    return lt_config_fail(&reading->origin, NULL, "missing: %s (required; there is no default)", missing);
}

/* "A or B": the numbers nearest to `near` that divide `total` and, with `even`, leave an even quotient. */
static void near_divisors(int64_t total, int64_t near, bool even, char *text, size_t size) {
    int64_t below = 0, above = 0;
    for (int64_t divisor = 1; divisor <= total; divisor++) {
        if (total % divisor != 0 || (even && total / divisor % 2 != 0)) continue;
        if (divisor <= near) below = divisor;
        if (divisor >= near) {
            above = divisor;
            break;
        }
    }
    if (below > 0 && above > 0 && below != above) {
        snprintf(text, size, "%" PRId64 " or %" PRId64 " would do", below, above);
    } else if (below > 0 || above > 0) {
        snprintf(text, size, "%" PRId64 " would do", below > 0 ? below : above);
    } else {
        snprintf(text, size, "none would do");
    }
}

/* ---- model
 * ------------------------------------------------------------------------------------------------------ */

static lt_status resolve_model(lt_config_reading *reading) {
    lt_config *config = reading->config;
    int64_t hidden = config->model.hidden_size, heads = config->model.num_heads;
    char advice[96];
    if (hidden % 2 != 0) {
        return lt_reading_fail(reading, "model.hidden_size", "found %" PRId64 ", expected an even number",
                               hidden);
    }
    if (hidden % heads != 0 || hidden / heads % 2 != 0) {
        near_divisors(hidden, heads, true, advice, sizeof advice);
        return lt_reading_fail(reading, "model.num_heads",
                               "found %" PRId64 ", expected a divisor of model.hidden_size %" PRId64
                               " that leaves an even head size; %s",
                               heads, hidden, advice);
    }
    if (unset(reading, "model.num_kv_heads")) config->model.num_kv_heads = heads;
    if (heads % config->model.num_kv_heads != 0) {
        near_divisors(heads, config->model.num_kv_heads, false, advice, sizeof advice);
        return lt_reading_fail(reading, "model.num_kv_heads",
                               "found %" PRId64 ", expected a divisor of model.num_heads %" PRId64 "; %s",
                               config->model.num_kv_heads, heads, advice);
    }
    return LT_OK;
}

/* ---- data
 * ------------------------------------------------------------------------------------------------------- */

static lt_status resolve_tokenizer(lt_config_reading *reading) {
    lt_config *config = reading->config;
    char where[LT_WHERE_SIZE];
    lt_config_where(&reading->places[lt_config_row(lt_config_find("data.tokenizer"))], "data.tokenizer",
                    where);
    if (*reading->tokenizer == NULL)
        LT_CHECK(lt_tokenizer_open(config->data.tokenizer, where, reading->tokenizer));
    const lt_tokenizer *tokenizer = *reading->tokenizer;
    snprintf(config->tokenizer_hash, sizeof config->tokenizer_hash, "%s", lt_tokenizer_hash(tokenizer));
    if (unset(reading, "data.document_token"))
        config->data.document_token = lt_tokenizer_end_of_text(tokenizer);
    if (lt_tokenizer_vocabulary(tokenizer) <= config->model.vocab_size) return LT_OK;
    char name[LT_CLIPPED_SIZE];
    return lt_reading_fail(
        reading, "model.vocab_size",
        "found %" PRId64 ", expected at least %" PRId64 ", the vocabulary of data.tokenizer '%s'",
        config->model.vocab_size, lt_tokenizer_vocabulary(tokenizer), lt_clip(config->data.tokenizer, name));
}

static lt_status resolve_documents(lt_config_reading *reading) {
    lt_config *config = reading->config;
    int64_t vocabulary = config->model.vocab_size;
    if (unset(reading, "data.document_token")) config->data.document_token = -1;
    if (config->data.tokenizer != NULL && reading->tokenizer != NULL) LT_CHECK(resolve_tokenizer(reading));
    if (config->data.document_token >= vocabulary) {
        return lt_reading_fail(reading, "data.document_token",
                               "found %" PRId64 ", expected a token id below model.vocab_size %" PRId64,
                               config->data.document_token, vocabulary);
    }
    if (config->data.document_mask && config->data.document_token < 0) {
        return lt_reading_fail(
            reading, "data.document_mask",
            "true needs a document token, and there is none; set data.document_token to the id that "
            "stands between documents, or data.tokenizer");
    }
    return LT_OK;
}

/* `token_cache` in the folder that holds checkpoint.dir; malloc'ed. */
static char *beside(const char *directory) {
    size_t length = strlen(directory);
    while (length > 1 && directory[length - 1] == '/') length--;
    size_t name = length;
    while (name > 0 && directory[name - 1] != '/') name--;
    bool dots =
        strncmp(directory + name, "..", length - name) == 0; /* ".", ".." and "/" have no name to replace */
    size_t size = length + sizeof "/../token_cache";
    char *path = malloc(size);
    if (path == NULL) return NULL;
    if (dots && length > name) {
        snprintf(path, size, "%.*s/../token_cache", (int)length, directory);
    } else {
        snprintf(path, size, "%.*stoken_cache", (int)name, directory);
    }
    return path;
}

static lt_status resolve_folders(lt_config_reading *reading) {
    lt_config *config = reading->config;
    if (unset(reading, "log.dir")) {
        free(config->log.dir);
        config->log.dir = strdup(config->checkpoint.dir);
    }
    if (unset(reading, "data.cache_dir")) {
        free(config->data.cache_dir);
        config->data.cache_dir = beside(config->checkpoint.dir);
    }
    if (config->data.cache_dir == NULL || config->log.dir == NULL)
        return lt_fail(LT_IO, "out of memory while reading the config");
    return LT_OK;
}

/* ---- schedule
 * --------------------------------------------------------------------------------------------------- */

/* Unset schedule.* keys of a resumed run take the checkpoint's resolved values. */
static lt_status keep_schedule(lt_config_reading *reading, const lt_config *kept) {
    static const char *const keys[] = {"schedule.kind", "schedule.warmup_steps", "schedule.min_lr_ratio"};
    lt_config *config = reading->config;
    for (size_t i = 0; i < sizeof keys / sizeof *keys; i++) {
        if (unset(reading, keys[i])) LT_CHECK(lt_value_copy(lt_config_find(keys[i]), kept, config));
    }
    return LT_OK;
}

static lt_status check_schedule(const lt_config_reading *reading) {
    const lt_config *config = reading->config;
    int64_t steps = config->train.steps, warmup = config->schedule.warmup_steps,
            decay = config->schedule.decay_steps;
    /* Without steps only the initial weights are saved: no rate is ever asked for. */
    if (steps == 0 || reading->any_schedule) return LT_OK;
    if (is(config->schedule.kind, "cosine") && warmup > decay) {
        return lt_reading_fail(reading, "schedule.warmup_steps",
                               "found %" PRId64 ", expected at most schedule.decay_steps %" PRId64
                               " (by default train.steps) with schedule.kind: cosine",
                               warmup, decay);
    }
    if (!is(config->schedule.kind, "wsd")) return LT_OK;
    if (decay > steps) {
        return lt_reading_fail(reading, "schedule.decay_steps",
                               "found %" PRId64 ", expected at most train.steps %" PRId64
                               " with schedule.kind: wsd",
                               decay, steps);
    }
    if (warmup > steps - decay) {
        return lt_reading_fail(reading, "schedule.warmup_steps",
                               "found %" PRId64 ", expected at most %" PRId64
                               " with schedule.kind: wsd: train.steps %" PRId64
                               " less schedule.decay_steps %" PRId64,
                               warmup, steps - decay, steps, decay);
    }
    return LT_OK;
}

static lt_status resolve_schedule(lt_config_reading *reading, const lt_config *kept) {
    lt_config *config = reading->config;
    if (kept != NULL) LT_CHECK(keep_schedule(reading, kept));
    if (unset(reading, "schedule.decay_steps")) {
        /* The step that ends a cosine is no length of a final decay: another kind starts anew. */
        bool keeps = kept != NULL && is(kept->schedule.kind, config->schedule.kind);
        int64_t fresh = is(config->schedule.kind, "wsd") ? config->train.steps / 10 : config->train.steps;
        config->schedule.decay_steps = keeps ? kept->schedule.decay_steps : fresh;
    }
    return check_schedule(reading);
}

/* ---- batches
 * ---------------------------------------------------------------------------------------------------- */

/* The largest power of two that divides `count` and is at most `limit`. */
static int64_t power_of_two_in(int64_t count, int64_t limit) {
    int64_t power = 1;
    while (power * 2 <= limit && count % (power * 2) == 0) power *= 2;
    return power;
}

static lt_status check_lanes(const lt_config_reading *reading, int64_t micro_batches) {
    int64_t lanes = reading->config->parallel.lanes;
    if ((lanes & (lanes - 1)) == 0 && micro_batches % lanes == 0) return LT_OK;
    char values[512] = "";
    size_t used = 0;
    for (int64_t power = 1; power <= power_of_two_in(micro_batches, micro_batches); power *= 2) {
        used +=
            (size_t)snprintf(values + used, sizeof values - used, "%s%" PRId64, used > 0 ? ", " : "", power);
    }
    return lt_reading_fail(reading, "parallel.lanes",
                           "found %" PRId64 ", expected a power of two that divides the %" PRId64
                           " micro-batches (train.global_batch / train.micro_batch): %s",
                           lanes, micro_batches, values);
}

static lt_status resolve_batches(lt_config_reading *reading, const lt_config *kept) {
    lt_config *config = reading->config;
    int64_t global = config->train.global_batch, micro = config->train.micro_batch, samples, tokens;
    if (global % micro != 0) {
        char advice[96];
        near_divisors(global, micro, false, advice, sizeof advice);
        return lt_reading_fail(reading, "train.micro_batch",
                               "found %" PRId64 ", expected a divisor of train.global_batch %" PRId64 "; %s",
                               micro, global, advice);
    }
    int64_t micro_batches = global / micro;
    /* `auto` counts as set to the word, but means the same. */
    if (unset(reading, "parallel.lanes") || config->parallel.lanes == 0) {
        bool keeps = kept != NULL && micro_batches % kept->parallel.lanes == 0;
        config->parallel.lanes =
            keeps ? kept->parallel.lanes : power_of_two_in(micro_batches, LT_USUAL_LANES);
    }
    if (__builtin_mul_overflow(config->train.steps, global, &samples) ||
        __builtin_mul_overflow(samples, config->data.seq_len, &tokens)) {
        return lt_reading_fail(reading, "train.steps",
                               "found %" PRId64
                               ", expected fewer: times train.global_batch and data.seq_len that is "
                               "more tokens than 64 bits count",
                               config->train.steps);
    }
    return check_lanes(reading, micro_batches);
}

static lt_status check_evaluation(const lt_config_reading *reading) {
    const lt_config *config = reading->config;
    if (config->train.eval_every == 0 || config->data.validation.count > 0) return LT_OK;
    return lt_reading_fail(reading, "train.eval_every",
                           "found %" PRId64
                           ", but there is nothing to evaluate on; set data.validation, or 0 here",
                           config->train.eval_every);
}

static lt_status check_sharding(const lt_config_reading *reading) {
    const int64_t zero = reading->config->parallel.zero;
    if (zero <= 1) return LT_OK;
    return lt_reading_fail(reading, "parallel.zero",
                           "found %" PRId64
                           ", expected 0 or 1: gradients are summed whole, lane by lane, and stay so; where "
                           "memory is short use 1, and parallel.tensor to share out weights and gradients",
                           zero);
}

lt_status lt_reading_resolve(lt_config_reading *reading, const lt_config *kept) {
    LT_CHECK(check_required(reading));
    LT_CHECK(resolve_model(reading));
    LT_CHECK(resolve_documents(reading));
    LT_CHECK(resolve_folders(reading));
    LT_CHECK(resolve_batches(reading, kept));
    LT_CHECK(resolve_schedule(reading, kept));
    LT_CHECK(check_sharding(reading));
    return check_evaluation(reading);
}
