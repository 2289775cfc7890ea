/* ranks: 1 2 4 6 8 */
/* Groups of tensor ranks of every width that divides the ranks, up to 4: who is in them, what they exchange,
 * with parts of many sizes and messages cut anywhere, and that groups do not meddle with each other. Sums
 * must have the bits of the plain sum in rank order, computed here. */
#include "comm/tensor.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { WIDEST = 4, MOST = 700 };

static lt_grid grid;
static int checks, failures;

#define CHECK(condition) \
    do { \
        checks++; \
        if (!(condition)) { \
            failures++; \
            fprintf(stderr, "test_tensor: rank %d, width %d, line %d: %s (message: %s)\n", grid.rank, \
                    grid.tensor_ranks, __LINE__, #condition, lt_error_message()); \
        } \
    } while (0)

static void splits(int width) {
    CHECK(lt_grid_split(&grid, width) == LT_OK);
    CHECK(grid.tensor_ranks == width && grid.data_ranks == grid.ranks / width);
    CHECK(grid.tensor_rank == grid.rank % width && grid.data_rank == grid.rank / width);
}

static void refuses_other_widths(void) {
    const lt_grid before = grid;
    CHECK(lt_grid_split(&grid, 0) == LT_BAD_INPUT && lt_grid_split(&grid, -1) == LT_BAD_INPUT);
    CHECK(lt_grid_split(&grid, grid.ranks + 1) == LT_BAD_INPUT);
    if (grid.ranks == 6) {
        CHECK(lt_grid_split(&grid, 4) == LT_BAD_INPUT);
        CHECK(strstr(lt_error_message(), "found 4, expected a divisor of the 6 ranks: 1, 2, 3, 6") != NULL);
    }
    CHECK(memcmp(&before, &grid, sizeof grid) == 0);
}

/* ---- cuts: even, odd, with empty parts, all in one rank's hands ---- */

enum { CUTTINGS = 5 };

static void cut(int cutting, int64_t *cuts) {
    for (int i = 0; i <= grid.tensor_ranks; i++) {
        const int64_t n = grid.tensor_ranks;
        cuts[i] = cutting == 0   ? 96 * i
                  : cutting == 1 ? 101 * i / n
                  : cutting == 2 ? i / 2 * 37
                  : cutting == 3 ? (i == n ? 150 : 0)
                                 : (i > 0 ? 150 : 0);
    }
}

/* Byte `i` of what rank `rank` of this group has. */
static unsigned char pattern(int rank, int64_t i) {
    return (unsigned char)(grid.data_rank * 71 + rank * 37 + i * 11 + i / 251 + 1);
}

static void gathers(size_t element_bytes, int cutting) {
    static unsigned char values[MOST * 8 + 1];
    const int64_t size = (int64_t)element_bytes;
    int64_t cuts[WIDEST + 1];
    cut(cutting, cuts);
    memset(values, 0, sizeof values);
    for (int64_t i = cuts[grid.tensor_rank] * size; i < cuts[grid.tensor_rank + 1] * size; i++)
        values[i] = pattern(grid.tensor_rank, i);
    CHECK(lt_tensor_all_gather(&grid, NULL, values, element_bytes, cuts) == LT_OK);
    int64_t wrong = 0;
    for (int rank = 0; rank < grid.tensor_ranks; rank++)
        for (int64_t i = cuts[rank] * size; i < cuts[rank + 1] * size; i++)
            wrong += values[i] != pattern(rank, i);
    CHECK(wrong == 0);
    CHECK(values[cuts[grid.tensor_ranks] * size] == 0);
}

static void gathers_doubles(int64_t count) {
    double values[WIDEST * 9 + 1];
    for (int i = 0; i <= WIDEST * 9; i++) values[i] = -1;
    for (int64_t i = 0; i < count; i++)
        values[grid.tensor_rank * count + i] = (double)(grid.rank * 100 + i) + 0.5;
    CHECK(lt_tensor_all_gather_doubles(&grid, values, count) == LT_OK);
    for (int rank = 0; rank < grid.tensor_ranks; rank++)
        for (int64_t i = 0; i < count; i++)
            CHECK(values[rank * count + i] ==
                  (double)((grid.rank - grid.tensor_rank + rank) * 100 + i) + 0.5);
    CHECK(values[grid.tensor_ranks * count] == -1);
}

/* ---- sums ---- */

/* Spread over 20 binary orders of magnitude and both signs, so that the order of a sum shows. */
static float value(int rank, int64_t i) {
    uint64_t x = (uint64_t)i * 8 + (uint64_t)rank + 0x9E3779B97F4A7C15u * (uint64_t)(grid.data_rank + 1);
    x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9u;
    x = (x ^ (x >> 27)) * 0x94D049BB133111EBu;
    x ^= x >> 31;
    return ((float)(x & 0xFFFFFF) / 16777216.0f - 0.5f) * (float)(1 << (x >> 44) % 20);
}

static float sum_in_rank_order(int64_t i) {
    float sum = value(0, i);
    for (int rank = 1; rank < grid.tensor_ranks; rank++) sum += value(rank, i);
    return sum;
}

static void add(void *context, float *destination, const float *source, int64_t count) {
    (*(int *)context)++;
    for (int64_t i = 0; i < count; i++) destination[i] += source[i];
}

static void reduces(int cutting) {
    static const float guard = 12345.5f;
    static float partial[MOST], scratch[MOST], own[MOST];
    int64_t cuts[WIDEST + 1];
    cut(cutting, cuts);
    int adds = 0;
    const lt_comm_device device = {.context = &adds, .add = add};
    const int64_t first = cuts[grid.tensor_rank], count = cuts[grid.tensor_rank + 1] - first;
    const int64_t room = lt_tensor_scratch(&grid, count);
    CHECK(room == (grid.tensor_ranks - 2) * count);
    for (int64_t i = 0; i < cuts[grid.tensor_ranks]; i++) partial[i] = value(grid.tensor_rank, i);
    own[count] = scratch[room] = guard;
    CHECK(lt_tensor_reduce_scatter(&grid, &device, partial, cuts, scratch, own) == LT_OK);
    int64_t wrong = 0;
    for (int64_t i = 0; i < count; i++) {
        const float right = sum_in_rank_order(first + i);
        wrong += memcmp(&own[i], &right, sizeof right) != 0;
    }
    CHECK(wrong == 0);
    CHECK(own[count] == guard && scratch[room] == guard);
    CHECK(adds == grid.tensor_ranks - 1);
}

/* The values above do tell orders apart where there are any. */
static void values_depend_on_the_order(void) {
    if (grid.tensor_ranks < 3) return;
    int differ = 0;
    for (int64_t i = 0; i < 1000; i++) {
        float backwards = value(grid.tensor_ranks - 1, i);
        for (int rank = grid.tensor_ranks - 2; rank >= 0; rank--) backwards += value(rank, i);
        differ += backwards != sum_in_rank_order(i);
    }
    CHECK(differ > 100);
}

/* ---- agreement ---- */

static void agrees(void) {
    const int first = grid.rank - grid.tensor_rank, last = first + grid.tensor_ranks - 1;
    lt_verdict verdict;
    CHECK(lt_tensor_agree(&grid, 0, &verdict) == LT_OK);
    CHECK(verdict.code == 0 && verdict.rank == first);
    /* each group by itself: one rank brings a number that the group alone has */
    CHECK(lt_tensor_agree(&grid, grid.rank == last ? 5 + grid.data_rank : 0, &verdict) == LT_OK);
    CHECK(verdict.code == 5 + grid.data_rank && verdict.rank == last);
}

static void exchanges(void) {
    for (int cutting = 0; cutting < CUTTINGS; cutting++) {
        for (size_t element_bytes = 1; element_bytes <= 8; element_bytes *= 2)
            gathers(element_bytes, cutting);
        if (grid.tensor_ranks > 1) reduces(cutting);
    }
    for (int64_t count = 0; count <= 9; count += 3) gathers_doubles(count);
}

int main(int argc, char **argv) {
    if (lt_grid_open(&argc, &argv, &grid) != LT_OK) {
        fprintf(stderr, "test_tensor: %s\n", lt_error_message());
        return 1;
    }
    for (int width = WIDEST; width > 0; width--) {
        if (grid.ranks % width != 0) continue;
        splits(width);
        refuses_other_widths();
        values_depend_on_the_order();
        exchanges();
        static const int64_t limits[] = {97, 399, 400};
        for (size_t i = 0; i < sizeof limits / sizeof *limits; i++) {
            lt_grid_set_message_limit(limits[i]);
            exchanges();
        }
        lt_grid_set_message_limit(1);
        gathers(1, 2);
        lt_grid_set_message_limit(INT64_MAX);
        agrees();
    }
    lt_verdict verdict;
    if (lt_grid_agree(&grid, failures > 0, &verdict) != LT_OK) verdict.code = 1;
    if (grid.rank == 0 && verdict.code == 0) printf("test_tensor: %d checks passed\n", checks);
    lt_grid_close(&grid);
    return verdict.code;
}
