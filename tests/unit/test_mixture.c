/* data/mixture.h: the pattern keeps to its weights in every window and at every place, a look-up equals a
 * walk, and a run that goes on, also with other weights, takes every sample of each source once an epoch.
 * Through the loader as ranks use it.
 */
#include "data_files.h"

#include <math.h>

#include "data/loader.h"

static lt_mixture mixture;

static void plan(const double *weights, int sources) {
    if (lt_mixture_plan(&mixture, weights, sources, "data.train") != LT_OK)
        fail_msg("%s", lt_error_message());
}

/* ---- the pattern ---- */

static const struct {
    int sources;
    double weight[5];
} mixtures[] = {
    {2, {0.7, 0.3}},
    {2, {1, 999}},
    {2, {1e300, 1e300}},
    {3, {1, 1, 1}},
    {3, {5e-324, 1e-323, 5e-324}},
    {4, {0.001, 0.5, 0.25, 0.249}},
    {5, {100, 10, 10, 7, 3}},
    {5, {0.2, 0.2, 0.2, 0.2, 0.2}},
};
enum { MIXTURES = sizeof mixtures / sizeof *mixtures };

/* Largest remainders by hand: thirds leave one item, which goes to the first; 100 of 130 are 769.23, 10 are
 * 76.92, 7 are 53.85 and 3 are 23.08, so the three largest remainders get one more. */
static void weights_are_rounded_by_largest_remainders(void **state) {
    (void)state;
    static const int32_t expected[MIXTURES][5] = {{700, 300},
                                                  {1, 999},
                                                  {500, 500},
                                                  {334, 333, 333},
                                                  {250, 500, 250},
                                                  {1, 500, 250, 249},
                                                  {769, 77, 77, 54, 23},
                                                  {200, 200, 200, 200, 200}};
    for (int m = 0; m < MIXTURES; m++) {
        plan(mixtures[m].weight, mixtures[m].sources);
        for (int i = 0; i < mixtures[m].sources; i++) assert_int_equal(mixture.count[i], expected[m][i]);
    }
}

/* Any 1,000 neighbours hold every source as often as the weights say, and any first items less than one off.
 */
static void check_pattern(void) {
    const int64_t period = LT_MIXTURE_PERIOD;
    int64_t taken[LT_MIXTURE_SOURCES] = {0}, window[LT_MIXTURE_SOURCES] = {0}, own;
    for (int64_t item = 0; item < 3 * period; item++) {
        const int source = lt_mixture_locate(&mixture, item, &own);
        assert_in_range(source, 0, mixture.sources - 1);
        assert_int_equal(own, taken[source]);
        taken[source]++;
        window[source]++;
        if (item >= period) window[lt_mixture_locate(&mixture, item - period, &own)]--;
        for (int i = 0; i < mixture.sources; i++) {
            assert_int_equal(lt_mixture_consumed(&mixture, i, item + 1), taken[i]);
            if (item >= period - 1) assert_int_equal(window[i], mixture.count[i]);
            const int64_t off = llabs(taken[i] * period - mixture.count[i] * (item + 1));
            const int64_t parts = 2 * (int64_t)mixture.sources - 2; /* Tijdeman's bound: 1 - 1/(2n - 2) */
            if (off * parts > (parts - 1) * period)
                fail_msg("source %d of %d is %g off after %lld items", i, mixture.sources, (double)off / 1e3,
                         (long long)item + 1);
        }
    }
}

static void every_window_holds_the_weights(void **state) {
    (void)state;
    for (int m = 0; m < MIXTURES; m++) {
        plan(mixtures[m].weight, mixtures[m].sources);
        check_pattern();
    }
    uint32_t random = 1;
    for (int sources = 2; sources <= LT_MIXTURE_SOURCES; sources += 1 + sources / 4) {
        double weights[LT_MIXTURE_SOURCES], total = 0;
        for (int i = 0; i < sources; i++) {
            random = random * 1664525 + 1013904223;
            total += weights[i] = 40 + (random >> 16) % (i % 3 == 0 ? 900 : 40);
        }
        plan(weights, sources);
        check_pattern();
        for (int i = 0; i < sources; i++)
            assert_true(fabs(mixture.count[i] - weights[i] / total * LT_MIXTURE_PERIOD) < 1);
    }
}

/* A trillion periods on a look-up still says what a walk from there would. */
static void far_items_are_exact(void **state) {
    (void)state;
    const double weights[] = {5, 3, 2};
    const int64_t far = INT64_C(1000000000000) * LT_MIXTURE_PERIOD;
    plan(weights, 3);
    int64_t taken[] = {far / 10 * 5, far / 10 * 3, far / 10 * 2}, own;
    for (int64_t item = far; item < far + 2500; item++) {
        const int source = lt_mixture_locate(&mixture, item, &own);
        assert_true(own == taken[source]);
        taken[source]++;
    }
}

static void one_source_is_the_plain_order(void **state) {
    (void)state;
    const double weight = 0.25;
    int64_t own, consumed = 12345;
    plan(&weight, 1);
    for (int64_t item = 0; item < 3000; item += 7) {
        assert_int_equal(lt_mixture_locate(&mixture, item, &own), 0);
        assert_int_equal(own, item);
        assert_int_equal(lt_mixture_consumed(&mixture, 0, item), item);
    }
    assert_int_equal(lt_mixture_resume(&mixture, &consumed), 12345);
    lt_mixture_locate(&mixture, 12345, &own);
    assert_int_equal(own, 12345);
}

static void a_source_that_would_get_nothing_is_refused(void **state) {
    (void)state;
    const double weights[] = {1, 0.0002, 1};
    assert_int_equal(lt_mixture_plan(&mixture, weights, 3, "data.train"), LT_BAD_INPUT);
    assert_message(
        "data.train: weight 0.0002 of source 2 is 9.999e-05 of all 3 together (2.0002), expected at "
        "least 1 of 1000 samples",
        NULL);
}

/* ---- going on ---- */

/* Walks `items` items from `item` on; each source must give its own items one after the other. */
static void walk(int64_t item, int64_t items, int64_t *taken) {
    for (int64_t end = item + items; item < end; item++) {
        int64_t own;
        const int source = lt_mixture_locate(&mixture, item, &own);
        assert_int_equal(own, taken[source]);
        taken[source]++;
        for (int i = 0; i < mixture.sources; i++)
            assert_int_equal(lt_mixture_consumed(&mixture, i, item + 1), taken[i]);
    }
}

static void unchanged_weights_go_on_without_a_shift(void **state) {
    (void)state;
    for (int64_t items = 0; items < 2100; items += 13) {
        int64_t taken[LT_MIXTURE_SOURCES] = {0};
        plan(mixtures[6].weight, 5);
        walk(0, items, taken);
        plan(mixtures[6].weight, 5);
        assert_int_equal(lt_mixture_resume(&mixture, taken), items);
        for (int i = 0; i < 5; i++) assert_int_equal(mixture.shifted[i], 0);
    }
}

/* Other weights, one source more, two less, and back: nothing of a source is skipped or taken twice, also
 * where the run goes on twice with the changed weights. */
static void changed_sources_go_on_where_they_were(void **state) {
    (void)state;
    static const double changed[][5] = {{1, 2, 7},    {1, 2, 7}, {8, 1, 1},
                                        {3, 3, 3, 3}, {1, 1},    {7, 7, 1, 1, 1}};
    static const int sources[] = {3, 3, 3, 4, 2, 5};
    static const int64_t items[] = {1003, 777, 2500, 1, 555, 1900};
    int64_t taken[LT_MIXTURE_SOURCES] = {0};
    for (int run = 0; run < 6; run++) {
        for (int i = sources[run]; i < LT_MIXTURE_SOURCES; i++) taken[i] = 0; /* no checkpoint keeps them */
        int64_t total = 0;
        for (int i = 0; i < sources[run]; i++) total += taken[i];
        plan(changed[run], sources[run]);
        assert_int_equal(lt_mixture_resume(&mixture, taken), total);
        walk(total, items[run], taken);
        assert_int_equal(lt_mixture_resume(&mixture, taken), total + items[run]); /* a kill in between */
        walk(total + items[run], items[run], taken);
    }
}

/* ---- through the loader, as ranks use it ---- */

enum { T = 4, SOURCES = 3, BATCH = 8, STEPS = 40, OWN = 4096 };
static const int32_t samples[SOURCES] = {7, 10, 23};
static int8_t seen[SOURCES][OWN]; /* samples of each source in the order of its items: -1 before */

/* Token t of source i is 1000 i + t. */
static int open_sources(void **state) {
    static const double weights[SOURCES] = {2, 3, 5};
    static const char *const names[SOURCES] = {"a.bin", "b.bin", "c.bin"};
    if (make_folder(state) != 0) return 1;
    plan(weights, SOURCES);
    mixture.shuffle = (lt_shuffle){.shuffle = true, .seed = 9};
    for (int i = 0; i < SOURCES; i++) {
        const char *path = write_shard(names[i], 2, samples[i] * T + 1, (uint32_t)i * 1000, 1, 65536);
        const lt_dataset_options options = {.patterns = &path,
                                            .pattern_count = 1,
                                            .key = "data.train",
                                            .sequence_length = T,
                                            .vocabulary = 3000};
        if (lt_dataset_open(&options, &mixture.dataset[i]) != LT_OK) return 1;
    }
    memset(seen, -1, sizeof seen);
    return 0;
}

static int close_sources(void **state) {
    for (int i = 0; i < SOURCES; i++) lt_dataset_close(mixture.dataset[i]);
    memset(&mixture, 0, sizeof mixture);
    return remove_folder(state);
}

/* Notes which samples the rows of a batch are, under the items that they must be. */
static void note(const lt_batch *batch, int64_t first_item, int64_t rows, int again) {
    for (int64_t row = 0; row < rows; row++) {
        const int32_t *inputs = batch->inputs + row * T;
        const int source = inputs[0] / 1000, sample = inputs[0] % 1000 / T;
        int64_t own;
        assert_int_equal(lt_mixture_locate(&mixture, first_item + row, &own), source);
        assert_in_range(own, 0, OWN - 1);
        for (int t = 0; t < T; t++) {
            assert_int_equal(inputs[t], source * 1000 + sample * T + t);
            assert_int_equal(batch->targets[row * T + t], inputs[t] + 1);
        }
        int8_t *entry = &seen[source][own];
        assert_true(*entry == -1 || (again && *entry == sample));
        *entry = (int8_t)sample;
    }
}

/* Steps `first` to `last` on `ranks` ranks, of samples of 2; then `cut` micro-batches of the next step that a
 * kill loses. */
static void run_ranks(int ranks, int64_t first, int64_t last, int cut, int64_t first_item, int again) {
    for (int rank = 0; rank < ranks; rank++) {
        const int64_t own = BATCH / 2 / ranks;
        const lt_loader_options options = {.mixture = &mixture,
                                           .sequence_length = T,
                                           .global_batch = BATCH,
                                           .micro_batch = 2,
                                           .first_micro_batch = rank * own,
                                           .micro_batches = own,
                                           .first_step = first,
                                           .last_step = STEPS,
                                           .first_item = first_item,
                                           .queue_depth = 3,
                                           .document_token = -1};
        lt_loader *loader;
        lt_batch batch;
        assert_int_equal(lt_loader_start(&options, &loader), LT_OK);
        for (int64_t i = 0; i < (last - first + 1) * own + cut; i++) {
            if (lt_loader_next(loader, &batch) != LT_OK) break; /* the end of the run */
            if (batch.step <= last)
                note(&batch, first_item + (batch.step - first) * BATCH + batch.micro_batch_index * 2, 2,
                     again);
        }
        lt_loader_stop(loader);
    }
}

/* Every sample once in each epoch of its source, three epochs at least; the next epoch in another order. */
static void check_epochs(const int64_t *consumed) {
    for (int source = 0; source < SOURCES; source++) {
        assert_true(consumed[source] >= 3 * samples[source]);
        for (int64_t own = 0; own < consumed[source]; own++) assert_true(seen[source][own] >= 0);
        assert_int_equal(seen[source][consumed[source]], -1);
        int same = 0;
        for (int64_t epoch = 0; (epoch + 1) * samples[source] <= consumed[source]; epoch++) {
            const int8_t *order = seen[source] + epoch * samples[source];
            int count[64] = {0};
            for (int i = 0; i < samples[source]; i++) count[order[i]]++;
            for (int i = 0; i < samples[source]; i++) assert_int_equal(count[i], 1);
            same += memcmp(order, seen[source], (size_t)samples[source]) == 0;
        }
        assert_int_equal(same, 1);
    }
}

/* 40 steps of 8 are 320 items: 64 of the first source, 9.1 epochs; 96, 9.6 epochs; 160, 7.0 epochs. Cut off
 * and gone on with on other ranks six times; what the undisturbed run takes is the same. */
static void every_sample_once_an_epoch_over_kills_and_ranks(void **state) {
    (void)state;
    static const struct {
        int ranks;
        int64_t last;
        int cut;
    } runs[] = {{1, 3, 1}, {2, 4, 2}, {4, 11, 1}, {1, 12, 0}, {4, 13, 1}, {2, 30, 1}, {1, STEPS, 0}};
    int64_t consumed[SOURCES] = {0}, first = 1;
    for (size_t i = 0; i < sizeof runs / sizeof *runs; i++) {
        const int64_t item = lt_mixture_resume(&mixture, consumed);
        run_ranks(runs[i].ranks, first, runs[i].last, runs[i].cut, item, 0);
        for (int source = 0; source < SOURCES; source++)
            consumed[source] = lt_mixture_consumed(&mixture, source, runs[i].last * BATCH);
        first = runs[i].last + 1;
    }
    assert_true(consumed[0] == 64 && consumed[1] == 96 && consumed[2] == 160);
    check_epochs(consumed);
    run_ranks(2, 1, STEPS, 0, 0, 1);
    run_ranks(4, 1, STEPS, 0, 0, 1);
    for (int source = 0; source < SOURCES; source++) {
        int64_t epoch;
        assert_int_equal(lt_mixture_epoch(&mixture, source, STEPS * BATCH, NULL, &epoch), LT_OK);
        assert_int_equal(epoch, (consumed[source] - 1) / samples[source]);
        assert_int_equal(lt_mixture_epoch(&mixture, source, 0, NULL, &epoch), LT_OK);
        assert_int_equal(epoch, 0);
    }
}

/* After 16 steps the weights turn round. */
static void every_sample_once_an_epoch_over_changed_weights(void **state) {
    (void)state;
    static const double turned[SOURCES] = {5, 3, 2};
    int64_t consumed[SOURCES];
    run_ranks(2, 1, 16, 1, 0, 0);
    for (int i = 0; i < SOURCES; i++) consumed[i] = lt_mixture_consumed(&mixture, i, 16 * BATCH);
    assert_int_equal(lt_mixture_plan(&mixture, turned, SOURCES, "data.train"), LT_OK);
    assert_int_equal(lt_mixture_resume(&mixture, consumed), 16 * BATCH);
    run_ranks(4, 17, STEPS, 0, 16 * BATCH, 0);
    for (int i = 0; i < SOURCES; i++) consumed[i] = lt_mixture_consumed(&mixture, i, STEPS * BATCH);
    assert_int_equal(consumed[0] + consumed[1] + consumed[2], STEPS * BATCH);
    check_epochs(consumed);
}

/* The first source's order is the one it has alone, so that a second may join it; the same files as a second
 * source come in another order. */
static void sources_have_orders_of_their_own(void **state) {
    (void)state;
    const double weights[] = {1, 1};
    lt_dataset *twice = mixture.dataset[2];
    const int64_t size = samples[2];
    int64_t at[2] = {0};
    int same = 0;
    int32_t order[2][64], tokens[T + 1], alone[T + 1];
    plan(weights, 2);
    lt_dataset *kept[2] = {mixture.dataset[0], mixture.dataset[1]};
    mixture.dataset[0] = mixture.dataset[1] = twice;
    for (int64_t item = 0; item < 2 * size; item++) {
        int source;
        assert_int_equal(lt_mixture_read(&mixture, item, tokens, &source, NULL), LT_OK);
        order[source][at[source]++] = tokens[0];
        if (source != 0) continue;
        assert_int_equal(lt_dataset_read_item(twice, &mixture.shuffle, at[0] - 1, alone, NULL), LT_OK);
        assert_memory_equal(tokens, alone, sizeof tokens);
    }
    for (int i = 0; i < size; i++) same += order[0][i] == order[1][i];
    assert_true(at[0] == size && at[1] == size && same < size / 2);
    mixture.dataset[0] = kept[0], mixture.dataset[1] = kept[1];
    mixture.sources = SOURCES;
}

#define DATA_TEST(name) cmocka_unit_test_setup_teardown(name, open_sources, close_sources)

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(weights_are_rounded_by_largest_remainders),
        cmocka_unit_test(every_window_holds_the_weights),
        cmocka_unit_test(far_items_are_exact),
        cmocka_unit_test(one_source_is_the_plain_order),
        cmocka_unit_test(a_source_that_would_get_nothing_is_refused),
        cmocka_unit_test(unchanged_weights_go_on_without_a_shift),
        cmocka_unit_test(changed_sources_go_on_where_they_were),
        DATA_TEST(every_sample_once_an_epoch_over_kills_and_ranks),
        DATA_TEST(every_sample_once_an_epoch_over_changed_weights),
        DATA_TEST(sources_have_orders_of_their_own),
    };
    return cmocka_run_group_tests_name("mixture", tests, NULL, NULL);
}
