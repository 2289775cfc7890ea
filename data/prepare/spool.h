/* Spools: the tokens of a part of a piece of the input, with what later phases need to know of its documents.
 * A private format of the folder .work, of the machine that writes it:
 *
 *   header, tokens (2 or 4 bytes each), zeros up to a multiple of 8, an lt_spool_document a document,
 *   with deduplication an lt_spool_hash a document, ascending
 *
 * Internal to data/prepare. Local. */
#ifndef LT_DATA_PREPARE_SPOOL_H
#define LT_DATA_PREPARE_SPOOL_H

#include "data/prepare/aside.h"

#include <stdbool.h>

enum { LT_TRAIN, LT_VALIDATION, LT_SPLITS };

typedef struct lt_spool_document {
    int64_t place;   /* lt_document's; of lines from the piece's first */
    uint32_t tokens; /* the end of text included */
    uint32_t split;
} lt_spool_document;

typedef struct lt_spool_hash {
    uint64_t high, low; /* XXH3-128 of the text */
    uint32_t document;  /* in the spool */
    uint32_t zero;
} lt_spool_hash;

/* Hashes with the same first LT_SPOOL_PREFIX_BITS bits are numbers prefix[i] to prefix[i + 1]. */
enum { LT_SPOOL_PREFIX_BITS = 10, LT_SPOOL_PREFIXES = 1 << LT_SPOOL_PREFIX_BITS };

typedef struct lt_spool_header {
    uint64_t magic;
    int64_t token_bytes, tokens_at, documents_at, hashes_at; /* bytes */
    int64_t documents[LT_SPLITS], tokens[LT_SPLITS];
    int64_t text_bytes, empty, replaced; /* documents without text; ill-formed UTF-8 */
    uint32_t prefix[LT_SPOOL_PREFIXES + 1];
} lt_spool_header;

/* "spool_000012_0000" */
enum { LT_SPOOL_NAME_BYTES = 64 };
void lt_spool_name(int64_t piece, int64_t part, char name[LT_SPOOL_NAME_BYTES]);

/* A spool that is being written. */
typedef struct lt_spool_writer {
    lt_aside file;
    lt_spool_header header;
    int64_t count, capacity;
    lt_spool_document *documents; /* malloc'ed [capacity] */
    lt_spool_hash *hashes;        /* malloc'ed [capacity]; NULL without deduplication */
} lt_spool_writer;

lt_status lt_spool_create(lt_spool_writer *spool, const char *work, int64_t piece, int64_t part,
                          int token_bytes, bool hashes);

/* The next document, but for its tokens, which lt_spool_tokens() gets in the same order. */
lt_status lt_spool_add(lt_spool_writer *spool, const lt_spool_document *document, uint64_t high,
                       uint64_t low);
lt_status lt_spool_tokens(lt_spool_writer *spool, const void *packed, size_t bytes);

/* Makes it whole under its name; after an error it is abandoned. */
lt_status lt_spool_commit(lt_spool_writer *spool);
void lt_spool_abandon(lt_spool_writer *spool); /* nothing where it is not open */

/* A spool that is read. */
typedef struct lt_spool {
    int descriptor;
    char path[PATH_MAX];
    lt_spool_header header;
    lt_spool_document *documents; /* malloc'ed, after lt_spool_load() */
} lt_spool;

/* LT_IO: it cannot be read, or is no whole spool. The caller closes it, also after an error. */
lt_status lt_spool_open(lt_spool *spool, const char *work, int64_t piece, int64_t part);
lt_status lt_spool_load(lt_spool *spool);
lt_status lt_spool_read(const lt_spool *spool, int64_t offset, void *data, size_t bytes);
void lt_spool_close(lt_spool *spool);

int64_t lt_spool_count(const lt_spool *spool); /* documents of both splits */

#endif
