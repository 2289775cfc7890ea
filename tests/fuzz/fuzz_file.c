/* Fuzzes the whole way of a file: the child that walks it with HDF5, and what is then read of it. The input
 * says how the good checkpoint is changed: a byte for the manner, then changes of eight bytes each.
 *
 *   damage   bytes differ: what is accepted then has the contents of the good one
 *   forgery  the structure is changed and gets right checksums, so that HDF5 believes it
 */
#define _GNU_SOURCE
#include "fuzz.h"

#include "checkpoints/child.h"
#include "tests/unit/checkpoint_blocks.h"

#include <fcntl.h>
#include <hdf5.h>
#include <sys/stat.h>
#include <unistd.h>

static unsigned char *good, *changed;
static size_t bytes;
static uint64_t contents; /* of the good one */
static char path[4096];   /* of the changed one */
static int file;

/* Hostile files are many: none gets the ten seconds. */
pid_t __real_lt_child_fork(unsigned processor_seconds);
pid_t __wrap_lt_child_fork(unsigned processor_seconds);
pid_t __wrap_lt_child_fork(unsigned processor_seconds) {
    (void)processor_seconds;
    return __real_lt_child_fork(1);
}

/* ---- the structure ---- */

enum { MOST_BLOCKS = 4096 };
static test_block blocks[MOST_BLOCKS];
static size_t block_count;

static void forge_checksums(void) {
    for (size_t i = 0; i < block_count; i++) {
        const test_block *b = &blocks[i];
        const uint32_t sum = test_block_sum(changed + b->start, b->size, b->checksum);
        memcpy(changed + b->start + b->checksum, &sum, sizeof sum);
    }
}

/* ---- the changes ---- */

typedef struct change {
    uint8_t kind;
    uint8_t value[3];
    uint32_t place;
} change;

static void damage(const change *c) {
    const unsigned char by = c->value[0];
    changed[c->place % bytes] ^=
        by == 0 || by == 0xff ? 1 : by; /* 0x0000 and 0xffff are one to Fletcher-32 */
}

static uint64_t odd_number(const change *c) {
    const uint64_t given = c->value[0] | (uint64_t)c->value[1] << 8;
    switch (c->value[2] % 6) {
    case 0:
        return given;
    case 1:
        return UINT64_MAX - given;
    case 2:
        return bytes - given;
    case 3:
        return (uint64_t)1 << given % 64;
    case 4:
        return ((uint64_t)1 << given % 64) - 1;
    default:
        return blocks[given % block_count].start;
    }
}

static void forge(const change *c) {
    const test_block *b = &blocks[c->place % block_count];
    const size_t at = c->place / block_count % b->size, left = b->size - at;
    const size_t width = (size_t)1 << c->kind / 2 % 4;
    const uint64_t number = odd_number(c);
    if (c->kind % 2 != 0) { /* a part of another block */
        const test_block *from = &blocks[number % block_count];
        const size_t most = from->size < left ? from->size : left;
        memcpy(changed + b->start + at, good + from->start, c->value[1] % most + 1);
    } else {
        memcpy(changed + b->start + at, &number, width < left ? width : left);
    }
}

static void write_changed(size_t size) {
    if (ftruncate(file, 0) != 0 || pwrite(file, changed, size, 0) != (ssize_t)size) abort();
}

/* ---- what an accepted file holds ---- */

static void add(uint64_t *sum, const void *data, size_t size) {
    for (size_t i = 0; i < size; i++) *sum = (*sum ^ ((const unsigned char *)data)[i]) * 0x100000001b3;
}

static lt_status add_values(void *sum, const lt_stored_tensor *t, int64_t first, int64_t count,
                            const float *values) {
    (void)t;
    add(sum, &first, sizeof first);
    add(sum, values, (size_t)count * sizeof *values);
    return LT_OK;
}

static uint64_t contents_of(const lt_stored *stored) {
    const lt_checkpoint_header *h = &stored->header;
    const int64_t numbers[] = {h->format_version,     h->step,       h->tokens,     h->provenance.ranks,
                               h->provenance.threads, h->data_files, h->data_bytes, h->sources,
                               stored->tensors};
    uint64_t sum = 0xcbf29ce484222325;
    add(&sum, numbers, sizeof numbers);
    add(&sum, h->config, strlen(h->config));
    add(&sum, h->data_hash, strlen(h->data_hash));
    add(&sum, h->provenance.version, strlen(h->provenance.version));
    add(&sum, h->provenance.hosts, strlen(h->provenance.hosts));
    add(&sum, h->samples_consumed, (size_t)h->sources * sizeof *h->samples_consumed);
    lt_stored_reader reader = {.path = path,
                               .file = file,
                               .context = &sum,
                               .take = add_values,
                               .buffer = malloc(lt_stored_buffer_bytes(stored))};
    for (int i = 0; i < stored->tensors; i++) {
        const lt_stored_tensor *t = &stored->tensor[i];
        add(&sum, t->name, strlen(t->name));
        add(&sum, t->shape, sizeof t->shape);
        if (lt_stored_read(&reader, t) != LT_OK) abort();
    }
    free(reader.buffer);
    return sum;
}

static lt_status read_changed(uint64_t *sum) {
    lt_stored stored;
    LT_CHECK(lt_stored_open(path, &stored));
    const lt_status status = lt_stored_verify(path, &stored);
    if (status == LT_OK) *sum = contents_of(&stored);
    lt_stored_free(&stored);
    return status;
}

/* ---- libFuzzer ---- */

/* A new message is a new path, though HDF5 itself is not instrumented. */
__attribute__((section("__libfuzzer_extra_counters"))) static unsigned char messages[4096];

static void note_message(void) {
    uint64_t sum = 0;
    for (const char *at = lt_error_message(); *at; at++)
        if (*at < '0' || *at > '9') add(&sum, at, 1);
    messages[sum % sizeof messages] = 1;
}

int LLVMFuzzerInitialize(int *argc, char ***argv) {
    (void)argc, (void)argv;
    static const char *const names[] = {"damage", "forgery"};
    begin();
    H5open(); /* here, so that not every child must */
    struct stat about;
    const int source = open(checkpoint, O_RDONLY);
    if (source < 0 || fstat(source, &about) != 0) abort();
    bytes = (size_t)about.st_size;
    good = malloc(bytes);
    changed = malloc(bytes);
    if (read(source, good, bytes) != (ssize_t)bytes) abort();
    close(source);
    block_count = test_blocks_find(good, bytes, blocks, MOST_BLOCKS);
    if (block_count < 20) abort();
    snprintf(path, sizeof path, "%s.h5", getenv("FUZZ_CORPUS"));
    file = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0666);
    memcpy(changed, good, bytes);
    write_changed(bytes);
    if (read_changed(&contents) != LT_OK) abort();
    for (uint8_t manner = 0; manner < 2; manner++) {
        unsigned char input[1 + sizeof(change)] = {manner};
        put_in_corpus(names[manner], input, sizeof input);
    }
    return 0;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    if (size < 1) return 0;
    const bool forged = data[0] % 2 != 0;
    uint64_t sum = 0;
    size_t end = bytes;
    memcpy(changed, good, bytes);
    for (size_t at = 1; at + sizeof(change) <= size; at += sizeof(change)) {
        change c;
        memcpy(&c, data + at, sizeof c);
        if (c.kind == 255)
            end = c.place % (bytes + 1); /* truncated */
        else if (forged)
            forge(&c);
        else
            damage(&c);
    }
    if (forged) forge_checksums();
    write_changed(end);
    executions++;
    const lt_status status = read_changed(&sum);
    check_status(status);
    if (status != LT_OK) note_message();
    accepted += status == LT_OK;
    if (status == LT_OK && !forged && sum != contents) abort();
    return 0;
}
