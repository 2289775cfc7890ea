#define _GNU_SOURCE

#include "checkpoints/layout_numbers.h"

#include "checkpoints/lookup3.h"

#include <stddef.h>
#include <string.h>

/* No text and no structure of HDF5's looks like this by chance. */
static const int64_t MARK = 0x5be1a7d3c9f08642;

void lt_layout_numbers_mark(lt_layout_numbers *numbers, lt_checkpoint_header *header) {
    numbers->count = 2 + header->sources;
    header->step = MARK;
    header->tokens = MARK + 1;
    for (int i = 0; i < header->sources; i++) header->samples_consumed[i] = MARK + 2 + i;
}

static uint32_t stored_checksum(const lt_layout_object *object) {
    uint32_t sum;
    memcpy(&sum, object->bytes + object->size, sizeof sum);
    return sum;
}

/* The object header that holds `place`: signature, version 2, flags, times, limits, size of what follows. */
static bool find_object(unsigned char *bytes, size_t size, const unsigned char *place,
                        lt_layout_object *object) {
    enum { HAS_TIMES = 0x20, HAS_LIMITS = 0x10, SIZE_BYTES = 0x03, CHECKSUM_BYTES = 4 };
    enum { SHORTEST = 32 };
    for (ptrdiff_t first = place - bytes - SHORTEST; first >= 0; first--) {
        unsigned char *at = bytes + first;
        if (memcmp(at, "OHDR\2", 5) != 0) continue;
        const size_t prefix = 6U + (at[5] & HAS_TIMES ? 16U : 0U) + (at[5] & HAS_LIMITS ? 4U : 0U);
        size_t width = (size_t)1 << (at[5] & SIZE_BYTES), messages = 0;
        memcpy(&messages, at + prefix, width);
        *object = (lt_layout_object){.bytes = at, .size = prefix + width + messages};
        const size_t left = size - (size_t)first;
        if (messages < left && object->size + CHECKSUM_BYTES <= left && place < at + object->size &&
            lt_lookup3(at, object->size) == stored_checksum(object))
            return true;
    }
    return false;
}

lt_status lt_layout_numbers_find(lt_layout_numbers *numbers, unsigned char *bytes, size_t size) {
    for (int i = 0; i < numbers->count; i++) {
        const int64_t mark = MARK + i;
        unsigned char *place = memmem(bytes, size, &mark, sizeof mark);
        if (!place) continue;
        if (numbers->place[i] || !find_object(bytes, size, place, &numbers->object[i]))
            return lt_fail(LT_FAILED, "the HDF5 library lays files out in a way that this program does not "
                                      "know: build it with HDF5 1.10 to 1.14");
        numbers->place[i] = place;
    }
    return LT_OK;
}

lt_status lt_layout_numbers_check(const lt_layout_numbers *numbers) {
    for (int i = 0; i < numbers->count; i++)
        if (!numbers->place[i])
            return lt_fail(
                LT_IO,
                "the HDF5 library could not lay out a checkpoint: number %d is not where it was put "
                "(out of memory, or an HDF5 other than 1.10 to 1.14?)",
                i);
    return LT_OK;
}

void lt_layout_numbers_set(lt_layout_numbers *numbers, const lt_checkpoint_header *header) {
    for (int i = 0; i < numbers->count; i++) {
        const int64_t value = i == 0   ? header->step
                              : i == 1 ? header->tokens
                                       : header->samples_consumed[i - 2];
        memcpy(numbers->place[i], &value, sizeof value);
    }
    for (int i = 0; i < numbers->count; i++) {
        const lt_layout_object *object = &numbers->object[i];
        const uint32_t sum = lt_lookup3(object->bytes, object->size);
        memcpy(object->bytes + object->size, &sum, sizeof sum);
    }
}
