/* The folder of a run: its newest good checkpoint, what is kept and what goes, whether it can be written. */
#define _GNU_SOURCE

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "folder_fixture.h"

#include <errno.h>
#include <fcntl.h>
#include <hdf5.h>
#include <sys/mount.h>

static void save(int64_t step) {
    lt_checkpoint_header header = test_header(step);
    lt_tensor_access access = test_access(&model);
    assert_int_equal(test_save(&grid, folder, &header, &model.registry, &access), LT_OK);
}

static void damage(const char *name, off_t back_from_end) {
    int file = open(in_folder(name), O_RDWR);
    struct stat about;
    char byte;
    assert_int_equal(fstat(file, &about), 0);
    assert_int_equal(pread(file, &byte, 1, about.st_size - back_from_end), 1);
    byte ^= 1;
    assert_int_equal(pwrite(file, &byte, 1, about.st_size - back_from_end), 1);
    close(file);
}

/* ---- checkpoints
 * ------------------------------------------------------------------------------------------------ */

static void latest(void **state) {
    (void)state;
    char path[600];
    assert_int_equal(lt_folder_latest(folder, path, sizeof path), LT_OK);
    assert_string_equal(path, "");
    assert_int_equal(lt_folder_latest(in_folder("absent"), path, sizeof path), LT_OK);
    assert_string_equal(path, "");
    save(5);
    save(10);
    save(100000000);
    put_text("step_5.h5", "not a name of ours");
    put_text("step_00000200.h5.partial", "x");
    put_text("step_0000000200.h5", "x");
    assert_int_equal(lt_folder_latest(folder, path, sizeof path), LT_OK);
    assert_string_equal(path, in_folder("step_100000000.h5"));
}

static void latest_is_damaged(void **state) {
    (void)state;
    char path[600];
    save(5);
    save(10);
    save(15);
    damage("step_00000015.h5", 5000); /* data */
    assert_int_equal(truncate(in_folder("step_00000010.h5"), 3000), 0);
    assert_int_equal(lt_folder_latest(folder, path, sizeof path), LT_OK);
    assert_string_equal(path, in_folder("step_00000005.h5"));
    assert_true(exists("step_00000015.h5.damaged") && exists("step_00000010.h5.damaged"));
    assert_false(exists("step_00000015.h5") || exists("step_00000010.h5"));
    damage("step_00000005.h5", 5000);
    assert_int_equal(lt_folder_latest(folder, path, sizeof path), LT_OK);
    assert_string_equal(path, "");
}

static void latest_under_a_wrong_name(void **state) {
    (void)state;
    char path[600], from[600];
    save(5);
    save(6);
    snprintf(from, sizeof from, "%s", in_folder("step_00000006.h5"));
    assert_int_equal(rename(from, in_folder("step_00000009.h5")), 0);
    assert_int_equal(lt_folder_latest(folder, path, sizeof path), LT_OK);
    assert_string_equal(path, in_folder("step_00000005.h5"));
    assert_true(exists("step_00000009.h5.damaged"));
}

/* What a later program wrote is not damaged: it stays, and the run does not go back behind it. */
static void latest_is_of_a_newer_format(void **state) {
    (void)state;
    char path[600];
    int64_t version = LT_CHECKPOINT_FORMAT + 1;
    save(5);
    save(6);
    hid_t file = H5Fopen(in_folder("step_00000006.h5"), H5F_ACC_RDWR, H5P_DEFAULT);
    hid_t attribute = H5Aopen(file, "format_version", H5P_DEFAULT);
    assert_true(H5Awrite(attribute, H5T_NATIVE_INT64, &version) >= 0);
    H5Aclose(attribute);
    H5Fclose(file);
    assert_says(lt_folder_latest(folder, path, sizeof path), LT_BAD_INPUT, "has checkpoint format 2");
    assert_string_equal(path, "");
    assert_true(exists("step_00000006.h5"));
}

static void supersede(void **state) {
    (void)state;
    save(5);
    save(10);
    save(15);
    assert_int_equal(lt_folder_supersede(folder, 5), LT_OK);
    assert_true(exists("step_00000005.h5"));
    assert_true(exists("step_00000010.h5.superseded") && exists("step_00000015.h5.superseded"));
    assert_false(exists("step_00000010.h5") || exists("step_00000015.h5"));
    assert_int_equal(lt_folder_supersede(folder, 5), LT_OK);
}

static void touch_steps(void) {
    char name[64];
    for (int step = 0; step <= 100; step += 10) {
        snprintf(name, sizeof name, "step_%08d.h5", step);
        put_text(name, "");
    }
}

static void retain(void **state) {
    (void)state;
    touch_steps();
    assert_int_equal(lt_folder_retain(folder, 0, 0), LT_OK);
    assert_true(exists("step_00000000.h5"));
    assert_int_equal(lt_folder_retain(folder, 3, 40), LT_OK);
    static const int kept[] = {1, 0, 0, 0, 1, 0, 0, 0, 1, 1, 1}; /* 0, 40, 80; 80, 90, 100 */
    for (int i = 0; i <= 10; i++) {
        char name[64];
        snprintf(name, sizeof name, "step_%08d.h5", i * 10);
        assert_int_equal(exists(name), kept[i]);
    }
    assert_int_equal(lt_folder_retain(folder, 1, 0), LT_OK);
    assert_true(exists("step_00000100.h5"));
    assert_false(exists("step_00000080.h5") || exists("step_00000000.h5"));
}

static void holds_and_clear(void **state) {
    (void)state;
    assert_false(lt_folder_holds_run(folder));
    assert_false(lt_folder_holds_run(in_folder("absent")));
    put_text("notes.txt", "");
    put_text("step_00000001.h5.partial", "");
    assert_false(lt_folder_holds_run(folder));
    put_text("metrics.jsonl", "");
    assert_true(lt_folder_holds_run(folder));
    touch_steps();
    put_text("step_00000003.h5.damaged", "");
    put_text("step_00000004.h5.superseded", "");
    assert_int_equal(lt_folder_clear(folder), LT_OK);
    assert_false(lt_folder_holds_run(folder));
    assert_false(exists("step_00000001.h5.partial") || exists("step_00000003.h5.damaged") ||
                 exists("metrics.jsonl"));
    assert_true(exists("notes.txt"));
}

/* ---- prepare
 * ---------------------------------------------------------------------------------------------------- */

static void prepare(void **state) {
    (void)state;
    char path[600];
    size_t made;
    snprintf(path, sizeof path, "%s", in_folder("a/b//c/"));
    assert_int_equal(lt_folder_prepare("log.dir", path, 1 << 20, &made), LT_OK);
    assert_int_equal(lt_folder_prepare("log.dir", path, 1 << 20, &made), LT_OK);
    assert_int_equal(made, 0);
    assert_false(exists("a/b/c/write_test.partial"));
    assert_says(lt_folder_prepare("log.dir", path, INT64_MAX, &made), LT_BAD_INPUT,
                "has no room: 9223372036854775807 bytes needed");
    put_text("file", "");
    assert_says(lt_folder_prepare("log.dir", in_folder("file"), 0, &made), LT_BAD_INPUT,
                "file is not a folder: choose another log.dir");
    assert_says(lt_folder_prepare("log.dir", in_folder("file/below"), 0, &made), LT_BAD_INPUT,
                "Not a directory");
    assert_says(lt_folder_prepare("log.dir", "", 0, &made), LT_BAD_INPUT, "log.dir is empty");
}

/* What was made goes again, whatever the path looks like; what was there or is used stays. */
static void unmake(void **state) {
    (void)state;
    char path[600];
    size_t made;
    assert_int_equal(mkdir(in_folder("old"), 0777), 0);
    static const char *const paths[] = {"new", "old/new", "old/new/", "old//a/./b//c/", "x/../y"};
    for (size_t i = 0; i < sizeof paths / sizeof *paths; i++) {
        snprintf(path, sizeof path, "%s", in_folder(paths[i]));
        assert_int_equal(lt_folder_prepare("log.dir", path, 0, &made), LT_OK);
        assert_true(made > 0);
        lt_folder_unmake(path, made);
        assert_false(exists("new") || exists("old/new") || exists("old/a") || exists("x") || exists("y"));
        assert_true(exists("old"));
    }
    snprintf(path, sizeof path, "%s", in_folder("old/a/b"));
    assert_says(lt_folder_prepare("log.dir", path, INT64_MAX, &made), LT_BAD_INPUT, "has no room");
    assert_false(exists("old/a"));
    assert_int_equal(lt_folder_prepare("log.dir", path, 0, &made), LT_OK);
    put_text("old/a/used", "");
    lt_folder_unmake(path, made);
    assert_false(exists("old/a/b"));
    assert_true(exists("old/a/used"));
}

/* Mounts need rights; a container may not give them. */
static bool mounted(const char *target, const char *options) {
    assert_true(mkdir(target, 0777) == 0 || errno == EEXIST);
    if (mount("tmpfs", target, "tmpfs", 0, options) == 0) return true;
    print_message("skipped: cannot mount a tmpfs: %s\n", strerror(errno));
    return false;
}

static void prepare_on_a_full_disk(void **state) {
    (void)state;
    char path[600], filler[700];
    size_t made;
    snprintf(path, sizeof path, "%s", in_folder("small"));
    if (!mounted(path, "size=256k")) skip();
    lt_status small = lt_folder_prepare("log.dir", path, 100 << 10, &made),
              large = lt_folder_prepare("log.dir", path, 1 << 20, &made);
    bool says = strstr(lt_error_message(), "1048576 bytes needed (1.0 MB), 262144 free (0.3 MB)") != NULL;
    snprintf(filler, sizeof filler, "%s/filler", path);
    int file = open(filler, O_WRONLY | O_CREAT, 0666);
    char page[4096] = "";
    while (write(file, page, sizeof page) > 0) continue;
    close(file);
    lt_status full = lt_folder_prepare("log.dir", path, 0, &made);
    bool says_full = strstr(lt_error_message(), "No space left on device") != NULL;
    lt_status lock = lt_folder_lock(path);
    umount(path);
    assert_int_equal(small, LT_OK);
    assert_int_equal(large, LT_BAD_INPUT);
    assert_true(says);
    assert_int_equal(full, LT_BAD_INPUT);
    assert_true(says_full);
    assert_int_equal(lock, LT_BAD_INPUT);
}

static void prepare_on_a_read_only_mount(void **state) {
    (void)state;
    char path[600], below[700];
    size_t made;
    snprintf(path, sizeof path, "%s", in_folder("fixed"));
    snprintf(below, sizeof below, "%s/new", path);
    if (!mounted(path, "size=1m")) skip();
    bool fixed = mount(NULL, path, NULL, MS_REMOUNT | MS_RDONLY, NULL) == 0;
    lt_status there = lt_folder_prepare("log.dir", path, 0, &made);
    bool says = strstr(lt_error_message(), "Read-only file system") != NULL;
    lt_status missing = lt_folder_prepare("log.dir", below, 0, &made);
    bool says_missing = strstr(lt_error_message(), "Read-only file system") != NULL;
    umount(path);
    assert_true(fixed);
    assert_int_equal(there, LT_BAD_INPUT);
    assert_true(says);
    assert_int_equal(missing, LT_BAD_INPUT);
    assert_true(says_missing);
}

#define TEST(function) cmocka_unit_test_setup_teardown(function, set_up, tear_down)

int main(void) {
    const struct CMUnitTest tests[] = {
        TEST(latest),
        TEST(latest_is_damaged),
        TEST(latest_under_a_wrong_name),
        TEST(latest_is_of_a_newer_format),
        TEST(supersede),
        TEST(retain),
        TEST(holds_and_clear),
        TEST(prepare),
        TEST(unmake),
        TEST(prepare_on_a_full_disk),
        TEST(prepare_on_a_read_only_mount),
    };
    return cmocka_run_group_tests(tests, start, end);
}
