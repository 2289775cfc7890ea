/* Documents whose text, by its 128-bit hash, came before in the input. Hashes are looked at in buckets of
 * equal first bits, each over all spools; the duplicates of a bucket are a file of .work. Internal to
 * data/prepare. */
#ifndef LT_DATA_PREPARE_DUPLICATES_H
#define LT_DATA_PREPARE_DUPLICATES_H

#include "data/prepare/crew.h"
#include "data/prepare/folder.h"
#include "data/prepare/spool.h"

typedef struct lt_drop {
    uint32_t spool, document;
} lt_drop;

/* Documents to drop: ascending in each bucket's file, which is mapped. {0}: none. */
typedef struct lt_drops {
    int64_t buckets;
    const lt_drop *drops[LT_SPOOL_PREFIXES];
    int64_t count[LT_SPOOL_PREFIXES];
} lt_drops;

typedef struct lt_survey lt_survey;

/* Finds the duplicates among the survey's spools, whose `drops` it fills. Collective. */
lt_status lt_duplicates_find(lt_crew *crew, lt_survey *survey);

/* Takes dropped documents of spool `index` out of their split. Local, thread-safe. */
void lt_drops_mark(const lt_drops *drops, int64_t index, lt_spool *spool);
void lt_drops_close(lt_drops *drops);

#endif
