#include "trainer/tensors.h"

#include "checkpoints/chunks.h"
#include "model/split.h"
#include "trainer/zero.h"

#include <stdlib.h>
#include <string.h>

/* Elements that travel at a time: about a chunk. */
enum { AT_ONCE = 1 << 18 };

/* What this rank holds of a whole parameter. */
static const lt_parameter *held_of(const lt_run *run, const lt_parameter *whole) {
    return &lt_model_registry(run->model)->parameters[whole - run->registry.parameters];
}

static int own_part(const lt_run *run, const lt_parameter *held) {
    return lt_split_part(held, run->grid.tensor_rank, run->grid.tensor_ranks);
}

/* Whether a run of a part lies in the piece as one run too. */
static bool in_one_run(const lt_split_piece *piece) {
    return piece->held->split != LT_SPLIT_COLUMNS || piece->held->parts == 1;
}

/* Where it then begins in the piece. */
static int64_t place_of(const lt_split_piece *piece, lt_span run) {
    return piece->part * piece->held->count + run.first - piece->first;
}

/* ---- saving ---- */

/* Brings elements [first, end) of what the ranks of `part` hold to `values` on the writer. `values` on other
 * ranks is memory to send from. */
static lt_status bring(const lt_run *run, lt_tensor_kind kind, const lt_split_piece *piece, lt_span elements,
                       int writer, float *values) {
    const lt_grid *grid = &run->grid;
    const lt_parameter *held = piece->held;
    const int width = grid->tensor_ranks;
    const bool writer_holds = lt_split_part(held, writer % width, width) == piece->part;
    const int tensor_rank = writer_holds ? writer % width : lt_split_holder(held, piece->part, width);
    lt_status status = LT_OK;
    for (int64_t first = elements.first, end; first < elements.end; first = end) {
        int data_rank = writer / width;
        end = elements.end;
        if (run->zero != NULL && kind != LT_TENSOR_PARAMETER) {
            data_rank = lt_zero_holder(run, held->offset + first, &end);
            end = end - held->offset < elements.end ? end - held->offset : elements.end;
        }
        const int holder = data_rank * width + tensor_rank;
        float *place = values + (first - elements.first);
        if (holder == grid->rank) {
            const lt_status got =
                lt_model_get(run->model, lt_array_of(kind), held, first, end - first, place);
            if (status == LT_OK) status = got; /* what is sent then is nothing, and the save is given up */
        }
        LT_CHECK(lt_grid_copy(grid, holder, writer, place, end - first));
    }
    return status;
}

/* What one part has of the piece. */
static lt_status bring_part(const lt_run *run, lt_tensor_kind kind, const lt_split_piece *piece, int writer,
                            float *values) {
    const lt_span elements = lt_split_run(piece);
    if (elements.first >= elements.end) return LT_OK;
    const bool writes = run->grid.rank == writer, straight = in_one_run(piece);
    float *place = writes && straight ? values + place_of(piece, elements) : run->tensor_memory;
    const lt_status status = bring(run, kind, piece, elements, writer, place);
    if (writes && !straight) lt_split_lay(piece, place, values);
    return status;
}

static lt_status get_tensor(void *context, lt_tensor_kind kind, const lt_parameter *parameter, int64_t first,
                            int64_t count, int writer, float *values) {
    const lt_run *run = context;
    lt_split_piece piece = {.whole = parameter, .held = held_of(run, parameter)};
    lt_status status = LT_OK;
    for (int64_t done = 0; done < count; done += piece.count) {
        piece.first = first + done;
        piece.count = count - done < AT_ONCE ? count - done : AT_ONCE;
        for (piece.part = 0; piece.part < piece.held->parts; piece.part++) {
            const lt_status now =
                bring_part(run, kind, &piece, writer, values == NULL ? NULL : values + done);
            if (status == LT_OK) status = now;
        }
    }
    return status;
}

/* A rank that holds some of the chunk that begins here, so that all have about as much to write: those of a
 * tensor group take turns, of data ranks it is the one in whose share the elements are. */
static int writer_of(void *context, const lt_parameter *parameter, int64_t first) {
    const lt_run *run = context;
    const lt_parameter *held = held_of(run, parameter);
    const lt_chunking cut = lt_chunking_of(parameter);
    const int64_t chunk = cut.chunk_rows * cut.row_elements;
    const int width = run->grid.tensor_ranks, copies = width / held->parts;
    const int turn = (int)((first / chunk + (parameter - run->registry.parameters)) % width);
    lt_split_piece piece = {.whole = parameter, .held = held, .first = first};
    piece.count = parameter->count - first < chunk ? parameter->count - first : chunk;
    int first_part = 0, parts = held->parts;
    if (held->split == LT_SPLIT_ROWS) {
        first_part = (int)(first / held->count);
        parts = (int)((first + piece.count - 1) / held->count) + 1 - first_part;
    }
    piece.part = first_part + turn % parts;
    const int tensor_rank = lt_split_holder(held, piece.part, width) + turn / parts % copies;
    const int64_t element = held->offset + lt_split_run(&piece).first;
    int64_t end;
    const int data_rank =
        run->zero != NULL ? lt_zero_holder(run, element, &end)
                          : (int)(element * run->grid.data_ranks / lt_model_registry(run->model)->elements);
    return data_rank * width + tensor_rank;
}

/* ---- loading ---- */

static lt_split_piece own_piece(const lt_run *run, const lt_parameter *parameter, int64_t first,
                                int64_t count) {
    const lt_parameter *held = held_of(run, parameter);
    return (lt_split_piece){parameter, held, own_part(run, held), first, count};
}

static bool needs_tensor(void *context, lt_tensor_kind kind, const lt_parameter *parameter, int64_t first,
                         int64_t count) {
    const lt_run *run = context;
    const lt_split_piece piece = own_piece(run, parameter, first, count);
    const lt_span elements = lt_split_run(&piece);
    if (elements.first >= elements.end) return false;
    return run->zero == NULL || kind == LT_TENSOR_PARAMETER ||
           lt_zero_holds(run, piece.held->offset + elements.first, piece.held->offset + elements.end);
}

static lt_status put_tensor(void *context, lt_tensor_kind kind, const lt_parameter *parameter, int64_t first,
                            int64_t count, const float *values) {
    const lt_run *run = context;
    for (int64_t done = 0, size; done < count; done += size) {
        size = count - done < AT_ONCE ? count - done : AT_ONCE;
        const lt_split_piece piece = own_piece(run, parameter, first + done, size);
        const lt_span elements = lt_split_run(&piece);
        if (elements.first >= elements.end) continue;
        const float *source = run->tensor_memory;
        if (in_one_run(&piece))
            source = values + done + place_of(&piece, elements);
        else
            lt_split_take(&piece, values + done, run->tensor_memory);
        LT_CHECK(lt_model_put(run->model, lt_array_of(kind), piece.held, elements.first,
                              elements.end - elements.first, source));
    }
    return LT_OK;
}

lt_tensor_access lt_run_tensors(lt_run *run) {
    return (lt_tensor_access){
        .context = run, .get = get_tensor, .put = put_tensor, .writer = writer_of, .needs = needs_tensor};
}

size_t lt_tensors_bytes(const lt_run *run) {
    return run->zero != NULL || run->grid.tensor_ranks > 1 ? sizeof(float) * AT_ONCE : 0;
}
