/* The numbers in a checkpoint's structure that differ from save to save: step, tokens, samples consumed. The
 * structure is laid out with a mark in the place of each; the marks are found in its bytes, and each save
 * puts its numbers there and renews the checksums of the object headers around them.
 */
#ifndef LT_CHECKPOINTS_LAYOUT_NUMBERS_H
#define LT_CHECKPOINTS_LAYOUT_NUMBERS_H

#include "checkpoints/checkpoint.h"

enum { LT_LAYOUT_NUMBERS = 2 + LT_CHECKPOINT_MAX_SOURCES };

/* An object header of the file (format specification, IV.A.1.b), its checksum behind its `size` bytes. */
typedef struct lt_layout_object {
    unsigned char *bytes;
    size_t size;
} lt_layout_object;

typedef struct lt_layout_numbers {
    int count;
    unsigned char *place[LT_LAYOUT_NUMBERS]; /* step, tokens, then by source */
    lt_layout_object object[LT_LAYOUT_NUMBERS];
} lt_layout_numbers;

/* Puts marks into a header that is to be laid out. */
void lt_layout_numbers_mark(lt_layout_numbers *numbers, lt_checkpoint_header *header);

/* Finds the marks that lie in these bytes of the structure, which must stay. LT_FAILED where HDF5 put one
 * elsewhere than expected. */
lt_status lt_layout_numbers_find(lt_layout_numbers *numbers, unsigned char *bytes, size_t size);

/* LT_IO unless every mark was found: HDF5 1.10 may lose one, and say that all is well, for want of memory. */
lt_status lt_layout_numbers_check(const lt_layout_numbers *numbers);

/* Puts the numbers of `header` in; it has as many sources as the marked one. */
void lt_layout_numbers_set(lt_layout_numbers *numbers, const lt_checkpoint_header *header);

#endif
