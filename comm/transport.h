/* Inside comm/ only: what carries elements from rank to rank. Every algorithm (tree, gathering, exchanges of
 * tensor ranks, buckets of gradients) is written once on this table; what differs between a network and
 * another, or host and device memory, is behind it.
 *
 * A transfer is one message that is posted and later found to be done. Several may be under way, also between
 * the same two ranks: those of one tag arrive in the order in which they are posted, so transfers whose order
 * two ranks do not share have tags of their own.
 *
 * There are two: MPI on host memory, and a device's own network, where "done" means that what is queued later
 * finds the transfer done. There what is posted up to a wait() or look() is one group (comm/device.h), and
 * tags, which it has none of, must not be needed: all ranks post in the same order.
 */
#ifndef LT_COMM_TRANSPORT_H
#define LT_COMM_TRANSPORT_H

#include "comm/device.h"
#include "comm/grid_mpi.h"

typedef struct lt_transfer {
    bool sends;
    int partner, tag;
    unsigned char *at; /* where the rest begins */
    int64_t left;      /* bytes not posted yet: a message longer than MPI's limit goes in pieces */
    bool in_group;     /* of a network: posted, and the group not yet put on the queue */
    MPI_Request request;
} lt_transfer;

enum { LT_TRANSFERS_AT_ONCE = 64 };

typedef struct lt_transport lt_transport;

struct lt_transport {
    /* Posts the next piece of a transfer. The elements stay where they are, and sent ones unchanged, until it
     * is done. */
    lt_status (*post)(const lt_transport *transport, lt_transfer *transfer);
    /* One look at up to LT_TRANSFERS_AT_ONCE transfers, done ones among them; posts the next piece of those
     * that have one. Returns at once. */
    lt_status (*look)(const lt_transport *transport, lt_transfer *const *transfers, int count);
    /* Returns when the piece under way is done. */
    lt_status (*wait)(const lt_transport *transport, lt_transfer *transfer);
    /* Begins the library's own sum, in an order of its choice, of values that are no more than one message
     * holds: on all ranks where `root` is negative, else on that one. Collective, in one order. */
    lt_status (*sum)(const lt_transport *transport, float *values, int64_t count, int root,
                     lt_transfer *transfer);
    /* Partners are numbered in */
    MPI_Comm ranks; /* of MPI; or in */
    const lt_comm_device *device;
    lt_ranks kind; /* of its network */
};

/* MPI on host memory. Local. */
lt_transport lt_transport_host(MPI_Comm ranks);

/* The device's network, where it has one, else MPI on host memory; `device` may be NULL, and outlives the
 * transport. Local. */
lt_transport lt_transport_of(const lt_comm_device *device, lt_ranks kind, MPI_Comm ranks);

/* Whether a transfer is done, as far as was seen. Local. */
static inline bool lt_transfer_done(const lt_transfer *transfer) {
    return transfer->request == MPI_REQUEST_NULL && transfer->left == 0 && !transfer->in_group;
}

/* Posts what is left of all of the transfers, which takes waiting where a message goes in pieces: those on
 * both sides are posted one after another, so everybody who exchanges must call it before waiting for one
 * transfer alone. */
lt_status lt_transfers_post(const lt_transport *transport, lt_transfer *transfers, int count);

/* Returns when all are done. */
lt_status lt_transfers_wait(const lt_transport *transport, lt_transfer *transfers, int count);

/* Posts a message of `bytes` bytes to / from a partner; none where `bytes` is 0, and the transfer is done. */
lt_status lt_send(const lt_transport *transport, int partner, int tag, const void *elements, int64_t bytes,
                  lt_transfer *transfer);
lt_status lt_receive(const lt_transport *transport, int partner, int tag, void *elements, int64_t bytes,
                     lt_transfer *transfer);

#endif
