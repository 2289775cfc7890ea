/* How elements are added where they live; who calls comm/ fills it from the device that computes. */
#ifndef LT_COMM_DEVICE_H
#define LT_COMM_DEVICE_H

#include <stdint.h>

typedef struct lt_comm_device {
    void *context;
    /* destination[i] += source[i] */
    void (*add)(void *context, float *destination, const float *source, int64_t count);
} lt_comm_device;

/* The same on host memory; needs no context. */
static inline void lt_add_on_host(void *context, float *restrict destination, const float *restrict source,
                                  int64_t count) {
    (void)context;
    for (int64_t i = 0; i < count; i++) destination[i] += source[i];
}

#endif
