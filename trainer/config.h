/* The config: one struct, filled from one table (trainer/config_table.c) that also validates, documents and
 * resolves it (contracts.md, "Config"). Numbers are range-checked, unknown keys name the nearest known one,
 * and a value of a capability that this version lacks is refused plainly. No MPI here: rank 0 parses and
 * shares the resolved YAML.
 */
#ifndef LT_TRAINER_CONFIG_H
#define LT_TRAINER_CONFIG_H

#include "comm/status.h"
#include "data/identity.h"
#include "data/tokenizer.h"
#include "model/shape.h"

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

enum { LT_MAX_SOURCES = 64, LT_CONFIG_MAX_KEYS = 96 };

/* The most lanes that a config gets which does not say how many. */
enum { LT_USUAL_LANES = 8 };

/* One entry of data.train or data.validation. Neighbours of one name are one validation set. */
typedef struct lt_config_source {
    char *path;    /* glob, folder or file */
    char *name;    /* of a validation set in a map; else NULL */
    double weight; /* of a source of a mixture: above 0 in all entries, or 0 in all */
} lt_config_source;

typedef struct lt_config_sources {
    int count;
    lt_config_source item[LT_MAX_SOURCES];
} lt_config_sources;

typedef struct lt_config {
    struct {
        int64_t vocab_size, hidden_size, num_layers, num_heads, num_kv_heads, intermediate_size;
        double rope_theta, norm_eps, init_std;
        bool tie_embeddings;
        struct {
            char *kind; /* lazy, softmax */
            int64_t bias_length;
            double bias_init_std, tau_init;
        } attention;
    } model;
    struct lt_config_data {
        lt_config_sources train, validation;
        int64_t seq_len;
        bool shuffle;
        int64_t seed;
        char *tokenizer; /* as lt_tokenizer_open() takes it; NULL: none */
        bool document_mask;
        int64_t document_token;
        char *document_token_position; /* first, last */
        char *cache_dir;
        int64_t cache_bytes;
        char *text_key, *separator;
        struct {
            int64_t min_int_score, min_chars, max_chars; /* -1: none */
            char *language;
        } filter;
    } data;
    struct {
        double lr, betas[2], eps, weight_decay, grad_clip, lazy_lr_multiplier;
        int64_t freeze_lazy_after; /* -1: never */
    } optimizer;
    struct {
        char *kind; /* cosine, wsd, constant */
        int64_t warmup_steps, decay_steps;
        double min_lr_ratio;
    } schedule;
    struct {
        int64_t steps, global_batch, micro_batch, seed;
        char *device;    /* auto, cpu */
        int64_t threads; /* 0: the rank's share of cores */
        char *recompute;
        int64_t eval_every, eval_batches;
        double stall_timeout_s, max_minutes; /* max_minutes 0: none */
        char *nonfinite;                     /* stop, skip */
        int64_t max_skips;
    } train;
    struct {
        int64_t tensor, zero, lanes; /* lanes 0 before it is resolved */
        char *reduction, *backend;
    } parallel;
    struct {
        char *dir;
        int64_t every, keep, keep_every;
        bool async;
    } checkpoint;
    struct {
        char *dir;
        int64_t every, diagnostics_every;
        bool tensorboard;
    } log;
    bool set[LT_CONFIG_MAX_KEYS]; /* by table row: the file or an override gave the key a value */
    lt_data_identity identity;    /* of data.train's files, once they are open */
    char tokenizer_hash[33];      /* of what data.tokenizer names; empty: none, or not opened */
} lt_config;

/* Sets every key to its default (0 or NULL where there is none), and forgets which keys were set. LT_IO
 * without memory. */
lt_status lt_config_init(lt_config *config);

/* Frees what the config owns and zeroes it. */
void lt_config_free(lt_config *config);

/* Whether the file or an override gave `key` ("schedule.decay_steps") a value; false for an unknown key. */
bool lt_config_is_set(const lt_config *config, const char *key);

/* What is given beside the file: `KEY.PATH=VALUE` texts in order; the last one wins. */
typedef struct lt_config_overrides {
    const char *const *text;
    int count;
} lt_config_overrides;

/* Reads `path`, applies `overrides` (NULL: none), checks every key, resolves what depends on other keys
 * (num_kv_heads, schedule.decay_steps, parallel.lanes, log.dir, ...) and checks combinations that need no
 * other file or rank. `kept` (NULL: none) is the config text of the checkpoint that the run resumes from:
 * schedule.* and parallel.lanes that are unset here take its values. Pass NULL for a checkpoint of step 0,
 * which keeps none. A schedule.decay_steps kept from another schedule.kind means something else there and
 * resolves anew. With lt_config_kept_later there is a checkpoint, which is not known yet: how schedule.* go
 * together is left to the reading that knows it.
 *
 * data.tokenizer is opened, for its vocabulary, end of text and hash: into `tokenizer` unless that is NULL,
 * for the caller to close, also after an error; one that is there from a reading before is taken for it.
 *
 * `config` needs no lt_config_init() before; after an error it is empty. LT_BAD_INPUT: file, line, key,
 * found, expected; an override is named by its text. */
extern const char lt_config_kept_later[];
lt_status lt_config_load(const char *path, const lt_config_overrides *overrides, const char *kept,
                         lt_tokenizer **tokenizer, lt_config *config);

/* Parses a resolved config (the text of lt_config_print). `origin` names it in messages. All keys count as
 * set, and to go together: they did when it was resolved. The tokenizer may be gone: it is not opened. */
lt_status lt_config_parse(const char *yaml, const char *origin, lt_config *config);

/* The resolved config as YAML, every key, in the table's order. malloc'ed; NULL without memory. */
char *lt_config_print(const lt_config *config);

/* Whether `resumed` may continue a run made with `saved`, whose checkpoint is of step `saved_step`: every key
 * that differs is free, or in `allowed` (KEYs of --allow; a prefix such as "optimizer" allows its keys). At
 * step 0 schedule.* is free too. Tokenizers are the same by their hashes, and data by its files and weights,
 * or both by their names where one is not known. LT_BAD_INPUT names the first key that may not change, both
 * values and what to do, or a KEY of `allowed` that does not exist. Free changes that change bits are
 * collected in `note` [size] for one line, such as "train.micro_batch 2 (was 1), parallel.lanes 4 (was 8)";
 * empty: none. */
lt_status lt_config_check_resume(const lt_config *saved, int64_t saved_step, const lt_config *resumed,
                                 const char *const *allowed, int allowed_count, char *note, size_t size);

/* Whether parallel.tensor fits the model and this many ranks. LT_BAD_INPUT says what it does not divide, and
 * the widths that would do. */
lt_status lt_config_check_width(const lt_config *config, int64_t ranks);

/* The table as help text: key, default, meaning; at most 100 columns. */
void lt_config_help(FILE *out);

/* The model's shape as the config says it. */
lt_model_shape lt_config_model_shape(const lt_config *config);

#endif
