#include "trainer/config_value.h"

#include <inttypes.h>
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

static bool is_training_data(const lt_config_key *key) {
    return strcmp(key->path, "data.train") == 0;
}

static bool knows_files(const lt_config *a, const lt_config *b) {
    return a->identity.hash[0] != '\0' && b->identity.hash[0] != '\0';
}

/* Of the same files, which one source or as many have on both sides. */
static bool same_weights(const lt_config_sources *a, const lt_config_sources *b) {
    const bool mixture = a->item[0].weight > 0;
    if (mixture != (b->item[0].weight > 0)) return false;
    if (!mixture) return true;
    for (int i = 0; i < a->count && i < b->count; i++)
        if (a->item[i].weight != b->item[i].weight) return false;
    return a->count == b->count;
}

/* A tokenizer is what it holds and data is its files, wherever they lie. */
static bool same_value(const lt_config_key *key, const lt_config *a, const lt_config *b) {
    if (is_tokenizer(key) && a->tokenizer_hash[0] != '\0' && b->tokenizer_hash[0] != '\0')
        return strcmp(a->tokenizer_hash, b->tokenizer_hash) == 0;
    if (is_training_data(key) && knows_files(a, b))
        return strcmp(a->identity.hash, b->identity.hash) == 0 &&
               same_weights(&a->data.train, &b->data.train);
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

/* Samples are numbered over all files, so that one more changes the place of every other. */
static lt_status fail_other_files(const lt_config *saved, const lt_config *resumed, const char *before,
                                  const char *now) {
    const lt_data_identity *a = &saved->identity, *b = &resumed->identity;
    return lt_fail(LT_BAD_INPUT,
                   "data.train: found %s of %" PRId64 " files and %" PRId64
                   " bytes, but the checkpoint was trained with %s of %" PRId64 " files and %" PRId64
                   " bytes%s; put those files back, or add --allow data.train to go on with the new ones, in "
                   "an order in which samples of this epoch may come again or not at all",
                   now, b->files, b->bytes, before, a->files, a->bytes,
                   a->files == b->files && a->bytes == b->bytes ? " by other names or in another order" : "");
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
        if (is_training_data(key) && knows_files(saved, resumed) &&
            strcmp(saved->identity.hash, resumed->identity.hash) != 0)
            return fail_other_files(saved, resumed, before, now);
        return lt_fail(
            LT_BAD_INPUT,
            "%s: found %s, but the checkpoint was trained with %s; set it back, or add --allow %s to go "
            "on with the new value",
            key->path, now, before, key->path);
    }
    return LT_OK;
}
