#include "data/tokenizers/split.h"
#include "data/tokenizers/kind.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

const char lt_byte_level_pattern[] =
    "'s|'t|'re|'ve|'m|'ll|'d| ?\\p{L}+| ?\\p{N}+| ?[^\\s\\p{L}\\p{N}]+|\\s+(?!\\S)|\\s+";

/* ---- patterns ---- */

/* White_Space of Unicode, which is what \s means to Oniguruma; PCRE2's own has U+180E too. */
#define SPACES \
    "\\x{9}-\\x{d}\\x{20}\\x{85}\\x{a0}\\x{1680}\\x{2000}-\\x{200a}\\x{2028}\\x{2029}\\x{202f}\\x{205f}\\x{" \
    "3000}"

/* A pattern on its way from Oniguruma to PCRE2. */
typedef struct translation {
    const char *pattern, *at; /* what is read next */
    FILE *out;
    bool in_class, caseless;
} translation;

static lt_status refuse(const translation *all, const char *what) {
    return lt_fail(LT_BAD_INPUT, "its pattern '%s' uses %s, which is not supported", all->pattern, what);
}

/* Whether `category`, "L" or "Lu", holds the range's. */
static bool is_in(const char *range, const char *category) {
    return range[0] == category[0] && (category[1] == '\0' || range[1] == category[1]);
}

/* The members of a class, as they stand between brackets. */
static void put_category(const translation *all, const char *category) {
    fprintf(all->out, "\\p{%s}", category);
    for (size_t i = 0; i < lt_unicode_since_14_count; i++) {
        const lt_unicode_range *range = &lt_unicode_since_14[i];
        if (is_in(range->category, category))
            fprintf(all->out, "\\x{%" PRIx32 "}-\\x{%" PRIx32 "}", range->first, range->last);
    }
}

static void put_members(const translation *all, char escape, const char *name) {
    if (escape == 's') {
        fputs(SPACES, all->out);
    } else if (escape == 'd') {
        put_category(all, "Nd");
    } else if (escape == 'w') {
        fputs("\\p{Alphabetic}", all->out);
        if (!all->in_class) /* there Latin-1's superscripts and fractions are words to Oniguruma */
            fputs("\\x{b2}\\x{b3}\\x{b9}\\x{bc}-\\x{be}", all->out);
        const char *const categories[] = {"L", "M", "Nd", "Pc"};
        for (int i = 0; i < 4; i++) put_category(all, categories[i]);
    } else if (strlen(name) <= 2) {
        put_category(all, name);
    } else { /* a script, where PCRE2 would take Script_Extensions */
        fprintf(all->out, "\\p{sc:%s}", name);
    }
}

/* \s, \S, \p{...} and their like; all->at stands behind the letter. */
static lt_status put_set(translation *all, char escape) {
    char name[32] = "";
    bool negated = escape == 'S' || escape == 'D' || escape == 'W' || escape == 'P';
    if (escape == 'p' || escape == 'P') {
        const char *end = *all->at == '{' ? strchr(all->at, '}') : NULL;
        const char *begin = all->at + 1;
        if (end == NULL || end - begin < 1 || end - begin >= (int)sizeof name)
            return refuse(all, "\\p without {name}");
        if (*begin == '^') {
            negated = !negated;
            begin++;
        }
        memcpy(name, begin, (size_t)(end - begin));
        all->at = end + 1;
    }
    if (negated && all->in_class) return refuse(all, "a negated set in a character class");
    if (!all->in_class) fputs(negated ? "[^" : "[", all->out);
    put_members(all, (char)(escape | 0x20), name);
    if (!all->in_class) fputc(']', all->out);
    return LT_OK;
}

/* all->at stands behind the backslash. */
static lt_status put_escape(translation *all) {
    const char escape = *all->at++;
    if (strchr("sSdDwWpP", escape) != NULL) return put_set(all, escape);
    /* Letters that mean something else to PCRE2, or nothing, or the borders of its own \w. */
    if (strchr("bBhHKRXyYGAZzgkOoMCcEQNuUlLv", escape) != NULL)
        return refuse(all, (char[]){'\\', escape, '\0'});
    fputc('\\', all->out);
    fputc(escape, all->out);
    if (escape == 'x' && *all->at == '{') { /* no interval */
        const size_t length = strcspn(all->at, "}");
        fwrite(all->at, 1, length, all->out);
        all->at += length;
    }
    return LT_OK;
}

/* {n,m}; all->at stands behind the brace. A + behind it, which PCRE2 takes for possessive, repeats it to
 * Oniguruma, as ? behind {n} makes it optional; and {,m} is {0,m}. */
static lt_status put_interval(translation *all) {
    static const char digits[] = "0123456789";
    const char *low = all->at;
    const size_t low_digits = strspn(low, digits);
    const bool ranged = low[low_digits] == ',';
    const char *high = low + low_digits + ranged;
    const size_t high_digits = ranged ? strspn(high, digits) : 0;
    const char *next = high + high_digits + 1;
    fputc('{', all->out);
    if (next[-1] != '}' || low_digits + high_digits == 0) return LT_OK; /* a brace */
    if (*next == '+' || (*next == '?' && !ranged))
        return refuse(all, *next == '+' ? "+ behind an interval" : "? behind {n}");
    if (low_digits == 0) fputc('0', all->out);
    fwrite(low, 1, (size_t)(next - low), all->out);
    all->at = next;
    return LT_OK;
}

/* Options; all->at stands behind the parenthesis. In the midst of a pattern they hold for all alternatives
 * that follow, and m is another one, to Oniguruma. */
static lt_status check_options(translation *all) {
    if (*all->at != '?') return LT_OK;
    const char *end = all->at + 1;
    while ((*end >= 'a' && *end <= 'z') || *end == '-') end++;
    if (*end != ':' && *end != ')') return LT_OK;
    for (const char *option = all->at + 1; option < end; option++) {
        if (*option != 'i' && *option != '-') return refuse(all, (char[]){'(', '?', *option, '\0'});
        all->caseless |= *option == 'i';
    }
    if (*end == ')' && all->at - 1 != all->pattern) return refuse(all, "options in its midst");
    return LT_OK;
}

/* Letters that one character folds to, which caseless PCRE2 does not compare. */
static lt_status check_folding(const translation *all) {
    static const char *const together[] = {"ss", "st", "ff", "fi", "fl"};
    for (const char *at = all->pattern; all->caseless && *at != '\0'; at++)
        for (size_t i = 0; i < sizeof together / sizeof *together; i++)
            if (strncasecmp(at, together[i], 2) == 0) return refuse(all, "(?i) with letters of a ligature");
    return LT_OK;
}

static lt_status translate(translation *all) {
    while (*all->at != '\0') {
        const char c = *all->at++;
        if (c == '\\' && *all->at != '\0') {
            LT_CHECK(put_escape(all));
            continue;
        }
        if (c == '[' && all->in_class) return refuse(all, "a class in a character class");
        if (c == '&' && all->in_class && *all->at == '&') return refuse(all, "an intersection of classes");
        if (c == '[') {
            all->in_class = true;
            if (*all->at == '^') { /* a bracket that comes first is a member */
                fputs("[^", all->out);
                all->at++;
                continue;
            }
        } else if (c == ']') {
            all->in_class = false;
        } else if (c == '(' && !all->in_class) {
            LT_CHECK(check_options(all));
        } else if (c == '{' && !all->in_class) {
            LT_CHECK(put_interval(all));
            continue;
        }
        fputc(c, all->out);
    }
    return check_folding(all);
}

static lt_status compile(const char *pattern, size_t bytes, uint32_t flags, pcre2_code **code) {
    int error;
    PCRE2_SIZE place;
    *code = pcre2_compile((PCRE2_SPTR)pattern, bytes, PCRE2_UTF | flags, &error, &place, NULL);
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

lt_status lt_splitters_add(lt_splitters *splitters, const char *pattern, bool literal,
                           lt_split_behaviour behaviour, bool invert) {
    lt_splitter splitter = {.behaviour = behaviour, .invert = invert};
    if (literal) {
        LT_CHECK(compile(pattern, strlen(pattern), PCRE2_LITERAL, &splitter.code));
        return add(splitters, splitter);
    }
    char *translated = NULL;
    size_t bytes = 0;
    translation all = {.pattern = pattern, .at = pattern, .out = open_memstream(&translated, &bytes)};
    if (all.out == NULL) return lt_fail(LT_IO, "no memory for a tokenizer's pattern");
    lt_status status = translate(&all);
    if (fclose(all.out) != 0 && status == LT_OK)
        status = lt_fail(LT_IO, "no memory for a tokenizer's pattern");
    if (status == LT_OK) status = compile(translated, bytes, PCRE2_UCP | PCRE2_MULTILINE, &splitter.code);
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

/* The piece that is not given yet, since what comes next may belong to it. */
typedef struct pending {
    size_t begin, end;
    bool match; /* what was put last */
} pending;

static bool belongs(lt_split_behaviour behaviour, bool before, bool match) {
    switch (behaviour) {
    case LT_MERGED_WITH_PREVIOUS:
        return match && !before;
    case LT_MERGED_WITH_NEXT:
        return !match && before;
    case LT_CONTIGUOUS:
        return match == before;
    default:
        return false;
    }
}

/* Text up to `end`, a match or what lies between two. */
static lt_status put(const splitting *all, int level, const char *text, pending *piece, size_t end,
                     bool match) {
    const lt_splitter *splitter = &all->splitters->at[level];
    match = match != splitter->invert;
    if (!belongs(splitter->behaviour, piece->match, match)) {
        LT_CHECK(give(all, level, text, piece->begin, piece->end));
        piece->begin = piece->end;
    }
    piece->end = end;
    piece->match = match;
    if (match && splitter->behaviour == LT_REMOVED) piece->begin = end;
    return LT_OK;
}

static lt_status split_by_pattern(const splitting *all, int level, const char *text, size_t bytes) {
    pending piece = {0};
    size_t from = 0;
    while (piece.end < bytes) {
        size_t begin, end;
        LT_CHECK(find_match(all, level, text, bytes, from, &begin, &end));
        if (begin > piece.end) LT_CHECK(put(all, level, text, &piece, begin, false));
        if (begin == bytes) break;
        LT_CHECK(put(all, level, text, &piece, end, true));
        from = end > begin ? end : next_character(text, bytes, begin);
    }
    return give(all, level, text, piece.begin, piece.end);
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
