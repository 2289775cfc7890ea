/* ranks: 1 2 4 8 3 */
/* Sums of doubles against the tree itself. Eight lanes hold values whose sum depends on the order; each rank
 * sums its own lanes along the tree, the ranks reduce, and the result must have the bits of the tree over all
 * eight lanes computed here by one rank: so the bits are the same at 1, 2, 4 and 8 ranks. Shares of all sizes
 * are gathered. Three ranks must be refused. */
#include "comm/reduce.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { LANES = 8 };

static lt_grid grid;
static int checks, failures;

#define CHECK(condition) \
    do { \
        checks++; \
        if (!(condition)) { \
            failures++; \
            fprintf(stderr, "test_reduce: rank %d, line %d: %s (message: %s)\n", grid.rank, __LINE__, \
                    #condition, lt_error_message()); \
        } \
    } while (0)

/* Element `i` of a lane: a hash spread over 40 binary orders of magnitude and both signs, so that rounding
 * differs from one order of summation to another. */
static double lane_value(int lane, int64_t i) {
    uint64_t x = (uint64_t)i * 8 + (uint64_t)lane + 0x9E3779B97F4A7C15u;
    x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9u;
    x = (x ^ (x >> 27)) * 0x94D049BB133111EBu;
    x ^= x >> 31;
    double scale = 1;
    for (uint64_t k = (x >> 53) % 20; k > 0; k--) scale *= 4;
    return ((double)(x & 0xFFFFFFFF) / 4294967296.0 - 0.5) * scale;
}

/* The tree over lanes [first, first + lanes). */
static double tree_double(int first, int lanes, int64_t i) {
    if (lanes == 1) return lane_value(first, i) / 3;
    return tree_double(first, lanes / 2, i) + tree_double(first + lanes / 2, lanes / 2, i);
}

static const float guard = 12345.5f;

/* All-gather brings everybody's shares. */
static void shares(const int64_t *cuts, int64_t limit) {
    lt_grid_set_message_limit(limit);
    const int64_t count = cuts[grid.ranks];
    const int own = lt_reduce_share(&grid);
    float *values = malloc((size_t)(count + 1) * sizeof *values);
    if (!values) lt_grid_abort(&grid, LT_IO);
    for (int64_t i = 0; i < count; i++) values[i] = i >= cuts[own] && i < cuts[own + 1] ? (float)i : -1.0f;
    values[count] = guard;
    CHECK(lt_all_gather(&grid, NULL, values, cuts) == LT_OK);
    int64_t wrong = 0;
    for (int64_t i = 0; i < count; i++) wrong += values[i] != (float)i;
    CHECK(wrong == 0);
    CHECK(values[count] == guard);
    free(values);
    lt_grid_set_message_limit(INT64_MAX);
}

/* Even shares, odd ones, some empty, and all in the hands of one rank. */
static void shares_of_all_sizes(void) {
    int64_t cuts[LANES + 1];
    for (int64_t count = 0; count <= 40; count += 5) {
        for (int i = 0; i <= grid.ranks; i++) cuts[i] = count * i / grid.ranks;
        shares(cuts, INT64_MAX);
        shares(cuts, 3);
    }
    for (uint64_t seed = 1; seed <= 20; seed++) {
        cuts[0] = 0;
        for (int i = 0; i < grid.ranks; i++)
            cuts[i + 1] = cuts[i] + (int64_t)(seed * 2654435761u * (uint64_t)(i + 3) >> 7) % 150 / 50 * 37;
        shares(cuts, seed % 2 == 0 ? 10 : INT64_MAX);
    }
    for (int owner = 0; owner < grid.ranks; owner++) {
        for (int i = 0; i <= grid.ranks; i++) cuts[i] = i > owner ? 101 : 0;
        shares(cuts, INT64_MAX);
    }
    for (int i = 0; i <= grid.ranks; i++) cuts[i] = i * INT64_C(333337) + (i > 0 ? 700001 : 0);
    shares(cuts, INT64_MAX); /* several pieces of the usual size */
}

/* Every rank keeps another share. */
static void shares_are_dealt_once(void) {
    int dealt[LANES] = {0};
    lt_grid other = grid;
    for (other.data_rank = 0; other.data_rank < grid.ranks; other.data_rank++) {
        const int share = lt_reduce_share(&other);
        CHECK(share >= 0 && share < grid.ranks && dealt[share]++ == 0);
    }
}

/* The values above do tell orders apart: a sum in plain order has other bits in many elements. */
static void values_depend_on_the_order(void) {
    int differ = 0;
    for (int64_t i = 0; i < 1000; i++) {
        double serial = 0;
        for (int lane = 0; lane < LANES; lane++) serial += lane_value(lane, i) / 3;
        differ += serial != tree_double(0, LANES, i);
    }
    CHECK(differ > 200);
}

static void reduces_doubles(int count) {
    int lanes = LANES / grid.ranks;
    double *values = malloc(((size_t)count + 1) * sizeof *values);
    if (!values) lt_grid_abort(&grid, LT_IO);
    for (int i = 0; i < count; i++) values[i] = tree_double(grid.rank * lanes, lanes, i);
    values[count] = 3.25;
    CHECK(lt_reduce_doubles(&grid, values, count) == LT_OK);
    int wrong = 0;
    for (int i = 0; i < count; i++) {
        double right = tree_double(0, LANES, i);
        wrong += memcmp(&values[i], &right, sizeof right) != 0;
    }
    CHECK(wrong == 0);
    CHECK(values[count] == 3.25);
    free(values);
}

static void refuses_other_numbers_of_ranks(void) {
    float gradients[4] = {1, 2, 3, 4};
    double values[1] = {1};
    const int64_t cuts[] = {0, 1, 2, 4};
    CHECK(lt_reduce_doubles(&grid, values, 1) == LT_BAD_INPUT);
    CHECK(strstr(lt_error_message(), "3 data ranks") != NULL);
    CHECK(lt_all_gather(&grid, NULL, gradients, cuts) == LT_BAD_INPUT);
}

int main(int argc, char **argv) {
    if (lt_grid_open(&argc, &argv, &grid) != LT_OK) {
        fprintf(stderr, "test_reduce: %s\n", lt_error_message());
        return 1;
    }
    if (grid.ranks == 3) {
        refuses_other_numbers_of_ranks();
    } else {
        values_depend_on_the_order();
        shares_are_dealt_once();
        shares_of_all_sizes();
        int counts[] = {0, 1, 3, 64, 65, 200};
        for (int i = 0; i < 6; i++) reduces_doubles(counts[i]);
    }
    lt_verdict verdict;
    if (lt_grid_agree(&grid, failures > 0, &verdict) != LT_OK) verdict.code = 1;
    if (grid.rank == 0 && verdict.code == 0) printf("test_reduce: %d checks passed\n", checks);
    lt_grid_close(&grid);
    return verdict.code;
}
