/* Which files a dataset reads: the patterns of the config expanded to one list. Internal to data/.
 *
 * A pattern is a file, a folder (its own files; names that start with a dot are left out; of one that
 * `lazytrain prepare` made, the shards of its manifest) or a glob. All patterns together give one list in
 * natural order of the paths, so that `shard_2.bin` comes before `shard_10.bin` whichever pattern named it. A
 * file that is named twice, also through a symbolic link, is listed once, with a warning.
 */
#ifndef LT_DATA_SOURCE_H
#define LT_DATA_SOURCE_H

#include "comm/status.h"

#include <stdint.h>

typedef struct lt_source {
    int64_t count;
    char **path; /* [count], as the pattern spells it */
} lt_source;

/* Expands `patterns`; `key` is the config key in messages. LT_BAD_INPUT names key and pattern or file:
 * nothing matches, not a regular file, dangling or looping link, unreadable folder. The caller frees with
 * lt_source_destroy(), also after an error. Local. */
lt_status lt_source_expand(const char *const *patterns, int pattern_count, const char *key,
                           lt_source *source);

/* The list of one file: `path` is taken literally. */
lt_status lt_source_single(const char *path, const char *key, lt_source *source);

void lt_source_destroy(lt_source *source);

/* Order of two paths, less than, equal to or greater than 0: runs of digits by their value, everything else
 * by its byte, '/' before any other; a total order, independent of the locale. */
int lt_natural_compare(const char *left, const char *right);

#endif
