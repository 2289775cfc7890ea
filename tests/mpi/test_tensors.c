/* ranks: 1 2 4 8 */
/* Whole tensors to and from ranks that hold parts of them, at every width of tensor parallelism that the
 * ranks allow, with and without shares of the optimiser: what is put comes back through a checkpoint, whose
 * bytes say nothing of the layout; and the ranks have about as much of it to write. */
#include "../unit/checkpoint_files.h"

#include "checkpoints/save.h"
#include "comm/reduce.h"
#include "trainer/group.h"
#include "trainer/tensors.h"
#include "trainer/zero.h"

#include <unistd.h>

static lt_grid grid;
static char folder[256], path[300];
static test_model model; /* whole, with the values that the runs are to have */
static lt_layout *layout;
static int failures;

#define CHECK(condition) \
    do { \
        if (!(condition)) { \
            fprintf(stderr, "rank %d of %d x %d, line %d: %s (%s)\n", grid.rank, grid.data_ranks, \
                    grid.tensor_ranks, __LINE__, #condition, lt_error_message()); \
            failures++; \
        } \
    } while (0)

/* Nothing divides: not the vocabulary, nor the key heads at a width of 4. */
static lt_model_shape odd_shape(void) {
    lt_model_shape shape = test_shape(4);
    shape.vocabulary = 1301;
    shape.heads = 8;
    shape.key_heads = 2;
    shape.intermediate = 3504; /* matrices of several chunks */
    return shape;
}

static void open_run(lt_run *run, int width, int64_t zero) {
    const lt_model_shape shape = odd_shape();
    *run = (lt_run){.config.parallel.zero = zero};
    CHECK(lt_grid_split(&grid, width) == LT_OK);
    run->grid = grid;
    lt_run_fill_group(run);
    CHECK(lt_cpu_device_create(1, &run->device) == LT_OK);
    CHECK(lt_registry_create(&shape, &run->registry) == LT_OK);
    run->model_options = (lt_model_options){.shape = shape,
                                            .sequence_length = 8,
                                            .micro_batch = 1,
                                            .training = true,
                                            .gradient_buffers = 1,
                                            .loss_slots = 1,
                                            .share = zero > 0 ? lt_reduce_share(&grid) : 0,
                                            .shares = zero > 0 ? grid.data_ranks : 0,
                                            .group = width > 1 ? &run->group : NULL};
    CHECK(lt_model_create(&run->model_options, run->device, &run->model) == LT_OK);
    CHECK(lt_zero_create(run) == LT_OK);
    run->tensor_memory = malloc(lt_tensors_bytes(run) + 1);
}

static void close_run(lt_run *run) {
    free(run->tensor_memory);
    lt_zero_free(run);
    lt_model_destroy(run->model);
    lt_registry_destroy(&run->registry);
    run->device->ops->destroy(run->device);
}

/* In pieces that begin and end inside rows, and of several times what travels at once; what nobody needs here
 * is not put. */
static void put_all(lt_run *run, const lt_tensor_access *access) {
    for (int kind = 0; kind < 3; kind++)
        for (int i = 0; i < run->registry.count; i++) {
            const lt_parameter *p = &run->registry.parameters[i];
            for (int64_t first = 0, count, size = 7; first < p->count; first += count, size = size * 9 + 1) {
                const lt_tensor_kind k = (lt_tensor_kind)kind;
                count = p->count - first < size ? p->count - first : size;
                if (access->needs(run, k, p, first, count))
                    CHECK(access->put(run, k, p, first, count, model.values[kind] + p->offset + first) ==
                          LT_OK);
            }
        }
}

/* No rank has far more than its due. */
static void check_balance(lt_run *run, const lt_tensor_access *access) {
    enum { CHUNK = 2 << 20 }; /* bytes, at most */
    const size_t bytes = lt_save_snapshot_bytes(&grid, &run->registry, access);
    const size_t due = 3 * sizeof(float) * (size_t)run->registry.elements / (size_t)grid.ranks;
    CHECK(bytes <= 2 * due + 3 * CHUNK);
    CHECK(grid.ranks > 4 || bytes > 0);
}

static char *contents(long *size) {
    FILE *file = fopen(path, "rb");
    CHECK(file != NULL && fseek(file, 0, SEEK_END) == 0);
    *size = ftell(file);
    char *bytes = malloc((size_t)*size);
    rewind(file);
    CHECK(fread(bytes, 1, (size_t)*size, file) == (size_t)*size);
    fclose(file);
    return bytes;
}

/* The file has all values, and the bytes of the first layout's. */
static void check_file(void) {
    static char *first_file;
    static long first_size;
    const lt_model_shape shape = odd_shape();
    test_model loaded;
    test_model_create(&loaded, &shape, false);
    const lt_tensor_access whole = test_access(&loaded);
    CHECK(lt_checkpoint_load(path, &loaded.registry, true, &whole) == LT_OK);
    CHECK(test_same(&model, &loaded, 3));
    test_model_destroy(&loaded);
    long size;
    char *bytes = contents(&size);
    if (first_file == NULL) {
        first_file = bytes;
        first_size = size;
        return;
    }
    CHECK(size == first_size && memcmp(bytes, first_file, (size_t)size) == 0);
    free(bytes);
}

static void there_and_back(int width, int64_t zero) {
    static lt_run run;
    open_run(&run, width, zero);
    const lt_tensor_access access = lt_run_tensors(&run);
    const lt_checkpoint_header header = test_header(7);
    put_all(&run, &access);
    check_balance(&run, &access);
    CHECK(lt_checkpoint_save(&grid, layout, folder, &header, &run.registry, &access) == LT_OK);
    if (grid.rank == 0) check_file();
    close_run(&run);
}

int main(int argc, char **argv) {
    if (lt_grid_open(&argc, &argv, &grid) != LT_OK) return 1;
    const lt_model_shape shape = odd_shape();
    const lt_checkpoint_header header = test_header(7);
    test_model_create(&model, &shape, true);
    if (grid.rank == 0) test_folder(folder);
    CHECK(lt_grid_broadcast(&grid, folder, sizeof folder, 0) == LT_OK);
    snprintf(path, sizeof path, "%s/step_00000007.h5", folder);
    if (grid.rank == 0) CHECK(lt_layout_create(&header, &model.registry, &layout) == LT_OK);
    for (int width = 1; width <= 8 && grid.ranks % width == 0; width *= 2)
        for (int64_t zero = 0; zero <= 1; zero++) there_and_back(width, zero);
    if (grid.rank == 0) test_remove_folder(folder);
    lt_layout_free(layout);
    test_model_destroy(&model);
    lt_verdict verdict = {0};
    CHECK(lt_grid_agree(&grid, failures > 0, &verdict) == LT_OK);
    lt_grid_close(&grid);
    return failures > 0 || verdict.code != 0;
}
