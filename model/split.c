#include "model/split.h"

#include <string.h>

/* A part is columns [part * width, (part + 1) * width) of a matrix of rows of `stride` elements; a part that
 * is a run of rows is the columns of a matrix of one row. */
typedef struct columns {
    int64_t stride, width, first;
} columns;

static columns columns_of(const lt_split_piece *piece) {
    const bool inside_rows = piece->held->split == LT_SPLIT_COLUMNS;
    const int64_t width = inside_rows ? piece->held->shape[1] : piece->held->count;
    return (columns){.stride = inside_rows ? piece->whole->shape[1] : piece->whole->count,
                     .width = width,
                     .first = piece->part * width};
}

static int64_t smaller(int64_t a, int64_t b) {
    return a < b ? a : b;
}

static int64_t larger(int64_t a, int64_t b) {
    return a > b ? a : b;
}

/* Elements of the part before column `column` of a row. */
static int64_t before_column(const columns *c, int64_t column) {
    return larger(0, smaller(c->width, column - c->first));
}

/* Elements of the part before element `element` of the whole: all of the rows before, then of its own. */
static int64_t before(const columns *c, int64_t element) {
    const int64_t row_elements = before_column(c, c->stride);
    return element / c->stride * row_elements + before_column(c, element % c->stride);
}

lt_span lt_split_run(const lt_split_piece *piece) {
    const columns c = columns_of(piece);
    return (lt_span){before(&c, piece->first), before(&c, piece->first + piece->count)};
}

/* What the part has in one row of the whole: `count` elements, perhaps none, from `at` of the piece on. */
typedef struct stretch {
    int64_t at, count;
} stretch;

static stretch stretch_of(const lt_split_piece *piece, const columns *c, int64_t row) {
    const int64_t begin = row * c->stride;
    const int64_t from = larger(piece->first, begin + c->first);
    const int64_t to = smaller(piece->first + piece->count, begin + smaller(c->stride, c->first + c->width));
    return (stretch){from - piece->first, larger(0, to - from)};
}

void lt_split_lay(const lt_split_piece *piece, const float *run, float *values) {
    const columns c = columns_of(piece);
    for (int64_t row = piece->first / c.stride; row * c.stride < piece->first + piece->count; row++) {
        const stretch s = stretch_of(piece, &c, row);
        if (s.count == 0) continue;
        memcpy(values + s.at, run, sizeof(float) * (size_t)s.count);
        run += s.count;
    }
}

void lt_split_take(const lt_split_piece *piece, const float *values, float *run) {
    const columns c = columns_of(piece);
    for (int64_t row = piece->first / c.stride; row * c.stride < piece->first + piece->count; row++) {
        const stretch s = stretch_of(piece, &c, row);
        if (s.count == 0) continue;
        memcpy(run, values + s.at, sizeof(float) * (size_t)s.count);
        run += s.count;
    }
}
