/* How elements are added where they live; who calls comm/ fills it from the device that computes. */
#ifndef LT_COMM_DEVICE_H
#define LT_COMM_DEVICE_H

#include <stdint.h>

typedef struct lt_comm_device {
    void *context;
    /* destination[i] += source[i] */
    void (*add)(void *context, float *destination, const float *source, int64_t count);
} lt_comm_device;

#endif
