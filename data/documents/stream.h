/* One file as a stream of bytes, decompressed on the way: nothing, gzip (several members in a row, zeros
 * behind them) or Zstandard (several frames, skippable ones too). Internal to data/; knows bytes, not
 * formats. Local. Memory: one block, and the window of the decompressor (gzip 32 KiB; a Zstandard frame that
 * asks for more than 128 MiB is refused).
 */
#ifndef LT_DATA_STREAM_H
#define LT_DATA_STREAM_H

#include "data/files.h"

#include <stdbool.h>

typedef enum lt_compression { LT_UNCOMPRESSED, LT_GZIP, LT_ZSTD } lt_compression;

/* "gzip", "Zstandard" or NULL. */
const char *lt_compression_name(lt_compression compression);

typedef struct lt_stream lt_stream;

/* `compression` is what the file's name says; LT_BAD_INPUT: its first bytes say something else. The files
 * outlive the stream; the caller closes it. */
lt_status lt_stream_open(lt_files *files, int64_t file, lt_compression compression, lt_stream **stream);
void lt_stream_close(lt_stream *stream);

/* Reads `size` bytes, fewer at the end alone, to `buffer`. LT_BAD_INPUT: damaged, truncated or followed by
 * something else; LT_IO: the file cannot be read, no memory; LT_STOPPED: lt_interrupt(). */
lt_status lt_stream_read(lt_stream *stream, void *buffer, size_t size, size_t *got);

/* What is read next is byte `offset` of a file that is not compressed. */
void lt_stream_seek(lt_stream *stream, int64_t offset);

/* How much of the file has been read. */
int64_t lt_stream_offset(const lt_stream *stream);

/* LT_IO: no memory, and for which file. */
lt_status lt_stream_no_memory(const lt_stream *stream);

/* A stream cut at every `separator`, or not at all. */
typedef struct lt_pieces {
    lt_stream *stream;
    const char *separator; /* NULL: the whole stream is one piece */
    size_t limit_bytes;    /* of one piece */
    int64_t place;         /* of the next piece in the stream; where it ends once all is read */
    char *data;            /* malloc'ed [capacity]; what is read and not yet given is [begin, end) */
    size_t capacity, begin, end;
    bool at_end; /* of the stream */
} lt_pieces;

typedef enum lt_piece { LT_PIECE_NONE, LT_PIECE_FOUND, LT_PIECE_TOO_LONG } lt_piece;

/* The next piece, without its separator, valid until the next call; a separator at the very end opens no
 * further piece. Behind LT_PIECE_TOO_LONG there is none. The statuses of lt_stream_read(). Memory: at most
 * limit_bytes and a separator; the caller frees `data`. */
lt_status lt_pieces_next(lt_pieces *pieces, const char **text, size_t *bytes, lt_piece *found);

#endif
