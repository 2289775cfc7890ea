/* Saving and loading at one rank, and saves that fail. */
#define _GNU_SOURCE

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "checkpoint_fixture.h"

#include "checkpoints/chunks.h"

#include <errno.h>
#include <sys/resource.h>

/* ---- round trip
 * ------------------------------------------------------------------------------------------------- */

static void header_comes_back(void **state) {
    (void)state;
    lt_checkpoint_header found, expected = test_header(7);
    assert_int_equal(lt_checkpoint_read_header(good, &found), LT_OK);
    assert_int_equal(found.format_version, LT_CHECKPOINT_FORMAT);
    assert_int_equal(found.step, 7);
    assert_int_equal(found.tokens, 7000);
    assert_string_equal(found.config, expected.config);
    assert_string_equal(found.tokenizer_hash, expected.tokenizer_hash);
    assert_string_equal(found.data_hash, expected.data_hash);
    assert_true(found.data_files == 3 && found.data_bytes == INT64_C(1) << 41);
    assert_int_equal(found.sources, 2);
    assert_int_equal(found.samples_consumed[0], 21);
    assert_true(found.samples_consumed[1] == INT64_C(1) << 40);
    assert_memory_equal(&found.provenance, &expected.provenance, sizeof found.provenance);
    lt_checkpoint_header_free(&found);
}

static void tensors_come_back(void **state) {
    (void)state;
    test_model loaded;
    lt_model_shape shape = test_shape(1);
    test_model_create(&loaded, &shape, false);
    lt_tensor_access access = test_access(&loaded);
    assert_int_equal(lt_checkpoint_load(good, &loaded.registry, false, &access), LT_OK);
    assert_true(test_same(&saved, &loaded, 1));
    assert_true(loaded.values[1][0] == 0.0f && loaded.values[2][5] == 0.0f);
    assert_int_equal(lt_checkpoint_load(good, &loaded.registry, true, &access), LT_OK);
    assert_true(test_same(&saved, &loaded, 3));
    test_model_destroy(&loaded);
}

/* Chunks of about 1 MiB with an edge that is padded; a file with many. */
static void larger_model(void **state) {
    (void)state;
    test_model large, loaded;
    lt_model_shape shape = test_shape(10);
    test_model_create(&large, &shape, true);
    test_model_create(&loaded, &shape, false);
    lt_checkpoint_header header = test_header(123456789);
    lt_tensor_access access = test_access(&large), back = test_access(&loaded);
    assert_int_equal(test_save(&grid, folder, &header, &large.registry, &access), LT_OK);
    assert_int_equal(large.gets, 3 * large.registry.elements);
    char path[300];
    snprintf(path, sizeof path, "%s/step_123456789.h5", folder);
    assert_int_equal(lt_checkpoint_verify(path), LT_OK);
    assert_int_equal(lt_checkpoint_load(path, &loaded.registry, true, &back), LT_OK);
    assert_true(test_same(&large, &loaded, 3));
    unlink(path);
    test_model_destroy(&large);
    test_model_destroy(&loaded);
}

static bool upper_half(void *context, lt_tensor_kind kind, const lt_parameter *p, int64_t first,
                       int64_t count) {
    (void)context, (void)kind, (void)count;
    return first >= p->count / 2;
}

/* Rows that nobody needs are not read: their checksum may even be wrong. */
static void unneeded_rows(void **state) {
    (void)state;
    test_model loaded;
    lt_model_shape shape = test_shape(1);
    test_model_create(&loaded, &shape, false);
    lt_tensor_access access = test_access(&loaded);
    access.needs = upper_half;
    assert_int_equal(lt_checkpoint_load(good, &loaded.registry, true, &access), LT_OK);
    /* Every tensor of this small model is one chunk, which starts in the lower half. */
    for (int64_t i = 0; i < loaded.registry.elements; i++) assert_true(loaded.values[0][i] == 0.0f);
    test_model_destroy(&loaded);
}

/* HDF5 itself reads the file and accepts each checksum. */
static void hdf5_reads_it(void **state) {
    (void)state;
    hid_t file = H5Fopen(good, H5F_ACC_RDONLY, H5P_DEFAULT);
    assert_true(file >= 0);
    static const char *const groups[] = {"/params", "/optimizer/m", "/optimizer/v"};
    float *values = malloc((size_t)saved.registry.elements * sizeof *values);
    for (int kind = 0; kind < 3; kind++) {
        for (int i = 0; i < saved.registry.count; i++) {
            const lt_parameter *p = &saved.registry.parameters[i];
            char name[200];
            snprintf(name, sizeof name, "%s/%s", groups[kind], p->name);
            hid_t set = H5Dopen2(file, name, H5P_DEFAULT);
            assert_true(set >= 0 &&
                        H5Dread(set, H5T_NATIVE_FLOAT, H5S_ALL, H5S_ALL, H5P_DEFAULT, values) >= 0);
            assert_memory_equal(values, saved.values[kind] + p->offset, (size_t)p->count * sizeof(float));
            H5Dclose(set);
        }
    }
    free(values);
    assert_true(H5Fclose(file) >= 0);
}

/* The same contents give the same bytes. */
static void reproducible(void **state) {
    (void)state;
    lt_checkpoint_header header = test_header(7);
    lt_tensor_access access = test_access(&saved);
    unsigned char *before = image;
    size_t bytes = image_bytes;
    assert_int_equal(test_save(&grid, folder, &header, &saved.registry, &access), LT_OK);
    read_image();
    assert_int_equal(bytes, image_bytes);
    assert_memory_equal(before, image, bytes);
    free(before);
}

static void chunk_shapes(void **state) {
    (void)state;
    static const int64_t rows[] = {1, 3, 1000, 4096, 4097, 131072, 50304, 7},
                         columns[] = {1, 8, 513, 1024, 4096, 262144, 768, 400000};
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        lt_parameter p = {.dimensions = 2, .shape = {rows[i], columns[i]}, .count = rows[i] * columns[i]};
        lt_chunking c = lt_chunking_of(&p);
        assert_true(c.chunk_rows >= 1 && c.chunk_rows <= rows[i]);
        assert_true(c.chunks * c.chunk_rows >= rows[i] && (c.chunks - 1) * c.chunk_rows < rows[i]);
        assert_true(c.chunks * c.chunk_rows - rows[i] < c.chunks); /* less than a row of padding a chunk */
        assert_true(c.chunk_rows == 1 || c.chunk_bytes <= 2 << 20 || c.chunks <= 1025);
    }
    lt_parameter wide = {.name = "wide", .dimensions = 2, .shape = {2, INT64_C(1) << 40}};
    lt_registry registry = {.count = 1, .parameters = &wide};
    int64_t chunks, largest;
    assert_says(lt_chunks_count(&registry, &chunks, &largest), LT_BAD_INPUT, "wide");
}

/* ---- failures while writing
 * ------------------------------------------------------------------------------------- */

static void assert_untouched(void) {
    char partial[320];
    struct stat about;
    snprintf(partial, sizeof partial, "%s.partial", good);
    assert_int_equal(stat(partial, &about), -1);
    assert_int_equal(errno, ENOENT);
    assert_int_equal(lt_checkpoint_verify(good), LT_OK);
}

static void get_fails(void **state) {
    (void)state;
    lt_checkpoint_header header = test_header(7);
    lt_tensor_access access = test_access(&saved);
    for (int i = 0; i < 80; i += 13) {
        saved.fail_after = i % 75;
        assert_says(test_save(&grid, folder, &header, &saved.registry, &access), LT_IO, "the device failed");
        assert_untouched();
    }
    saved.fail_after = -1;
}

/* A file size limit stands for a disk that ends: inside the structure and inside the chunks. */
static void disk_ends(void **state) {
    (void)state;
    lt_checkpoint_header header = test_header(7);
    lt_tensor_access access = test_access(&saved);
    lt_layout *layout;
    assert_int_equal(lt_layout_create(&header, &saved.registry, &layout), LT_OK);
    struct rlimit before;
    getrlimit(RLIMIT_FSIZE, &before);
    for (rlim_t bytes = 0; bytes < image_bytes; bytes += image_bytes / 9) {
        struct rlimit now = {bytes, before.rlim_max};
        setrlimit(RLIMIT_FSIZE, &now);
        lt_status status = lt_checkpoint_save(&grid, layout, folder, &header, &saved.registry, &access);
        setrlimit(RLIMIT_FSIZE, &before);
        assert_says(status, LT_IO, "step_00000007.h5.partial: ");
        assert_untouched();
    }
    assert_int_equal(lt_checkpoint_save(&grid, layout, folder, &header, &saved.registry, &access), LT_OK);
    lt_layout_free(layout);
}

static void folder_missing(void **state) {
    (void)state;
    lt_checkpoint_header header = test_header(7);
    lt_tensor_access access = test_access(&saved);
    assert_says(test_save(&grid, "/nowhere/at/all", &header, &saved.registry, &access), LT_IO,
                "cannot create /nowhere/at/all/step_00000007.h5.partial: No such file");
}

static void config_sizes(void **state) {
    (void)state;
    lt_checkpoint_header header = test_header(8), found;
    lt_tensor_access access = test_access(&saved);
    char path[300];
    snprintf(path, sizeof path, "%s/step_00000008.h5", folder);
    header.config = malloc(LT_CHECKPOINT_MAX_CONFIG + 2);
    memset(header.config, 'c', LT_CHECKPOINT_MAX_CONFIG + 1);
    header.config[LT_CHECKPOINT_MAX_CONFIG + 1] = 0;
    assert_says(test_save(&grid, folder, &header, &saved.registry, &access), LT_BAD_INPUT, "60001 bytes");
    header.config[LT_CHECKPOINT_MAX_CONFIG] = 0;
    header.sources = 0;
    assert_int_equal(test_save(&grid, folder, &header, &saved.registry, &access), LT_OK);
    assert_int_equal(lt_checkpoint_verify(path), LT_OK);
    assert_int_equal(lt_checkpoint_read_header(path, &found), LT_OK);
    assert_string_equal(found.config, header.config);
    assert_int_equal(found.sources, 0);
    lt_checkpoint_header_free(&found);
    free(header.config);
    unlink(path);
}

/* One layout serves every save: nothing of the save before is left in the next. */
static void one_layout_many_saves(void **state) {
    (void)state;
    lt_layout *layout;
    lt_checkpoint_header header = test_header(8), found;
    lt_tensor_access access = test_access(&saved);
    char path[300];
    snprintf(path, sizeof path, "%s/step_00000009.h5", folder);
    header.sources = LT_CHECKPOINT_MAX_SOURCES;
    assert_int_equal(lt_layout_create(&header, &saved.registry, &layout), LT_OK);
    for (int64_t step = 8; step <= 9; step++) {
        header.step = step;
        header.tokens = INT64_MAX - step;
        for (int i = 0; i < header.sources; i++) header.samples_consumed[i] = step * 1000 + i;
        assert_int_equal(lt_checkpoint_save(&grid, layout, folder, &header, &saved.registry, &access), LT_OK);
    }
    lt_layout_free(layout);
    assert_int_equal(lt_checkpoint_verify(path), LT_OK);
    assert_int_equal(lt_checkpoint_read_header(path, &found), LT_OK);
    assert_int_equal(found.step, 9);
    assert_true(found.tokens == INT64_MAX - 9);
    assert_int_equal(found.sources, header.sources);
    assert_memory_equal(found.samples_consumed, header.samples_consumed, sizeof found.samples_consumed);
    lt_checkpoint_header_free(&found);
    unlink(path);
    snprintf(path, sizeof path, "%s/step_00000008.h5", folder);
    unlink(path);
}

static void inspected(void **state) {
    (void)state;
    char *text = NULL;
    size_t size = 0;
    FILE *out = open_memstream(&text, &size);
    assert_int_equal(lt_checkpoint_inspect(good, true, out), LT_OK);
    fclose(out);
    assert_non_null(strstr(text, "step:             7\n"));
    assert_non_null(strstr(text, "model.layers.1.attn.tau"));
    assert_non_null(strstr(text, "[300, 24]"));
    assert_non_null(strstr(text, "checksums:        all right"));
    free(text);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(header_comes_back),
        cmocka_unit_test(tensors_come_back),
        cmocka_unit_test(larger_model),
        cmocka_unit_test(unneeded_rows),
        cmocka_unit_test(hdf5_reads_it),
        cmocka_unit_test(reproducible),
        cmocka_unit_test(chunk_shapes),
        cmocka_unit_test(get_fails),
        cmocka_unit_test(disk_ends),
        cmocka_unit_test(folder_missing),
        cmocka_unit_test(config_sizes),
        cmocka_unit_test(inspected),
        cmocka_unit_test(one_layout_many_saves),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
