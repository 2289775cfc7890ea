/* What the files of data.train are, so that a run that goes on trains on the files that it began with, and
 * validation looks at none of them. Names and sizes are compared, not contents: no file is read. Local.
 */
#ifndef LT_DATA_IDENTITY_H
#define LT_DATA_IDENTITY_H

#include "data/dataset.h"

typedef struct lt_data_identity {
    char hash[33]; /* empty: not known */
    int64_t files, bytes;
} lt_data_identity;

/* Of the datasets in their order. The hash is 32 hexadecimal digits of XXH3-128 over, for each dataset, its
 * number of files (int64) and, for each file in its order, the last part of its name with the NUL, its size
 * in bytes (int64) and the token count of a shard's header, -1 for other files (int64): the same wherever the
 * files lie. LT_IO: no memory. */
lt_status lt_data_identify(lt_dataset *const *datasets, int count, lt_data_identity *identity);

/* LT_BAD_INPUT where a file of `held_out`, whatever it is called, is one of `training` too; LT_IO: no memory.
 */
lt_status lt_data_check_apart(const lt_dataset *training, const lt_dataset *held_out);

#endif
