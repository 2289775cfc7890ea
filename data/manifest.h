/* The manifest of a folder of token shards that `lazytrain prepare` made: manifest.json, whose "shards" lists
 * the folder's shards in order. Local. */
#ifndef LT_DATA_MANIFEST_H
#define LT_DATA_MANIFEST_H

#include "comm/status.h"

#include <jansson.h>
#include <limits.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

#define LT_MANIFEST_NAME "manifest.json"
#define LT_MANIFEST_FORMAT "lazytrain prepared folder"
enum { LT_MANIFEST_VERSION = 1 };

/* In such a folder: where half-done work lies, and the validation split, a prepared folder of its own. */
#define LT_PREPARE_WORK ".work"
#define LT_PREPARE_VALIDATION "validation"

typedef struct lt_manifest_shard {
    const char *name, *checksum; /* 32 hexadecimal digits: XXH3-128 of the file */
    int64_t tokens, documents, bytes;
} lt_manifest_shard;

typedef struct lt_manifest {
    json_t *json; /* the whole of it, which holds the strings */
    int64_t count;
    lt_manifest_shard *shards; /* malloc'ed [count] */
} lt_manifest;

/* Whether the folder has such a manifest, whole or damaged. Sets no error message. */
bool lt_manifest_recognise(const char *folder);

/* Whether the folder is one that prepare has begun and not finished. */
bool lt_manifest_unfinished(const char *folder);

/* Reads it and checks that the shards are there, of these sizes, and no others. `key` opens messages.
 * LT_BAD_INPUT: damaged, of a newer version; a shard is missing, wrongly sized or not listed. The caller
 * frees it. */
lt_status lt_manifest_read(const char *folder, const char *key, lt_manifest *manifest);
void lt_manifest_free(lt_manifest *manifest);

/* The whole number under `key`; -1: there is none. */
int64_t lt_manifest_number(const json_t *object, const char *key);

/* `path` = `folder`/`name`; false: too long. */
bool lt_manifest_join(char path[PATH_MAX], const char *folder, const char *name);

/* Prints what a person wants to know of a prepared folder; with `verify` rereads all shards. LT_FAILED: a
 * shard that does not hold what the manifest says. */
lt_status lt_manifest_inspect(const char *folder, bool verify, FILE *out);

#endif
