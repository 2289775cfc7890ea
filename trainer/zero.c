#include "trainer/zero.h"

#include "checkpoints/chunks.h"

#include <stdlib.h>
#include <string.h>

enum { MOMENTS = LT_TENSOR_KINDS - 1 };

struct lt_zero {
    int shares;
    int64_t *cuts;         /* [shares + 1] */
    int *ranks;            /* [shares]: who has it */
    int64_t *tail_ends;    /* [shares]: the tail of share i is elements [cuts[i + 1], tail_ends[i]) */
    float *tails[MOMENTS]; /* of this rank */
    float *parcel;         /* of what this rank gives to another's tail */
    int64_t parcel_count;
};

static int64_t least(int64_t a, int64_t b) {
    return a < b ? a : b;
}

static int64_t most(int64_t a, int64_t b) {
    return a > b ? a : b;
}

/* The last share that begins at or before an element: that one has it, as those of the same cut before are
 * empty. */
static int share_of(const lt_zero *zero, int64_t element) {
    int low = 0, high = zero->shares;
    while (high - low > 1) {
        const int middle = (low + high) / 2;
        if (zero->cuts[middle] <= element)
            low = middle;
        else
            high = middle;
    }
    return low;
}

static const lt_parameter *parameter_at(const lt_registry *registry, int64_t element) {
    const lt_parameter *p = registry->parameters;
    while (element >= p->offset + p->count) p++;
    return p;
}

/* Where the last chunk ends that begins in a share. */
static int64_t end_of_tail(const lt_zero *zero, const lt_registry *registry, int share) {
    const int64_t first = zero->cuts[share], end = zero->cuts[share + 1];
    if (first == end || end == registry->elements) return end;
    const lt_parameter *p = parameter_at(registry, end);
    const lt_chunking cut = lt_chunking_of(p);
    const int64_t elements = cut.chunk_rows * cut.row_elements;
    const int64_t begin = p->offset + (end - p->offset) / elements * elements;
    return begin >= first && begin < end ? least(begin + elements, p->offset + p->count) : end;
}

/* The part of the tail of share `to` that share `from` has. */
static int64_t parcel(const lt_zero *zero, int from, int to, int64_t *first) {
    *first = most(zero->cuts[from], zero->cuts[to + 1]);
    return most(0, least(zero->cuts[from + 1], zero->tail_ends[to]) - *first);
}

static lt_status fill(lt_zero *zero, const lt_run *run) {
    const lt_registry *registry = lt_model_registry(run->model);
    const int own = run->model_options.share;
    lt_grid other = run->grid;
    for (int share = 0; share <= zero->shares; share++)
        zero->cuts[share] = lt_registry_cut(registry, share, zero->shares);
    for (int share = 0; share < zero->shares; share++)
        zero->tail_ends[share] = end_of_tail(zero, registry, share);
    for (int rank = 0; rank < zero->shares; rank++) {
        other.data_rank = rank;
        zero->ranks[lt_reduce_share(&other)] = rank;
    }
    for (int to = 0; to < own; to++) {
        int64_t first;
        zero->parcel_count = most(zero->parcel_count, parcel(zero, own, to, &first));
    }
    const int64_t tail = zero->tail_ends[own] - zero->cuts[own + 1];
    zero->parcel = malloc(sizeof(float) * (size_t)(zero->parcel_count + 1));
    bool enough = zero->parcel != NULL;
    for (int i = 0; i < MOMENTS; i++) {
        zero->tails[i] = malloc(sizeof(float) * (size_t)(tail + 1));
        enough = enough && zero->tails[i] != NULL;
    }
    return enough ? LT_OK : lt_fail(LT_IO, "no memory for the ends of %lld moments", (long long)tail);
}

lt_status lt_zero_create(lt_run *run) {
    const size_t shares = (size_t)run->grid.data_ranks;
    if (run->config.parallel.zero == 0 || shares == 1) return LT_OK;
    lt_zero *zero = run->zero = calloc(1, sizeof *zero);
    if (zero == NULL) return lt_fail(LT_IO, "no memory for the shares of the optimiser");
    zero->shares = run->grid.data_ranks;
    zero->cuts = calloc(shares + 1, sizeof *zero->cuts);
    zero->ranks = calloc(shares, sizeof *zero->ranks);
    zero->tail_ends = calloc(shares, sizeof *zero->tail_ends);
    if (zero->cuts == NULL || zero->ranks == NULL || zero->tail_ends == NULL)
        return lt_fail(LT_IO, "no memory for the shares of %d ranks", zero->shares);
    return fill(zero, run);
}

void lt_zero_free(lt_run *run) {
    lt_zero *zero = run->zero;
    if (zero == NULL) return;
    for (int i = 0; i < MOMENTS; i++) free(zero->tails[i]);
    free(zero->parcel);
    free(zero->tail_ends);
    free(zero->ranks);
    free(zero->cuts);
    free(zero);
}

size_t lt_zero_bytes(const lt_run *run) {
    const lt_zero *zero = run->zero;
    if (zero == NULL) return 0;
    const int own = run->model_options.share;
    return sizeof(float) *
           (size_t)(MOMENTS * (zero->tail_ends[own] - zero->cuts[own + 1]) + zero->parcel_count);
}

const int64_t *lt_zero_cuts(const lt_run *run) {
    return run->zero->cuts;
}

/* One parcel of one moment, on its way. */
static lt_status send_parcel(lt_run *run, int moment, int from, int to) {
    lt_zero *zero = run->zero;
    int64_t first;
    const int64_t count = parcel(zero, from, to, &first);
    if (count == 0) return LT_OK;
    const int own = run->model_options.share;
    float *values = own == to ? zero->tails[moment] + (first - zero->cuts[to + 1]) : zero->parcel;
    lt_status status = LT_OK;
    if (own == from) {
        const lt_parameter *p = parameter_at(lt_model_registry(run->model), first);
        const lt_array array = lt_array_of((lt_tensor_kind)(moment + 1));
        status = lt_model_get(run->model, array, p, first - p->offset, count, values);
    }
    LT_CHECK(lt_data_copy(&run->grid, zero->ranks[from], zero->ranks[to], values, count));
    return status;
}

lt_status lt_zero_gather_tails(lt_run *run) {
    lt_status status = LT_OK;
    if (run->zero == NULL) return LT_OK;
    for (int moment = 0; moment < MOMENTS; moment++)
        for (int to = 0; to < run->zero->shares; to++)
            for (int from = to + 1; from < run->zero->shares; from++) {
                const lt_status now = send_parcel(run, moment, from, to);
                if (status == LT_OK) status = now;
            }
    return lt_run_share(run, status);
}

void lt_zero_get_tail(const lt_run *run, lt_tensor_kind kind, const lt_parameter *parameter, int64_t first,
                      int64_t count, float *values) {
    const lt_zero *zero = run->zero;
    const int own = run->model_options.share;
    const int64_t tail = zero->cuts[own + 1], from = parameter->offset + first;
    const int64_t begin = most(tail, from), end = least(zero->tail_ends[own], from + count);
    if (kind == LT_TENSOR_PARAMETER || begin >= end) return;
    memcpy(values + (begin - from), zero->tails[kind - 1] + (begin - tail),
           sizeof(float) * (size_t)(end - begin));
}

int lt_zero_writer(void *context, const lt_parameter *parameter, int64_t first) {
    const lt_zero *zero = ((const lt_run *)context)->zero;
    return zero->ranks[share_of(zero, parameter->offset + first)];
}

bool lt_zero_needs(void *context, lt_tensor_kind kind, const lt_parameter *parameter, int64_t first,
                   int64_t count) {
    const lt_run *run = context;
    const int own = run->model_options.share;
    const int64_t from = parameter->offset + first;
    return kind == LT_TENSOR_PARAMETER ||
           (from < run->zero->cuts[own + 1] && from + count > run->zero->cuts[own]);
}
