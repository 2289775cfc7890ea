/* The table of keys as a page of text, 100 columns wide. */
#include "trainer/config_value.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

enum { PAGE_WIDTH = 100, INDENT = 2 };

/* The default as the page shows it. */
static const char *shown_default(const lt_config_key *key) {
    if (key->required) return "required";
    return key->resolved != NULL ? key->resolved : key->fallback;
}

/* ! and * in front of a key say what a resumed run may do with it. */
static char mark(const lt_config_key *key) {
    if (key->resume == LT_RESUME_NEVER) return '!';
    return key->resume == LT_RESUME_ALLOW ? '*' : ' ';
}

/* The values that `key` takes, briefly: ">= 1", "0 to 1", "lazy, softmax". Empty where the type says it all.
 */
static void describe_range(const lt_config_key *key, char *text, size_t size) {
    text[0] = '\0';
    switch (key->type) {
    case LT_KEY_INTEGER:
    case LT_KEY_BYTES:
        if (key->high >= LT_FAR_LIMIT) {
            snprintf(text, size, ">= %" PRId64, key->low);
        } else {
            snprintf(text, size, "%" PRId64 " to %" PRId64, key->low, key->high);
        }
        break;
    case LT_KEY_NUMBER:
    case LT_KEY_PAIR:
        if (key->maximum >= 100 && key->minimum >= 0) {
            snprintf(text, size, "%s %.9g", key->open_minimum ? ">" : ">=", key->minimum);
        } else {
            snprintf(text, size, "%s%.9g %s %.9g", key->open_minimum ? "above " : "", key->minimum,
                     key->open_maximum ? "to below" : "to", key->maximum);
        }
        break;
    case LT_KEY_CHOICE:
        lt_join_choices(key->choices, text, size);
        break;
    default:
        break;
    }
}

/* The meaning, unit and range, and what this version can do, in one line. */
static void describe(const lt_config_key *key, char *text, size_t size) {
    char range[128], works[128] = "";
    const char *unit = key->unit != NULL ? key->unit : "";
    describe_range(key, range, sizeof range);
    if (key->available != NULL && strchr(key->available, '|') != NULL) {
        lt_join_choices(key->available, works, sizeof works);
    }
    const char *comma = range[0] != '\0' && unit[0] != '\0' ? ", " : "";
    bool brackets = range[0] != '\0' || unit[0] != '\0';
    snprintf(text, size, "%s%s%s%s%s%s%s%s", key->help, brackets ? " (" : "", unit, comma, range,
             brackets ? ")" : "",
             key->capability == NULL ? ""
             : works[0] != '\0'      ? "; this version has "
                                     : "; to come",
             works);
}

/* Prints `text` from column `left` on, broken at spaces. */
static void wrap(const char *text, int left, FILE *out) {
    int column = left;
    while (*text != '\0') {
        int word = (int)strcspn(text, " ");
        if (word > 0 && (text[word - 1] == '=' || text[word - 1] == '>')) {
            word += 1 + (int)strcspn(text + word + 1, " "); /* ">= 1" stays together */
        }
        if (column > left && column + 1 + word > PAGE_WIDTH) {
            fprintf(out, "\n%*s", left, "");
            column = left;
        }
        column += fprintf(out, "%s%.*s", column > left ? " " : "", word, text);
        text += word;
        text += strspn(text, " ");
    }
    fputc('\n', out);
}

static int widest(bool defaults) {
    int width = 0;
    for (int row = 0; row < lt_config_key_count; row++) {
        const lt_config_key *key = &lt_config_keys[row];
        int length = (int)strlen(defaults ? shown_default(key) : key->path);
        if (length > width) width = length;
    }
    return width;
}

void lt_config_help(FILE *out) {
    int key_width = widest(false), default_width = widest(true);
    int left = INDENT + key_width + 2 + default_width + 2;
    const char *section = "";
    fprintf(out, "%*s%-*s  %-*s  %s\n", INDENT, "", key_width, "key", default_width, "default", "meaning");
    for (int row = 0; row < lt_config_key_count; row++) {
        const lt_config_key *key = &lt_config_keys[row];
        size_t length = strcspn(key->path, ".") + 1;
        if (strncmp(section, key->path, length) != 0) fputc('\n', out);
        section = key->path;
        char meaning[512];
        describe(key, meaning, sizeof meaning);
        fprintf(out, "%-*c%-*s  %-*s  ", INDENT, mark(key), key_width, key->path, default_width,
                shown_default(key));
        wrap(meaning, left, out);
    }
    fprintf(out, "\nOn resume keys marked ! never change, those marked * change with --allow KEY, the others "
                 "freely.\n");
}
