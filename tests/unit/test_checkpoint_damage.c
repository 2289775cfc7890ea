/* What is said of checkpoints that are damaged, of another version, or not ours. */
#define _GNU_SOURCE /* memmem */

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "checkpoint_fixture.h"

static void write_bad(const unsigned char *bytes, size_t count) {
    int file = open(bad, O_WRONLY | O_CREAT | O_TRUNC, 0666);
    assert_int_equal(write(file, bytes, count), count);
    close(file);
}

/* ---- damaged files
 * ---------------------------------------------------------------------------------------------- */

typedef enum verdict { REJECTED, ACCEPTED, WRONG } verdict;

/* A file that is accepted must hold exactly what was saved. */
static verdict judge(test_model *loaded) {
    lt_status status = lt_checkpoint_verify(bad);
    if (status == LT_BAD_INPUT) return REJECTED;
    lt_checkpoint_header found, expected = test_header(7);
    lt_tensor_access access = test_access(loaded);
    if (status != LT_OK || lt_checkpoint_load(bad, &loaded->registry, true, &access) != LT_OK) return false;
    if (lt_checkpoint_read_header(bad, &found) != LT_OK) return false;
    bool right = test_same(&saved, loaded, 3) && strcmp(found.config, expected.config) == 0 &&
                 found.step == 7 && found.tokens == 7000 && found.samples_consumed[0] == 21 &&
                 memcmp(&found.provenance, &expected.provenance, sizeof found.provenance) == 0;
    lt_checkpoint_header_free(&found);
    return right ? ACCEPTED : WRONG;
}

/* Any flipped byte is found, or is one of those that mean nothing: between the structures of the file.
 * LAZYTRAIN_FLIPS sets how many bytes are tried, spread over the file; all of the first 2 KiB are beside. */
static void flipped_bytes(void **state) {
    (void)state;
    test_model loaded;
    lt_model_shape shape = test_shape(1);
    test_model_create(&loaded, &shape, false);
    const char *wanted = getenv("LAZYTRAIN_FLIPS");
    size_t flips = wanted ? strtoull(wanted, NULL, 10) : 400, step = image_bytes / flips, unnoticed = 0,
           tried = 0;
    if (step == 0) step = 1;
    srand(2);
    for (size_t at = 0; at < image_bytes; at += at < 2048 ? 7 : step) {
        unsigned char old = image[at];
        image[at] ^= (unsigned char)(1 + rand() % 255);
        write_bad(image, image_bytes);
        image[at] = old;
        verdict said = judge(&loaded);
        if (said == WRONG) fail_msg("byte %zu: %s", at, lt_error_message());
        unnoticed += said == ACCEPTED;
        tried++;
    }
    print_message("%zu of %zu flipped bytes lie in unused space\n", unnoticed, tried);
    test_model_destroy(&loaded);
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
