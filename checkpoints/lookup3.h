/* The checksum of HDF5's structure: Bob Jenkins's lookup3, hashlittle(), with the initial value 0. */
#ifndef LT_CHECKPOINTS_LOOKUP3_H
#define LT_CHECKPOINTS_LOOKUP3_H

#include <stddef.h>
#include <stdint.h>

uint32_t lt_lookup3(const unsigned char *data, size_t bytes);

#endif
