#include "data/prepare/duplicates.h"

#include "data/prepare/survey.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

/* Of a bucket's hashes in memory, a bucket a thread; with more documents than fit so into all prefixes, more.
 */
enum { BUCKET_BYTES = 1 << 22, NAME_BYTES = 64 };

typedef struct entry {
    uint64_t high, low;
    lt_drop at;
} entry;

typedef struct search {
    lt_crew *crew;
    const lt_survey *survey;
    int64_t buckets; /* a power of two, at most LT_SPOOL_PREFIXES */
} search;

typedef struct bucket {
    entry *entries;
    size_t count, capacity;
} bucket;

static int64_t bucket_count(int64_t documents) {
    int64_t buckets = 1;
    while (buckets < LT_SPOOL_PREFIXES && documents / buckets * (int64_t)sizeof(entry) > BUCKET_BYTES)
        buckets *= 2;
    return buckets;
}

static void drops_name(int64_t number, char name[NAME_BYTES]) {
    snprintf(name, NAME_BYTES, "drops_%04" PRId64, number);
}

static lt_status add_hashes(bucket *all, uint32_t index, const lt_spool *spool, int64_t first, size_t count) {
    if (all->capacity - all->count < count) {
        const size_t capacity = all->count + count + all->capacity / 2;
        entry *grown = reallocarray(all->entries, capacity, sizeof *grown);
        if (grown == NULL) return lt_fail(LT_IO, "no memory for %zu hashes", capacity);
        all->entries = grown;
        all->capacity = capacity;
    }
    lt_spool_hash block[256];
    while (count > 0) {
        const size_t part = count < 256 ? count : 256;
        LT_CHECK(lt_spool_read(spool, spool->header.hashes_at + first * (int64_t)sizeof *block, block,
                               part * sizeof *block));
        for (size_t i = 0; i < part; i++)
            all->entries[all->count++] = (entry){block[i].high, block[i].low, {index, block[i].document}};
        first += (int64_t)part;
        count -= part;
    }
    return LT_OK;
}

static int compare_drops(const lt_drop *left, const lt_drop *right) {
    if (left->spool != right->spool) return left->spool < right->spool ? -1 : 1;
    return left->document < right->document ? -1 : left->document > right->document;
}

static int compare_entries(const void *left, const void *right) {
    const entry *l = left, *r = right;
    if (l->high != r->high) return l->high < r->high ? -1 : 1;
    if (l->low != r->low) return l->low < r->low ? -1 : 1;
    return compare_drops(&l->at, &r->at);
}

static int compare_places(const void *left, const void *right) {
    return compare_drops(left, right);
}

/* All of a hash but the first in the input. Returns how many. */
static size_t find_repeated(const bucket *all, lt_drop *drops) {
    size_t count = 0;
    for (size_t i = 1; i < all->count; i++) {
        const entry *before = &all->entries[i - 1], *one = &all->entries[i];
        if (before->high == one->high && before->low == one->low) drops[count++] = one->at;
    }
    return count;
}

static lt_status write_drops(const search *all, const bucket *found, const char *name) {
    lt_drop *drops = calloc(found->count + 1, sizeof *drops);
    if (drops == NULL) return lt_fail(LT_IO, "no memory for %zu duplicates", found->count);
    const size_t count = found->count == 0 ? 0 : find_repeated(found, drops);
    qsort(drops, count, sizeof *drops, compare_places);
    const char *work = all->survey->folder->work;
    const lt_status status = lt_aside_write(work, work, name, drops, count * sizeof *drops);
    free(drops);
    return status;
}

static lt_status collect(const search *all, int64_t number, bucket *found) {
    const int64_t prefixes = LT_SPOOL_PREFIXES / all->buckets, first = number * prefixes;
    for (int64_t i = 0; i < all->survey->count; i++) {
        const lt_survey_spool *named = &all->survey->spools[i];
        lt_spool spool;
        lt_status status = lt_spool_open(&spool, all->survey->folder->work, named->piece, named->part);
        if (status == LT_OK) {
            const uint32_t begin = spool.header.prefix[first], end = spool.header.prefix[first + prefixes];
            status = add_hashes(found, (uint32_t)i, &spool, begin, end - begin);
        }
        lt_spool_close(&spool);
        LT_CHECK(status);
        LT_CHECK(lt_crew_check(all->crew));
    }
    return LT_OK;
}

static lt_status search_bucket(void *context, int64_t number) {
    const search *all = context;
    char name[NAME_BYTES], path[PATH_MAX];
    bucket found = {0};
    drops_name(number, name);
    LT_CHECK(lt_aside_join(path, all->survey->folder->work, name));
    lt_status status = LT_OK;
    if (access(path, F_OK) != 0) { /* else it was done before a restart */
        status = collect(all, number, &found);
        if (status == LT_OK && found.count > 0)
            qsort(found.entries, found.count, sizeof *found.entries, compare_entries);
        if (status == LT_OK) status = write_drops(all, &found, name);
    }
    free(found.entries);
    atomic_fetch_add(&all->crew->done, 1);
    return status;
}

static lt_status map_drops(const lt_prepare_folder *folder, int64_t number, lt_drops *drops) {
    char name[NAME_BYTES], path[PATH_MAX];
    struct stat info;
    drops_name(number, name);
    LT_CHECK(lt_aside_join(path, folder->work, name));
    const int descriptor = open(path, O_RDONLY | O_CLOEXEC);
    if (descriptor < 0 || fstat(descriptor, &info) != 0) {
        const lt_status status = lt_aside_failed("open", path);
        if (descriptor >= 0) close(descriptor);
        return status;
    }
    void *mapped =
        info.st_size == 0 ? NULL : mmap(NULL, (size_t)info.st_size, PROT_READ, MAP_SHARED, descriptor, 0);
    const lt_status status = mapped == MAP_FAILED ? lt_aside_failed("map", path) : LT_OK;
    close(descriptor);
    LT_CHECK(status);
    drops->drops[number] = mapped;
    drops->count[number] = info.st_size / (int64_t)sizeof(lt_drop);
    drops->buckets = number + 1;
    return LT_OK;
}

static lt_status map_all(const lt_prepare_folder *folder, int64_t buckets, lt_drops *drops) {
    for (int64_t i = 0; i < buckets; i++) LT_CHECK(map_drops(folder, i, drops));
    return LT_OK;
}

lt_status lt_duplicates_find(lt_crew *crew, lt_survey *survey) {
    search all = {crew, survey, bucket_count(survey->read)};
    LT_CHECK(lt_crew_each(crew, "looking for duplicates", all.buckets, all.buckets, search_bucket, &all));
    return lt_grid_share_status(crew->grid, map_all(survey->folder, all.buckets, &survey->drops), NULL);
}

void lt_drops_mark(const lt_drops *drops, int64_t index, lt_spool *spool) {
    const lt_drop first = {(uint32_t)index, 0};
    for (int64_t b = 0; b < drops->buckets; b++) {
        int64_t low = 0, high = drops->count[b]; /* the first drop that is not before `first` */
        while (low < high) {
            const int64_t middle = low + (high - low) / 2;
            if (compare_drops(&drops->drops[b][middle], &first) < 0)
                low = middle + 1;
            else
                high = middle;
        }
        for (; low < drops->count[b] && drops->drops[b][low].spool == index; low++)
            spool->documents[drops->drops[b][low].document].split = LT_SPLITS;
    }
}

void lt_drops_close(lt_drops *drops) {
    for (int64_t i = 0; i < drops->buckets; i++)
        if (drops->drops[i] != NULL)
            munmap((void *)drops->drops[i], (size_t)drops->count[i] * sizeof *drops->drops[i]);
    drops->buckets = 0;
}
