/* What is said of checkpoints that are damaged, of another version, or not ours. */
#define _GNU_SOURCE /* memmem */

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "checkpoint_blocks.h"
#include "checkpoint_fixture.h"

#include "checkpoints/fletcher32.h"
#include "checkpoints/stored.h"

static void write_bad(const unsigned char *bytes, size_t count) {
    int file = open(bad, O_WRONLY | O_CREAT | O_TRUNC, 0666);
    assert_int_equal(write(file, bytes, count), count);
    close(file);
}

/* ---- damaged files
 * ---------------------------------------------------------------------------------------------- */

/* What a byte of the file is. */
enum { GAP, STRUCTURE, FREE_SPACE, DATA };

/* A very small checkpoint, what each of its bytes is, and where its chunks lie. */
typedef struct small_file {
    char path[320];
    unsigned char *bytes, *kind;
    size_t size;
    int file; /* open for writing */
    lt_stored stored;
} small_file;

static void mark(small_file *s, size_t start, size_t size, unsigned char kind) {
    for (size_t at = start; at < start + size; at++) {
        assert_int_equal(s->kind[at], GAP);
        s->kind[at] = kind;
    }
}

static void find_out_kinds(small_file *s) {
    enum { MOST_BLOCKS = 1024 };
    static test_block blocks[MOST_BLOCKS];
    const size_t count = test_blocks_find(s->bytes, s->size, blocks, MOST_BLOCKS);
    for (size_t i = 0; i < count; i++)
        mark(s, blocks[i].start, blocks[i].size,
             memcmp(s->bytes + blocks[i].start, "FS", 2) == 0 ? FREE_SPACE : STRUCTURE);
    assert_int_equal(lt_stored_open(s->path, &s->stored), LT_OK);
    for (int i = 0; i < s->stored.tensors; i++) {
        const lt_stored_tensor *t = &s->stored.tensor[i];
        assert_int_equal(t->grid[0] * t->grid[1], 1);
        const size_t bytes = (size_t)(t->chunk[0] * t->chunk[1]) * sizeof(float) + LT_FLETCHER32_BYTES;
        mark(s, (size_t)t->addresses[0], bytes, DATA);
    }
}

static void make_small_file(small_file *s) {
    test_model model;
    struct stat about;
    lt_model_shape shape = test_shape(1);
    shape.vocabulary = 5;
    shape.hidden = 4;
    shape.layers = 1;
    shape.heads = shape.key_heads = 2;
    shape.intermediate = 3;
    test_model_create(&model, &shape, true);
    lt_checkpoint_header header = test_header(8);
    lt_tensor_access access = test_access(&model);
    assert_int_equal(test_save(&grid, folder, &header, &model.registry, &access), LT_OK);
    test_model_destroy(&model);
    snprintf(s->path, sizeof s->path, "%s/step_00000008.h5", folder);
    s->file = open(s->path, O_RDWR);
    assert_int_equal(fstat(s->file, &about), 0);
    s->size = (size_t)about.st_size;
    s->bytes = malloc(s->size);
    s->kind = calloc(s->size, 1);
    assert_int_equal(read(s->file, s->bytes, s->size), s->size);
    find_out_kinds(s);
}

/* Whether verifying finds byte `at` changed; with `by_child` the structure is read too. */
static bool is_found(const small_file *s, size_t at, bool by_child) {
    const unsigned char by = (unsigned char)(1 + rand() % 254), flipped = s->bytes[at] ^ by;
    assert_int_equal(pwrite(s->file, &flipped, 1, (off_t)at), 1);
    const lt_status status = by_child ? lt_checkpoint_verify(s->path) : lt_stored_verify(s->path, &s->stored);
    assert_int_equal(pwrite(s->file, &s->bytes[at], 1, (off_t)at), 1);
    if (status != LT_OK) assert_int_equal(status, LT_BAD_INPUT);
    return status == LT_BAD_INPUT;
}

/* Every changed byte of data or structure is found; what lies between is zero. What HDF5 keeps of free space
 * is for writers alone: no reader looks at it. LAZYTRAIN_FLIPS=all: every one of the structure, for each of
 * which a child is started; else one of 61. */
static void flipped_bytes(void **state) {
    (void)state;
    small_file s;
    const char *wanted = getenv("LAZYTRAIN_FLIPS");
    const size_t step = wanted && strcmp(wanted, "all") == 0 ? 1 : 61;
    size_t seen[4] = {0}, tried = 0;
    make_small_file(&s);
    srand(2);
    for (size_t at = 0; at < s.size; at++) {
        const unsigned char kind = s.kind[at];
        if (kind == GAP) assert_int_equal(s.bytes[at], 0);
        if (kind == DATA && !is_found(&s, at, false)) fail_msg("byte %zu of data, changed, is not found", at);
        if (kind == STRUCTURE && seen[kind] % step == 0) {
            if (!is_found(&s, at, true)) fail_msg("byte %zu of structure, changed, is not found", at);
            tried++;
        }
        seen[kind]++;
    }
    print_message("%zu bytes of data changed, %zu of %zu of structure, %zu bytes between are zero\n",
                  seen[DATA], tried, seen[STRUCTURE], seen[GAP]);
    assert_true(seen[DATA] > 1000 && seen[STRUCTURE] > 5000);
    lt_stored_free(&s.stored);
    close(s.file);
    free(s.bytes);
    free(s.kind);
}

static void truncated(void **state) {
    (void)state;
    for (size_t bytes = 0; bytes < image_bytes; bytes += bytes < 64     ? 3
                                                         : bytes < 3000 ? 97
                                                                        : image_bytes / 60 + 1) {
        write_bad(image, bytes);
        assert_int_equal(lt_checkpoint_verify(bad), LT_BAD_INPUT);
        assert_non_null(strstr(lt_error_message(), bad));
    }
    write_bad(image, image_bytes - 1);
    assert_says(lt_checkpoint_verify(bad), LT_BAD_INPUT, "truncated");
}

/* Every tensor's data are under a checksum, and the message names the tensor. */
static void damaged_data(void **state) {
    (void)state;
    for (int kind = 0; kind < 3; kind++) {
        for (int i = 0; i < saved.registry.count; i++) {
            const lt_parameter *p = &saved.registry.parameters[i];
            size_t bytes = (size_t)p->count * sizeof(float);
            unsigned char *data = memmem(image, image_bytes, saved.values[kind] + p->offset, bytes);
            assert_non_null(data);
            data[bytes / 2] ^= 0x10;
            write_bad(image, image_bytes);
            data[bytes / 2] ^= 0x10;
            assert_says(lt_checkpoint_verify(bad), LT_BAD_INPUT, p->name);
            if (kind == 0) assert_non_null(strstr(lt_error_message(), "/params/"));
        }
    }
}

static void no_checkpoint(void **state) {
    (void)state;
    lt_checkpoint_header header;
    assert_says(lt_checkpoint_read_header("/nowhere.h5", &header), LT_BAD_INPUT, "/nowhere.h5: cannot open");
    assert_says(lt_checkpoint_read_header(folder, &header), LT_BAD_INPUT, "not a file");
    write_bad((const unsigned char *)"hello, world, this is text", 26);
    assert_says(lt_checkpoint_read_header(bad, &header), LT_BAD_INPUT, "not an HDF5 file");
    assert_false(lt_checkpoint_recognise(bad));
    assert_true(lt_checkpoint_recognise(good));
    unlink(bad);
    assert_int_equal(mkfifo(bad, 0666), 0);
    assert_says(lt_checkpoint_verify(bad), LT_BAD_INPUT, "not a file");
    assert_false(lt_checkpoint_recognise(bad));
    unlink(bad);
    hid_t file = H5Fcreate(bad, H5F_ACC_TRUNC, H5P_DEFAULT, H5P_DEFAULT);
    H5Fclose(file);
    assert_says(lt_checkpoint_verify(bad), LT_BAD_INPUT, "format_version is missing");
}

/* ---- files of other programs and versions
 * ----------------------------------------------------------------------- */

static hid_t open_copy(void) {
    unlink(bad);
    write_bad(image, image_bytes);
    hid_t file = H5Fopen(bad, H5F_ACC_RDWR, H5P_DEFAULT);
    assert_true(file >= 0);
    return file;
}

static void newer_format(void **state) {
    (void)state;
    hid_t file = open_copy(), attribute = H5Aopen(file, "format_version", H5P_DEFAULT);
    int64_t version = LT_CHECKPOINT_FORMAT + 1;
    H5Awrite(attribute, H5T_NATIVE_INT64, &version);
    H5Aclose(attribute);
    H5Fclose(file);
    lt_checkpoint_header header;
    assert_says(lt_checkpoint_read_header(bad, &header), LT_BAD_INPUT,
                "has checkpoint format 2, this lazytrain reads up to 1");
}

static lt_status load_bad(void) {
    test_model loaded;
    lt_model_shape shape = test_shape(1);
    test_model_create(&loaded, &shape, false);
    lt_tensor_access access = test_access(&loaded);
    lt_status status = lt_checkpoint_load(bad, &loaded.registry, true, &access);
    test_model_destroy(&loaded);
    return status;
}

static const char NORM[] = "/params/model.norm.weight";

/* `chunk` 0: contiguous. */
static void put_vector(hid_t file, const char *name, hsize_t size, hsize_t chunk, hid_t type) {
    hid_t space = H5Screate_simple(1, &size, NULL), list = H5Pcreate(H5P_DATASET_CREATE);
    if (chunk) {
        H5Pset_chunk(list, 1, &chunk);
        H5Pset_fletcher32(list);
    }
    hid_t set = H5Dcreate2(file, name, type, space, H5P_DEFAULT, list, H5P_DEFAULT);
    assert_true(set >= 0);
    assert_true(H5Dwrite(set, H5T_NATIVE_FLOAT, H5S_ALL, H5S_ALL, H5P_DEFAULT, saved.values[1]) >= 0);
    H5Dclose(set);
    H5Pclose(list);
    H5Sclose(space);
}

static void other_tensors(void **state) {
    (void)state;
    hid_t file = open_copy();
    assert_true(H5Ldelete(file, NORM, H5P_DEFAULT) >= 0);
    H5Fclose(file);
    assert_says(load_bad(), LT_BAD_INPUT, "/params/model.norm.weight is missing, expected shape [24]");
    assert_says(lt_checkpoint_verify(bad), LT_BAD_INPUT, "/optimizer/m holds");

    file = open_copy();
    H5Ldelete(file, NORM, H5P_DEFAULT);
    put_vector(file, NORM, 23, 0, H5T_IEEE_F32LE);
    H5Fclose(file);
    assert_says(load_bad(), LT_BAD_INPUT, "/params/model.norm.weight has shape [23], expected [24]");

    file = open_copy();
    H5Ldelete(file, NORM, H5P_DEFAULT);
    put_vector(file, NORM, 24, 0, H5T_IEEE_F32LE);
    H5Fclose(file);
    assert_says(load_bad(), LT_BAD_INPUT, "/params/model.norm.weight is not stored in chunks");

    file = open_copy();
    H5Ldelete(file, NORM, H5P_DEFAULT);
    put_vector(file, NORM, 24, 24, H5T_IEEE_F64LE);
    H5Fclose(file);
    assert_says(load_bad(), LT_BAD_INPUT, "/params/model.norm.weight is not of little-endian float32");

    file = open_copy();
    put_vector(file, "/optimizer/v/surplus", 24, 24, H5T_IEEE_F32LE);
    H5Fclose(file);
    assert_says(load_bad(), LT_BAD_INPUT, "/optimizer/v/surplus (shape [24]) is not a parameter");

    file = open_copy();
    H5Ldelete(file, NORM, H5P_DEFAULT);
    H5Lcreate_external("/etc/passwd", "/x", file, NORM, H5P_DEFAULT, H5P_DEFAULT);
    H5Fclose(file);
    assert_int_equal(load_bad(), LT_BAD_INPUT);
    assert_says(lt_checkpoint_verify(bad), LT_BAD_INPUT,
                "/params/model.norm.weight is not a dataset of this file");
}

/* A tensor in chunks of another shape, as HDF5 programs write them, is read all the same. */
static void other_chunks(void **state) {
    (void)state;
    const lt_parameter *p = &saved.registry.parameters[0];
    hsize_t shape[2] = {(hsize_t)p->shape[0], (hsize_t)p->shape[1]}, chunk[2] = {77, 5};
    char name[200];
    snprintf(name, sizeof name, "/params/%s", p->name);
    hid_t file = open_copy();
    H5Ldelete(file, name, H5P_DEFAULT);
    hid_t space = H5Screate_simple(2, shape, NULL), list = H5Pcreate(H5P_DATASET_CREATE);
    H5Pset_chunk(list, 2, chunk);
    H5Pset_fletcher32(list);
    hid_t set = H5Dcreate2(file, name, H5T_IEEE_F32LE, space, H5P_DEFAULT, list, H5P_DEFAULT);
    assert_true(H5Dwrite(set, H5T_NATIVE_FLOAT, H5S_ALL, H5S_ALL, H5P_DEFAULT, saved.values[0] + p->offset) >=
                0);
    H5Dclose(set);
    H5Pclose(list);
    H5Sclose(space);
    H5Fclose(file);
    test_model loaded;
    lt_model_shape model = test_shape(1);
    test_model_create(&loaded, &model, false);
    lt_tensor_access access = test_access(&loaded);
    assert_int_equal(lt_checkpoint_load(bad, &loaded.registry, true, &access), LT_OK);
    assert_true(test_same(&saved, &loaded, 3));
    test_model_destroy(&loaded);
}

/* A file that claims more than it holds. */
static void hostile_sizes(void **state) {
    (void)state;
    hid_t file = open_copy();
    hsize_t shape[2] = {(hsize_t)1 << 40, (hsize_t)1 << 20}, chunk[2] = {1, 1};
    for (int i = 0; i < 2; i++) {
        H5Ldelete(file, NORM, H5P_DEFAULT);
        hid_t space = H5Screate_simple(2, shape, NULL), list = H5Pcreate(H5P_DATASET_CREATE);
        H5Pset_chunk(list, 2, chunk);
        H5Pset_fletcher32(list);
        hid_t set = H5Dcreate2(file, NORM, H5T_IEEE_F32LE, space, H5P_DEFAULT, list, H5P_DEFAULT);
        assert_true(set >= 0);
        H5Dclose(set);
        H5Pclose(list);
        H5Sclose(space);
        H5Fflush(file, H5F_SCOPE_GLOBAL);
        assert_int_equal(lt_checkpoint_verify(bad), LT_BAD_INPUT);
        chunk[0] = 1 << 20;
        chunk[1] = 1 << 9;
    }
    H5Fclose(file);
    assert_says(lt_checkpoint_verify(bad), LT_BAD_INPUT, NORM);
}

static void edited_attributes(void **state) {
    (void)state;
    hid_t file = open_copy(), space = H5Screate(H5S_SCALAR), type = H5Tcopy(H5T_C_S1);
    H5Tset_size(type, H5T_VARIABLE);
    H5Adelete(file, "config");
    hid_t attribute = H5Acreate2(file, "config", type, space, H5P_DEFAULT, H5P_DEFAULT);
    const char *text = "train:\n  steps: 9\n";
    H5Awrite(attribute, type, &text);
    H5Aclose(attribute);
    H5Fclose(file);
    lt_checkpoint_header header;
    assert_int_equal(lt_checkpoint_read_header(bad, &header), LT_OK);
    assert_string_equal(header.config, text);
    lt_checkpoint_header_free(&header);

    file = open_copy();
    H5Adelete(file, "step");
    attribute = H5Acreate2(file, "step", H5T_IEEE_F64LE, space, H5P_DEFAULT, H5P_DEFAULT);
    H5Aclose(attribute);
    H5Fclose(file);
    assert_says(lt_checkpoint_read_header(bad, &header), LT_BAD_INPUT, "attribute step is not one integer");
    H5Tclose(type);
    H5Sclose(space);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(flipped_bytes), cmocka_unit_test(truncated),     cmocka_unit_test(damaged_data),
        cmocka_unit_test(no_checkpoint), cmocka_unit_test(newer_format),  cmocka_unit_test(other_tensors),
        cmocka_unit_test(other_chunks),  cmocka_unit_test(hostile_sizes), cmocka_unit_test(edited_attributes),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
