#define _GNU_SOURCE

#include "checkpoints/layout.h"

#include "checkpoints/child.h"
#include "checkpoints/chunks.h"
#include "checkpoints/fletcher32.h"
#include "checkpoints/layout_driver.h"
#include "checkpoints/layout_numbers.h"
#include "checkpoints/system.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

/* Chunks of a page or more start at a page, so that two ranks rarely write parts of one page: over NFS that
 * would lean on how the client treats pages of which it has written a part. */
enum { PAGE = 4096 };

static const char *const TENSOR_GROUPS[LT_TENSOR_KINDS] = {"/params", "/optimizer/m", "/optimizer/v"};

/* The first HDF5 call that failed; later ones are skipped. */
typedef struct build {
    hid_t file;
    const char *failed;
} build;

static void require(build *b, bool succeeded, const char *what) {
    if (!succeeded && !b->failed) b->failed = what;
}

static void put_integer(build *b, const char *name, int64_t value) {
    hid_t space = H5Screate(H5S_SCALAR);
    hid_t attribute = H5Acreate2(b->file, name, H5T_STD_I64LE, space, H5P_DEFAULT, H5P_DEFAULT);
    require(b, attribute >= 0 && H5Awrite(attribute, H5T_NATIVE_INT64, &value) >= 0, name);
    H5Aclose(attribute);
    H5Sclose(space);
}

/* Strings have fixed lengths: those of variable length go to HDF5's global heap, the one structure of the
 * file that carries no checksum. */
static void put_string(build *b, const char *name, const char *value) {
    hid_t space = H5Screate(H5S_SCALAR), type = H5Tcopy(H5T_C_S1);
    H5Tset_size(type, strlen(value) + 1);
    H5Tset_cset(type, H5T_CSET_UTF8);
    hid_t attribute = H5Acreate2(b->file, name, type, space, H5P_DEFAULT, H5P_DEFAULT);
    require(b, attribute >= 0 && H5Awrite(attribute, type, value) >= 0, name);
    H5Aclose(attribute);
    H5Tclose(type);
    H5Sclose(space);
}

static void put_header(build *b, const lt_checkpoint_header *header) {
    const lt_provenance *p = &header->provenance;
    put_integer(b, "format_version", LT_CHECKPOINT_FORMAT);
    put_integer(b, "step", header->step);
    put_integer(b, "tokens", header->tokens);
    put_string(b, "config", header->config ? header->config : "");
    if (header->tokenizer_hash[0]) put_string(b, "tokenizer_hash", header->tokenizer_hash);
    if (header->data_hash[0]) {
        put_string(b, "data_hash", header->data_hash);
        put_integer(b, "data_files", header->data_files);
        put_integer(b, "data_bytes", header->data_bytes);
    }
    put_string(b, "version", p->version);
    put_string(b, "commit", p->commit);
    put_string(b, "instruction_set", p->instruction_set);
    put_string(b, "blas_kernel", p->blas_kernel);
    put_string(b, "mpi", p->mpi);
    put_string(b, "hosts", p->hosts);
    put_integer(b, "ranks", p->ranks);
    put_integer(b, "threads", p->threads);
}

static void put_group(build *b, const char *name) {
    hid_t list = H5Pcreate(H5P_GROUP_CREATE);
    H5Pset_obj_track_times(list, false);
    hid_t group = H5Gcreate2(b->file, name, H5P_DEFAULT, list, H5P_DEFAULT);
    require(b, group >= 0, name);
    H5Gclose(group);
    H5Pclose(list);
}

/* Compact: the values lie in the object's header, which has a checksum. */
static void put_samples(build *b, const lt_checkpoint_header *header) {
    hsize_t count = (hsize_t)header->sources;
    hid_t space = H5Screate_simple(1, &count, NULL), list = H5Pcreate(H5P_DATASET_CREATE);
    H5Pset_layout(list, H5D_COMPACT);
    H5Pset_obj_track_times(list, false);
    const char *name = "/data/samples_consumed";
    hid_t set = H5Dcreate2(b->file, name, H5T_STD_I64LE, space, H5P_DEFAULT, list, H5P_DEFAULT);
    require(b, set >= 0, name);
    if (set >= 0 && count > 0)
        require(b,
                H5Dwrite(set, H5T_NATIVE_INT64, H5S_ALL, H5S_ALL, H5P_DEFAULT, header->samples_consumed) >= 0,
                name);
    H5Dclose(set);
    H5Pclose(list);
    H5Sclose(space);
}

/* Reads where HDF5 put the chunks of `set`; they must be as lt_chunking_of() says. */
static bool get_addresses(hid_t set, hid_t space, const lt_chunking *c, int64_t *addresses) {
    hsize_t count = 0;
    if (H5Dget_num_chunks(set, space, &count) < 0 || (int64_t)count != c->chunks) return false;
    for (hsize_t i = 0; i < count; i++) {
        hsize_t offset[2] = {0, 0}, size = 0;
        unsigned mask = 1;
        haddr_t address = HADDR_UNDEF;
        if (H5Dget_chunk_info(set, space, i, offset, &mask, &address, &size) < 0) return false;
        if (mask != 0 || address == HADDR_UNDEF || (int64_t)size != c->chunk_bytes + LT_FLETCHER32_BYTES)
            return false;
        if (offset[0] % (hsize_t)c->chunk_rows != 0 || (int64_t)offset[0] >= c->rows) return false;
        addresses[(int64_t)offset[0] / c->chunk_rows] = (int64_t)address;
    }
    return true;
}

static void put_tensor(build *b, lt_tensor_kind kind, const lt_parameter *parameter, int64_t *addresses) {
    lt_chunking c = lt_chunking_of(parameter);
    hsize_t shape[2] = {(hsize_t)c.rows, (hsize_t)c.row_elements};
    hsize_t chunk[2] = {(hsize_t)c.chunk_rows, (hsize_t)c.row_elements};
    char name[160];
    snprintf(name, sizeof name, "%s/%s", TENSOR_GROUPS[kind], parameter->name);
    hid_t space = H5Screate_simple(parameter->dimensions, shape, NULL), list = H5Pcreate(H5P_DATASET_CREATE);
    H5Pset_chunk(list, parameter->dimensions, chunk);
    H5Pset_fletcher32(list);
    H5Pset_alloc_time(list, H5D_ALLOC_TIME_EARLY);
    H5Pset_fill_time(list, H5D_FILL_TIME_NEVER);
    H5Pset_obj_track_times(list, false);
    hid_t set = H5Dcreate2(b->file, name, H5T_IEEE_F32LE, space, H5P_DEFAULT, list, H5P_DEFAULT);
    require(b, set >= 0, parameter->name);
    if (set >= 0) require(b, get_addresses(set, space, &c, addresses), parameter->name);
    H5Dclose(set);
    H5Pclose(list);
    H5Sclose(space);
}

static void create_file(build *b, lt_layout_target *target) {
    hid_t access = H5Pcreate(H5P_FILE_ACCESS), create = H5Pcreate(H5P_FILE_CREATE);
    /* This version exactly: it checksums its structure, and every HDF5 since 1.10 reads it. */
    H5Pset_libver_bounds(access, H5F_LIBVER_V110, H5F_LIBVER_V110);
    H5Pset_alignment(access, PAGE, PAGE);
    H5Pset_obj_track_times(create, false);
    H5Pset_attr_phase_change(create, 64, 32); /* all attributes in the root's header, under its checksum */
    if (lt_layout_driver_use(access, target) >= 0)
        b->file = H5Fcreate("layout", H5F_ACC_TRUNC, create, access);
    require(b, b->file >= 0, "the file");
    H5Pclose(create);
    H5Pclose(access);
}

/* Fills `descriptor` and `addresses`; says what failed, NULL if nothing did. */
static const char *build_layout(int descriptor, const lt_checkpoint_header *header,
                                const lt_registry *registry, int64_t *addresses) {
    H5Eset_auto2(H5E_DEFAULT, NULL, NULL);
    build b = {-1, NULL};
    lt_layout_target target = {descriptor, 0};
    create_file(&b, &target);
    if (!b.failed) {
        put_header(&b, header);
        put_group(&b, "/params");
        put_group(&b, "/optimizer");
        put_group(&b, "/optimizer/m");
        put_group(&b, "/optimizer/v");
        put_group(&b, "/data");
        put_samples(&b, header);
    }
    for (int kind = 0; kind < LT_TENSOR_KINDS && !b.failed; kind++) {
        for (int i = 0; i < registry->count && !b.failed; i++) {
            put_tensor(&b, (lt_tensor_kind)kind, &registry->parameters[i], addresses);
            addresses += lt_chunking_of(&registry->parameters[i]).chunks;
        }
    }
    if (b.file >= 0) require(&b, H5Fclose(b.file) >= 0, "the end of the file");
    return target.error ? strerror(target.error) : b.failed;
}

/* ---- in a child
 * ------------------------------------------------------------------------------------------------- */

/* What the child shares with its parent; ended by the addresses. */
typedef struct answer {
    bool done;
    char failed[256];
    int64_t addresses[];
} answer;

enum { PROCESSOR_SECONDS = 120 };

static lt_status build_apart(int memory, const lt_checkpoint_header *header, const lt_registry *registry,
                             answer *answered) {
    pid_t child = lt_child_fork(PROCESSOR_SECONDS);
    if (child < 0) return lt_system_failure("start a process for", "the layout of checkpoints");
    if (child == 0) {
        const char *failed = build_layout(memory, header, registry, answered->addresses);
        if (failed) snprintf(answered->failed, sizeof answered->failed, "%s", failed);
        answered->done = !failed;
        _exit(0);
    }
    int ended;
    lt_child_wait(child, &ended);
    if (answered->done) return LT_OK;
    return lt_fail(LT_IO, "the HDF5 library could not lay out a checkpoint: %s: free memory and start again",
                   answered->failed[0] ? answered->failed : lt_child_reason(ended));
}

/* ---- the layout
 * ------------------------------------------------------------------------------------------------- */

/* A run of bytes without holes. */
typedef struct piece {
    off_t offset;
    size_t size;
    unsigned char *bytes;
} piece;

struct lt_layout {
    int64_t chunks, *addresses;
    off_t length; /* of the file */
    int pieces;
    piece *piece;
    lt_layout_numbers numbers;
};

static lt_status no_memory(void) {
    return lt_fail(LT_IO, "no memory for the layout of checkpoints");
}

static lt_status read_piece(int memory, off_t at, off_t end, lt_layout *layout) {
    piece *grown = realloc(layout->piece, (size_t)(layout->pieces + 1) * sizeof *grown);
    if (!grown) return no_memory();
    layout->piece = grown;
    piece *p = &grown[layout->pieces];
    *p = (piece){.offset = at, .size = (size_t)(end - at), .bytes = malloc((size_t)(end - at))};
    if (!p->bytes) return no_memory();
    layout->pieces++;
    for (size_t got = 0; got < p->size;) {
        ssize_t n = pread(memory, p->bytes + got, p->size - got, at + (off_t)got);
        if (n < 0 && errno == EINTR) continue;
        if (n == 0) errno = EIO;
        if (n <= 0) return lt_system_failure("read", "the layout of checkpoints");
        got += (size_t)n;
    }
    return LT_OK;
}

/* Where chunks lie. */
typedef struct range {
    off_t begin, end;
} range;

static int by_place(const void *a, const void *b) {
    const off_t x = ((const range *)a)->begin, y = ((const range *)b)->begin;
    return (x > y) - (x < y);
}

static range *chunk_ranges(const lt_layout *layout, const lt_registry *registry) {
    range *ranges = malloc((size_t)layout->chunks * sizeof *ranges);
    int64_t number = 0;
    for (int kind = 0; kind < LT_TENSOR_KINDS && ranges; kind++)
        for (int i = 0; i < registry->count; i++) {
            const lt_chunking cut = lt_chunking_of(&registry->parameters[i]);
            for (int64_t k = 0; k < cut.chunks; k++, number++) {
                const off_t begin = (off_t)layout->addresses[number];
                ranges[number] = (range){begin, begin + (off_t)cut.chunk_bytes + LT_FLETCHER32_BYTES};
            }
        }
    if (ranges) qsort(ranges, (size_t)layout->chunks, sizeof *ranges, by_place);
    return ranges;
}

/* Takes over what is not a hole of the bytes between two chunks. */
static lt_status read_gap(int memory, off_t begin, off_t end, lt_layout *layout) {
    while (begin < end) {
        const off_t at = lseek(memory, begin, SEEK_DATA);
        if (at < 0 && errno == ENXIO) return LT_OK; /* holes up to the end of the file */
        const off_t hole = at < 0 ? at : lseek(memory, at, SEEK_HOLE);
        if (hole < 0) return lt_system_failure("read", "the layout of checkpoints");
        begin = hole < end ? hole : end;
        if (at < begin) LT_CHECK(read_piece(memory, at, begin, layout));
    }
    return LT_OK;
}

/* All but the chunks, to the byte: ranks write theirs while the structure is written. */
static lt_status read_pieces(int memory, lt_layout *layout, const lt_registry *registry) {
    layout->length = lseek(memory, 0, SEEK_END);
    if (layout->length < 0) return lt_system_failure("read", "the layout of checkpoints");
    range *ranges = chunk_ranges(layout, registry);
    if (!ranges) return no_memory();
    lt_status status = LT_OK;
    off_t at = 0;
    for (int64_t i = 0; i < layout->chunks && status == LT_OK; i++) {
        status = read_gap(memory, at, ranges[i].begin, layout);
        at = ranges[i].end;
    }
    if (status == LT_OK) status = read_gap(memory, at, layout->length, layout);
    free(ranges);
    LT_CHECK(status);
    for (int i = 0; i < layout->pieces; i++)
        LT_CHECK(lt_layout_numbers_find(&layout->numbers, layout->piece[i].bytes, layout->piece[i].size));
    return lt_layout_numbers_check(&layout->numbers);
}

static lt_status check_header(const lt_checkpoint_header *header) {
    size_t config_bytes = header->config ? strlen(header->config) : 0;
    if (config_bytes > LT_CHECKPOINT_MAX_CONFIG)
        return lt_fail(
            LT_BAD_INPUT,
            "checkpoint: the config text has %zu bytes, a checkpoint holds %d: list fewer files, or folders "
            "instead",
            config_bytes, LT_CHECKPOINT_MAX_CONFIG);
    if (header->sources < 0 || header->sources > LT_CHECKPOINT_MAX_SOURCES)
        return lt_fail(LT_BAD_INPUT, "checkpoint: %d sources, a checkpoint holds %d", header->sources,
                       LT_CHECKPOINT_MAX_SOURCES);
    return LT_OK;
}

static lt_status fill(lt_layout *layout, int memory, answer *answered, const lt_checkpoint_header *header,
                      const lt_registry *registry) {
    lt_checkpoint_header marked = *header;
    lt_layout_numbers_mark(&layout->numbers, &marked);
    LT_CHECK(build_apart(memory, &marked, registry, answered));
    layout->addresses = malloc((size_t)layout->chunks * sizeof *layout->addresses);
    if (!layout->addresses) return no_memory();
    memcpy(layout->addresses, answered->addresses, (size_t)layout->chunks * sizeof *layout->addresses);
    return read_pieces(memory, layout, registry);
}

lt_status lt_layout_create(const lt_checkpoint_header *header, const lt_registry *registry,
                           lt_layout **layout) {
    int64_t chunks, largest;
    *layout = NULL;
    LT_CHECK(check_header(header));
    LT_CHECK(lt_chunks_count(registry, &chunks, &largest));
    lt_layout *made = calloc(1, sizeof *made);
    if (!made) return no_memory();
    made->chunks = chunks;
    size_t bytes = sizeof(answer) + (size_t)chunks * sizeof(int64_t);
    answer *answered = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    int memory = memfd_create("checkpoint layout", MFD_CLOEXEC);
    lt_status status = answered == MAP_FAILED || memory < 0
                           ? lt_system_failure("create memory for", "the layout of checkpoints")
                           : fill(made, memory, answered, header, registry);
    if (memory >= 0) close(memory);
    if (answered != MAP_FAILED) munmap(answered, bytes);
    if (status == LT_OK)
        *layout = made;
    else
        lt_layout_free(made);
    return status;
}

void lt_layout_free(lt_layout *layout) {
    if (!layout) return;
    for (int i = 0; i < layout->pieces; i++) free(layout->piece[i].bytes);
    free(layout->piece);
    free(layout->addresses);
    free(layout);
}

const int64_t *lt_layout_addresses(const lt_layout *layout) {
    return layout->addresses;
}

lt_status lt_layout_write(lt_layout *layout, int file, const char *path, const lt_checkpoint_header *header) {
    lt_layout_numbers_set(&layout->numbers, header);
    for (int i = 0; i < layout->pieces; i++) {
        const piece *p = &layout->piece[i];
        LT_CHECK(lt_write_at(file, path, p->bytes, p->size, p->offset));
    }
    return ftruncate(file, layout->length) == 0 ? LT_OK : lt_system_failure("set the length of", path);
}
