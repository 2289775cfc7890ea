#include "comm/transport.h"

static lt_status post(const lt_transport *transport, lt_transfer *x) {
    const int piece = lt_mpi_piece(x->left);
    unsigned char *bytes = x->at;
    x->at += piece;
    x->left -= piece;
    if (x->sends)
        LT_MPI(MPI_Isend, bytes, piece, MPI_BYTE, x->partner, x->tag, transport->ranks, &x->request);
    else
        LT_MPI(MPI_Irecv, bytes, piece, MPI_BYTE, x->partner, x->tag, transport->ranks, &x->request);
    return LT_OK;
}

/* MPI_Testsome and not MPI_Test for each: every call makes the library look at the whole network. */
static lt_status look(const lt_transport *transport, lt_transfer *const *transfers, int count) {
    MPI_Request requests[LT_TRANSFERS_AT_ONCE];
    MPI_Status statuses[LT_TRANSFERS_AT_ONCE];
    int done, indices[LT_TRANSFERS_AT_ONCE];
    for (int i = 0; i < count; i++) requests[i] = transfers[i]->request;
    int code = MPI_Testsome(count, requests, &done, indices, statuses);
    for (int i = 0; code == MPI_ERR_IN_STATUS && i < done; i++)
        if (statuses[i].MPI_ERROR != MPI_SUCCESS) code = statuses[i].MPI_ERROR;
    LT_CHECK(lt_mpi_status(code, "MPI_Testsome"));
    for (int i = 0; i < count; i++) {
        transfers[i]->request = requests[i];
        if (requests[i] == MPI_REQUEST_NULL && transfers[i]->left > 0)
            LT_CHECK(post(transport, transfers[i]));
    }
    return LT_OK;
}

static lt_status wait_for(const lt_transport *transport, lt_transfer *x) {
    (void)transport;
    LT_MPI(MPI_Wait, &x->request, MPI_STATUS_IGNORE);
    return LT_OK;
}

static lt_status sum(const lt_transport *transport, float *values, int64_t count, int root, lt_transfer *x) {
    int rank;
    *x = (lt_transfer){.partner = root};
    if (root < 0) {
        LT_MPI(MPI_Iallreduce, MPI_IN_PLACE, values, (int)count, MPI_FLOAT, MPI_SUM, transport->ranks,
               &x->request);
        return LT_OK;
    }
    LT_MPI(MPI_Comm_rank, transport->ranks, &rank);
    LT_MPI(MPI_Ireduce, rank == root ? MPI_IN_PLACE : values, values, (int)count, MPI_FLOAT, MPI_SUM, root,
           transport->ranks, &x->request);
    return LT_OK;
}

lt_transport lt_transport_host(MPI_Comm ranks) {
    return (lt_transport){.post = post, .look = look, .wait = wait_for, .sum = sum, .ranks = ranks};
}

/* ---- a device's network ---- */

static lt_status put(const lt_transport *transport, lt_transfer *x) {
    const lt_comm_device *device = transport->device;
    const int64_t bytes = x->left;
    x->left = 0;
    x->in_group = true;
    return (x->sends ? device->network->send(device->context, transport->kind, x->partner, x->at, bytes)
                     : device->network->receive(device->context, transport->kind, x->partner, x->at, bytes));
}

static lt_status flush(const lt_transport *transport, lt_transfer *const *transfers, int count) {
    LT_CHECK(transport->device->network->flush(transport->device->context));
    for (int i = 0; i < count; i++) transfers[i]->in_group = false;
    return LT_OK;
}

static lt_status flush_one(const lt_transport *transport, lt_transfer *x) {
    return flush(transport, &x, 1);
}

static lt_status put_sum(const lt_transport *transport, float *values, int64_t count, int root,
                         lt_transfer *x) {
    *x = (lt_transfer){.partner = root, .request = MPI_REQUEST_NULL};
    return transport->device->network->sum(transport->device->context, values, count, root);
}

lt_transport lt_transport_of(const lt_comm_device *device, lt_ranks kind, MPI_Comm ranks) {
    if (device == NULL || device->network == NULL) return lt_transport_host(ranks);
    return (lt_transport){
        .post = put, .look = flush, .wait = flush_one, .sum = put_sum, .device = device, .kind = kind};
}

/* ---- of either ---- */

lt_status lt_transfers_post(const lt_transport *transport, lt_transfer *transfers, int count) {
    for (bool left = true; left;) {
        left = false;
        for (int i = 0; i < count; i++) {
            if (transfers[i].left == 0) continue;
            LT_CHECK(transport->wait(transport, &transfers[i]));
            LT_CHECK(transport->post(transport, &transfers[i]));
            left = true;
        }
    }
    return LT_OK;
}

/* One by one: MPI_Waitall would say no more than that an error is in some status. */
lt_status lt_transfers_wait(const lt_transport *transport, lt_transfer *transfers, int count) {
    LT_CHECK(lt_transfers_post(transport, transfers, count));
    for (int i = 0; i < count; i++) LT_CHECK(transport->wait(transport, &transfers[i]));
    return LT_OK;
}

static lt_status begin(const lt_transport *transport, lt_transfer *transfer) {
    transfer->request = MPI_REQUEST_NULL;
    return transfer->left > 0 ? transport->post(transport, transfer) : LT_OK;
}

lt_status lt_send(const lt_transport *transport, int partner, int tag, const void *elements, int64_t bytes,
                  lt_transfer *transfer) {
    union {
        const void *in;
        unsigned char *at;
    } place = {.in = elements}; /* only read */
    *transfer = (lt_transfer){.sends = true, .partner = partner, .tag = tag, .at = place.at, .left = bytes};
    return begin(transport, transfer);
}

lt_status lt_receive(const lt_transport *transport, int partner, int tag, void *elements, int64_t bytes,
                     lt_transfer *transfer) {
    *transfer = (lt_transfer){.partner = partner, .tag = tag, .at = elements, .left = bytes};
    return begin(transport, transfer);
}
