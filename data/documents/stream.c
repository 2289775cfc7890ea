#include "data/documents/stream.h"

#include "comm/interrupt.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <zlib.h>
#include <zstd.h>
#include <zstd_errors.h>

enum { INPUT_BYTES = 1 << 18, GZIP_ONLY = 16 /* added to the window's bits: gzip, not zlib */ };

struct lt_stream {
    lt_files *files;
    int64_t file;
    int64_t offset; /* in the file, of the first byte not yet in `input` */
    lt_compression compression;
    z_stream gzip;
    ZSTD_DStream *zstd;
    bool inside;    /* a gzip member or Zstandard frame that has begun and not ended */
    int64_t frames; /* that have ended */
    size_t begin, end;
    unsigned char input[INPUT_BYTES];
};

const char *lt_compression_name(lt_compression compression) {
    return compression == LT_GZIP ? "gzip" : compression == LT_ZSTD ? "Zstandard" : NULL;
}

/* A Zstandard file may begin with a skippable frame: 0x184D2A50 to 0x184D2A5F. */
static lt_compression look_at(const unsigned char *head) {
    if (head[0] == 0x1f && head[1] == 0x8b) return LT_GZIP;
    if (memcmp(head, "\x28\xb5\x2f\xfd", 4) == 0) return LT_ZSTD;
    return (head[0] & 0xf0) == 0x50 && memcmp(head + 1, "\x2a\x4d\x18", 3) == 0 ? LT_ZSTD : LT_UNCOMPRESSED;
}

static lt_status no_memory(const lt_files *files, int64_t file) {
    return lt_fail(LT_IO, "%s: no memory to read '%s'", lt_files_key(files), lt_files_path(files, file));
}

lt_status lt_stream_no_memory(const lt_stream *stream) {
    return no_memory(stream->files, stream->file);
}

static lt_status check_head(lt_files *files, int64_t file, lt_compression named) {
    const unsigned char *head = lt_files_head(files, file);
    const char *key = lt_files_key(files), *path = lt_files_path(files, file);
    const lt_compression found = look_at(head);
    if (found == named) return LT_OK;
    if (named == LT_UNCOMPRESSED)
        return lt_fail(LT_BAD_INPUT, "%s: '%s' is a %s file by its first bytes; add %s to its name", key,
                       path, lt_compression_name(found), found == LT_GZIP ? ".gz" : ".zst");
    if (lt_files_bytes(files, file) == 0)
        return lt_fail(LT_BAD_INPUT, "%s: '%s' is empty, expected a %s file", key, path,
                       lt_compression_name(named));
    return lt_fail(LT_BAD_INPUT,
                   "%s: '%s' is no %s file, as its name says: it starts with the bytes %02x %02x %02x %02x",
                   key, path, lt_compression_name(named), head[0], head[1], head[2], head[3]);
}

lt_status lt_stream_open(lt_files *files, int64_t file, lt_compression compression, lt_stream **out) {
    *out = NULL;
    LT_CHECK(check_head(files, file, compression));
    lt_stream *stream = calloc(1, sizeof *stream);
    bool ready = stream != NULL;
    if (ready) {
        stream->files = files;
        stream->file = file;
        if (compression == LT_GZIP) ready = inflateInit2(&stream->gzip, MAX_WBITS + GZIP_ONLY) == Z_OK;
        if (compression == LT_ZSTD) ready = (stream->zstd = ZSTD_createDStream()) != NULL;
        if (ready) stream->compression = compression; /* what is to be closed */
    }
    if (!ready) {
        lt_stream_close(stream);
        return no_memory(files, file);
    }
    *out = stream;
    return LT_OK;
}

void lt_stream_close(lt_stream *stream) {
    if (stream == NULL) return;
    if (stream->compression == LT_GZIP) inflateEnd(&stream->gzip);
    ZSTD_freeDStream(stream->zstd);
    free(stream);
}

void lt_stream_seek(lt_stream *stream, int64_t offset) {
    stream->offset = offset;
}

int64_t lt_stream_offset(const lt_stream *stream) {
    return stream->offset;
}

static int64_t left(const lt_stream *stream) {
    return lt_files_bytes(stream->files, stream->file) - stream->offset;
}

/* Reads up to `size` bytes of the file as they are. */
static lt_status take(lt_stream *stream, void *buffer, size_t size, size_t *got) {
    LT_CHECK(lt_interrupt_check("reading documents"));
    *got = left(stream) < (int64_t)size ? (size_t)left(stream) : size;
    if (*got == 0) return LT_OK;
    LT_CHECK(lt_files_read(stream->files, stream->file, stream->offset, buffer, *got));
    stream->offset += (int64_t)*got;
    return LT_OK;
}

static lt_status damaged(const lt_stream *stream, const char *why) {
    return lt_fail(LT_BAD_INPUT, "%s: '%s' is damaged near byte %" PRId64 ": %s: %s",
                   lt_files_key(stream->files), lt_files_path(stream->files, stream->file),
                   stream->offset - (int64_t)(stream->end - stream->begin),
                   lt_compression_name(stream->compression), why);
}

/* One call of a decompressor: takes input, makes up to `size` bytes; `ended`: the member or frame has. */
static lt_status inflate_some(lt_stream *stream, void *buffer, size_t size, size_t *made, bool *ended) {
    z_stream *gzip = &stream->gzip;
    const uInt room = size < INPUT_BYTES ? (uInt)size : INPUT_BYTES;
    gzip->next_in = stream->input + stream->begin;
    gzip->avail_in = (uInt)(stream->end - stream->begin);
    gzip->next_out = buffer;
    gzip->avail_out = room;
    const int code = inflate(gzip, Z_NO_FLUSH);
    stream->begin = stream->end - gzip->avail_in;
    *made = room - gzip->avail_out;
    *ended = code == Z_STREAM_END;
    if (code == Z_MEM_ERROR) return lt_stream_no_memory(stream);
    if (code != Z_OK && code != Z_BUF_ERROR && !*ended)
        return damaged(stream, gzip->msg != NULL ? gzip->msg : zError(code));
    if (*ended) inflateReset(gzip);
    return LT_OK;
}

static lt_status unpack_some(lt_stream *stream, void *buffer, size_t size, size_t *made, bool *ended) {
    ZSTD_inBuffer from = {stream->input, stream->end, stream->begin};
    ZSTD_outBuffer to = {buffer, size, 0};
    const size_t code = ZSTD_decompressStream(stream->zstd, &to, &from);
    stream->begin = from.pos;
    *made = to.pos;
    *ended = code == 0;
    if (!ZSTD_isError(code)) return LT_OK;
    if (ZSTD_getErrorCode(code) == ZSTD_error_memory_allocation) return lt_stream_no_memory(stream);
    return damaged(stream, ZSTD_getErrorName(code));
}

/* Whether another member or frame follows; the zeros that may stand behind gzip members are passed over. */
static bool begins_another(lt_stream *stream) {
    if (stream->compression == LT_GZIP && stream->frames > 0)
        while (stream->begin < stream->end && stream->input[stream->begin] == 0) stream->begin++;
    stream->inside = stream->begin < stream->end;
    return stream->inside;
}

lt_status lt_stream_read(lt_stream *stream, void *buffer, size_t size, size_t *got) {
    *got = 0;
    if (stream->compression == LT_UNCOMPRESSED) return take(stream, buffer, size, got);
    while (*got < size) {
        if (stream->begin == stream->end) {
            stream->begin = 0;
            LT_CHECK(take(stream, stream->input, INPUT_BYTES, &stream->end));
        }
        if (!stream->inside && !begins_another(stream)) {
            if (left(stream) == 0) break;
            continue;
        }
        const bool starved = stream->begin == stream->end;
        size_t made;
        bool ended;
        char *to = (char *)buffer + *got;
        LT_CHECK(stream->compression == LT_GZIP ? inflate_some(stream, to, size - *got, &made, &ended)
                                                : unpack_some(stream, to, size - *got, &made, &ended));
        *got += made;
        if (ended) {
            stream->inside = false;
            stream->frames++;
        } else if (starved && made == 0) {
            return lt_fail(LT_BAD_INPUT, "%s: '%s' is truncated: its %" PRId64 " bytes end inside a %s %s",
                           lt_files_key(stream->files), lt_files_path(stream->files, stream->file),
                           stream->offset, lt_compression_name(stream->compression),
                           stream->compression == LT_GZIP ? "member" : "frame");
        }
    }
    return LT_OK;
}
