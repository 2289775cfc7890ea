/* What the transport sends (comm/transport.c is the one that calls MPI_Isend in training), for LD_PRELOAD:
 * at the end each rank writes "MESSAGES BYTES" to the file sent.RANK. */
#include <mpi.h>
#include <stdatomic.h>
#include <stdio.h>

static atomic_llong messages, bytes;

int MPI_Isend(const void *data, int count, MPI_Datatype type, int to, int tag, MPI_Comm ranks,
              MPI_Request *request) {
    int size;
    MPI_Type_size(type, &size);
    atomic_fetch_add(&messages, 1);
    atomic_fetch_add(&bytes, (long long)count * size);
    return PMPI_Isend(data, count, type, to, tag, ranks, request);
}

int MPI_Finalize(void) {
    int rank;
    char name[32];
    MPI_Comm_rank(MPI_COMM_WORLD, &rank);
    snprintf(name, sizeof name, "sent.%d", rank);
    FILE *file = fopen(name, "w");
    if (file != NULL) {
        fprintf(file, "%lld %lld\n", (long long)messages, (long long)bytes);
        fclose(file);
    }
    return PMPI_Finalize();
}
