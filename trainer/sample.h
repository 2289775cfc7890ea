/* Choosing the next token from logits. */
#ifndef LT_TRAINER_SAMPLE_H
#define LT_TRAINER_SAMPLE_H

#include <stdint.h>

typedef struct lt_sampler {
    double temperature; /* 0: the largest logit */
    int64_t top_k;      /* 0: all */
    uint64_t state;     /* of the random numbers; starts as the seed */
} lt_sampler;

/* The next token. `order` [vocabulary] is scratch. Ties go to the lower id. */
int32_t lt_sample(lt_sampler *sampler, const float *logits, int64_t vocabulary, int32_t *order);

#endif
