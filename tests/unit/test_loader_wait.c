/* data/loader.h over a dataset that makes its readers wait, as raw files do, and that does not know its
 * samples. The functions of data/dataset.h that loader and mixture call are this file's.
 */
#include "data_files.h"

#include <pthread.h>

#include "data/loader.h"

enum { T = 4, SAMPLES = 5 };

struct lt_dataset {
    pthread_mutex_t mutex;
    pthread_cond_t changed;
    bool stopped;
    int stops, waits; /* calls that said stop; readers that wait */
};

static struct lt_dataset datasets[2] = {
    {.mutex = PTHREAD_MUTEX_INITIALIZER, .changed = PTHREAD_COND_INITIALIZER},
    {.mutex = PTHREAD_MUTEX_INITIALIZER, .changed = PTHREAD_COND_INITIALIZER},
};

int64_t lt_dataset_samples(const lt_dataset *dataset) {
    (void)dataset;
    return -1;
}

int64_t lt_dataset_sequence_length(const lt_dataset *dataset) {
    (void)dataset;
    return T;
}

void lt_dataset_stop(lt_dataset *dataset, bool stop) {
    pthread_mutex_lock(&dataset->mutex);
    dataset->stopped = stop;
    dataset->stops += stop;
    pthread_cond_broadcast(&dataset->changed);
    pthread_mutex_unlock(&dataset->mutex);
}

/* The first set waits from its item 3 on. Items hold their own number. */
lt_status lt_dataset_read_item(const lt_dataset *set, const lt_shuffle *shuffle, int64_t item,
                               int32_t *tokens, int64_t *epoch) {
    struct lt_dataset *dataset = &datasets[set - datasets];
    (void)shuffle;
    pthread_mutex_lock(&dataset->mutex);
    dataset->waits++;
    pthread_cond_broadcast(&dataset->changed);
    while (item >= 3 && set == &datasets[0] && !dataset->stopped)
        pthread_cond_wait(&dataset->changed, &dataset->mutex);
    dataset->waits--;
    const bool stopped = dataset->stopped;
    pthread_mutex_unlock(&dataset->mutex);
    if (stopped) return lt_fail(LT_STOPPED, "the wait is over");
    for (int i = 0; i <= T; i++) tokens[i] = (int32_t)item;
    if (epoch != NULL) *epoch = item / SAMPLES;
    return LT_OK;
}

static void stopping_ends_a_wait(void **state) {
    (void)state;
    const double weights[] = {1, 1};
    lt_mixture mixture = {.dataset = {&datasets[0], &datasets[1]}};
    assert_int_equal(lt_mixture_plan(&mixture, weights, 2, "data.train"), LT_OK);
    for (int round = 1; round <= 3; round++) {
        lt_loader *loader;
        lt_batch batch;
        assert_int_equal(lt_loader_start(&(lt_loader_options){.mixture = &mixture,
                                                              .sequence_length = T,
                                                              .global_batch = 2,
                                                              .micro_batch = 2,
                                                              .micro_batches = 1,
                                                              .first_step = 1,
                                                              .last_step = 10,
                                                              .queue_depth = 2,
                                                              .document_token = 1},
                                         &loader),
                         LT_OK);
        for (int i = 0; i < 3;
             i++) { /* items 0 to 2 of both sources: what is stopped now may be read again */
            assert_int_equal(lt_loader_next(loader, &batch), LT_OK);
            assert_true(batch.inputs[0] == i && batch.inputs[T] == i);
            for (int source = 0; source < 2; source++)
                assert_int_equal(batch.documents[source], i == 1 ? T : 0);
        }
        pthread_mutex_lock(&datasets[0].mutex);
        while (datasets[0].waits == 0) pthread_cond_wait(&datasets[0].changed, &datasets[0].mutex);
        pthread_mutex_unlock(&datasets[0].mutex);
        lt_loader_stop(loader);
        for (int source = 0; source < 2; source++)
            assert_true(datasets[source].stops == round && !datasets[source].stopped);
    }
}

/* Read out of the dataset: item 12 of the second source is in its third epoch. */
static void an_unknown_number_of_samples_has_epochs(void **state) {
    (void)state;
    const double weights[] = {1, 3};
    lt_mixture mixture = {.dataset = {&datasets[0], &datasets[1]}};
    int64_t epoch, consumed[] = {0, 13};
    int32_t scratch[T + 1];
    assert_int_equal(lt_mixture_plan(&mixture, weights, 2, "data.train"), LT_OK);
    assert_int_equal(lt_mixture_resume(&mixture, consumed), 13);
    assert_int_equal(lt_mixture_epoch(&mixture, 1, 13, scratch, &epoch), LT_OK);
    assert_int_equal(epoch, 2);
    assert_int_equal(scratch[0], 12);
    assert_int_equal(lt_mixture_epoch(&mixture, 0, 13, scratch, &epoch), LT_OK);
    assert_int_equal(epoch, 0);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(stopping_ends_a_wait),
        cmocka_unit_test(an_unknown_number_of_samples_has_epochs),
    };
    return cmocka_run_group_tests_name("loader wait", tests, NULL, NULL);
}
