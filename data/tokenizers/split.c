#include "data/tokenizers/split.h"
#include "data/tokenizers/kind.h"

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

const char lt_byte_level_pattern[] =
    "'s|'t|'re|'ve|'m|'ll|'d| ?\\p{L}+| ?\\p{N}+| ?[^\\s\\p{L}\\p{N}]+|\\s+(?!\\S)|\\s+";

/* ---- patterns ---- */

/* White_Space of Unicode, which is what \s means to Oniguruma; PCRE2's own has U+180E too. */
#define SPACES \
    "\\x{9}-\\x{d}\\x{20}\\x{85}\\x{a0}\\x{1680}\\x{2000}-\\x{200a}\\x{2028}\\x{2029}\\x{202f}\\x{205f}\\x{" \
    "3000}"

/* What an escape of Oniguruma becomes; NULL: it stays, or is not supported. */
static const char *translate_escape(char escape, bool in_class) {
    if (escape == 's') return in_class ? SPACES : "[" SPACES "]";
    if (escape == 'S' && !in_class) return "[^" SPACES "]";
    return NULL;
}

/* Letters that mean something else to PCRE2, or nothing. */
static bool is_foreign(char escape, bool in_class) {
    return (in_class && escape == 'S') || strchr("hHKRXyYGAZzgkOoMCcQENQuUlLNv", escape) != NULL;
}

/* Writes the pattern as PCRE2 understands it; `out` NULL: only counts. */
static lt_status translate(const char *pattern, char *out, size_t *bytes) {
    *bytes = 0;
    int depth = 0; /* of character classes, which nest in Oniguruma */
    for (const char *at = pattern; *at != '\0'; at++) {
        const char *put = at;
        size_t length = 1;
        if (*at == '\\' && at[1] != '\0') {
            at++;
            if (is_foreign(*at, depth > 0))
                return lt_fail(LT_BAD_INPUT, "its pattern '%s' uses \\%c, which is not supported", pattern,
                               *at);
            put = translate_escape(*at, depth > 0);
            length = put == NULL ? 2 : strlen(put);
            if (put == NULL) put = at - 1;
        } else if (*at == '[' && at[1] != ':') {
            if (depth++ > 0)
                return lt_fail(LT_BAD_INPUT,
                               "its pattern '%s' nests character classes, which is not supported", pattern);
        } else if (depth > 0 && *at == '&' && at[1] == '&') {
            return lt_fail(LT_BAD_INPUT,
                           "its pattern '%s' intersects character classes, which is not supported", pattern);
        } else if (depth > 0 && *at == ']' && at[-1] != ':') {
            depth--;
        }
        if (out != NULL) memcpy(out + *bytes, put, length);
        *bytes += length;
    }
    return LT_OK;
}

static lt_status compile(const char *pattern, size_t bytes, uint32_t flags, pcre2_code **code) {
    int error;
    PCRE2_SIZE place;
    *code = pcre2_compile((PCRE2_SPTR)pattern, bytes, PCRE2_UTF | PCRE2_UCP | PCRE2_NEVER_BACKSLASH_C | flags,
                          &error, &place, NULL);
    if (*code == NULL) {
        char reason[256];
        pcre2_get_error_message(error, (PCRE2_UCHAR *)reason, sizeof reason);
        return lt_fail(LT_BAD_INPUT, "its pattern '%.*s' cannot be compiled: %s at byte %zu", (int)bytes,
                       pattern, reason, place);
    }
    pcre2_jit_compile(*code, PCRE2_JIT_COMPLETE); /* where it cannot, matching interprets */
    return LT_OK;
}

static lt_status add(lt_splitters *splitters, lt_splitter splitter) {
    if (splitters->count == LT_MAX_SPLITTERS) {
        pcre2_code_free(splitter.code);
        return lt_fail(LT_BAD_INPUT, "it has more than %d pre-tokenizers in a row", LT_MAX_SPLITTERS);
    }
    splitters->at[splitters->count++] = splitter;
    return LT_OK;
}

lt_status lt_splitters_add(lt_splitters *splitters, const char *pattern, bool literal, bool removed,
                           bool invert) {
    lt_splitter splitter = {.removed = removed, .invert = invert};
    if (literal) {
        LT_CHECK(compile(pattern, strlen(pattern), PCRE2_LITERAL, &splitter.code));
        return add(splitters, splitter);
    }
    size_t bytes;
    LT_CHECK(translate(pattern, NULL, &bytes));
    char *translated = malloc(bytes + 1);
    if (translated == NULL) return lt_fail(LT_IO, "no memory for a tokenizer's pattern");
    lt_status status = translate(pattern, translated, &bytes);
    if (status == LT_OK) status = compile(translated, bytes, 0, &splitter.code);
    free(translated);
    LT_CHECK(status);
    return add(splitters, splitter);
}

lt_status lt_splitters_add_marks(lt_splitters *splitters) {
    return add(splitters, (lt_splitter){0});
}

void lt_splitters_free(lt_splitters *splitters) {
    for (int i = 0; i < splitters->count; i++) pcre2_code_free(splitters->at[i].code);
    splitters->count = 0;
}

/* ---- matching ---- */

lt_status lt_split_space_create(const lt_splitters *splitters, lt_split_space *space) {
    space->context = pcre2_match_context_create(NULL);
    space->stack = pcre2_jit_stack_create(1 << 15, 1 << 24, NULL);
    bool good = space->context != NULL && space->stack != NULL;
    for (int i = 0; i < splitters->count; i++) {
        if (splitters->at[i].code == NULL) continue;
        space->match[i] = pcre2_match_data_create_from_pattern(splitters->at[i].code, NULL);
        good = good && space->match[i] != NULL;
    }
    if (!good) return lt_fail(LT_IO, "no memory to match a tokenizer's pattern");
    pcre2_jit_stack_assign(space->context, NULL, space->stack);
    pcre2_set_match_limit(space->context, UINT32_MAX); /* a document may be one run of spaces */
    return LT_OK;
}

void lt_split_space_free(lt_split_space *space) {
    for (int i = 0; i < LT_MAX_SPLITTERS; i++) pcre2_match_data_free(space->match[i]);
    pcre2_match_context_free(space->context);
    pcre2_jit_stack_free(space->stack);
    *space = (lt_split_space){0};
}

/* One splitting of one text, at one place of the chain. */
typedef struct splitting {
    const lt_splitters *splitters;
    lt_split_space *space;
    lt_status (*word)(void *context, const char *text, size_t bytes);
    void *context;
} splitting;

static lt_status split_from(const splitting *all, int level, const char *text, size_t bytes);

static lt_status give(const splitting *all, int level, const char *text, size_t begin, size_t end) {
    if (begin == end) return LT_OK;
    if (level + 1 == all->splitters->count) return all->word(all->context, text + begin, end - begin);
    return split_from(all, level + 1, text + begin, end - begin);
}

/* The next match from `from` on; *begin is `bytes` where there is none. */
static lt_status find_match(const splitting *all, int level, const char *text, size_t bytes, size_t from,
                            size_t *begin, size_t *end) {
    const pcre2_code *code = all->splitters->at[level].code;
    pcre2_match_data *match = all->space->match[level];
    *begin = *end = bytes;
    int result =
        pcre2_match(code, (PCRE2_SPTR)text, bytes, from, PCRE2_NO_UTF_CHECK, match, all->space->context);
    if (result == PCRE2_ERROR_JIT_STACKLIMIT)
        result = pcre2_match(code, (PCRE2_SPTR)text, bytes, from, PCRE2_NO_UTF_CHECK | PCRE2_NO_JIT, match,
                             all->space->context);
    if (result == PCRE2_ERROR_NOMATCH) return LT_OK;
    if (result < 0) {
        char reason[256];
        pcre2_get_error_message(result, (PCRE2_UCHAR *)reason, sizeof reason);
        return lt_fail(LT_FAILED, "the tokenizer's pattern failed in a text of %zu bytes: %s", bytes, reason);
    }
    const PCRE2_SIZE *place = pcre2_get_ovector_pointer(match);
    *begin = place[0];
    *end = place[1];
    return LT_OK;
}

static size_t next_character(const char *text, size_t bytes, size_t at) {
    do at++;
    while (at < bytes && ((unsigned char)text[at] & 0xc0) == 0x80);
    return at;
}

static lt_status split_by_pattern(const splitting *all, int level, const char *text, size_t bytes) {
    const lt_splitter *splitter = &all->splitters->at[level];
    const bool give_matches = !splitter->removed || splitter->invert;
    const bool give_others = !splitter->removed || !splitter->invert;
    size_t from = 0;
    for (size_t at = 0; at < bytes;) {
        size_t begin, end;
        LT_CHECK(find_match(all, level, text, bytes, from, &begin, &end));
        if (give_others) LT_CHECK(give(all, level, text, at, begin));
        if (give_matches) LT_CHECK(give(all, level, text, begin, end));
        from = end > begin || begin == bytes ? end : next_character(text, bytes, begin);
        at = end;
    }
    return LT_OK;
}

static lt_status split_by_marks(const splitting *all, int level, const char *text, size_t bytes) {
    size_t begin = 0;
    bool run = true; /* nothing but marks since `begin` */
    for (size_t at = 0; at < bytes;) {
        const bool mark =
            bytes - at >= LT_SPACE_MARK_BYTES && memcmp(text + at, LT_SPACE_MARK, LT_SPACE_MARK_BYTES) == 0;
        if (mark && !run) {
            LT_CHECK(give(all, level, text, begin, at));
            begin = at;
        }
        run = mark;
        at += mark ? LT_SPACE_MARK_BYTES : 1;
    }
    return give(all, level, text, begin, bytes);
}

static lt_status split_from(const splitting *all, int level, const char *text, size_t bytes) {
    return all->splitters->at[level].code == NULL ? split_by_marks(all, level, text, bytes)
                                                  : split_by_pattern(all, level, text, bytes);
}

lt_status lt_split(const lt_splitters *splitters, lt_split_space *space, const char *text, size_t bytes,
                   lt_status (*word)(void *context, const char *text, size_t bytes), void *context) {
    if (bytes == 0) return LT_OK;
    const splitting all = {splitters, space, word, context};
    if (splitters->count == 0) return word(context, text, bytes);
    return split_from(&all, 0, text, bytes);
}
