/* Inside the model: one allocation cut into aligned pieces. With `base` NULL the same code only counts, so a
 * plan and what is allocated cannot differ. */
#ifndef LT_MODEL_ARENA_H
#define LT_MODEL_ARENA_H

#include "model/ops.h"

enum { LT_ARENA_ALIGN = 256 };

typedef struct lt_arena {
    unsigned char *base; /* on the device; NULL: only count */
    size_t used;
} lt_arena;

static inline lt_mem lt_arena_take(lt_arena *arena, lt_type type, int64_t elements) {
    lt_mem mem = {arena->base == NULL ? NULL : arena->base + arena->used, type};
    const size_t bytes = (size_t)elements * lt_type_bytes(type);
    arena->used += (bytes + LT_ARENA_ALIGN - 1) / LT_ARENA_ALIGN * LT_ARENA_ALIGN;
    return mem;
}

#endif
