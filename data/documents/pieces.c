/* Cutting a stream at a separator. */
#define _GNU_SOURCE /* memmem */

#include "data/documents/stream.h"

#include <stdlib.h>
#include <string.h>

enum { FIRST_BYTES = 1 << 18 };

/* Makes room behind what is not yet given: moves it to the front, then doubles the buffer, never beyond a
 * piece of the limit, its separator and a byte. */
static lt_status make_room(lt_pieces *pieces) {
    if (pieces->begin > 0) {
        memmove(pieces->data, pieces->data + pieces->begin, pieces->end - pieces->begin);
        pieces->end -= pieces->begin;
        pieces->begin = 0;
    }
    if (pieces->end < pieces->capacity) return LT_OK;
    const size_t most = pieces->limit_bytes + (pieces->separator == NULL ? 0 : strlen(pieces->separator)) + 1;
    size_t capacity = pieces->capacity == 0 ? FIRST_BYTES : 2 * pieces->capacity;
    if (capacity > most) capacity = most;
    char *data = realloc(pieces->data, capacity);
    if (data == NULL) return lt_stream_no_memory(pieces->stream);
    pieces->data = data;
    pieces->capacity = capacity;
    return LT_OK;
}

/* The first separator that begins at `from` or behind; NULL: none is read yet. */
static const char *find_separator(const lt_pieces *pieces, size_t from) {
    if (pieces->separator == NULL || from >= pieces->end) return NULL;
    return memmem(pieces->data + from, pieces->end - from, pieces->separator, strlen(pieces->separator));
}

lt_status lt_pieces_next(lt_pieces *pieces, const char **text, size_t *bytes, lt_piece *found) {
    const size_t separator_bytes = pieces->separator == NULL ? 0 : strlen(pieces->separator);
    const char *cut = find_separator(pieces, pieces->begin);
    while (cut == NULL && !pieces->at_end &&
           pieces->end - pieces->begin <= pieces->limit_bytes + separator_bytes) {
        LT_CHECK(make_room(pieces));
        const size_t known = pieces->end; /* what has been searched, but for a separator that lies across */
        const size_t wanted = pieces->capacity - pieces->end;
        size_t got;
        LT_CHECK(lt_stream_read(pieces->stream, pieces->data + pieces->end, wanted, &got));
        pieces->end += got;
        pieces->at_end = got < wanted;
        cut = find_separator(pieces, known < separator_bytes ? 0 : known - separator_bytes + 1);
    }
    *text = pieces->data + pieces->begin;
    *bytes = cut != NULL ? (size_t)(cut - *text) : pieces->end - pieces->begin;
    *found = *bytes > pieces->limit_bytes ? LT_PIECE_TOO_LONG
             : cut != NULL || *bytes > 0  ? LT_PIECE_FOUND
                                          : LT_PIECE_NONE;
    const size_t step = *bytes + (cut != NULL ? separator_bytes : 0);
    pieces->begin += step;
    pieces->place += (int64_t)step;
    return LT_OK;
}
