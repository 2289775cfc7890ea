#include "tests/reference/thread_group.h"

#include "tests/reference/fixture.h"

#include <pthread.h>
#include <stdio.h>
#include <string.h>

/* Where all meet: the exchange of a rank shows what it brought, waits for all, takes what it needs, and waits
 * again before anybody changes anything. */
typedef struct meeting {
    pthread_mutex_t lock;
    pthread_cond_t all_here;
    int ranks, here;
    int64_t round, failing;
    bool broken;
    const void *shown[TEST_MOST_RANKS];
} meeting;

typedef struct rank_thread {
    pthread_t thread;
    meeting *meeting;
    lt_tensor_group group;
    test_rank body;
    void *context;
    lt_status status;
    char message[LT_ERROR_MESSAGE_BYTES];
} rank_thread;

static void break_up(meeting *m) {
    pthread_mutex_lock(&m->lock);
    m->broken = true;
    pthread_cond_broadcast(&m->all_here);
    pthread_mutex_unlock(&m->lock);
}

static lt_status wait_for_all(meeting *m) {
    pthread_mutex_lock(&m->lock);
    const int64_t round = m->round;
    if (++m->here == m->ranks) {
        m->here = 0;
        m->round++;
        if (m->failing >= 0 && m->round > 2 * m->failing) m->broken = true; /* an exchange waits twice */
        pthread_cond_broadcast(&m->all_here);
    }
    while (m->round == round && !m->broken) pthread_cond_wait(&m->all_here, &m->lock);
    const bool broken = m->broken;
    pthread_mutex_unlock(&m->lock);
    return broken ? lt_fail(LT_IO, "another rank left") : LT_OK;
}

static lt_status show(rank_thread *self, const void *brought) {
    self->meeting->shown[self->group.rank] = brought;
    return wait_for_all(self->meeting);
}

/* The part of rank `from` of what it showed, to the same place of `values`. */
static void take(const rank_thread *self, int from, unsigned char *values, size_t first, size_t end) {
    if (from == self->group.rank || first == end) return;
    memcpy(values + first, (const unsigned char *)self->meeting->shown[from] + first, end - first);
}

static lt_status all_gather(void *context, lt_mem values, const int64_t *cuts) {
    rank_thread *self = context;
    const size_t bytes = lt_type_bytes(values.type);
    LT_CHECK(show(self, values.address));
    for (int from = 0; from < self->group.ranks; from++)
        take(self, from, values.address, (size_t)cuts[from] * bytes, (size_t)cuts[from + 1] * bytes);
    return wait_for_all(self->meeting);
}

static lt_status all_gather_host(void *context, double *values, int64_t count) {
    int64_t cuts[TEST_MOST_RANKS + 1];
    for (int rank = 0; rank <= TEST_MOST_RANKS; rank++) cuts[rank] = rank * count;
    return all_gather(context, (lt_mem){(unsigned char *)values, LT_FLOAT64}, cuts);
}

/* Fills the scratch and, in the end, the partial sums with what must not matter. */
static lt_status reduce_scatter(void *context, lt_mem partial, const int64_t *cuts, lt_mem scratch,
                                lt_mem own) {
    rank_thread *self = context;
    const int64_t first = cuts[self->group.rank], count = cuts[self->group.rank + 1] - first;
    const int64_t all = cuts[self->group.ranks];
    float *sum = (float *)(void *)own.address;
    LT_CHECK(show(self, partial.address));
    memset(scratch.address, 0xff, sizeof(float) * (size_t)((self->group.ranks - 1) * count));
    for (int64_t i = 0; i < count; i++) {
        sum[i] = ((const float *)self->meeting->shown[0])[first + i];
        for (int rank = 1; rank < self->group.ranks; rank++)
            sum[i] += ((const float *)self->meeting->shown[rank])[first + i];
    }
    LT_CHECK(wait_for_all(self->meeting));
    memset(partial.address, 0xff, sizeof(float) * (size_t)all);
    return LT_OK;
}

static void *run_rank(void *argument) {
    rank_thread *self = argument;
    self->status = self->body(&self->group, self->context);
    if (self->status != LT_OK) {
        snprintf(self->message, sizeof self->message, "%s", lt_error_message());
        break_up(self->meeting);
    }
    return NULL;
}

lt_status test_run_failing_ranks(int ranks, test_rank body, void *context, int64_t failing) {
    meeting m = {.ranks = ranks, .failing = failing};
    rank_thread threads[TEST_MOST_RANKS];
    lt_status status = LT_OK;
    assert_true(ranks <= TEST_MOST_RANKS);
    pthread_mutex_init(&m.lock, NULL);
    pthread_cond_init(&m.all_here, NULL);
    for (int rank = 0; rank < ranks; rank++) {
        threads[rank] = (rank_thread){.meeting = &m, .body = body, .context = context};
        threads[rank].group = (lt_tensor_group){.rank = rank,
                                                .ranks = ranks,
                                                .context = &threads[rank],
                                                .all_gather = all_gather,
                                                .reduce_scatter = reduce_scatter,
                                                .all_gather_host = all_gather_host};
        assert_int_equal(pthread_create(&threads[rank].thread, NULL, run_rank, &threads[rank]), 0);
    }
    for (int rank = 0; rank < ranks; rank++) {
        pthread_join(threads[rank].thread, NULL);
        if (threads[rank].status == LT_OK) continue;
        if (failing < 0) print_message("rank %d of %d: %s\n", rank, ranks, threads[rank].message);
        status = threads[rank].status;
    }
    pthread_cond_destroy(&m.all_here);
    pthread_mutex_destroy(&m.lock);
    return status;
}

void test_run_ranks(int ranks, test_rank body, void *context) {
    assert_int_equal(test_run_failing_ranks(ranks, body, context, -1), LT_OK);
}
