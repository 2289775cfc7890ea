#include "trainer/config_yaml.h"
#include "trainer/config_sources.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* A full config has fewer than 300 nodes, 5 deep. */
enum { MAX_PATH_TEXT = 256, MAX_NODES = 4096, MAX_DEPTH = 16 };

lt_status lt_reading_begin(const char *origin, lt_config *config, lt_config_reading *reading) {
    memset(reading, 0, sizeof *reading);
    reading->config = config;
    reading->origin.file = origin;
    for (int row = 0; row < lt_config_key_count; row++) reading->places[row] = reading->origin;
    return lt_config_init(config);
}

/* ---- the file
 * --------------------------------------------------------------------------------------------------- */

static lt_status read_all(int file, const char *path, char **text, size_t *length) {
    char *buffer = malloc(LT_MAX_CONFIG_BYTES + 2);
    if (buffer == NULL) return lt_fail(LT_IO, "out of memory while reading %s", path);
    size_t used = 0;
    for (;;) {
        ssize_t got = read(file, buffer + used, LT_MAX_CONFIG_BYTES + 1 - used);
        if (got < 0 && errno == EINTR) continue;
        if (got < 0) {
            free(buffer);
            return lt_fail(LT_BAD_INPUT, "%s: cannot read the config: %s", path, strerror(errno));
        }
        if (got == 0) break;
        used += (size_t)got;
        if (used > LT_MAX_CONFIG_BYTES) {
            free(buffer);
            return lt_fail(LT_BAD_INPUT, "%s: over %d bytes long, which no config is; name a YAML file", path,
                           LT_MAX_CONFIG_BYTES);
        }
    }
    buffer[used] = '\0';
    *text = buffer;
    *length = used;
    return LT_OK;
}

lt_status lt_config_read_file(const char *path, char **text, size_t *length) {
    /* stat before open, since opening a device may do something; O_NONBLOCK in case it became a pipe in
     * between. */
    struct stat info;
    if (stat(path, &info) != 0)
        return lt_fail(LT_BAD_INPUT, "%s: cannot read the config: %s", path, strerror(errno));
    if (!S_ISREG(info.st_mode)) {
        return lt_fail(LT_BAD_INPUT, "%s: found a %s, expected a YAML file", path,
                       S_ISDIR(info.st_mode) ? "folder" : "pipe, socket or device");
    }
    int file = open(path, O_RDONLY | O_NONBLOCK | O_CLOEXEC);
    if (file < 0) return lt_fail(LT_BAD_INPUT, "%s: cannot read the config: %s", path, strerror(errno));
    lt_status status = read_all(file, path, text, length);
    close(file);
    return status;
}

/* ---- YAML
 * ------------------------------------------------------------------------------------------------------- */

static int line_of_offset(const char *text, size_t length, size_t offset) {
    int line = 1;
    for (size_t i = 0; i < offset && i < length; i++) line += text[i] == '\n';
    return line;
}

/* Whether line `line` is indented with a tab, the most common reason for a parser's complaint. */
static bool tab_indents(const char *text, size_t length, int line) {
    const char *end = text + length;
    for (; line > 1 && text < end; text++) line -= *text == '\n';
    while (text < end && *text == ' ') text++;
    return text < end && *text == '\t';
}

static lt_status yaml_failed(const lt_config_place *origin, const yaml_parser_t *parser, const char *text,
                             size_t length) {
    if (parser->error == YAML_MEMORY_ERROR) return lt_fail(LT_IO, "out of memory while reading the config");
    lt_config_place place = *origin;
    const char *problem = parser->problem != NULL ? parser->problem : "unreadable";
    bool reader = parser->error == YAML_READER_ERROR;
    if (origin->option == NULL) {
        place.line = reader ? line_of_offset(text, length, parser->problem_offset)
                            : (int)parser->problem_mark.line + 1;
    }
    const char *hint = "see https://yaml.org";
    if (reader) {
        hint = "a config is UTF-8 text without control characters";
    } else if (origin->option != NULL) {
        hint = "put VALUE in quotes of its own if it holds any of * & ! % @ ` : # [ ] { }";
    } else if (tab_indents(text, length, place.line)) {
        hint = "indent with spaces, not with tabs";
    }
    return lt_config_fail(&place, NULL, "not valid YAML: %s%s%s; %s", problem,
                          parser->context != NULL ? " " : "", parser->context != NULL ? parser->context : "",
                          hint);
}

static lt_status start_parser(yaml_parser_t *parser, const char *text, size_t length) {
    if (!yaml_parser_initialize(parser)) return lt_fail(LT_IO, "out of memory while reading the config");
    yaml_parser_set_encoding(parser, YAML_UTF8_ENCODING);
    yaml_parser_set_input_string(parser, (const unsigned char *)text, length);
    return LT_OK;
}

/* Counts what an event opens and closes. */
static lt_status count_event(const lt_config_place *origin, const yaml_event_t *event, int *documents,
                             int *nodes, int *depth) {
    bool opens = event->type == YAML_MAPPING_START_EVENT || event->type == YAML_SEQUENCE_START_EVENT;
    bool closes = event->type == YAML_MAPPING_END_EVENT || event->type == YAML_SEQUENCE_END_EVENT;
    *documents += event->type == YAML_DOCUMENT_START_EVENT;
    *nodes += opens || event->type == YAML_SCALAR_EVENT;
    *depth += opens - closes;
    lt_config_place place = *origin;
    if (place.option == NULL) place.line = (int)event->start_mark.line + 1;
    if (*documents > 1) return lt_config_fail(&place, NULL, "found another YAML document, expected one");
    if (*nodes > MAX_NODES)
        return lt_config_fail(&place, NULL, "found more than %d keys and values", MAX_NODES);
    if (*depth > MAX_DEPTH) return lt_config_fail(&place, NULL, "nested more than %d deep", MAX_DEPTH);
    return LT_OK;
}

/* Refuses what is no YAML or too much of it, before a document is built: the library takes minutes over a
 * megabyte of brackets or anchors. */
static lt_status survey(const lt_config_place *origin, const char *text, size_t length) {
    yaml_parser_t parser;
    LT_CHECK(start_parser(&parser, text, length));
    int documents = 0, nodes = 0, depth = 0;
    lt_status status = LT_OK;
    bool ended = false;
    while (status == LT_OK && !ended) {
        yaml_event_t event;
        if (!yaml_parser_parse(&parser, &event)) {
            status = yaml_failed(origin, &parser, text, length);
            break;
        }
        ended = event.type == YAML_STREAM_END_EVENT;
        status = count_event(origin, &event, &documents, &nodes, &depth);
        yaml_event_delete(&event);
    }
    yaml_parser_delete(&parser);
    return status;
}

/* Loads the one document of `text`, or none. The caller deletes it, also after an error. */
static lt_status load_document(const lt_config_place *origin, const char *text, size_t length,
                               yaml_document_t *document) {
    static const char byte_order_mark[] = "\xEF\xBB\xBF";
    memset(document, 0, sizeof *document);
    if (length >= 3 && memcmp(text, byte_order_mark, 3) == 0) {
        text += 3;
        length -= 3;
    }
    yaml_parser_t parser;
    lt_status status = LT_OK;
    LT_CHECK(survey(origin, text, length));
    LT_CHECK(start_parser(&parser, text, length));
    if (!yaml_parser_load(&parser, document)) {
        memset(document, 0, sizeof *document); /* the parser has freed what it had of it */
        status = yaml_failed(origin, &parser, text, length);
    }
    yaml_parser_delete(&parser);
    return status;
}

/* ---- keys
 * ------------------------------------------------------------------------------------------------------- */

static lt_status apply_pair(const lt_config_key *key, yaml_document_t *document, const yaml_node_t *node,
                            const lt_config_place *place, lt_config *config) {
    yaml_node_item_t *items = node->data.sequence.items.start;
    if (node->data.sequence.items.top - items != 2) {
        return lt_config_fail(place, key->path, "found a list of %d, expected a list of two numbers",
                              (int)(node->data.sequence.items.top - items));
    }
    for (int i = 0; i < 2; i++) {
        const yaml_node_t *item = yaml_document_get_node(document, items[i]);
        if (item->type != YAML_SCALAR_NODE) {
            return lt_config_fail(place, key->path,
                                  "found a list inside the list, expected a list of two numbers");
        }
        lt_scalar scalar = lt_node_scalar(item);
        LT_CHECK(lt_value_set_pair(key, i, &scalar, place, config));
    }
    return LT_OK;
}

/* {vocab: A, merges: B} is the text "A,B", as lt_tokenizer_open() takes it. */
static lt_status apply_vocabulary(const lt_config_key *key, yaml_document_t *document,
                                  const yaml_node_t *node, const lt_config_place *place, lt_config *config) {
    static const char *const names[] = {"vocab", "merges"};
    char *file[] = {NULL, NULL}, both[2 * LT_MAX_STRING_BYTES + 2];
    lt_status status = LT_OK;
    const yaml_node_pair_t *pairs = node->data.mapping.pairs.start, *end = node->data.mapping.pairs.top;
    for (const yaml_node_pair_t *pair = pairs; pair < end && status == LT_OK; pair++) {
        const yaml_node_t *name = yaml_document_get_node(document, pair->key);
        const yaml_node_t *value = yaml_document_get_node(document, pair->value);
        int i = 0;
        while (i < 2 && (name->type != YAML_SCALAR_NODE || value->type != YAML_SCALAR_NODE ||
                         strcmp((const char *)name->data.scalar.value, names[i]) != 0))
            i++;
        if (i == 2 || file[i] != NULL) break;
        const lt_scalar scalar = lt_node_scalar(value);
        status = lt_scalar_string(&scalar, key->path, "a file", place, &file[i]);
    }
    const bool complete = end - pairs == 2 && file[0] != NULL && file[1] != NULL;
    if (status == LT_OK && !complete) {
        status = lt_config_fail(place, key->path,
                                "found another map, expected {vocab: encoder.json, merges: vocab.bpe}");
    } else if (status == LT_OK && strchr(file[0], ',') != NULL) {
        status = lt_config_fail(place, key->path, "found a vocab with a comma in its name; give it another");
    } else if (status == LT_OK) {
        snprintf(both, sizeof both, "%s,%s", file[0], file[1]);
        status = lt_value_set(key, &(lt_scalar){.text = both, .length = strlen(both)}, place, config);
    }
    free(file[0]);
    free(file[1]);
    return status;
}

static lt_status apply_value(lt_config_reading *reading, const lt_config_key *key, yaml_document_t *document,
                             const yaml_node_t *node, const lt_config_place *place) {
    lt_config *config = reading->config;
    int row = lt_config_row(key);
    bool scalar_node = node->type == YAML_SCALAR_NODE;
    lt_scalar scalar = scalar_node ? lt_node_scalar(node) : (lt_scalar){.text = ""};
    reading->places[row] = *place;
    config->set[row] = false;
    /* null says "as if the key were not here", where that is a value that one may want back. */
    if (scalar_node && lt_scalar_is_null(&scalar) && (key->word != NULL || key->resolved != NULL)) {
        return lt_value_default(key, config);
    }
    if (key->type == LT_KEY_SOURCES) {
        LT_CHECK(lt_sources_set(key, document, node, place, config));
    } else if (key->type == LT_KEY_PAIR && node->type == YAML_SEQUENCE_NODE) {
        LT_CHECK(apply_pair(key, document, node, place, config));
    } else if (scalar_node) {
        LT_CHECK(lt_value_set(key, &scalar, place, config));
    } else if (strcmp(key->path, "data.tokenizer") == 0 && node->type == YAML_MAPPING_NODE) {
        LT_CHECK(apply_vocabulary(key, document, node, place, config));
    } else {
        char expected[256];
        lt_value_expected(key, false, expected, sizeof expected);
        return lt_config_fail(place, key->path, "found a %s, expected %s",
                              node->type == YAML_SEQUENCE_NODE ? "list" : "map", expected);
    }
    config->set[row] = true;
    return LT_OK;
}

static lt_status unknown_key(const lt_config_place *place, const char *path) {
    char nearest[MAX_PATH_TEXT], clipped[LT_CLIPPED_SIZE];
    lt_clip(path, clipped);
    if (lt_config_nearest(path, nearest, sizeof nearest)) {
        return lt_config_fail(place, clipped, "there is no such key; did you mean %s?", nearest);
    }
    return lt_config_fail(place, clipped, "there is no such key; `lazytrain train --help` lists them");
}

static lt_status apply_section(lt_config_reading *reading, const char *prefix, yaml_document_t *document,
                               const yaml_node_t *node, const lt_config_place *place);

/* Applies what `node` says for the key or section `path`. */
static lt_status apply_node(lt_config_reading *reading, const char *path, yaml_document_t *document,
                            const yaml_node_t *node, const lt_config_place *place) {
    const lt_config_key *key = lt_config_find(path);
    if (key != NULL) return apply_value(reading, key, document, node, place);
    if (!lt_config_is_section(path)) return unknown_key(place, path);
    if (node->type == YAML_MAPPING_NODE) return apply_section(reading, path, document, node, place);
    if (node->type == YAML_SCALAR_NODE) {
        lt_scalar scalar = lt_node_scalar(node);
        if (lt_scalar_is_null(&scalar)) return LT_OK; /* a section whose keys are all commented out */
    }
    return lt_config_fail(place, path, "found a %s, expected keys below it, indented",
                          node->type == YAML_SEQUENCE_NODE ? "list" : "value");
}

/* The name of a pair, as `path` "PREFIX.NAME"; it is new in its map. */
static lt_status name_of_pair(const char *prefix, yaml_document_t *document, const yaml_node_t *map,
                              const yaml_node_pair_t *pair, const lt_config_place *place, char *path) {
    const yaml_node_t *node = yaml_document_get_node(document, pair->key);
    const char *section = prefix[0] != '\0' ? prefix : NULL;
    if (node->type != YAML_SCALAR_NODE)
        return lt_config_fail(place, section, "found a map or list, expected a key");
    const char *name = (const char *)node->data.scalar.value;
    size_t length = node->data.scalar.length;
    if (strcmp(name, "<<") == 0) {
        return lt_config_fail(place, section, "merge keys (<<) are not supported; write the keys out");
    }
    if (length == 0 || strlen(name) != length)
        return lt_config_fail(place, section, "found a key without a name");
    snprintf(path, MAX_PATH_TEXT, "%s%s%s", prefix, section != NULL ? "." : "", name);
    const char *dot = strchr(name, '.');
    if (dot != NULL && lt_config_find(path) != NULL) {
        return lt_config_fail(place, path,
                              "found a key with dots, expected sections: write %.*s: and, indented below "
                              "it, %s:",
                              (int)(dot - name), name, dot + 1);
    }
    for (const yaml_node_pair_t *other = map->data.mapping.pairs.start; other < pair; other++) {
        /* Those before are scalars: they came through here. */
        const yaml_node_t *earlier = yaml_document_get_node(document, other->key);
        if (strcmp((const char *)earlier->data.scalar.value, name) != 0) continue;
        char line[48] = "";
        if (place->option == NULL) {
            snprintf(line, sizeof line, " (the first time in line %d)", (int)earlier->start_mark.line + 1);
        }
        return lt_config_fail(place, path, "the key occurs twice%s; leave one out", line);
    }
    return LT_OK;
}

static lt_status apply_section(lt_config_reading *reading, const char *prefix, yaml_document_t *document,
                               const yaml_node_t *node, const lt_config_place *place) {
    yaml_node_pair_t *pairs = node->data.mapping.pairs.start;
    for (yaml_node_pair_t *pair = pairs; pair < node->data.mapping.pairs.top; pair++) {
        char path[MAX_PATH_TEXT];
        lt_config_place here = *place;
        if (here.option == NULL) {
            here.line = (int)yaml_document_get_node(document, pair->key)->start_mark.line + 1;
        }
        LT_CHECK(name_of_pair(prefix, document, node, pair, &here, path));
        LT_CHECK(apply_node(reading, path, document, yaml_document_get_node(document, pair->value), &here));
    }
    return LT_OK;
}

/* Tags such as !!python/object would be silently ignored. */
static lt_status refuse_tags(const lt_config_place *origin, yaml_document_t *document) {
    static const char *const defaults[] = {YAML_DEFAULT_SCALAR_TAG, YAML_DEFAULT_SEQUENCE_TAG,
                                           YAML_DEFAULT_MAPPING_TAG};
    for (const yaml_node_t *node = document->nodes.start; node < document->nodes.top; node++) {
        bool plain = false;
        for (int i = 0; i < 3; i++) plain = plain || strcmp((const char *)node->tag, defaults[i]) == 0;
        if (plain) continue;
        lt_config_place place = *origin;
        char clipped[LT_CLIPPED_SIZE];
        if (place.option == NULL) place.line = (int)node->start_mark.line + 1;
        return lt_config_fail(&place, NULL, "found the YAML tag %s; tags are not supported",
                              lt_clip((const char *)node->tag, clipped));
    }
    return LT_OK;
}

lt_status lt_reading_apply_text(lt_config_reading *reading, const char *text, size_t length) {
    yaml_document_t document;
    lt_status status = load_document(&reading->origin, text, length, &document);
    if (status == LT_OK) status = refuse_tags(&reading->origin, &document);
    const yaml_node_t *root = status == LT_OK ? yaml_document_get_root_node(&document) : NULL;
    if (root != NULL && root->type == YAML_MAPPING_NODE) {
        status = apply_section(reading, "", &document, root, &reading->origin);
    } else if (root != NULL) {
        lt_scalar scalar =
            root->type == YAML_SCALAR_NODE ? lt_node_scalar(root) : (lt_scalar){.text = "list"};
        if (!lt_scalar_is_null(&scalar)) {
            status = lt_config_fail(&reading->origin, NULL,
                                    "found a %s, expected sections such as model: and data:",
                                    root->type == YAML_SEQUENCE_NODE ? "list" : "single value");
        }
    }
    yaml_document_delete(&document);
    return status;
}

lt_status lt_reading_apply_override(lt_config_reading *reading, const char *option) {
    char path[MAX_PATH_TEXT];
    lt_config_place place = {.option = option};
    const char *equals = strchr(option, '=');
    if (equals == NULL || equals == option) {
        return lt_config_fail(&place, NULL, "expected KEY.PATH=VALUE, such as train.steps=1000");
    }
    snprintf(path, sizeof path, "%.*s", (int)(equals - option), option);
    yaml_document_t document;
    lt_status status = load_document(&place, equals + 1, strlen(equals + 1), &document);
    if (status == LT_OK) status = refuse_tags(&place, &document);
    if (status == LT_OK) {
        static unsigned char nothing[] = "";
        yaml_node_t empty = {.type = YAML_SCALAR_NODE};
        empty.data.scalar.value = nothing;
        empty.data.scalar.style = YAML_PLAIN_SCALAR_STYLE;
        const yaml_node_t *root = yaml_document_get_root_node(&document);
        status = apply_node(reading, path, &document, root != NULL ? root : &empty, &place);
    }
    yaml_document_delete(&document);
    return status;
}
