#include "trainer/config_yaml.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

lt_status lt_config_init(lt_config *config) {
    memset(config, 0, sizeof *config);
    for (int row = 0; row < lt_config_key_count; row++) {
        lt_status status = lt_value_default(&lt_config_keys[row], config);
        if (status != LT_OK) {
            lt_config_free(config);
            return status;
        }
    }
    return LT_OK;
}

void lt_config_free(lt_config *config) {
    for (int row = 0; row < lt_config_key_count; row++) lt_value_clear(&lt_config_keys[row], config);
    memset(config, 0, sizeof *config);
}

bool lt_config_is_set(const lt_config *config, const char *key) {
    const lt_config_key *row = lt_config_find(key);
    return row != NULL && config->set[lt_config_row(row)];
}

/* Reads `text` and `overrides` into `config`, which is empty after an error. */
static lt_status read_config(const char *origin, const char *text, size_t length,
                             const lt_config_overrides *overrides, const lt_config *kept, bool any_schedule,
                             lt_tokenizer **tokenizer, lt_config *config) {
    lt_config_reading reading;
    lt_status status = lt_reading_begin(origin, config, &reading);
    if (status != LT_OK) return status;
    reading.any_schedule = any_schedule;
    reading.tokenizer = tokenizer;
    status = lt_reading_apply_text(&reading, text, length);
    for (int i = 0; status == LT_OK && overrides != NULL && i < overrides->count; i++) {
        status = lt_reading_apply_override(&reading, overrides->text[i]);
    }
    if (status == LT_OK) status = lt_reading_resolve(&reading, kept);
    if (status != LT_OK) lt_config_free(config);
    return status;
}

lt_status lt_config_parse(const char *yaml, const char *origin, lt_config *config) {
    return read_config(origin, yaml, strlen(yaml), NULL, NULL, true, NULL, config);
}

const char lt_config_kept_later[] = "";

lt_status lt_config_load(const char *path, const lt_config_overrides *overrides, const char *kept,
                         lt_tokenizer **tokenizer, lt_config *config) {
    char *text = NULL;
    size_t length = 0;
    lt_tokenizer *own = NULL;
    lt_config checkpoint;
    memset(&checkpoint, 0, sizeof checkpoint);
    memset(config, 0, sizeof *config);
    const bool later = kept == lt_config_kept_later;
    if (later) kept = NULL;
    lt_status status = LT_OK;
    LT_CHECK_DONE(status, lt_config_read_file(path, &text, &length));
    if (kept != NULL) LT_CHECK_DONE(status, lt_config_parse(kept, "the checkpoint's config", &checkpoint));
    status = read_config(path, text, length, overrides, kept != NULL ? &checkpoint : NULL, later,
                         tokenizer != NULL ? tokenizer : &own, config);
done:
    lt_tokenizer_close(own);
    lt_config_free(&checkpoint);
    free(text);
    return status;
}

/* Opens the sections of `path` that `previous` was not in; returns the depth of the key. */
static int write_sections(const char *previous, const char *path, FILE *out) {
    int depth = 0;
    bool same = true;
    for (const char *dot = strchr(path, '.'); dot != NULL; dot = strchr(dot + 1, '.')) {
        size_t length = (size_t)(dot - path);
        same = same && strncmp(previous, path, length + 1) == 0;
        const char *name = dot;
        while (name > path && name[-1] != '.') name--;
        if (!same) fprintf(out, "%*s%.*s:\n", 2 * depth, "", (int)(dot - name), name);
        depth++;
    }
    return depth;
}

char *lt_config_print(const lt_config *config) {
    char *text = NULL;
    size_t size = 0;
    FILE *out = open_memstream(&text, &size);
    if (out == NULL) return NULL;
    const char *previous = "";
    for (int row = 0; row < lt_config_key_count; row++) {
        const lt_config_key *key = &lt_config_keys[row];
        int depth = write_sections(previous, key->path, out);
        const char *dot = strrchr(key->path, '.');
        fprintf(out, "%*s%s: ", 2 * depth, "", dot != NULL ? dot + 1 : key->path);
        lt_value_write(key, config, out);
        fputc('\n', out);
        previous = key->path;
    }
    bool failed = ferror(out) != 0;
    if (fclose(out) != 0 || failed) {
        free(text);
        return NULL;
    }
    return text;
}

lt_model_shape lt_config_model_shape(const lt_config *config) {
    bool softmax = strcmp(config->model.attention.kind, "softmax") == 0;
    lt_model_shape shape = {
        .vocabulary = config->model.vocab_size,
        .hidden = config->model.hidden_size,
        .layers = config->model.num_layers,
        .heads = config->model.num_heads,
        .key_heads = config->model.num_kv_heads,
        .intermediate = config->model.intermediate_size,
        .rope_theta = config->model.rope_theta,
        .norm_eps = config->model.norm_eps,
        .init_std = config->model.init_std,
        .tied = config->model.tie_embeddings,
        .attention = softmax ? LT_ATTENTION_SOFTMAX : LT_ATTENTION_LAZY,
        .bias_length = softmax ? 0 : config->model.attention.bias_length,
        .bias_init_std = config->model.attention.bias_init_std,
        .tau_init = config->model.attention.tau_init,
    };
    return shape;
}
