/* Power cuts: builds, from the record of a run (record.h), folders as a power cut may leave them, and judges
 * each.
 *
 *   power_cut RECORD SEED STATES FOLDER SAMPLES
 *
 * At the cut only what was synced is certain. Of what was written to a file since then any set of pages is
 * there, torn ones and ones of zeros too, and any length that the file had; a rank's fsync counts for what
 * this rank wrote, since the ranks' hosts may each have a cache of their own. Of what was done to a folder
 * since its fsync any set is there: names made, renamed, removed.
 *
 * Every checkpoint in runs/out must be whole, there must be one no older than the last that the run called
 * saved, and metrics.jsonl must hold the steps up to the newest one. SAMPLES good states, evenly spread, stay
 * as FOLDER/1, FOLDER/2, ... for the run to go on from. Exits with 1 if a state is bad. */
#define _GNU_SOURCE
#include "record.h"

#include "checkpoints/checkpoint.h"
#include "checkpoints/steps.h"

#include <dirent.h>
#include <fcntl.h>
#include <ftw.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { PAGE = 4096, SECTOR = 512 };

typedef struct event {
    record r;
    char *data;
    size_t synced; /* the number of the event that made this one certain; SIZE_MAX: none did */
} event;

static event *events;
static size_t event_count;

static void fail(const char *what) {
    perror(what);
    exit(2);
}

/* ---- the record ---- */

static bool is_of_file(const record *r) {
    return r->kind == RECORD_WRITE || r->kind == RECORD_TRUNCATE;
}

static bool is_of_folder(const record *r) {
    return r->kind >= RECORD_CREATE && r->kind <= RECORD_REMOVE;
}

static bool lies_in(const char *path, const char *folder) {
    return strncmp(path, folder, strlen(folder)) == 0 && strrchr(path, '/') == path + strlen(folder);
}

static bool makes_certain(const record *sync, const record *r) {
    if (sync->kind == RECORD_SYNC) return is_of_file(r) && r->inode == sync->inode && r->rank == sync->rank;
    return sync->kind == RECORD_SYNC_FOLDER && is_of_folder(r) && lies_in(r->path, sync->path);
}

/* Inodes come back for other files: each file gets a number of its own. */
static void name_file(size_t number) {
    record *r = &events[number].r;
    static int64_t files;
    if (r->kind == RECORD_CREATE) {
        for (size_t i = 0; i < number; i++)
            if (events[i].r.kind == RECORD_CREATE && events[i].r.size == r->inode) events[i].r.size = -1;
        r->size = r->inode; /* the inode while it is this file's */
        r->inode = ++files;
    } else if (is_of_file(r) || is_of_folder(r) || r->kind == RECORD_SYNC) {
        const int64_t inode = r->inode;
        for (size_t i = 0; i < number; i++)
            if (events[i].r.kind == RECORD_CREATE && events[i].r.size == inode) r->inode = events[i].r.inode;
    }
}

static void read_record(const char *path) {
    FILE *file = fopen(path, "r");
    event e = {.synced = SIZE_MAX};
    if (file == NULL) fail(path);
    while (fread(&e.r, sizeof e.r, 1, file) == 1) {
        const bool has_data = e.r.kind == RECORD_WRITE || e.r.kind == RECORD_SAY;
        e.data = has_data ? calloc((size_t)e.r.size + 1, 1) : NULL;
        if (has_data && fread(e.data, (size_t)e.r.size, 1, file) != 1) fail(path);
        events = realloc(events, (event_count + 1) * sizeof *events);
        if (events == NULL) fail("memory");
        events[event_count] = e;
        name_file(event_count++);
    }
    fclose(file);
    for (size_t s = 0; s < event_count; s++)
        for (size_t i = 0; i < s; i++)
            if (events[i].synced == SIZE_MAX && makes_certain(&events[s].r, &events[i].r))
                events[i].synced = s;
}

/* ---- chance ---- */

static uint64_t chance;

static uint64_t draw(uint64_t below) {
    chance ^= chance << 13, chance ^= chance >> 7, chance ^= chance << 17;
    return (chance * 0x2545f4914f6cdd1d >> 32) % below;
}

/* How much of what is not certain is kept. */
typedef struct luck {
    enum { NOTHING, EVERYTHING, WHAT_CAME_BEFORE, ANY } kind;
    size_t before;
    uint64_t percent;
} luck;

static luck draw_luck(size_t cut) {
    static const uint64_t percents[] = {10, 50, 90};
    return (luck){.kind = draw(6) > 2 ? ANY : draw(3), .before = draw(cut + 1), .percent = percents[draw(3)]};
}

static bool keeps(const luck *l, size_t number) {
    if (l->kind == ANY) return draw(100) < l->percent;
    return l->kind == EVERYTHING || (l->kind == WHAT_CAME_BEFORE && number < l->before);
}

/* ---- a state ---- */

static size_t lost_writes, lost_names; /* of all states */

typedef struct contents {
    char *bytes;
    size_t size, capacity;
} contents;

static void set_size(contents *c, size_t size) {
    if (size > c->capacity) {
        c->bytes = realloc(c->bytes, size * 2);
        if (c->bytes == NULL) fail("memory");
        memset(c->bytes + c->capacity, 0, size * 2 - c->capacity);
        c->capacity = size * 2;
    }
    if (size < c->size) memset(c->bytes + size, 0, c->size - size);
    c->size = size;
}

static void put_bytes(contents *c, size_t offset, const char *data, size_t size) {
    if (offset + size > c->size) set_size(c, offset + size);
    if (data != NULL) memcpy(c->bytes + offset, data, size);
}

/* A write that is not certain: page by page there, lost, torn at a sector, or as length alone. */
static void put_by_chance(contents *c, const event *e, size_t number, const luck *l) {
    const size_t end = (size_t)(e->r.offset + e->r.size);
    for (size_t at = (size_t)e->r.offset, next; at < end; at = next) {
        next = at / PAGE * PAGE + PAGE < end ? at / PAGE * PAGE + PAGE : end;
        const char *data = e->data + at - e->r.offset;
        if (keeps(l, number)) {
            put_bytes(c, at, data, next - at);
            continue;
        }
        lost_writes++;
        const size_t torn = at / SECTOR * SECTOR + SECTOR * (1 + draw(PAGE / SECTOR));
        if (l->kind != ANY) continue;
        if (draw(4) == 0) put_bytes(c, at, NULL, next - at);
        if (draw(4) == 0 && torn < next) put_bytes(c, at, data, torn - at);
    }
}

static void build_file(const char *path, int64_t number, size_t cut, const luck *l) {
    contents c = {0};
    for (size_t i = 0; i < cut; i++) {
        const event *e = &events[i];
        if (!is_of_file(&e->r) || e->r.inode != number) continue;
        const bool certain = e->synced < cut;
        if (e->r.kind == RECORD_TRUNCATE && (certain || keeps(l, i)))
            set_size(&c, (size_t)e->r.size);
        else if (e->r.kind == RECORD_WRITE && certain)
            put_bytes(&c, (size_t)e->r.offset, e->data, (size_t)e->r.size);
        else if (e->r.kind == RECORD_WRITE)
            put_by_chance(&c, e, i, l);
    }
    const int file = open(path, O_WRONLY | O_CREAT | O_TRUNC, 0666);
    if (file < 0 || (c.size > 0 && write(file, c.bytes, c.size) != (ssize_t)c.size)) fail(path);
    close(file);
    free(c.bytes);
}

/* A name and what it stands for. */
typedef struct entry {
    const char *path;
    bool is_folder, is_there;
    int64_t file;
} entry;

enum { MOST_ENTRIES = 1024 };
static entry entries[MOST_ENTRIES];
static size_t entry_count;

static entry *find_entry(const char *path) {
    for (size_t i = 0; i < entry_count; i++)
        if (strcmp(entries[i].path, path) == 0) return &entries[i];
    if (entry_count == MOST_ENTRIES) fail("too many names");
    entries[entry_count] = (entry){.path = path};
    return &entries[entry_count++];
}

static void do_to_folder(const record *r) {
    entry *named = find_entry(r->path);
    if (r->kind == RECORD_RENAME || r->kind == RECORD_REMOVE) named->is_there = false;
    if (r->kind == RECORD_REMOVE) return;
    if (r->kind == RECORD_RENAME || r->kind == RECORD_LINK) named = find_entry(r->other);
    named->is_there = true;
    named->is_folder = r->kind == RECORD_MAKE_FOLDER;
    named->file = r->inode;
}

static int remove_one(const char *path, const struct stat *about, int kind, struct FTW *position) {
    (void)about, (void)kind, (void)position;
    return remove(path);
}

/* Folders come first among the names, since they are made before what is in them. What lies in a lost one is
 * lost. */
static void build(const char *folder, size_t cut) {
    const luck names = draw_luck(cut), data = draw_luck(cut);
    struct stat about;
    char path[600], *slash;
    entry_count = 0;
    for (size_t i = 0; i < cut; i++) {
        if (!is_of_folder(&events[i].r)) continue;
        if (events[i].synced < cut || keeps(&names, i))
            do_to_folder(&events[i].r);
        else
            lost_names++;
    }
    nftw(folder, remove_one, 8, FTW_DEPTH | FTW_PHYS);
    if (mkdir(folder, 0777) != 0) fail(folder);
    for (size_t i = 0; i < entry_count; i++) {
        const entry *e = &entries[i];
        if (!e->is_there) continue;
        snprintf(path, sizeof path, "%s%s", folder, e->path);
        slash = strrchr(path, '/');
        *slash = '\0';
        if (stat(path, &about) != 0) continue;
        *slash = '/';
        if (!e->is_folder)
            build_file(path, e->file, cut, &data);
        else if (mkdir(path, 0777) != 0)
            fail(path);
    }
}

/* ---- what must hold ---- */

/* The step of the last checkpoint that the run had called saved before the cut; 0: none. A note resets it. */
static int64_t saved_before(size_t cut) {
    long long step = 0;
    for (size_t i = 0; i < cut; i++)
        if (events[i].r.kind == RECORD_SAY) {
            const char *at = strstr(events[i].data, "step_");
            if (at == NULL || sscanf(at, "step_%lld", &step) != 1) step = 0;
        }
    return step;
}

static char wrong[2048];

#define WRONG(...) (snprintf(wrong, sizeof wrong, __VA_ARGS__), false)

static bool is_whole(const char *path, int64_t step) {
    lt_checkpoint_header header;
    if (lt_checkpoint_verify(path) != LT_OK || lt_checkpoint_read_header(path, &header) != LT_OK)
        return WRONG("%s", lt_error_message());
    const int64_t found = header.step;
    lt_checkpoint_header_free(&header);
    return found == step ? true : WRONG("%s holds step %lld", path, (long long)found);
}

/* Its first lines are whole, of the steps from 1 on; a line of each step was logged. */
static bool has_metrics(const char *folder, int64_t last) {
    char path[600], start[40];
    char *line = NULL;
    size_t capacity = 0;
    int64_t step = 0;
    snprintf(path, sizeof path, "%s/metrics.jsonl", folder);
    FILE *file = fopen(path, "r");
    for (bool good = file != NULL; good && step < last;) {
        const ssize_t length = getline(&line, &capacity, file);
        snprintf(start, sizeof start, "{\"step\":%lld,", (long long)step + 1);
        good =
            length > 2 && strcmp(line + length - 2, "}\n") == 0 && strncmp(line, start, strlen(start)) == 0;
        step += good;
    }
    if (file != NULL) fclose(file);
    free(line);
    return step == last ? true
                        : WRONG("metrics.jsonl is right up to step %lld alone, a checkpoint is of step %lld",
                                (long long)step, (long long)last);
}

static bool judge(const char *folder, int64_t saved, int64_t *newest) {
    int64_t *steps, count;
    bool good = true;
    *newest = 0;
    if (lt_steps_list(folder, &steps, &count) != LT_OK) return WRONG("%s", lt_error_message());
    for (int64_t i = 0; i < count && good; i++) {
        char path[600];
        if (steps[i] > *newest) *newest = steps[i];
        good = lt_step_path(path, sizeof path, folder, steps[i], "") == LT_OK && is_whole(path, steps[i]);
    }
    free(steps);
    if (!good) return false;
    if (*newest < saved)
        return WRONG("step %lld was saved, the newest checkpoint is of step %lld", (long long)saved,
                     (long long)*newest);
    return has_metrics(folder, *newest);
}

/* ---- all states ---- */

static const char *const kind_names[] = {"say",   "write", "truncate", "sync",   "create",
                                         "mkdir", "link",  "rename",   "remove", "sync folder"};

/* Most may be lost before a sync; most is promised after something was said. */
static bool is_telling(size_t cut) {
    if (cut == event_count) return true;
    const int next = events[cut].r.kind;
    return next == RECORD_SYNC || next == RECORD_SYNC_FOLDER ||
           (cut > 0 && events[cut - 1].r.kind == RECORD_SAY);
}

/* Two of three cuts are telling ones, by turns; the others are drawn. */
static size_t choose_cut(long state) {
    static size_t turn;
    if (state % 3 == 2) return draw(event_count + 1);
    do turn = (turn + 1) % (event_count + 1);
    while (!is_telling(turn));
    return turn;
}

int main(int argc, char **argv) {
    if (argc != 6) return 2;
    const long seed = atol(argv[2]), states = atol(argv[3]), samples = atol(argv[5]);
    long bad = 0, none = 0, sampled = 0;
    read_record(argv[1]);
    if (event_count == 0) return 2;
    for (long state = 0; state < states; state++) {
        char folder[400], out[420];
        int64_t newest;
        snprintf(folder, sizeof folder, "%s/%ld", argv[4], sampled + 1);
        snprintf(out, sizeof out, "%s/runs/out", folder);
        chance = (uint64_t)(seed * 1000003 + state + 1) * 0x9e3779b97f4a7c15;
        const size_t cut = choose_cut(state);
        const int64_t saved = saved_before(cut);
        build(folder, cut);
        const bool good = judge(out, saved, &newest);
        none += newest == 0;
        if (!good && ++bad <= 5)
            printf("state %ld, cut after operation %zu of %zu (%s %s): %s\n", state, cut, event_count,
                   cut == 0 ? "start" : kind_names[events[cut - 1].r.kind],
                   cut == 0 ? "" : events[cut - 1].r.path, wrong);
        if (good && (state + 1) * samples >= (sampled + 1) * states) sampled++;
    }
    printf("# fault: power cut: %ld states of %zu operations (seed %ld), %zu pages and %zu names lost, %ld "
           "states "
           "before the first checkpoint, %ld bad\n",
           states, event_count, seed, lost_writes, lost_names, none, bad);
    return bad > 0;
}
