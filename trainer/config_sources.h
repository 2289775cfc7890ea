/* data.train and data.validation: the shapes that a YAML value of them may have. Used by config_yaml.c alone.
 */
#ifndef LT_TRAINER_CONFIG_SOURCES_H
#define LT_TRAINER_CONFIG_SOURCES_H

#include "trainer/config_value.h"

#include <yaml.h>

/* The scalar of a node; only for scalar nodes. */
lt_scalar lt_node_scalar(const yaml_node_t *node);

/* Replaces the value of `key` by what `node` says: a path, a list of paths or {path, weight}, or (validation)
 * a map of names to paths or lists. `place` names the key's line; items of a list name their own. */
lt_status lt_sources_set(const lt_config_key *key, yaml_document_t *document, const yaml_node_t *node,
                         const lt_config_place *place, lt_config *config);

#endif
