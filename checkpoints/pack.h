/* A growing run of bytes, in which the child that walks a file (walk.h) hands its answer to its parent. */
#ifndef LT_CHECKPOINTS_PACK_H
#define LT_CHECKPOINTS_PACK_H

#include <stdbool.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

typedef struct lt_pack {
    unsigned char *bytes;
    size_t used, capacity;
    size_t taken;
    bool failed; /* out of memory while putting, out of bytes while taking; all that follows does nothing */
} lt_pack;

/* Room for `size` more bytes behind the used ones; NULL without memory. */
static inline unsigned char *lt_pack_reserve(lt_pack *pack, size_t size) {
    if (pack->failed) return NULL;
    if (pack->capacity - pack->used < size) {
        size_t capacity = (pack->used + size) * 2;
        unsigned char *bytes = realloc(pack->bytes, capacity);
        if (!bytes) {
            pack->failed = true;
            return NULL;
        }
        pack->bytes = bytes;
        pack->capacity = capacity;
    }
    return pack->bytes + pack->used;
}

static inline void lt_pack_put(lt_pack *pack, const void *data, size_t size) {
    unsigned char *room = lt_pack_reserve(pack, size);
    if (!room || size == 0) return;
    memcpy(room, data, size);
    pack->used += size;
}

static inline void lt_pack_take(lt_pack *pack, void *data, size_t size) {
    if (pack->failed || pack->used - pack->taken < size) {
        pack->failed = true;
        memset(data, 0, size);
        return;
    }
    memcpy(data, pack->bytes + pack->taken, size);
    pack->taken += size;
}

static inline void lt_pack_free(lt_pack *pack) {
    free(pack->bytes);
    *pack = (lt_pack){0};
}

#endif
