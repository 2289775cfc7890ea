/* Where the elements lie that comm/ exchanges and sums, and what adds and carries them there; who calls comm/
 * fills it from the device that computes.
 *
 * MPI carries them in host memory, and in a device's where it knows how to. A device may have a network of
 * its own (NCCL): a queue beside the device's, on which everything here is put, in order, by the main thread,
 * and which returns at once. All ranks put the same on it.
 */
#ifndef LT_COMM_DEVICE_H
#define LT_COMM_DEVICE_H

#include "comm/status.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef enum lt_ranks { LT_DATA_RANKS, LT_TENSOR_RANKS, LT_RANK_KINDS } lt_ranks;

typedef struct lt_comm_device {
    void *context;
    /* destination[i] += source[i], float32, done when it returns unless there is a network. */
    void (*add)(void *context, float *destination, const float *source, int64_t count);
    bool on_main_thread; /* nothing here may be called by any other */

    /* What tensor ranks sum; NULL: float32, by add(). Otherwise elements of `sum_bytes` bytes, the device's
     * compute type: own = (part of rank 0 + part of rank 1) + ..., each of `count` elements, in float32 and
     * rounded once; `mine` is that of `rank`, the first of the others lies in `own`, the rest in `scratch`,
     * in rank order. */
    void (*add_up)(void *context, void *own, const void *mine, const void *scratch, int64_t count, int rank,
                   int ranks);
    size_t sum_bytes;

    /* Memory for sums under way, where the elements lie; NULL: malloc() and free(). An error where there
     * is none. */
    lt_status (*allocate)(void *context, size_t bytes, void **memory);
    void (*release)(void *context, void *memory);

    const struct lt_network *network; /* NULL: MPI carries the elements where they lie */
} lt_comm_device;

typedef struct lt_network {
    /* Messages since the last flush() are one group, under way all at once, and are put by flush(): those
     * that are to wait for each other are in one group on both sides. Partners are numbered in `ranks`. */
    lt_status (*send)(void *context, lt_ranks ranks, int partner, const void *elements, int64_t bytes);
    lt_status (*receive)(void *context, lt_ranks ranks, int partner, void *elements, int64_t bytes);
    lt_status (*flush)(void *context);
    /* The network's own sum, in an order of its choice, over the data ranks: for all of them where `root` is
     * negative, else for that one. */
    lt_status (*sum)(void *context, float *values, int64_t count, int root);
    /* What is put from now on waits for the work that the device has been given so far; the other way round.
     */
    void (*after_device)(void *context);
    void (*before_device)(void *context);
    /* after_device(), from which on finish() counts. */
    void (*start)(void *context);
    /* Waits until all is done, device and network; *busy_ms and *waited_ms: how long that took since start(),
     * and for how much of it the device had nothing else to do. LT_IO: a rank or the network is gone. */
    lt_status (*finish)(void *context, double *busy_ms, double *waited_ms);
} lt_network;

/* add() on host memory; needs no context, and the two lie apart. */
void lt_add_on_host(void *context, float *destination, const float *source, int64_t count);

#endif
