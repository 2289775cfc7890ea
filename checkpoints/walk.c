#include "checkpoints/walk.h"

#include "checkpoints/fletcher32.h"
#include "checkpoints/stored.h"

#include <hdf5.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

typedef struct walk {
    const char *path;
    hid_t file;
    int64_t file_bytes;
    lt_pack *answer;
} walk;

/* The innermost of HDF5's messages says what is wrong, the outer ones what HDF5 was about. */
static herr_t keep_first(unsigned n, const H5E_error2_t *error, void *context) {
    char *text = context;
    if (n == 0 && error->desc) snprintf(text, 256, "%s", error->desc);
    return 0;
}

static lt_status library_failure(const walk *w, const char *what) {
    char reason[256] = "no reason given";
    H5Ewalk2(H5E_DEFAULT, H5E_WALK_UPWARD, keep_first, reason);
    return lt_fail(
        LT_BAD_INPUT,
        "%s: cannot read %s: HDF5 says: %s; the file is damaged or truncated: use another checkpoint",
        w->path, what, reason);
}

/* Whether an attribute of the root, or a path of groups, is there. What cannot be read is damage, not
 * absence. */
static lt_status has_attribute(const walk *w, const char *name, bool required, bool *present) {
    htri_t found = H5Aexists(w->file, name);
    *present = found > 0;
    if (found < 0) return library_failure(w, name);
    if (*present || !required) return LT_OK;
    return lt_fail(LT_BAD_INPUT,
                   "%s: the root attribute %s is missing: not a lazytrain checkpoint, or a damaged one",
                   w->path, name);
}

static lt_status has_path(const walk *w, const char *path, bool *present) {
    char part[64];
    *present = true;
    for (const char *slash = path; slash && *present;) {
        slash = strchr(slash + 1, '/');
        snprintf(part, sizeof part, "%.*s", slash ? (int)(slash - path) : (int)strlen(path), path);
        htri_t found = H5Lexists(w->file, part, H5P_DEFAULT);
        if (found < 0) return library_failure(w, part);
        *present = found > 0;
    }
    return LT_OK;
}

/* ---- attributes
 * ------------------------------------------------------------------------------------------------ */

static lt_status get_integer(const walk *w, const char *name, bool required, int64_t *value) {
    *value = 0;
    bool present;
    LT_CHECK(has_attribute(w, name, required, &present));
    if (!present) return LT_OK;
    hid_t attribute = H5Aopen(w->file, name, H5P_DEFAULT);
    hid_t type = H5Aget_type(attribute), space = H5Aget_space(attribute);
    bool fits = H5Tget_class(type) == H5T_INTEGER && H5Tget_size(type) <= 8 &&
                H5Sget_simple_extent_npoints(space) == 1;
    bool done = fits && H5Aread(attribute, H5T_NATIVE_INT64, value) >= 0;
    lt_status status = LT_OK;
    if (!done)
        status = fits ? library_failure(w, name)
                      : lt_fail(LT_BAD_INPUT, "%s: the root attribute %s is not one integer", w->path, name);
    else if (*value < 0)
        status = lt_fail(LT_BAD_INPUT, "%s: the root attribute %s is %lld, expected 0 or more", w->path, name,
                         (long long)*value);
    H5Sclose(space);
    H5Tclose(type);
    H5Aclose(attribute);
    return status;
}

/* Reads a string of either kind; malloc'ed by `*text`. */
static bool read_string(hid_t attribute, hid_t type, size_t size, bool variable, char **text) {
    hid_t memory = H5Tcopy(type);
    bool done;
    if (variable) {
        char *loan = NULL;
        done = H5Aread(attribute, memory, &loan) >= 0;
        *text = done ? strdup(loan ? loan : "") : NULL;
        H5free_memory(loan);
    } else {
        *text = calloc(size + 1, 1);
        done = *text && H5Aread(attribute, memory, *text) >= 0;
    }
    H5Tclose(memory);
    return done && *text;
}

static lt_status get_string(const walk *w, const char *name, bool required, char **text) {
    *text = NULL;
    bool present;
    LT_CHECK(has_attribute(w, name, required, &present));
    if (!present) return LT_OK;
    hid_t attribute = H5Aopen(w->file, name, H5P_DEFAULT);
    hid_t type = H5Aget_type(attribute), space = H5Aget_space(attribute);
    size_t size = H5Tget_size(type);
    bool variable = H5Tis_variable_str(type) > 0;
    bool fits = H5Tget_class(type) == H5T_STRING && (variable || size <= 1 << 24) &&
                H5Sget_simple_extent_npoints(space) == 1;
    lt_status status = LT_OK;
    if (!fits)
        status = lt_fail(LT_BAD_INPUT, "%s: the root attribute %s is not one string", w->path, name);
    else if (!read_string(attribute, type, size, variable, text))
        status = library_failure(w, name);
    H5Sclose(space);
    H5Tclose(type);
    H5Aclose(attribute);
    return status;
}

static lt_status get_text(const walk *w, const char *name, char *field, size_t size) {
    char *text;
    LT_CHECK(get_string(w, name, false, &text));
    snprintf(field, size, "%s", text ? text : "");
    free(text);
    return LT_OK;
}

/* ---- header
 * ---------------------------------------------------------------------------------------------------- */

static lt_status get_samples(const walk *w, lt_checkpoint_header *header) {
    static const char *const NAME = "/data/samples_consumed";
    bool present;
    LT_CHECK(has_path(w, NAME, &present));
    if (!present) return LT_OK;
    hid_t set = H5Dopen2(w->file, NAME, H5P_DEFAULT);
    if (set < 0) return library_failure(w, NAME);
    hid_t type = H5Dget_type(set), space = H5Dget_space(set);
    hssize_t count = H5Sget_simple_extent_npoints(space);
    bool fits = H5Tget_class(type) == H5T_INTEGER && H5Tget_size(type) <= 8 && count >= 0 &&
                count <= LT_CHECKPOINT_MAX_SOURCES;
    lt_status status = LT_OK;
    if (!fits)
        status = lt_fail(LT_BAD_INPUT, "%s: %s is not a list of at most %d integers", w->path, NAME,
                         LT_CHECKPOINT_MAX_SOURCES);
    else if (count > 0 &&
             H5Dread(set, H5T_NATIVE_INT64, H5S_ALL, H5S_ALL, H5P_DEFAULT, header->samples_consumed) < 0)
        status = library_failure(w, NAME);
    header->sources = fits ? (int)count : 0;
    for (int i = 0; i < header->sources && status == LT_OK; i++)
        if (header->samples_consumed[i] < 0)
            status = lt_fail(LT_BAD_INPUT, "%s: %s[%d] is %lld, expected 0 or more", w->path, NAME, i,
                             (long long)header->samples_consumed[i]);
    H5Sclose(space);
    H5Tclose(type);
    H5Dclose(set);
    return status;
}

static lt_status walk_header(const walk *w, bool *newer) {
    lt_checkpoint_header header = {0};
    lt_provenance *p = &header.provenance;
    LT_CHECK(get_integer(w, "format_version", true, &header.format_version));
    *newer = header.format_version > LT_CHECKPOINT_FORMAT;
    if (*newer)
        return lt_fail(LT_BAD_INPUT,
                       "%s: has checkpoint format %lld, this lazytrain reads up to %d: use the version that "
                       "wrote it or a later one",
                       w->path, (long long)header.format_version, LT_CHECKPOINT_FORMAT);
    if (header.format_version < 1)
        return lt_fail(LT_BAD_INPUT, "%s: has checkpoint format 0, expected 1 to %d", w->path,
                       LT_CHECKPOINT_FORMAT);
    LT_CHECK(get_integer(w, "step", true, &header.step));
    LT_CHECK(get_integer(w, "tokens", true, &header.tokens));
    LT_CHECK(get_integer(w, "ranks", false, &p->ranks));
    LT_CHECK(get_integer(w, "threads", false, &p->threads));
    LT_CHECK(get_text(w, "tokenizer_hash", header.tokenizer_hash, sizeof header.tokenizer_hash));
    LT_CHECK(get_text(w, "data_hash", header.data_hash, sizeof header.data_hash));
    LT_CHECK(get_integer(w, "data_files", false, &header.data_files));
    LT_CHECK(get_integer(w, "data_bytes", false, &header.data_bytes));
    LT_CHECK(get_text(w, "version", p->version, sizeof p->version));
    LT_CHECK(get_text(w, "commit", p->commit, sizeof p->commit));
    LT_CHECK(get_text(w, "instruction_set", p->instruction_set, sizeof p->instruction_set));
    LT_CHECK(get_text(w, "blas_kernel", p->blas_kernel, sizeof p->blas_kernel));
    LT_CHECK(get_text(w, "mpi", p->mpi, sizeof p->mpi));
    LT_CHECK(get_text(w, "hosts", p->hosts, sizeof p->hosts));
    LT_CHECK(get_samples(w, &header));
    char *config;
    LT_CHECK(get_string(w, "config", true, &config));
    int64_t length = (int64_t)strlen(config);
    lt_pack_put(w->answer, &header, sizeof header);
    lt_pack_put(w->answer, &length, sizeof length);
    lt_pack_put(w->answer, config, (size_t)length);
    free(config);
    return LT_OK;
}

/* ---- tensors
 * --------------------------------------------------------------------------------------------------- */

#define PROBLEM(tensor, ...) snprintf((tensor)->problem, sizeof(tensor)->problem, __VA_ARGS__)

static bool shape_of(hid_t set, lt_stored_tensor *t) {
    hid_t space = H5Dget_space(set);
    hsize_t size[2] = {1, 1};
    t->dimensions = H5Sget_simple_extent_ndims(space);
    bool fits = H5Sis_simple(space) > 0 && (t->dimensions == 1 || t->dimensions == 2) &&
                H5Sget_simple_extent_dims(space, size, NULL) == t->dimensions;
    H5Sclose(space);
    for (int d = 0; d < 2; d++) {
        fits = fits && size[d] >= 1 && size[d] <= INT64_MAX / 8;
        t->shape[d] = fits ? (int64_t)size[d] : 1;
    }
    if (!fits) PROBLEM(t, "is not an array of one or two dimensions without empty ones");
    return fits;
}

/* Float32, cut into chunks whose data fit the file, with the Fletcher32 filter and no other. */
static bool storage_of(const walk *w, hid_t set, lt_stored_tensor *t) {
    hid_t type = H5Dget_type(set), list = H5Dget_create_plist(set);
    hsize_t chunk[2] = {1, 1};
    unsigned flags, configuration;
    size_t values = 0;
    bool float32 = H5Tequal(type, H5T_IEEE_F32LE) > 0;
    bool chunked =
        H5Pget_layout(list) == H5D_CHUNKED && H5Pget_chunk(list, t->dimensions, chunk) == t->dimensions;
    bool checked = H5Pget_nfilters(list) == 1 && H5Pget_filter2(list, 0, &flags, &values, NULL, 0, NULL,
                                                                &configuration) == H5Z_FILTER_FLETCHER32;
    H5Pclose(list);
    H5Tclose(type);
    if (!float32) return PROBLEM(t, "is not of little-endian float32"), false;
    if (!chunked || !checked)
        return PROBLEM(t, "is not stored in chunks with the Fletcher32 filter alone (h5repack -f FLET -l "
                          "CHUNK=... stores it so)"),
               false;
    int64_t elements = w->file_bytes / (int64_t)sizeof(float);
    for (int d = 0; d < 2; d++) {
        t->chunk[d] = (int64_t)chunk[d];
        t->grid[d] = t->shape[d] / t->chunk[d] + (t->shape[d] % t->chunk[d] != 0);
        elements = elements / t->chunk[d] / t->grid[d];
    }
    if (elements < 1) return PROBLEM(t, "has more elements than the file has room for"), false;
    return true;
}

/* Finds every chunk's offset; on success the addresses are malloc'ed. */
static bool chunks_of(const walk *w, hid_t set, lt_stored_tensor *t) {
    int64_t chunks = t->grid[0] * t->grid[1], found = 0;
    int64_t stored = t->chunk[0] * t->chunk[1] * (int64_t)sizeof(float) + LT_FLETCHER32_BYTES;
    hid_t space = H5Dget_space(set);
    hsize_t count = 0;
    if (H5Dget_num_chunks(set, space, &count) < 0) count = 0;
    t->addresses =
        count > 0 && count == (hsize_t)chunks ? calloc((size_t)chunks, sizeof *t->addresses) : NULL;
    for (hsize_t i = 0; t->addresses && i < count; i++) {
        hsize_t offset[2] = {0, 0}, size = 0;
        unsigned mask = 1;
        haddr_t address = HADDR_UNDEF;
        if (H5Dget_chunk_info(set, space, i, offset, &mask, &address, &size) < 0) break;
        int64_t row = (int64_t)(offset[0] / (hsize_t)t->chunk[0]),
                column = (int64_t)(offset[1] / (hsize_t)t->chunk[1]);
        if (row < 0 || row >= t->grid[0] || column < 0 || column >= t->grid[1]) break;
        int64_t *place = &t->addresses[row * t->grid[1] + column];
        if (mask != 0 || (int64_t)size != stored || *place != 0) break;
        if (address == 0 || address > (haddr_t)w->file_bytes || w->file_bytes - (int64_t)address < stored)
            break;
        *place = (int64_t)address;
        found++;
    }
    H5Sclose(space);
    if (found == chunks && t->addresses) return true;
    PROBLEM(t, "lacks chunks, or has some that are not whole in the file: %lld found, %lld expected",
            (long long)found, (long long)chunks);
    free(t->addresses);
    t->addresses = NULL;
    return false;
}

static lt_status walk_tensor(const walk *w, hid_t group, lt_tensor_kind kind, const char *name) {
    lt_stored_tensor t = {.kind = kind, .shape = {1, 1}, .chunk = {1, 1}, .grid = {1, 1}, .dimensions = 1};
    H5L_info_t link;
    snprintf(t.name, sizeof t.name, "%s", name);
    bool hard = H5Lget_info(group, name, &link, H5P_DEFAULT) >= 0 && link.type == H5L_TYPE_HARD;
    hid_t set = hard ? H5Oopen(group, name, H5P_DEFAULT) : -1;
    if (hard && set < 0) {
        char what[sizeof t.name + 32];
        snprintf(what, sizeof what, "%s/%s", lt_stored_group(kind), name);
        return library_failure(w, what);
    }
    if (set < 0 || H5Iget_type(set) != H5I_DATASET)
        PROBLEM(&t, "is not a dataset of this file");
    else if (shape_of(set, &t) && storage_of(w, set, &t))
        chunks_of(w, set, &t);
    if (set >= 0) H5Oclose(set);
    lt_pack_put(w->answer, "\1", 1);
    lt_pack_put(w->answer, &t, sizeof t);
    if (!t.problem[0])
        lt_pack_put(w->answer, t.addresses, (size_t)(t.grid[0] * t.grid[1]) * sizeof *t.addresses);
    free(t.addresses);
    return LT_OK;
}

static lt_status walk_group(const walk *w, lt_tensor_kind kind) {
    const char *path = lt_stored_group(kind);
    bool present;
    LT_CHECK(has_path(w, path, &present));
    if (!present) return LT_OK;
    hid_t group = H5Gopen2(w->file, path, H5P_DEFAULT);
    H5G_info_t info = {0};
    if (group < 0 || H5Gget_info(group, &info) < 0) return library_failure(w, path);
    lt_status status = LT_OK;
    for (hsize_t i = 0; i < info.nlinks && status == LT_OK; i++) {
        char name[sizeof((lt_stored_tensor *)0)->name];
        ssize_t length =
            H5Lget_name_by_idx(group, ".", H5_INDEX_NAME, H5_ITER_INC, i, name, sizeof name, H5P_DEFAULT);
        if (length < 0)
            status = library_failure(w, path);
        else if ((size_t)length >= sizeof name)
            status =
                lt_fail(LT_BAD_INPUT, "%s: %s holds a name of %lld bytes (%.40s...), expected at most %zu",
                        w->path, path, (long long)length, name, sizeof name - 1);
        else
            status = walk_tensor(w, group, kind, name);
    }
    H5Gclose(group);
    return status;
}

static hid_t open_file(const char *path) {
    hid_t access = H5Pcreate(H5P_FILE_ACCESS);
#if H5_VERSION_GE(1, 10, 7) && !H5_VERSION_GE(1, 12, 0) || H5_VERSION_GE(1, 12, 1)
    /* Nobody writes to a finished checkpoint, and not every shared file system has locks. */
    H5Pset_file_locking(access, false, true);
#endif
    hid_t file = H5Fopen(path, H5F_ACC_RDONLY, access);
    H5Pclose(access);
    return file;
}

lt_status lt_walk(const char *path, lt_pack *answer, bool *newer) {
    struct stat about;
    *newer = false;
    H5Eset_auto2(H5E_DEFAULT, NULL, NULL);
    walk w = {.path = path, .file = open_file(path), .answer = answer};
    if (w.file < 0) return library_failure(&w, "the file");
    if (stat(path, &about) != 0) return lt_fail(LT_IO, "%s: cannot be looked at", path);
    w.file_bytes = (int64_t)about.st_size;
    LT_CHECK(walk_header(&w, newer));
    for (int kind = 0; kind < LT_TENSOR_KINDS; kind++) LT_CHECK(walk_group(&w, (lt_tensor_kind)kind));
    lt_pack_put(answer, "", 1);
    /* The child ends here: closing would only walk through damaged structures again. */
    return answer->failed
               ? lt_fail(LT_BAD_INPUT, "%s: has too many chunks for the memory that a probe may use", path)
               : LT_OK;
}
