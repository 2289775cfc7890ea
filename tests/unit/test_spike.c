/* Loss spikes: said once where one begins, never for a falling or a noisy loss. */
#include "trainer/spike.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

/* Noise of mean 0 and deviation about 1/sqrt(12) times its width, the same at every run. */
static double noise(int64_t step, double width) {
    const uint64_t bits = (uint64_t)step * 0x9e3779b97f4a7c15u;
    return width * ((double)(bits >> 40) / 0x1p24 - 0.5);
}

static double training_loss(int64_t step) {
    return 2 + 3 * exp(-(double)step / 300) + noise(step, 0.2);
}

static int64_t count_spikes(lt_spike_watch *watch, int64_t first, int64_t last) {
    int64_t spikes = 0;
    double excess;
    for (int64_t step = first; step <= last; step++)
        spikes += lt_spike_begins(watch, training_loss(step), &excess);
    return spikes;
}

static void an_ordinary_run_has_none(void **state) {
    (void)state;
    lt_spike_watch watch = {0};
    assert_int_equal(count_spikes(&watch, 1, 5000), 0);
    lt_spike_watch resumed = {0};
    assert_int_equal(count_spikes(&resumed, 700, 5000), 0);
}

/* The loss leaps by 1, falls back over 20 steps and leaps again. */
static void each_spike_is_said_once(void **state) {
    (void)state;
    lt_spike_watch watch = {0};
    assert_int_equal(count_spikes(&watch, 1, 1000), 0);
    for (int leap = 0; leap < 2; leap++) {
        double excess;
        const int64_t begin = 1001 + 200 * leap;
        const double mean = watch.mean;
        assert_true(lt_spike_begins(&watch, training_loss(begin) + 1, &excess));
        assert_true(excess > 10 && excess < 30); /* the noise's deviation is 0.2/sqrt(12) = 0.058 */
        assert_true(watch.mean - mean < 0.02);   /* 6 deviations of a fiftieth */
        for (int64_t step = 1; step < 20; step++)
            assert_false(
                lt_spike_begins(&watch, training_loss(begin + step) + exp(-(double)step / 4), &excess));
        assert_int_equal(count_spikes(&watch, begin + 20, begin + 199), 0);
    }
}

static void the_first_steps_are_none(void **state) {
    (void)state;
    lt_spike_watch watch = {0};
    double excess;
    for (int64_t step = 1; step <= 50; step++)
        assert_false(lt_spike_begins(&watch, step == 30 ? 9 : training_loss(step), &excess));
}

/* A loss that does not vary at all: half a hundredth more is no spike, a hundredth more is. */
static void a_constant_loss(void **state) {
    (void)state;
    lt_spike_watch watch = {0};
    double excess;
    for (int64_t step = 1; step <= 100; step++) assert_false(lt_spike_begins(&watch, 4, &excess));
    assert_false(lt_spike_begins(&watch, 4.02, &excess));
    assert_true(lt_spike_begins(&watch, 4.04, &excess));
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(an_ordinary_run_has_none),
        cmocka_unit_test(each_spike_is_said_once),
        cmocka_unit_test(the_first_steps_are_none),
        cmocka_unit_test(a_constant_loss),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
