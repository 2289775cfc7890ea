/* The manifests of what was prepared. Internal to data/prepare. */
#ifndef LT_DATA_PREPARE_RESULT_H
#define LT_DATA_PREPARE_RESULT_H

#include "data/prepare/shards.h"

/* Writes both manifests, the validation split's first, and puts that split into its place. Rank 0 alone. */
lt_status lt_result_write(const lt_survey *survey);

/* Says what was made, and warns where nothing was. */
void lt_result_report(const lt_survey *survey);

#endif
