/* The learning rate against the formulas of the config's documentation, at their corners and in between. */
#include "trainer/schedule.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>

static char kind[16];

static lt_config config_of(const char *schedule, int64_t steps, int64_t warmup, int64_t decay) {
    lt_config config;
    memset(&config, 0, sizeof config);
    strcpy(kind, schedule);
    config.schedule.kind = kind;
    config.schedule.warmup_steps = warmup;
    config.schedule.decay_steps = decay;
    config.schedule.min_lr_ratio = 0.1;
    config.train.steps = steps;
    config.optimizer.lr = 3e-4;
    return config;
}

static void assert_rate(const lt_config *config, int64_t step, double expected) {
    double rate = lt_learning_rate(config, step);
    if (fabs(rate - expected) > 1e-15)
        fail_msg("step %lld: %.17g, not %.17g", (long long)step, rate, expected);
}

/* Every kind rises as lr * s / warmup and meets the peak at the last step of the warm-up. */
static void warmup_is_linear(void **state) {
    (void)state;
    static const char *const kinds[] = {"cosine", "wsd", "constant"};
    for (int i = 0; i < 3; i++) {
        lt_config config = config_of(kinds[i], 1000, 10, i == 1 ? 100 : 1000);
        assert_rate(&config, 1, 3e-5);
        assert_rate(&config, 5, 1.5e-4);
        assert_rate(&config, 10, 3e-4);
    }
}

/* lr * (r + (1 - r) (1 + cos(pi (s - warmup) / (decay - warmup))) / 2): half-way it is the mean of peak and
 * minimum, at a third (cos 60 degrees = 1/2) it is r + (1 - r) 3/4. */
static void cosine_falls_to_the_minimum_and_stays(void **state) {
    (void)state;
    lt_config config = config_of("cosine", 2000, 100, 1000);
    assert_rate(&config, 550, 3e-4 * 0.55);
    assert_rate(&config, 400, 3e-4 * 0.775);
    assert_rate(&config, 700, 3e-4 * 0.325);
    assert_true(lt_learning_rate(&config, 101) < 3e-4);
    assert_true(lt_learning_rate(&config, 999) > 3e-5);
    assert_rate(&config, 1000, 3e-5);
    assert_rate(&config, 1001, 3e-5);
    assert_rate(&config, 2000, 3e-5);
}

static void cosine_without_room_for_a_decay(void **state) {
    (void)state;
    lt_config config = config_of("cosine", 100, 100, 100);
    assert_rate(&config, 50, 1.5e-4);
    assert_rate(&config, 100, 3e-4);
    assert_rate(&config, 101, 3e-5);
}

static void without_warmup_the_first_step_has_left_the_peak(void **state) {
    (void)state;
    lt_config config = config_of("cosine", 3, 0, 3);
    assert_rate(&config, 1, 3e-4 * 0.775);
    assert_rate(&config, 2, 3e-4 * 0.325);
    assert_rate(&config, 3, 3e-5);
}

/* Linear over the last decay_steps before the present train.steps, whatever these were before. */
static void wsd_falls_at_the_end(void **state) {
    (void)state;
    lt_config config = config_of("wsd", 1000, 10, 100);
    assert_rate(&config, 11, 3e-4);
    assert_rate(&config, 900, 3e-4);
    assert_rate(&config, 950, 3e-4 * 0.55);
    assert_rate(&config, 1000, 3e-5);
    config.train.steps = 2000;
    assert_rate(&config, 1000, 3e-4);
    assert_rate(&config, 1950, 3e-4 * 0.55);
    assert_rate(&config, 2000, 3e-5);
    config.schedule.decay_steps = 0;
    assert_rate(&config, 2000, 3e-4);
}

static void constant_stays(void **state) {
    (void)state;
    lt_config config = config_of("constant", 1000, 0, 1000);
    assert_rate(&config, 1, 3e-4);
    assert_rate(&config, 1000, 3e-4);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(warmup_is_linear),
        cmocka_unit_test(cosine_falls_to_the_minimum_and_stays),
        cmocka_unit_test(cosine_without_room_for_a_decay),
        cmocka_unit_test(without_warmup_the_first_step_has_left_the_peak),
        cmocka_unit_test(wsd_falls_at_the_end),
        cmocka_unit_test(constant_stays),
    };
    return cmocka_run_group_tests_name("schedule", tests, NULL, NULL);
}
