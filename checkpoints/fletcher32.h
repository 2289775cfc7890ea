/* The checksum of HDF5's Fletcher32 filter, as HDF5 stores it behind each chunk: over 16-bit big-endian
 * words, both sums modulo 65535 with 65535 (not 0) standing for a non-zero multiple, the second sum in the
 * upper half. It is stored as four little-endian bytes.
 */
#ifndef LT_CHECKPOINTS_FLETCHER32_H
#define LT_CHECKPOINTS_FLETCHER32_H

#include <stddef.h>
#include <stdint.h>

enum { LT_FLETCHER32_BYTES = 4 };

/* The checksum of `bytes` bytes; an odd last byte counts as a word with a zero behind it. Local. */
uint32_t lt_fletcher32(const void *data, size_t bytes);

/* The same as the four bytes of the file. */
void lt_fletcher32_store(const void *data, size_t bytes, unsigned char stored[LT_FLETCHER32_BYTES]);

#endif
