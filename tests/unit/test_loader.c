/* data/loader.h: which sample stands in which row, for every rank and over epochs; errors at their
 * micro-batch; stopping at any moment.
 */
#include "data_files.h"

#include <time.h>

#include "data/loader.h"
#include "data/order.h"

enum { T = 4, SAMPLES = 10 };

static lt_mixture mixture;
static lt_loader *loader;

/* Token i of the dataset is i: sample k holds 4k ... 4k + 4. */
static int loader_setup(void **state) {
    if (make_folder(state) != 0) return 1;
    const char *path = write_shard("a.bin", 2, SAMPLES * T + 1, 0, 1, 65536);
    lt_dataset_options options = {
        .patterns = &path, .pattern_count = 1, .key = "data.train", .sequence_length = T, .vocabulary = 1000};
    mixture.shuffle = (lt_shuffle){.shuffle = true, .seed = 3};
    return lt_mixture_plan(&mixture, NULL, 1, "data.train") != LT_OK ||
           lt_dataset_open(&options, &mixture.dataset[0]) != LT_OK;
}

static int loader_teardown(void **state) {
    lt_loader_stop(loader);
    lt_dataset_close(mixture.dataset[0]);
    loader = NULL;
    memset(&mixture, 0, sizeof mixture);
    return remove_folder(state);
}

/* Global batches of 6 in micro-batches of 2, all on one rank: 6 steps go 3.6 times through the samples. */
static lt_loader_options standard(void) {
    return (lt_loader_options){
        .mixture = &mixture,
        .sequence_length = T,
        .global_batch = 6,
        .micro_batch = 2,
        .first_micro_batch = 0,
        .micro_batches = 3,
        .first_step = 1,
        .last_step = 6,
        .queue_depth = 2,
    };
}

static void start(const lt_loader_options *options) {
    lt_loader_stop(loader);
    lt_status status = lt_loader_start(options, &loader);
    if (status != LT_OK) fail_msg("%s", lt_error_message());
}

static void assert_batch(const lt_loader_options *o, const lt_batch *batch, int64_t step,
                         int64_t micro_batch) {
    assert_int_equal(batch->step, step);
    assert_int_equal(batch->micro_batch_index, micro_batch);
    assert_true(batch->wait_ms >= 0 && batch->wait_ms < 60e3);
    for (int64_t row = 0; row < o->micro_batch; row++) {
        int64_t item =
            o->first_item + (step - o->first_step) * o->global_batch + micro_batch * o->micro_batch + row;
        const lt_order order = {SAMPLES, mixture.shuffle.seed, mixture.shuffle.shuffle};
        int64_t sample = lt_order_sample(&order, item, NULL);
        for (int64_t t = 0; t < T; t++) {
            assert_int_equal(batch->inputs[row * T + t], sample * T + t);
            assert_int_equal(batch->targets[row * T + t], sample * T + t + 1);
        }
    }
}

static void take_all(const lt_loader_options *o) {
    for (int64_t step = o->first_step; step <= o->last_step; step++)
        for (int64_t i = 0; i < o->micro_batches; i++) {
            lt_batch batch;
            assert_int_equal(lt_loader_next(loader, &batch), LT_OK);
            assert_null(batch.document_starts);
            assert_batch(o, &batch, step, o->first_micro_batch + i);
        }
}

static void rows_follow_the_order(void **state) {
    (void)state;
    for (int depth = 1; depth <= 30;
         depth += depth < 4 ? 1 : 13) { /* the last ones hold more than there is */
        lt_loader_options options = standard();
        options.queue_depth = depth;
        mixture.shuffle.shuffle = true;
        start(&options);
        take_all(&options);
        mixture.shuffle.shuffle = false;
        start(&options);
        take_all(&options);
    }
}

static void resumed_run_goes_on_in_the_same_order(void **state) {
    (void)state;
    lt_loader_options options = standard();
    options.first_step = 4;
    options.first_item = 3 * 6 + 1; /* a run whose global batch was not always 6 */
    start(&options);
    take_all(&options);
    /* 10^12 steps on: the arithmetic is 64-bit. */
    options.first_step = 1000000000000;
    options.last_step = options.first_step + 2;
    options.first_item = (options.first_step - 1) * options.global_batch;
    start(&options);
    take_all(&options);
}

/* Ranks with one, two and three micro-batches each see disjoint rows that together are the global batch. */
static void slices_of_ranks_cover_the_batch_once(void **state) {
    (void)state;
    static const int64_t first[] = {0, 1, 3}, count[] = {1, 2, 3};
    int seen[5 * 12] = {0};
    for (int rank = 0; rank < 3; rank++) {
        lt_loader_options options = standard();
        options.global_batch = 12;
        options.first_micro_batch = first[rank];
        options.micro_batches = count[rank];
        options.last_step = 5;
        start(&options);
        lt_batch batch;
        while (lt_loader_next(loader, &batch) == LT_OK) {
            assert_batch(&options, &batch, batch.step, batch.micro_batch_index);
            for (int64_t row = 0; row < 2; row++)
                seen[(batch.step - 1) * 12 + batch.micro_batch_index * 2 + row]++;
        }
    }
    for (int i = 0; i < 5 * 12; i++) assert_int_equal(seen[i], 1);
}

static void ends_behind_the_last_step(void **state) {
    (void)state;
    lt_loader_options options = standard();
    options.last_step = 2;
    start(&options);
    take_all(&options);
    lt_batch batch;
    for (int i = 0; i < 2; i++) {
        assert_int_equal(lt_loader_next(loader, &batch), LT_FAILED);
        assert_message("behind the last one of step 2", NULL);
    }
    options.first_step = 3; /* nothing to do */
    start(&options);
    assert_int_equal(lt_loader_next(loader, &batch), LT_FAILED);
}

static void wait_a_little(void) {
    nanosleep(&(struct timespec){.tv_nsec = 20000000}, NULL);
}

/* While the caller works on a batch the thread fills the others, never this one. */
static void batch_stays_valid(void **state) {
    (void)state;
    lt_loader_options options = standard();
    options.queue_depth = 1;
    start(&options);
    for (int64_t i = 0; i < 6; i++) {
        lt_batch batch;
        assert_int_equal(lt_loader_next(loader, &batch), LT_OK);
        wait_a_little();
        assert_batch(&options, &batch, 1 + i / 3, i % 3);
    }
}

static void stops_at_any_moment(void **state) {
    (void)state;
    lt_loader_stop(NULL);
    for (int taken = 0; taken < 8; taken++)
        for (int pause = 0; pause < 2; pause++) {
            lt_loader_options options = standard();
            options.queue_depth = 1 + taken % 3;
            start(&options);
            lt_batch batch;
            for (int i = 0; i < taken; i++) assert_int_equal(lt_loader_next(loader, &batch), LT_OK);
            if (pause) wait_a_little(); /* the thread now waits for a consumer that never comes */
            lt_loader_stop(loader);
            loader = NULL;
        }
}

/* ---- documents
 * -------------------------------------------------------------------------------------------------- */

static void starts_of_documents(void **state) {
    (void)state;
    static const int32_t tokens[] = {5, 9, 6, 7, 9, 9, 8};
    static const int32_t opening[] = {0, 1, 1, 1, 4, 5, 5}, ending[] = {0, 0, 2, 2, 2, 5, 6}, none[7] = {0};
    static const int32_t from_the_start[] = {9, 1};
    int32_t starts[7];
    lt_document_starts(tokens, 7, 9, true, starts);
    assert_memory_equal(starts, opening, sizeof opening);
    lt_document_starts(tokens, 7, 9, false, starts);
    assert_memory_equal(starts, ending, sizeof ending);
    lt_document_starts(tokens, 7, 4, false, starts);
    assert_memory_equal(starts, none, sizeof none);
    lt_document_starts(from_the_start, 2, 9, true, starts);
    assert_memory_equal(starts, none, 2 * sizeof *none);
    lt_document_starts(from_the_start, 2, 9, false, starts);
    assert_memory_equal(starts, ((int32_t[]){0, 1}), 2 * sizeof *none);
}

/* Token 9 is the second of sample 2 (8 ... 12) alone. */
static void loader_marks_documents(void **state) {
    (void)state;
    for (int first = 0; first <= 1; first++) {
        lt_loader_options options = standard();
        mixture.shuffle.shuffle = false;
        options.document_mask = true;
        options.document_token = 9;
        options.document_token_first = first;
        start(&options);
        static const int32_t none[T] = {0}, opened[T] = {0, 1, 1, 1}, ended[T] = {0, 0, 2, 2};
        for (int i = 0; i < 3; i++) {
            lt_batch batch;
            assert_int_equal(lt_loader_next(loader, &batch), LT_OK);
            assert_batch(&options, &batch, 1, i);
            assert_int_equal(batch.documents[0], i == 1);
            for (int row = 0; row < 2; row++)
                assert_memory_equal(batch.document_starts + row * T,
                                    2 * i + row != 2 ? none
                                    : first          ? opened
                                                     : ended,
                                    sizeof none);
        }
    }
}

/* ---- errors
 * ----------------------------------------------------------------------------------------------------- */

/* Sample 7 holds a bad id: item 7 is in micro-batch 0 of step 2, and that is where the error comes, though
 * the thread meets it while the caller still works on the first. */
static void bad_token_at_its_micro_batch(void **state) {
    (void)state;
    int descriptor = open(in_folder("a.bin"), O_WRONLY);
    uint16_t bad = 1000;
    assert_int_equal(pwrite(descriptor, &bad, sizeof bad, 1024 + 2 * 30), 2);
    close(descriptor);
    lt_loader_options options = standard();
    mixture.shuffle.shuffle = false;
    options.queue_depth = 8;
    start(&options);
    lt_batch batch;
    for (int i = 0; i < 3; i++) {
        assert_int_equal(lt_loader_next(loader, &batch), LT_OK);
        wait_a_little();
        assert_batch(&options, &batch, 1, i);
    }
    for (int i = 0; i < 2; i++) {
        assert_int_equal(lt_loader_next(loader, &batch), LT_FAILED);
        assert_message("/a.bin' at byte 1084: token id 1000", NULL);
    }
}

static void file_that_shrinks_under_way(void **state) {
    (void)state;
    lt_loader_options options = standard();
    mixture.shuffle.shuffle = false;
    options.queue_depth = 1;
    assert_int_equal(truncate(in_folder("a.bin"), 1024 + 2 * 20), 0);
    start(&options);
    lt_batch batch;
    assert_int_equal(lt_loader_next(loader, &batch), LT_OK);
    assert_int_equal(lt_loader_next(loader, &batch), LT_OK);
    assert_int_equal(lt_loader_next(loader, &batch), LT_IO); /* sample 4 ends with token 20 */
    assert_message("/a.bin' shrank", NULL);
}

static void assert_options_refused(const lt_loader_options *options, const char *text) {
    lt_loader *refused;
    assert_int_equal(lt_loader_start(options, &refused), LT_BAD_INPUT);
    assert_null(refused);
    assert_message(text, NULL);
}

static void options_out_of_range(void **state) {
    (void)state;
    const lt_loader_options good = standard();
    lt_loader_options options = good;
    options.micro_batches = 4;
    assert_options_refused(&options, "micro-batches 0 to 3 of 2 sequences");
    options = good, options.first_micro_batch = 1;
    assert_options_refused(&options, "micro-batches 1 to 3 of 2 sequences");
    options = good, options.micro_batches = INT64_MAX / 2;
    assert_options_refused(&options, "train.global_batch 6");
    options = good, options.queue_depth = 0;
    assert_options_refused(&options, "queue depth 0");
    options = good, options.first_step = 0;
    assert_options_refused(&options, "first step 0");
    options = good, options.last_step = INT64_MAX / 2;
    assert_options_refused(&options, "train.steps 4611686018427387903 times train.global_batch 6");
    options = good, options.sequence_length = 5;
    assert_options_refused(&options, "sequence length 5, expected the dataset's 4");
}

/* Inputs and targets of three micro-batches (two ahead and one in use), a row, and little else. */
static void memory_is_known_beforehand(void **state) {
    (void)state;
    lt_loader_options options = standard();
    int64_t bytes = lt_loader_bytes(&options);
    assert_in_range(bytes, 4 * (3 * 2 * 2 * T + T + 1), 4 * (3 * 2 * 2 * T + T + 1) + 8192);
    options.document_mask = true;
    assert_int_equal(lt_loader_bytes(&options), bytes + 4 * 3 * 2 * T);
    options.micro_batch = INT64_MAX / 8;
    options.micro_batches = 1;
    options.global_batch = INT64_MAX / 4;
    assert_int_equal(lt_loader_bytes(&options), -1);
    options.last_step = 1;
    assert_int_equal(lt_loader_bytes(&options), -1);
    assert_int_equal(lt_loader_start(&options, &loader), LT_IO);
    assert_message("no memory for 2 micro-batches", NULL);
}

#define DATA_TEST(name) cmocka_unit_test_setup_teardown(name, loader_setup, loader_teardown)

int main(void) {
    const struct CMUnitTest tests[] = {
        DATA_TEST(rows_follow_the_order),
        DATA_TEST(resumed_run_goes_on_in_the_same_order),
        DATA_TEST(slices_of_ranks_cover_the_batch_once),
        DATA_TEST(ends_behind_the_last_step),
        DATA_TEST(batch_stays_valid),
        DATA_TEST(stops_at_any_moment),
        cmocka_unit_test(starts_of_documents),
        DATA_TEST(loader_marks_documents),
        DATA_TEST(bad_token_at_its_micro_batch),
        DATA_TEST(file_that_shrinks_under_way),
        DATA_TEST(options_out_of_range),
        DATA_TEST(memory_is_known_beforehand),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
