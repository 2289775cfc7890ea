/* data/order.h: a bijection, the same for ever, other in every epoch and for every seed, and uniform. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "data/order.h"

static int64_t sample_of(int64_t samples, uint64_t seed, int64_t item) {
    lt_order order = {.samples = samples, .seed = seed, .shuffle = true};
    return lt_order_sample(&order, item, NULL);
}

static void every_sample_comes_once_an_epoch(void **state) {
    (void)state;
    static const int64_t large[] = {1000, 1023, 1024, 1025, 4095, 4096, 4097, 65536, 65537, 100003};
    for (int64_t i = 1; i <= 300 + (int64_t)(sizeof large / sizeof *large); i++) {
        int64_t samples = i <= 300 ? i : large[i - 301];
        char *seen = malloc((size_t)samples);
        for (int64_t epoch = 0; epoch < 3; epoch++) {
            memset(seen, 0, (size_t)samples);
            for (int64_t place = 0; place < samples; place++) {
                int64_t sample = sample_of(samples, 5, epoch * samples + place);
                assert_in_range(sample, 0, samples - 1);
                assert_int_equal(seen[sample]++, 0);
            }
        }
        free(seen);
    }
}

/* Values of an independent implementation in Python: a resumed run must find the same order. */
static void order_never_changes(void **state) {
    (void)state;
    static const int64_t ten[] = {6, 5, 7, 4, 2, 0, 1, 9, 3, 8, 6, 1, 3, 5, 9, 0, 8, 7, 4, 2};
    static const int64_t thousand[] = {814, 619, 689, 341, 776, 45, 403, 739};
    for (int i = 0; i < 20; i++) assert_int_equal(sample_of(10, 0, i), ten[i]);
    for (int i = 0; i < 8; i++) assert_int_equal(sample_of(1000, 42, 3000 + i), thousand[i]);
    assert_int_equal(sample_of(9700000000, 1, 0), 9036918541);
    assert_int_equal(sample_of(9700000000, 1, 1), 4296331449);
    assert_int_equal(sample_of(9700000000, 1, 9699999999), 7379930871);
    assert_int_equal(sample_of(9700000000, 1, 9700000000), 4506584472);
    int64_t huge = ((int64_t)1 << 62) + 1; /* half of the values of the network */
    assert_int_equal(sample_of(huge, 7, 0), 1340536426203115466);
    assert_int_equal(sample_of(huge, 7, huge - 1), 3648700196535285502);
}

static void identity_without_shuffle(void **state) {
    (void)state;
    lt_order order = {.samples = 7, .seed = 3, .shuffle = false};
    for (int64_t item = 0; item < 30; item++) {
        int64_t epoch;
        assert_int_equal(lt_order_sample(&order, item, &epoch), item % 7);
        assert_int_equal(epoch, item / 7);
    }
    order.shuffle = true;
    int64_t epoch;
    lt_order_sample(&order, 7 * 123456789012 + 6, &epoch);
    assert_int_equal(epoch, 123456789012);
}

/* Two independent permutations of 1000 agree in about one place (Poisson of mean 1: over 12 is one in 10^10).
 */
static void epochs_and_seeds_differ(void **state) {
    (void)state;
    int same_epoch = 0, same_seed = 0, next_seed = 0, fixed = 0;
    for (int64_t i = 0; i < 1000; i++) {
        int64_t sample = sample_of(1000, 9, i);
        same_epoch += sample == sample_of(1000, 9, 1000 + i);
        same_seed += sample == sample_of(1000, 10, i);
        next_seed += sample_of(1000, 9, 1000 + i) == sample_of(1000, 10, i); /* seed + 1 is no epoch + 1 */
        fixed += sample == i;
    }
    assert_true(same_epoch <= 12 && same_seed <= 12 && next_seed <= 12 && fixed <= 12);
}

/* Sum of (count - expected)^2 / expected: of mean `freedom` and standard deviation sqrt(2 freedom). Allowed
 * are six deviations over the mean. */
static void assert_uniform(const int64_t *count, int64_t cells, double expected, double freedom) {
    double sum = 0;
    for (int64_t i = 0; i < cells; i++) {
        double difference = (double)count[i] - expected;
        sum += difference * difference / expected;
    }
    double over = sum - freedom;
    if (over > 0 && over * over > 36 * 2 * freedom)
        fail_msg("chi-square %g at %g degrees of freedom", sum, freedom);
}

/* Where each element of a small set lands, over many epochs. */
static void small_sets_are_uniform(void **state) {
    (void)state;
    enum { EPOCHS = 4000 };
    for (int64_t samples = 2; samples <= 20; samples++) {
        int64_t count[20][20] = {{0}};
        for (int64_t epoch = 0; epoch < EPOCHS; epoch++)
            for (int64_t place = 0; place < samples; place++)
                count[place][sample_of(samples, 77, epoch * samples + place)]++;
        for (int64_t place = 0; place < samples; place++)
            assert_uniform(count[place], samples, (double)EPOCHS / (double)samples, (double)samples - 1);
    }
}

/* All 6 orders of 3, all 24 of 4 and all 120 of 5, over many seeds. */
static void orders_of_few_are_uniform(void **state) {
    (void)state;
    enum { SEEDS = 24000 };
    static const int64_t factorial[] = {1, 1, 2, 6, 24, 120};
    for (int64_t samples = 3; samples <= 5; samples++) {
        int64_t count[120] = {0};
        for (uint64_t seed = 0; seed < SEEDS; seed++) {
            int64_t order[5], code = 0;
            for (int64_t i = 0; i < samples; i++) {
                order[i] = sample_of(samples, seed, i);
                int64_t smaller = 0; /* Lehmer code */
                for (int64_t j = 0; j < i; j++) smaller += order[j] < order[i];
                code = code * (i + 1) + smaller;
            }
            count[code]++;
        }
        assert_uniform(count, factorial[samples], (double)SEEDS / (double)factorial[samples],
                       (double)factorial[samples] - 1);
    }
}

/* Within one epoch of a large set: which tenth of the samples each tenth of the items takes, and how far one
 * sample lies behind the one before. */
static void large_set_is_uniform(void **state) {
    (void)state;
    enum { SAMPLES = 200000, TENTH = SAMPLES / 10 };
    int64_t tenths[100] = {0}, distance[10] = {0}, last = 0;
    for (int64_t i = 0; i < SAMPLES; i++) {
        int64_t sample = sample_of(SAMPLES, 3, i);
        tenths[i / TENTH * 10 + sample / TENTH]++;
        distance[(sample - last + SAMPLES) % SAMPLES / TENTH]++;
        last = sample;
    }
    assert_uniform(tenths, 100, TENTH / 10.0, 81);
    assert_uniform(distance, 10, TENTH, 9);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_sample_comes_once_an_epoch),
        cmocka_unit_test(order_never_changes),
        cmocka_unit_test(identity_without_shuffle),
        cmocka_unit_test(epochs_and_seeds_differ),
        cmocka_unit_test(small_sets_are_uniform),
        cmocka_unit_test(orders_of_few_are_uniform),
        cmocka_unit_test(large_set_is_uniform),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
