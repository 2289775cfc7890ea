#include "data/identity.h"
#include "data/reader.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <xxhash.h>

static void add_integer(XXH3_state_t *state, int64_t value) {
    unsigned char bytes[8]; /* little-endian */
    for (int i = 0; i < 8; i++) bytes[i] = (unsigned char)((uint64_t)value >> (8 * i));
    XXH3_128bits_update(state, bytes, sizeof bytes);
}

static lt_status add_file(XXH3_state_t *state, const lt_files *files, int64_t file) {
    const char *path = lt_files_path(files, file), *slash = strrchr(path, '/');
    const char *name = slash == NULL ? path : slash + 1;
    lt_shard_header header = {.tokens = -1};
    if (lt_shard_magic(lt_files_head(files, file))) LT_CHECK(lt_shard_check(files, file, &header));
    XXH3_128bits_update(state, name, strlen(name) + 1);
    add_integer(state, lt_files_bytes(files, file));
    add_integer(state, header.tokens);
    return LT_OK;
}

lt_status lt_data_identify(lt_dataset *const *datasets, int count, lt_data_identity *identity) {
    *identity = (lt_data_identity){0};
    lt_status status = LT_OK;
    XXH3_state_t *state = XXH3_createState();
    if (state == NULL) return lt_fail(LT_IO, "no memory to hash the names of the data's files");
    XXH3_128bits_reset(state);
    for (int i = 0; i < count; i++) {
        const lt_files *files = lt_dataset_table(datasets[i]);
        add_integer(state, lt_files_count(files));
        for (int64_t file = 0; file < lt_files_count(files); file++) {
            LT_CHECK_DONE(status, add_file(state, files, file));
            identity->bytes += lt_files_bytes(files, file);
        }
        identity->files += lt_files_count(files);
    }
    const XXH128_hash_t hash = XXH3_128bits_digest(state);
    snprintf(identity->hash, sizeof identity->hash, "%016" PRIx64 "%016" PRIx64, hash.high64, hash.low64);
done:
    XXH3_freeState(state);
    return status;
}

typedef struct known_file {
    dev_t device;
    ino_t inode;
    int64_t file;
} known_file;

static int by_identity(const void *a, const void *b) {
    const known_file *x = a, *y = b;
    if (x->device != y->device) return x->device < y->device ? -1 : 1;
    return (x->inode > y->inode) - (x->inode < y->inode);
}

static known_file know(const lt_files *files, int64_t file) {
    known_file known = {.file = file};
    lt_files_identity(files, file, &known.device, &known.inode);
    return known;
}

lt_status lt_data_check_apart(const lt_dataset *training, const lt_dataset *held_out) {
    const lt_files *files = lt_dataset_table(training), *others = lt_dataset_table(held_out);
    const size_t count = (size_t)lt_files_count(files);
    known_file *table = calloc(count, sizeof *table);
    if (table == NULL) return lt_fail(LT_IO, "no memory to compare %zu files", count);
    for (size_t i = 0; i < count; i++) table[i] = know(files, (int64_t)i);
    qsort(table, count, sizeof *table, by_identity);
    lt_status status = LT_OK;
    for (int64_t i = 0; i < lt_files_count(others) && status == LT_OK; i++) {
        const known_file wanted = know(others, i);
        const known_file *found = bsearch(&wanted, table, count, sizeof *table, by_identity);
        if (found != NULL)
            status = lt_fail(LT_BAD_INPUT,
                             "%s: '%s' is also in %s, as '%s': a loss on what was trained on says nothing of "
                             "other text; take it out of one of them, or validate on a copy if that is meant",
                             lt_files_key(others), lt_files_path(others, i), lt_files_key(files),
                             lt_files_path(files, found->file));
    }
    free(table);
    return status;
}
