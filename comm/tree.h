/* Inside comm/ only: the upper part of the lane tree (comm/reduce.h), for one range of elements, as something
 * that is moved on while other work goes on.
 *
 * The range is cut into a share a rank. On the way up ranks exchange in pairs at distance 1, 2, 4, ... and
 * halve what each keeps, so that a rank ends with the sum of its own share; on the way back down the same
 * pairs exchange the other way round and every rank gets all sums, or the owner of one share alone does.
 */
#ifndef LT_COMM_TREE_H
#define LT_COMM_TREE_H

#include "comm/device.h"
#include "comm/transport.h"

enum { LT_TREE_ALL = -1 };

typedef struct lt_tree {
    /* filled by who begins */
    const lt_transport *transport;
    const lt_comm_device *device;
    int rank, ranks, tag;
    float *values;        /* flat; */
    int64_t first, count; /* this range of it is dealt evenly; */
    const int64_t *cuts;  /* unless shares are given, [ranks + 1] */
    float *scratch;       /* lt_tree_scratch() floats for lt_tree_sum() */
    int owner;            /* a share, or LT_TREE_ALL */
    /* where it stands */
    bool gathers, done;
    int distance;
    lt_transfer under_way[2];
} lt_tree;

/* LT_BAD_INPUT unless the number of data ranks is a power of two. Local. */
lt_status lt_tree_check(const lt_grid *grid);

/* The share of a rank, and the rank of a share. Local. */
int lt_tree_share(int rank, int ranks);

/* Floats of scratch that summing `count` elements takes, for all ranks or for one owner. Local. */
int64_t lt_tree_scratch(int64_t count, int ranks, bool to_owner);

/* Begins to sum the range over all ranks, and to bring the sums to every rank or to the owner; or to bring
 * every rank the shares that the others have. Collective; returns at once. */
lt_status lt_tree_sum(lt_tree *tree);
lt_status lt_tree_gather(lt_tree *tree);

/* Goes on where both transfers under way are seen to be done: sets *moved then, and tree->done at the end. */
lt_status lt_tree_advance(lt_tree *tree, bool *moved);

#endif
