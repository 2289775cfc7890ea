#include "trainer/config_value.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Whether `name` is the key itself or a section that it lies in. */
static bool covers(const char *name, const char *path) {
    size_t length = strlen(name);
    return length > 0 && strncmp(name, path, length) == 0 && (path[length] == '\0' || path[length] == '.');
}

static lt_status check_names(const char *const *allowed, int allowed_count) {
    for (int i = 0; i < allowed_count; i++) {
        if (lt_config_find(allowed[i]) != NULL || lt_config_is_section(allowed[i])) continue;
        char nearest[128], clipped[LT_CLIPPED_SIZE];
        lt_clip(allowed[i], clipped);
        if (lt_config_nearest(allowed[i], nearest, sizeof nearest)) {
            return lt_fail(LT_BAD_INPUT, "--allow %s: there is no such key; did you mean %s?", clipped,
                           nearest);
        }
        return lt_fail(LT_BAD_INPUT, "--allow %s: there is no such key; `lazytrain train --help` lists them",
                       clipped);
    }
    return LT_OK;
}

static bool is_tokenizer(const lt_config_key *key) {
    return strcmp(key->path, "data.tokenizer") == 0;
}

/* A tokenizer is what it holds, wherever it lies. */
static bool same_value(const lt_config_key *key, const lt_config *a, const lt_config *b) {
    if (is_tokenizer(key) && a->tokenizer_hash[0] != '\0' && b->tokenizer_hash[0] != '\0')
        return strcmp(a->tokenizer_hash, b->tokenizer_hash) == 0;
    return lt_value_equal(key, a, b);
}

enum { SHOWN_SIZE = LT_CLIPPED_SIZE + 48 };

/* The value as a message shows it; `text` [SHOWN_SIZE]. */
static void show(const lt_config_key *key, const lt_config *config, char *text) {
    char *written = NULL;
    size_t size = 0;
    FILE *out = open_memstream(&written, &size);
    if (out != NULL) {
        lt_value_write(key, config, out);
        fclose(out);
    }
    lt_clip(written != NULL ? written : "?", text);
    free(written);
    const size_t length = strlen(text);
    if (is_tokenizer(key) && config->tokenizer_hash[0] != '\0')
        snprintf(text + length, SHOWN_SIZE - length, " (hash %s)", config->tokenizer_hash);
}

/* Whether a change of `key` asks for nothing: it is free, or follows from a change that was let through. */
static bool is_free(const lt_config_key *key, const lt_config *saved, int64_t saved_step,
                    const lt_config *resumed) {
    if (key->resume == LT_RESUME_FREE || key->resume == LT_RESUME_FREE_BITS) return true;
    if (covers("schedule", key->path) && saved_step == 0) return true;
    return strcmp(key->path, "schedule.decay_steps") == 0 && !lt_config_is_set(resumed, key->path) &&
           strcmp(saved->schedule.kind, resumed->schedule.kind) != 0;
}

static void add_note(const lt_config_key *key, const char *before, const char *now, char *note, size_t size) {
    size_t used = strlen(note);
    if (used + 1 >= size) return;
    snprintf(note + used, size - used, "%s%s %s (was %s)", used > 0 ? ", " : "", key->path, now, before);
}

lt_status lt_config_check_resume(const lt_config *saved, int64_t saved_step, const lt_config *resumed,
                                 const char *const *allowed, int allowed_count, char *note, size_t size) {
    if (size > 0) note[0] = '\0';
    LT_CHECK(check_names(allowed, allowed_count));
    for (int row = 0; row < lt_config_key_count; row++) {
        const lt_config_key *key = &lt_config_keys[row];
        if (same_value(key, saved, resumed)) continue;
        char before[SHOWN_SIZE], now[SHOWN_SIZE];
        show(key, saved, before);
        show(key, resumed, now);
        if (key->resume == LT_RESUME_FREE_BITS && size > 0) add_note(key, before, now, note, size);
        if (is_free(key, saved, saved_step, resumed)) continue;
        if (key->resume == LT_RESUME_NEVER) {
            return lt_fail(
                LT_BAD_INPUT,
                "%s: found %s, but the run in this folder has %s, which never changes in a run; set it "
                "back, or start a run in another checkpoint.dir (with --init-from to take the weights)",
                key->path, now, before);
        }
        bool let = false;
        for (int i = 0; i < allowed_count; i++) let = let || covers(allowed[i], key->path);
        if (let) continue;
        return lt_fail(
            LT_BAD_INPUT,
            "%s: found %s, but the checkpoint was trained with %s; set it back, or add --allow %s to go "
            "on with the new value",
            key->path, now, before, key->path);
    }
    return LT_OK;
}
