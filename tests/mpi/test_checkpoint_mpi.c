/* ranks: 1 2 4 */
/* Checkpoints written by several ranks: the tensors come back, the file does not depend on who wrote what,
 * and a failure on any one rank is every rank's failure and leaves the file before untouched. With
 * LAZYTRAIN_KEEP=FILE the written file is moved there. */
#define _GNU_SOURCE
#include "../unit/checkpoint_files.h"
#include "tests/fault/shim.h"

#include "checkpoints/save.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <sys/mount.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

static lt_grid grid;
static char folder[256], path[300];
static test_model model;
static lt_layout *layout; /* rank 0 */
static int failures;

#define CHECK(condition) \
    do { \
        if (!(condition)) { \
            fprintf(stderr, "rank %d, line %d: %s (%s)\n", grid.rank, __LINE__, #condition, \
                    lt_error_message()); \
            failures++; \
        } \
    } while (0)

static lt_tensor_access tensors; /* of saves */

/* Tensors in pieces of PIECE elements that the ranks hold in turn; a chunk is gathered from all of them. The
 * writers take turns too. */
enum { PIECE = 3001 };

static lt_status get_dealt(void *context, lt_tensor_kind kind, const lt_parameter *p, int64_t first,
                           int64_t count, int writer, float *values) {
    float piece[PIECE];
    lt_status status = test_get(context, kind, p, first, count, writer, values);
    for (int64_t done = 0, size; done < count; done += size) {
        const int64_t from = p->offset + first + done;
        const int holder = (int)(from / PIECE % grid.ranks);
        size = PIECE - from % PIECE < count - done ? PIECE - from % PIECE : count - done;
        if (holder == grid.rank) memcpy(piece, model.values[kind] + from, sizeof(float) * (size_t)size);
        LT_CHECK(lt_grid_copy(&grid, holder, writer, piece, size));
        if (values != NULL) memcpy(values + done, piece, sizeof(float) * (size_t)size);
    }
    return status;
}

static int writer_in_turn(void *context, const lt_parameter *p, int64_t first) {
    (void)context;
    return (int)((p->offset + first) / 1001 % grid.ranks);
}

/* All ranks were asked for the same pieces in the same order, whichever failed. */
static void check_asked(void) {
    uint64_t all[64];
    CHECK(lt_grid_all_gather(&grid, &model.asked, all, sizeof *all) == LT_OK);
    for (int i = 0; i < grid.ranks; i++) CHECK(all[i] == model.asked);
}

static lt_status save(const char *where) {
    lt_checkpoint_header header = test_header(7);
    const lt_status status = lt_checkpoint_save(&grid, layout, where, &header, &model.registry, &tensors);
    check_asked();
    return status;
}

static void check_contents(void) {
    test_model loaded;
    lt_model_shape shape = test_shape(6);
    test_model_create(&loaded, &shape, false);
    const lt_tensor_access back = test_access(&loaded);
    CHECK(lt_checkpoint_verify(path) == LT_OK);
    CHECK(lt_checkpoint_load(path, &loaded.registry, true, &back) == LT_OK);
    CHECK(test_same(&model, &loaded, 3));
    test_model_destroy(&loaded);
    CHECK(lt_grid_barrier(&grid) == LT_OK);
}

static char *contents(size_t *size) {
    struct stat about = {0};
    int file = open(path, O_RDONLY);
    CHECK(file >= 0 && fstat(file, &about) == 0);
    *size = (size_t)about.st_size;
    char *bytes = malloc(*size + 1);
    CHECK(read(file, bytes, *size) == (ssize_t)*size);
    close(file);
    return bytes;
}

/* All ranks say the same, the earlier file is whole, nothing else is left. */
static void check_failed(lt_status status, const char *where, const char *reason) {
    lt_status all[64];
    char partial[400];
    struct stat about;
    CHECK(status == LT_IO);
    CHECK(strstr(lt_error_message(), reason) != NULL);
    CHECK(lt_grid_all_gather(&grid, &status, all, sizeof status) == LT_OK);
    for (int i = 0; i < grid.ranks; i++) CHECK(all[i] == status);
    snprintf(partial, sizeof partial, "%s/step_00000007.h5.partial", where);
    CHECK(stat(partial, &about) != 0 && errno == ENOENT);
    check_contents();
}

static void failing_ranks(void) {
    for (int rank = 0; rank < grid.ranks; rank++) {
        model.fail_after = grid.rank == rank ? 2 : -1;
        check_failed(save(folder), folder, "the device failed to give");
        model.fail_after = -1;

        struct rlimit before, now;
        getrlimit(RLIMIT_FSIZE, &before);
        now = (struct rlimit){1000, before.rlim_max};
        if (grid.rank == rank) setrlimit(RLIMIT_FSIZE, &now);
        lt_status status = save(folder);
        setrlimit(RLIMIT_FSIZE, &before);
        check_failed(status, folder, "File too large");
    }
}

/* Calls and allocations of a save, on one rank alone; of many calls of a kind the first, middle and last. */
static void failing_calls(void) {
    static const fault_kind kinds[] = {FAULT_OPEN, FAULT_PWRITE, FAULT_FSYNC, FAULT_CLOSE, FAULT_ALLOCATION};
    for (int rank = 0; rank < grid.ranks; rank++) {
        for (size_t k = 0; k < sizeof kinds / sizeof *kinds; k++) {
            const bool of_memory = kinds[k] == FAULT_ALLOCATION;
            /* What is on the disk counts for the partial file: the folder's sync comes after the rename. */
            char partial[320];
            snprintf(partial, sizeof partial, "%s.partial", path);
            long count = 0;
            if (grid.rank == rank) fault_arm(kinds[k], 0, EIO, false, partial);
            CHECK(save(folder) == LT_OK);
            if (grid.rank == rank) count = fault_disarm();
            CHECK(lt_grid_broadcast(&grid, &count, sizeof count, rank) == LT_OK);
            CHECK(count > 0 || (of_memory && !fault_allocations));
            const long stride = count > 4 ? (count - 1) / 2 : 1;
            for (long number = 1; number <= count; number += stride) {
                if (grid.rank == rank) fault_arm(kinds[k], number, EIO, false, partial);
                const lt_status status = save(folder);
                fault_disarm();
                check_failed(status, folder, of_memory ? "no memory" : "Input/output error");
            }
        }
    }
}

/* A disk too small for the file: some rank's write, or fsync, fails. */
static void full_disk(void) {
    char small[300];
    snprintf(small, sizeof small, "%s/small", folder);
    int ready = 0;
    if (grid.rank == 0)
        ready = mkdir(small, 0777) == 0 && mount("tmpfs", small, "tmpfs", 0, "size=300k") == 0;
    CHECK(lt_grid_broadcast(&grid, &ready, sizeof ready, 0) == LT_OK);
    if (!ready) {
        if (grid.rank == 0) printf("full disk skipped: cannot mount a tmpfs: %s\n", strerror(errno));
        return;
    }
    check_failed(save(small), small, "No space left on device");
    CHECK(lt_grid_barrier(&grid) == LT_OK);
    if (grid.rank == 0) CHECK(umount(small) == 0);
}

/* A save in parts, from a copy: the model changes meanwhile, and the first write fails on one rank. */
static void from_snapshot(void) {
    static const unsigned char FENCE[8] = "fenced!";
    size_t size, size_again, bytes = lt_save_snapshot_bytes(&grid, &model.registry, &tensors);
    char *before = contents(&size);
    unsigned char *snapshot = malloc(bytes + sizeof FENCE);
    memcpy(snapshot + bytes, FENCE, sizeof FENCE);
    CHECK(lt_grid_barrier(&grid) == LT_OK);
    lt_checkpoint_header header = test_header(7);
    lt_save *parts;
    CHECK(lt_save_begin(&grid, layout, folder, &header, &model.registry, &tensors, snapshot, &parts) ==
          LT_OK);
    CHECK(memcmp(snapshot + bytes, FENCE, sizeof FENCE) == 0);
    CHECK(lt_save_written(parts) == 0);
    const float changed = model.values[0][0];
    model.values[0][0] += 1;

    struct rlimit limit, now;
    getrlimit(RLIMIT_FSIZE, &limit);
    now = (struct rlimit){1000, limit.rlim_max};
    if (grid.rank == grid.ranks - 1) setrlimit(RLIMIT_FSIZE, &now);
    lt_status status = lt_save_write(parts);
    setrlimit(RLIMIT_FSIZE, &limit);
    CHECK(status == (grid.rank == grid.ranks - 1 ? LT_IO : LT_OK));
    CHECK(lt_grid_barrier(&grid) == LT_OK);
    CHECK(lt_save_write(parts) == LT_OK);
    CHECK(lt_save_written(parts) >= (int64_t)bytes);
    CHECK(lt_grid_barrier(&grid) == LT_OK);
    if (grid.rank == 0) CHECK(lt_save_publish(parts) == LT_OK);
    lt_save_end(parts);
    CHECK(lt_grid_barrier(&grid) == LT_OK);

    model.values[0][0] = changed;
    check_contents();
    char *after = contents(&size_again);
    CHECK(size == size_again && memcmp(before, after, size) == 0);
    free(before);
    free(after);
    free(snapshot);
}

int main(int argc, char **argv) {
    if (lt_grid_open(&argc, &argv, &grid) != LT_OK) return 1;
    signal(SIGXFSZ, SIG_IGN);
    lt_model_shape shape = test_shape(6);
    test_model_create(&model, &shape, true);
    if (grid.rank == 0) test_folder(folder);
    CHECK(lt_grid_broadcast(&grid, folder, sizeof folder, 0) == LT_OK);
    snprintf(path, sizeof path, "%s/step_00000007.h5", folder);

    lt_checkpoint_header header = test_header(7);
    if (grid.rank == 0) CHECK(lt_layout_create(&header, &model.registry, &layout) == LT_OK);
    tensors = test_access(&model);
    CHECK(save(folder) == LT_OK);
    if (grid.ranks > 1) CHECK(model.gets < 3 * model.registry.elements);
    check_contents();
    failing_ranks();
    failing_calls();
    full_disk();
    from_snapshot();

    size_t size, size_again;
    char *before = contents(&size);
    CHECK(lt_grid_barrier(&grid) == LT_OK);
    tensors.get = get_dealt;
    tensors.writer = writer_in_turn;
    CHECK(save(folder) == LT_OK);
    check_contents();
    char *after = contents(&size_again);
    CHECK(size == size_again && memcmp(before, after, size) == 0);
    failing_ranks();
    from_snapshot();
    free(before);
    free(after);

    CHECK(lt_grid_barrier(&grid) == LT_OK);
    if (grid.rank == 0) {
        if (getenv("LAZYTRAIN_KEEP")) CHECK(rename(path, getenv("LAZYTRAIN_KEEP")) == 0);
        test_remove_folder(folder);
    }
    lt_layout_free(layout);
    test_model_destroy(&model);
    lt_verdict verdict = {0};
    CHECK(lt_grid_agree(&grid, failures > 0, &verdict) == LT_OK);
    lt_grid_close(&grid);
    return failures > 0 || verdict.code != 0;
}
