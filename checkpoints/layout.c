#define _GNU_SOURCE

#include "checkpoints/layout.h"

#include "checkpoints/chunks.h"
#include "checkpoints/fletcher32.h"
#include "checkpoints/layout_driver.h"
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

static lt_status build_layout(const char *path, int descriptor, const lt_checkpoint_header *header,
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
    if (target.error) {
        errno = target.error;
        return lt_system_failure("lay out in memory", path);
    }
    if (!b.failed) return LT_OK;
    return lt_fail(LT_IO, "%s: the HDF5 library could not lay out %s of the checkpoint (out of memory?)",
                   path, b.failed);
}

/* Copies what is not a hole of `from`, and its length. */
static lt_status copy_sparse(int from, int to, const char *path) {
    static const size_t BUFFER = 256 << 10;
    char *buffer = malloc(BUFFER);
    if (!buffer) return lt_fail(LT_IO, "%s: no memory for a copy buffer", path);
    off_t length = lseek(from, 0, SEEK_END);
    lt_status status = LT_OK;
    for (off_t at = 0; status == LT_OK && (at = lseek(from, at, SEEK_DATA)) >= 0;) {
        off_t end = lseek(from, at, SEEK_HOLE);
        while (status == LT_OK && at < end) {
            size_t size = end - at < (off_t)BUFFER ? (size_t)(end - at) : BUFFER;
            ssize_t got = pread(from, buffer, size, at);
            if (got <= 0)
                status = lt_system_failure("read the layout of", path);
            else
                status = lt_write_at(to, path, buffer, (size_t)got, at);
            at += got;
        }
    }
    free(buffer);
    if (status == LT_OK && ftruncate(to, length) != 0) status = lt_system_failure("set the length of", path);
    return status;
}

lt_status lt_layout_write(const char *path, const lt_checkpoint_header *header, const lt_registry *registry,
                          int64_t *addresses) {
    size_t config_bytes = header->config ? strlen(header->config) : 0;
    if (config_bytes > LT_CHECKPOINT_MAX_CONFIG)
        return lt_fail(
            LT_BAD_INPUT,
            "%s: the config text has %zu bytes, a checkpoint holds %d: list fewer files, or folders instead",
            path, config_bytes, LT_CHECKPOINT_MAX_CONFIG);
    if (header->sources < 0 || header->sources > LT_CHECKPOINT_MAX_SOURCES)
        return lt_fail(LT_BAD_INPUT, "%s: %d sources, a checkpoint holds %d", path, header->sources,
                       LT_CHECKPOINT_MAX_SOURCES);
    int memory = memfd_create("checkpoint layout", MFD_CLOEXEC);
    if (memory < 0) return lt_system_failure("create memory for the layout of", path);
    lt_status status = build_layout(path, memory, header, registry, addresses);
    int file = -1;
    if (status == LT_OK) {
        file = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);
        if (file < 0) status = lt_system_failure("create", path);
    }
    if (status == LT_OK) status = copy_sparse(memory, file, path);
    if (file >= 0 && close(file) != 0 && status == LT_OK) status = lt_system_failure("close", path);
    close(memory);
    return status;
}
