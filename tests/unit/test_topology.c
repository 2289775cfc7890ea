/* What is said about where ranks run, of clusters that are made up. */
#include "comm/topology.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

enum { MOST = 2048 };
static lt_place places[MOST];
static int ranks;
static char text[1024];

static lt_cores cores(int from, int to) {
    lt_cores set;
    memset(&set, 0, sizeof set);
    for (int core = from; core <= to; core++) set.word[core / LT_CORE_BITS] |= 1UL << (core % LT_CORE_BITS);
    return set;
}

static int clear(void **state) {
    (void)state;
    ranks = 0;
    return 0;
}

/* One more rank on a host, which is known by its name here. */
static void rank_on(const char *host, int threads, int from, int to) {
    lt_place *place = &places[ranks];
    memset(place, 0, sizeof *place);
    snprintf(place->host, sizeof place->host, "%s", host);
    place->threads = threads;
    place->cores = cores(from, to);
    place->first = ranks;
    for (int other = ranks - 1; other >= 0; other--)
        if (strcmp(places[other].host, host) == 0) place->first = places[other].first;
    ranks++;
}

/* The lines are these, and no more. */
static void says_lines(const char *const *lines, int count) {
    int next = 0;
    for (int i = 0; i < count; i++) {
        assert_true(lt_topology_line(places, ranks, &next, text, sizeof text));
        assert_string_equal(text, lines[i]);
    }
    assert_false(lt_topology_line(places, ranks, &next, text, sizeof text));
}
#define SAYS(...) \
    says_lines((const char *const[]){__VA_ARGS__}, \
               sizeof((const char *const[]){__VA_ARGS__}) / sizeof(char *))

static void cores_of_this_process(void **state) {
    (void)state;
    const lt_cores own = lt_cores_own(), some = cores(60, 70);
    assert_true(lt_cores_count(&own) >= 1);
    assert_int_equal(lt_cores_count(&some), 11);
}

static void one_host(void **state) {
    (void)state;
    rank_on("n1", 1, 5, 5);
    SAYS("n1: 1 rank on cores 5");
    rank_on("n1", 8, 8192 - 8, 8191);
    SAYS("n1: 2 ranks on cores 5 | 8184-8191");
}

static void ranks_that_share_cores(void **state) {
    (void)state;
    for (int i = 0; i < 2; i++) rank_on("n1", 1, 0, 7);
    SAYS("n1: 2 ranks on cores 0-7 (shared by 2)");
    rank_on("n1", 1, 8, 15);
    rank_on("n1", 1, 0, 7);
    SAYS("n1: 4 ranks on cores 0-7 (shared by 3) | 8-15");
}

/* Hosts that are bound alike have one line, in whatever order ranks are dealt to them. */
static void several_hosts(void **state) {
    (void)state;
    for (int i = 0; i < 2; i++) {
        rank_on("n1", 4, 4 * i, 4 * i + 3);
        rank_on("n2", 4, 4 * i, 4 * i + 3);
        rank_on("n3", 4, 8 * i, 8 * i + 3);
    }
    rank_on("n4", 4, 0, 3);
    rank_on("n5", 4, 0, 3);
    rank_on("n5", 4, 4, 7);
    SAYS("n1 n2 n5: 2 ranks each on cores 0-3 | 4-7", "n3: 2 ranks on cores 0-3 | 8-11",
         "n4: 1 rank on cores 0-3");
}

static void many_hosts_are_cut(void **state) {
    (void)state;
    for (int i = 0; i < 1000; i++) {
        char name[16];
        snprintf(name, sizeof name, "node%04d", i);
        rank_on(name, 1, 0, 0);
        rank_on(name, 1, 1, 1);
    }
    int next = 0;
    assert_true(lt_topology_line(places, ranks, &next, text, sizeof text));
    assert_int_equal(strncmp(text, "node0000 node0001 ", 18), 0);
    assert_non_null(strstr(text, " ...: 2 ranks each on cores 0 | 1"));
    assert_null(strstr(text, "... ..."));
    assert_false(lt_topology_line(places, ranks, &next, text, sizeof text));
}

#define ENOUGH() assert_false(lt_topology_oversubscribed(places, ranks, text, sizeof text))
#define SHORT(expected) \
    do { \
        assert_true(lt_topology_oversubscribed(places, ranks, text, sizeof text)); \
        assert_string_equal(text, expected); \
    } while (0)

static void more_threads_than_cores_of_a_rank(void **state) {
    (void)state;
    rank_on("n1", 4, 0, 3);
    rank_on("n1", 4, 4, 7);
    ENOUGH();
    rank_on("n2", 5, 0, 3);
    SHORT("rank 2 on n2: 5 threads on cores 0-3");
    rank_on("n3", 2, 0, 0);
    SHORT("rank 2 on n2: 5 threads on cores 0-3; and 1 more host");
    rank_on("n4", 2, 0, 0);
    SHORT("rank 2 on n2: 5 threads on cores 0-3; and 2 more hosts");
}

static void ranks_without_cores_of_their_own(void **state) {
    (void)state;
    for (int i = 0; i < 4; i++) rank_on("n1", 2, 0, 7);
    ENOUGH();
    rank_on("n1", 1, 0, 7);
    SHORT("ranks 0-4 on n1: 9 threads on cores 0-7");
    clear(NULL);
    /* one rank has cores, two share others */
    rank_on("n1", 4, 0, 3);
    rank_on("n1", 3, 4, 7);
    rank_on("n1", 2, 4, 7);
    SHORT("ranks 1-2 on n1: 5 threads on cores 4-7");
    clear(NULL);
    /* sets that overlap: each has enough, both together have not */
    rank_on("n1", 2, 0, 1);
    rank_on("n1", 2, 1, 2);
    SHORT("ranks 0-1 on n1: 4 threads on cores 0-2");
    clear(NULL);
    /* a set within another: the threads of the inner one count for the outer one, not the other way round */
    rank_on("n1", 2, 0, 1);
    rank_on("n1", 2, 0, 3);
    ENOUGH();
    rank_on("n1", 1, 0, 3);
    SHORT("ranks 0-2 on n1: 5 threads on cores 0-3");
}

static void tensor_groups_that_cross_hosts(void **state) {
    (void)state;
    for (int i = 0; i < 6; i++) rank_on(i < 3 ? "n1" : "n2", 1, i, i);
    assert_false(lt_topology_tensor_crosses(places, ranks, 1, text, sizeof text));
    assert_false(lt_topology_tensor_crosses(places, ranks, 3, text, sizeof text));
    assert_true(lt_topology_tensor_crosses(places, ranks, 2, text, sizeof text));
    assert_string_equal(text, "ranks 2-3 are on n1 and n2");
    for (int i = 0; i < 6; i++) rank_on(i < 3 ? "n3" : "n4", 1, i, i);
    assert_true(lt_topology_tensor_crosses(places, ranks, 2, text, sizeof text));
    assert_string_equal(text, "ranks 2-3 are on n1 and n2; and 1 more group");
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(cores_of_this_process, clear),
        cmocka_unit_test_setup(one_host, clear),
        cmocka_unit_test_setup(ranks_that_share_cores, clear),
        cmocka_unit_test_setup(several_hosts, clear),
        cmocka_unit_test_setup(many_hosts_are_cut, clear),
        cmocka_unit_test_setup(more_threads_than_cores_of_a_rank, clear),
        cmocka_unit_test_setup(ranks_without_cores_of_their_own, clear),
        cmocka_unit_test_setup(tensor_groups_that_cross_hosts, clear),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
