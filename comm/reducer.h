/* Reduction of gradients over data ranks while the backward pass still computes others.
 *
 * The flat gradients become final from the end towards the beginning. Once a bucket of them is there, a
 * thread of the reducer's own sums it over the data ranks with messages of its own: `tree` along the lane
 * tree of comm/reduce.h, so that every element has the bits that one rank would give it, whatever the
 * buckets; `fast` by the MPI library's own sum, in whatever order that chooses. Where the library does not
 * let a second thread call it (below MPI_THREAD_MULTIPLE) all happens in lt_reducer_end().
 *
 * The thread sleeps between looks at the network, so that it takes little from the threads that compute.
 * With one data rank there is no thread, and all calls do nothing. Nor is there one where the device's
 * functions are for the main thread (comm/device.h): with a network of its own all messages and sums are
 * queued on that as their elements become final, and without all happens in lt_reducer_end().
 */
#ifndef LT_COMM_REDUCER_H
#define LT_COMM_REDUCER_H

#include "comm/device.h"
#include "comm/grid.h"

typedef enum lt_reduction { LT_REDUCTION_TREE, LT_REDUCTION_FAST } lt_reduction;

typedef struct lt_reducer_options {
    lt_reduction reduction;
    int64_t count;       /* elements of the flat gradients */
    const int64_t *cuts; /* NULL: every rank gets all sums. Else [data_ranks + 1], shares that rise from 0 to
                            `count` and may be empty: a rank gets those of share lt_reduce_share() alone, and
                            is left with anything outside it */
    lt_comm_device
        device;     /* its add() is called on the reducer's thread; NULL: a plain loop, on host memory */
    int64_t bucket; /* elements; 0: as measured */
} lt_reducer_options;

typedef struct lt_reducer lt_reducer;

/* Where the time of one reduction went. */
typedef struct lt_reducer_times {
    double waited_ms; /* in lt_reducer_end() */
    double busy_ms;   /* with some bucket under way */
} lt_reducer_times;

/* Memory that a reducer takes, most of it where the gradients lie. Of options->cuts only whether they are
 * there matters. Local. */
size_t lt_reducer_bytes(const lt_grid *grid, const lt_reducer_options *options);

/* `grid` must outlive the reducer; `cuts` are copied. LT_BAD_INPUT unless the number of data ranks is a power
 * of two; after any error *reducer is NULL or may be closed, the device still open. Collective. */
lt_status lt_reducer_open(const lt_grid *grid, const lt_reducer_options *options, lt_reducer **reducer);

/* Elements [first, first + count) of the flat `gradients` are final: their sums may take their place from now
 * on. The first run of a reduction ends at the end of the array, each further one where the one before began;
 * the runs, of any length, are the same on all ranks. Returns at once. Collective, main thread. */
lt_status lt_reducer_begin(lt_reducer *reducer, float *gradients, int64_t first, int64_t count);

/* Waits until all sums are there; the runs have reached element 0. `times` may be NULL. LT_IO if MPI failed
 * since the reduction began: then the grid is good for lt_grid_abort() only. Collective, main thread. */
lt_status lt_reducer_end(lt_reducer *reducer, lt_reducer_times *times);

/* Ends the thread. Collective, but for after an error, where it is local. NULL is nothing. */
void lt_reducer_close(lt_reducer *reducer);

#endif
