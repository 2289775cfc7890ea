#include "trainer/config_sources.h"

#include <math.h>
#include <string.h>

enum { MAX_SET_NAME = 64 };

/* What the functions below need on their way down. */
typedef struct source_reader {
    const lt_config_key *key;
    yaml_document_t *document;
    lt_config_place place;
    lt_config_sources *sources;
} source_reader;

lt_scalar lt_node_scalar(const yaml_node_t *node) {
    lt_scalar scalar = {
        .text = (const char *)node->data.scalar.value,
        .length = node->data.scalar.length,
        .plain = node->data.scalar.style == YAML_PLAIN_SCALAR_STYLE,
    };
    return scalar;
}

static lt_config_place place_of(const source_reader *reader, const yaml_node_t *node) {
    lt_config_place place = reader->place;
    if (place.option == NULL) place.line = (int)node->start_mark.line + 1;
    return place;
}

/* Adds the path that `node` holds. */
static lt_status add_path(source_reader *reader, const yaml_node_t *node, const char *name) {
    lt_config_place place = place_of(reader, node);
    const char *path = reader->key->path;
    if (node->type != YAML_SCALAR_NODE)
        return lt_config_fail(&place, path, "found a list or map, expected a path");
    if (reader->sources->count == LT_MAX_SOURCES) {
        return lt_config_fail(&place, path,
                              "found more than %d paths; a glob or a folder stands for many files",
                              LT_MAX_SOURCES);
    }
    lt_scalar scalar = lt_node_scalar(node);
    lt_config_source *item = &reader->sources->item[reader->sources->count];
    LT_CHECK(lt_scalar_string(&scalar, path, "a path", &place, &item->path));
    reader->sources->count++; /* from here on lt_value_clear() frees the item */
    if (name == NULL) return LT_OK;
    item->name = strdup(name);
    return item->name != NULL ? LT_OK : lt_fail(LT_IO, "out of memory while reading the config");
}

static const char *key_text(const yaml_node_t *node) {
    bool text =
        node->type == YAML_SCALAR_NODE && strlen((char *)node->data.scalar.value) == node->data.scalar.length;
    return text ? (const char *)node->data.scalar.value : NULL;
}

static lt_status add_weight(source_reader *reader, const yaml_node_t *node) {
    const char *path = reader->key->path;
    lt_config_place place = place_of(reader, node);
    double *weight = &reader->sources->item[reader->sources->count - 1].weight;
    if (reader->key->word != NULL)
        return lt_config_fail(
            &place, path,
            "found a weight, but only data.train is a mixture; a map of names makes several "
            "sets that are measured apart");
    if (node->type != YAML_SCALAR_NODE)
        return lt_config_fail(&place, path, "found a list or map as a weight, expected a number above 0");
    lt_scalar scalar = lt_node_scalar(node);
    if (lt_scalar_number(&scalar, weight) && *weight > 0 && isfinite(*weight)) return LT_OK;
    char found[LT_CLIPPED_SIZE];
    return lt_config_fail(&place, path, "found the weight %s, expected a number above 0",
                          lt_clip(scalar.text, found));
}

/* Adds `{path: P}` or `{path: P, weight: W}`. */
static lt_status add_weighted(source_reader *reader, const yaml_node_t *node) {
    const yaml_node_t *path = NULL, *weight = NULL;
    lt_config_place place = place_of(reader, node);
    for (yaml_node_pair_t *pair = node->data.mapping.pairs.start; pair < node->data.mapping.pairs.top;
         pair++) {
        const char *name = key_text(yaml_document_get_node(reader->document, pair->key));
        const bool is_weight = name != NULL && strcmp(name, "weight") == 0;
        const yaml_node_t **value = is_weight ? &weight : &path;
        if ((!is_weight && (name == NULL || strcmp(name, "path") != 0)) || *value != NULL) {
            return lt_config_fail(&place, reader->key->path,
                                  "found %s, expected {path: P, weight: W}, {path: P} or a path",
                                  *value != NULL ? "a map with more keys" : "a map with another key");
        }
        *value = yaml_document_get_node(reader->document, pair->value);
    }
    if (path == NULL)
        return lt_config_fail(&place, reader->key->path, "found a map without a path, expected {path: P}");
    LT_CHECK(add_path(reader, path, NULL));
    return weight != NULL ? add_weight(reader, weight) : LT_OK;
}

/* Without weights the entries are one stream; with them each is a source. */
static lt_status check_weights(const source_reader *reader) {
    int weights = 0;
    for (int i = 0; i < reader->sources->count; i++) weights += reader->sources->item[i].weight > 0;
    if (weights == 0 || weights == reader->sources->count) return LT_OK;
    return lt_config_fail(&reader->place, reader->key->path,
                          "found %d entries with a weight and %d without; give every one a weight, or none",
                          weights, reader->sources->count - weights);
}

/* Adds a path, or a list of them. */
static lt_status add_list(source_reader *reader, const yaml_node_t *node, const char *name) {
    if (node->type != YAML_SEQUENCE_NODE) return add_path(reader, node, name);
    yaml_node_item_t *first = node->data.sequence.items.start, *end = node->data.sequence.items.top;
    for (yaml_node_item_t *item = first; item < end; item++) {
        const yaml_node_t *child = yaml_document_get_node(reader->document, *item);
        if (child->type == YAML_MAPPING_NODE && name == NULL) {
            LT_CHECK(add_weighted(reader, child));
        } else {
            LT_CHECK(add_path(reader, child, name));
        }
    }
    if (first < end || (name == NULL && reader->key->word != NULL)) return check_weights(reader);
    return lt_config_fail(&reader->place, reader->key->path,
                          "found an empty list, expected at least one path");
}

/* A name goes into metrics and file names, so it is a plain word. */
static bool sound_name(const char *name) {
    static const char letters[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-.";
    size_t length = name != NULL ? strlen(name) : 0;
    return length > 0 && length <= MAX_SET_NAME && strspn(name, letters) == length &&
           strcmp(name, "path") != 0 && strcmp(name, "weight") != 0;
}

static lt_status add_named(source_reader *reader, const yaml_node_t *node) {
    for (yaml_node_pair_t *pair = node->data.mapping.pairs.start; pair < node->data.mapping.pairs.top;
         pair++) {
        const yaml_node_t *key = yaml_document_get_node(reader->document, pair->key);
        lt_config_place place = place_of(reader, key);
        const char *name = key_text(key);
        if (!sound_name(name)) {
            return lt_config_fail(
                &place, reader->key->path,
                "found a set without a proper name, expected NAME: PATH with up to %d letters, "
                "digits, _ - or . (not path, not weight)",
                MAX_SET_NAME);
        }
        for (int i = 0; i < reader->sources->count; i++) {
            if (strcmp(reader->sources->item[i].name, name) == 0) {
                return lt_config_fail(&place, reader->key->path, "the name %s occurs twice", name);
            }
        }
        LT_CHECK(add_list(reader, yaml_document_get_node(reader->document, pair->value), name));
    }
    return LT_OK;
}

lt_status lt_sources_set(const lt_config_key *key, yaml_document_t *document, const yaml_node_t *node,
                         const lt_config_place *place, lt_config *config) {
    lt_value_clear(key, config);
    source_reader reader = {
        .key = key, .document = document, .place = *place, .sources = lt_config_field(key, config)};
    if (node->type == YAML_SCALAR_NODE) {
        lt_scalar scalar = lt_node_scalar(node);
        if (key->word != NULL && strcmp(scalar.text, key->word) == 0) return LT_OK;
    }
    if (node->type != YAML_MAPPING_NODE) return add_list(&reader, node, NULL);
    /* Only evaluation has several sets side by side; training takes one stream. */
    if (key->word != NULL) return add_named(&reader, node);
    return add_weighted(&reader, node);
}
