/* A folder of tokenised files that any number of processes, on one host or on several over a shared file
 * system, fill and read at once. An entry belongs to a key, which stands for all that its tokens depend on: a
 * file's path, size and time, the tokenizer's hash, settings. So whoever writes an entry writes the same
 * tokens.
 *
 *   KEY.partial   being written: a token shard without its header; its writer holds an flock on it, and what
 * a killed writer left the next one writes anew KEY.bin       whole: a token shard (contracts.md, "Token
 * shards") KEY.count     how many tokens it has; stays when the entry is evicted
 *
 * Entries are evicted, the longest unused first, when the folder holds more than its limit; one that is being
 * read stays readable. Internal to data/. Local; an lt_cache may be used by several threads, a writer by one.
 */
#ifndef LT_DATA_RAW_CACHE_H
#define LT_DATA_RAW_CACHE_H

#include "comm/status.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { LT_CACHE_KEY = 33 };

typedef struct lt_cache {
    char *folder;
    int64_t limit_bytes; /* of whole entries */
    int token_bytes;     /* 2 or 4: of a token in all entries */
} lt_cache;

/* LT_BAD_INPUT: the folder's name is too long; the message begins with `key`. */
lt_status lt_cache_open(const char *folder, int64_t limit_bytes, int token_bytes, const char *key,
                        lt_cache *cache);
void lt_cache_close(lt_cache *cache);

/* LT_BAD_INPUT: the folder cannot be read, or with `write` neither be written nor made where the nearest one
 * above it is. Nothing is made yet: what is refused later leaves nothing behind. */
lt_status lt_cache_check(const lt_cache *cache, bool write, const char *key);

/* Whether an entry is whole. */
bool lt_cache_has(const lt_cache *cache, const char *entry);

/* The number of tokens of an entry that is or was whole; -1: not known. */
int64_t lt_cache_tokens(const lt_cache *cache, const char *entry);

/* An entry that is read, perhaps while it is written. */
typedef struct lt_cache_reader {
    int descriptor; /* -1: none */
    bool whole;
    int64_t tokens; /* that can be read; all of them once it is whole */
} lt_cache_reader;

/* Opens what there is of an entry, or looks again at what is open; descriptor -1: there is nothing yet. A
 * damaged entry is removed, with a warning. LT_IO: the folder cannot be read, or the damage stays. */
lt_status lt_cache_look(const lt_cache *cache, const char *entry, lt_cache_reader *reader);

/* Copies tokens [first, first + count), which can be read, as the file has them: token_bytes each. LT_IO: the
 * read failed. */
lt_status lt_cache_read(const lt_cache *cache, const lt_cache_reader *reader, int64_t first, int64_t count,
                        void *tokens);
void lt_cache_reader_close(lt_cache_reader *reader);

typedef struct lt_cache_writer lt_cache_writer;

/* Begins an entry. *writer is NULL where it is whole already or someone else writes it. LT_IO: it cannot be
 * made. */
lt_status lt_cache_begin(const lt_cache *cache, const char *entry, lt_cache_writer **writer);

/* Appends ids below 2^(8 token_bytes). LT_IO: it cannot be written. */
lt_status lt_cache_append(lt_cache_writer *writer, const int32_t *ids, size_t count);

/* Makes the entry whole, durable, and known by its name, and evicts others. Frees the writer, also after an
 * error. */
lt_status lt_cache_finish(lt_cache_writer *writer);

/* Removes what is written, which only takes room: the next writer begins anew. NULL is allowed. */
void lt_cache_abandon(lt_cache_writer *writer);

#endif
