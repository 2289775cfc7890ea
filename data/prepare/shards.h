/* Shards cut out of the kept documents of a split, one after another, at every shard_tokens tokens; documents
 * go on over the border. Internal to data/prepare. */
#ifndef LT_DATA_PREPARE_SHARDS_H
#define LT_DATA_PREPARE_SHARDS_H

#include "data/prepare/survey.h"

enum { LT_SHARD_NAME_BYTES = 64 };

/* "train", "validation" */
extern const char *const lt_split_names[LT_SPLITS];

int64_t lt_shards_count(const lt_survey *survey, int split);

/* "shard_000012.bin", and of .work the manifest's entry of it: "train_000012.json". */
void lt_shards_name(int64_t number, char name[LT_SHARD_NAME_BYTES]);
void lt_shards_entry_name(int split, int64_t number, char name[LT_SHARD_NAME_BYTES]);

/* Writes the shards that are not there. Collective. */
lt_status lt_shards_write(lt_crew *crew, const lt_survey *survey);

#endif
