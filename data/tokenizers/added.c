#include "data/tokenizers/added.h"
#include "data/tokenizers/utf8.h"

#include <stdlib.h>
#include <string.h>

/* The index of a new node, or -1. */
static int32_t new_node(lt_added *added, unsigned char byte) {
    if (added->count == added->capacity) {
        const int32_t capacity = 2 * added->capacity + 256;
        lt_added_node *grown = reallocarray(added->node, (size_t)capacity, sizeof *grown);
        if (grown == NULL) return -1;
        added->node = grown;
        added->capacity = capacity;
    }
    added->node[added->count] = (lt_added_node){.child = -1, .sibling = -1, .id = -1, .byte = byte};
    return added->count++;
}

static int32_t find_child(const lt_added *added, int32_t node, unsigned char byte) {
    int32_t child = added->node[node].child;
    while (child >= 0 && added->node[child].byte != byte) child = added->node[child].sibling;
    return child;
}

static int32_t find_or_add(lt_added *added, int32_t node, unsigned char byte) {
    int32_t child = node < 0 ? added->root[byte] - 1 : find_child(added, node, byte);
    if (child >= 0) return child;
    child = new_node(added, byte);
    if (child < 0) return -1;
    if (node < 0) {
        added->root[byte] = child + 1;
    } else {
        added->node[child].sibling = added->node[node].child;
        added->node[node].child = child;
    }
    return child;
}

lt_status lt_added_put(lt_added *added, const char *text, size_t bytes, int32_t id, bool left_spaces,
                       bool right_spaces) {
    if (bytes == 0) return LT_OK;
    int32_t node = -1;
    for (size_t i = 0; i < bytes; i++) {
        node = find_or_add(added, node, (unsigned char)text[i]);
        if (node < 0) return lt_fail(LT_IO, "no memory for a tokenizer's added tokens");
    }
    added->node[node].id = id;
    added->node[node].left_spaces = left_spaces;
    added->node[node].right_spaces = right_spaces;
    return LT_OK;
}

void lt_added_free(lt_added *added) {
    free(added->node);
    *added = (lt_added){0};
}

/* ---- spaces around a token: White_Space of Unicode ---- */

static size_t space_at(const char *text, size_t bytes) {
    static const char *const wide[] = {"\xc2\x85",     "\xc2\xa0",     "\xe1\x9a\x80", "\xe2\x80\x80",
                                       "\xe2\x80\x81", "\xe2\x80\x82", "\xe2\x80\x83", "\xe2\x80\x84",
                                       "\xe2\x80\x85", "\xe2\x80\x86", "\xe2\x80\x87", "\xe2\x80\x88",
                                       "\xe2\x80\x89", "\xe2\x80\x8a", "\xe2\x80\xa8", "\xe2\x80\xa9",
                                       "\xe2\x80\xaf", "\xe2\x81\x9f", "\xe3\x80\x80"};
    if (bytes > 0 && (text[0] == ' ' || (text[0] >= '\t' && text[0] <= '\r'))) return 1;
    for (size_t i = 0; i < sizeof wide / sizeof *wide; i++) {
        const size_t length = strlen(wide[i]);
        if (bytes >= length && memcmp(text, wide[i], length) == 0) return length;
    }
    return 0;
}

static size_t spaces_before(const char *text, size_t from, size_t end) {
    size_t begin = end;
    while (begin > from) {
        size_t character = begin - 1;
        while (character > from && ((unsigned char)text[character] & 0xc0) == 0x80) character--;
        if (space_at(text + character, begin - character) != begin - character) break;
        begin = character;
    }
    return end - begin;
}

static size_t spaces_behind(const char *text, size_t bytes) {
    size_t all = 0, length;
    while ((length = space_at(text + all, bytes - all)) > 0) all += length;
    return all;
}

/* ---- finding ---- */

/* The longest token at the beginning of the text: the node that it ends in, or -1. */
static int32_t longest(const lt_added *added, const char *text, size_t bytes, size_t *length) {
    int32_t found = -1;
    int32_t node = added->root[(unsigned char)text[0]] - 1;
    for (size_t i = 1; node >= 0; i++) {
        if (added->node[node].id >= 0) {
            found = node;
            *length = i;
        }
        if (i == bytes) break;
        node = find_child(added, node, (unsigned char)text[i]);
    }
    return found;
}

bool lt_added_find(const lt_added *added, const char *text, size_t bytes, size_t from, size_t taken,
                   lt_added_match *match) {
    if (added->count == 0) return false;
    for (size_t at = from; at < bytes; at++) {
        size_t length;
        const int32_t index = longest(added, text + at, bytes - at, &length);
        if (index < 0) continue;
        const lt_added_node *node = &added->node[index];
        *match = (lt_added_match){node->id, at, at + length, at + length};
        if (node->left_spaces && at > taken) match->begin -= spaces_before(text, taken, at);
        if (node->left_spaces && at < taken) match->begin = taken;
        if (node->right_spaces) match->end += spaces_behind(text + match->end, bytes - match->end);
        return true;
    }
    return false;
}
