/* Operations over flat arrays on the CPU, cut into pieces of a fixed size (kernels/flat.c does a piece). */
#include "model/cpu/device.h"

#include <string.h>

enum { PIECE = LT_FLAT_PIECE };

typedef struct flat_job {
    cpu_device *device;
    int64_t count;
    float *a, *m, *v;
    const float *b;
    double *sums;
    const lt_flat_piece *pieces;
    const lt_adamw *groups;
    int64_t length;
    const double *values;
} flat_job;

static int64_t piece_size(const flat_job *job, int64_t index) {
    const int64_t rest = job->count - index * PIECE;
    return rest < PIECE ? rest : PIECE;
}

static void run_pieces(lt_device *device, flat_job *job, lt_task task) {
    job->device = cpu_of(device);
    lt_pool_run(job->device->pool, lt_flat_pieces(job->count), task, job);
}

/* Copying and zeroing go by bytes, whatever the type. */
enum { PIECE_BYTES = PIECE * 4 };

typedef struct byte_job {
    unsigned char *to;
    const unsigned char *from; /* NULL: zeros */
    size_t bytes;
} byte_job;

static void move_piece(void *context, int64_t index, int worker) {
    (void)worker;
    const byte_job *job = context;
    const size_t at = (size_t)index * PIECE_BYTES;
    const size_t bytes = job->bytes - at < PIECE_BYTES ? job->bytes - at : PIECE_BYTES;
    if (job->from == NULL)
        memset(job->to + at, 0, bytes);
    else
        memcpy(job->to + at, job->from + at, bytes);
}

static void run_bytes(lt_device *device, byte_job *job) {
    const int64_t pieces = (int64_t)((job->bytes + PIECE_BYTES - 1) / PIECE_BYTES);
    lt_pool_run(cpu_of(device)->pool, pieces, move_piece, job);
}

void lt_cpu_copy(lt_device *device, lt_mem to, lt_mem from, int64_t count) {
    run_bytes(device, &(byte_job){to.address, from.address, (size_t)count * lt_type_bytes(to.type)});
}

void lt_cpu_zero(lt_device *device, lt_mem mem, int64_t count) {
    run_bytes(device, &(byte_job){.to = mem.address, .bytes = (size_t)count * lt_type_bytes(mem.type)});
}

static void add_piece(void *context, int64_t index, int worker) {
    (void)worker;
    const flat_job *job = context;
    job->device->kernels->add(job->a + index * PIECE, job->b + index * PIECE, piece_size(job, index));
}

void lt_cpu_add(lt_device *device, lt_mem to, lt_mem from, int64_t count) {
    run_pieces(device, &(flat_job){.count = count, .a = floats_of(to), .b = floats_of(from)}, add_piece);
}

static void sum_segment(void *context, int64_t index, int worker) {
    (void)worker;
    const flat_job *job = context;
    double sum = 0;
    for (int64_t i = 0; i < job->length; i++) sum += job->values[index * job->length + i];
    job->sums[index] = sum;
}

void lt_cpu_sum_segments(lt_device *device, lt_mem values, int64_t segments, int64_t length, lt_mem sums) {
    flat_job job = {.values = doubles_of(values), .length = length, .sums = doubles_of(sums)};
    lt_pool_run(cpu_of(device)->pool, segments, sum_segment, &job);
}

static void square_piece(void *context, int64_t index, int worker) {
    (void)worker;
    const flat_job *job = context;
    const lt_flat_piece piece = job->pieces[index];
    job->sums[index] = job->device->kernels->sum_squares(job->b + piece.first, piece.count);
}

static const lt_flat_piece *pieces_of(lt_mem pieces) {
    return (const lt_flat_piece *)(const void *)pieces.address;
}

void lt_cpu_sum_squares(lt_device *device, lt_mem values, lt_mem pieces, int64_t count, lt_mem sums) {
    cpu_device *cpu = cpu_of(device);
    flat_job job = {
        .device = cpu, .b = floats_of(values), .pieces = pieces_of(pieces), .sums = doubles_of(sums)};
    lt_pool_run(cpu->pool, count, square_piece, &job);
}

static void update_piece(void *context, int64_t index, int worker) {
    (void)worker;
    const flat_job *job = context;
    const lt_flat_piece piece = job->pieces[index];
    const lt_adamw *options = &job->groups[piece.group];
    if (options->frozen) return;
    job->device->kernels->adamw(job->a + piece.first, job->b + piece.first, job->m + piece.first,
                                job->v + piece.first, piece.count, options);
}

void lt_cpu_adamw(lt_device *device, lt_mem weights, lt_mem gradients, lt_mem m, lt_mem v, lt_mem pieces,
                  int64_t count, const lt_adamw groups[LT_ADAMW_GROUPS]) {
    cpu_device *cpu = cpu_of(device);
    flat_job job = {.device = cpu,
                    .a = floats_of(weights),
                    .b = floats_of(gradients),
                    .m = floats_of(m),
                    .v = floats_of(v),
                    .pieces = pieces_of(pieces),
                    .groups = groups};
    lt_pool_run(cpu->pool, count, update_piece, &job);
}
