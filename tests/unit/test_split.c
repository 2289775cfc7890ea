/* Where the elements of a parameter lie under tensor parallelism, against a plain walk over the elements. */
#include "model/split.h"
#include "tests/reference/fixture.h"

/* 12 heads of 2 on 2 key heads, 24 of the MLP, an odd vocabulary: of 2 ranks the last has padding in it, of 6
 * the last has nothing else. */
static const lt_model_shape SHAPE = {.vocabulary = 5,
                                     .hidden = 12,
                                     .layers = 1,
                                     .heads = 12,
                                     .key_heads = 2,
                                     .intermediate = 24,
                                     .head_size = 2,
                                     .bias_length = 3};

/* The rank of the column or row that an element of the whole lies in, and its place there. */
static bool holds(const lt_split_piece *piece, int64_t element, int64_t *local) {
    const lt_parameter *whole = piece->whole, *held = piece->held;
    const int64_t row = element / whole->shape[1], column = element % whole->shape[1];
    if (held->split == LT_SPLIT_COLUMNS) {
        *local = row * held->shape[1] + column % held->shape[1];
        return column / held->shape[1] == piece->part;
    }
    *local = row % held->shape[0] * held->shape[1] + column;
    return row / held->shape[0] == piece->part;
}

/* The run has the elements of the piece that the part holds and no others; they go into place and back. */
static void check_piece(const lt_split_piece *piece) {
    const lt_span run = lt_split_run(piece);
    const int64_t count = piece->count;
    float *held = TEST_NEW(float, piece->held->count), *values = TEST_NEW(float, count + 1);
    float *back = TEST_NEW(float, piece->held->count);
    int64_t found = 0;
    assert_true(run.first >= 0 && run.first <= run.end && run.end <= piece->held->count);
    for (int64_t i = 0; i < piece->held->count; i++) held[i] = (float)(i + 1);
    lt_split_lay(piece, held + run.first, values);
    for (int64_t i = 0; i < count; i++) {
        int64_t local;
        const bool here = holds(piece, piece->first + i, &local);
        if (here) assert_int_equal(local, run.first + found++);
        assert_true(values[i] == (here ? (float)(local + 1) : 0.0f));
    }
    assert_int_equal(found, run.end - run.first);
    assert_true(values[count] == 0.0f);
    lt_split_take(piece, values, back + run.first);
    for (int64_t i = 0; i < piece->held->count; i++)
        assert_true(back[i] == (i >= run.first && i < run.end ? held[i] : 0.0f));
}

static void check_parameter(const lt_parameter *whole, const lt_parameter *held) {
    for (int part = 0; part < held->parts; part++)
        for (int64_t first = 0; first < whole->count; first += 1 + first / 7)
            for (int64_t count = 0; first + count <= whole->count; count += 1 + count / 5) {
                check_piece(&(lt_split_piece){whole, held, part, first, count});
                test_free_all(NULL);
            }
}

static void pieces_are_found_in_parts(void **state) {
    (void)state;
    static const int RANKS[] = {1, 2, 4, 6};
    for (int i = 0; i < 4; i++) {
        lt_registry whole, held;
        assert_int_equal(lt_registry_create(&SHAPE, &whole), LT_OK);
        assert_int_equal(lt_registry_create_cut(&SHAPE, RANKS[i], &held), LT_OK);
        assert_int_equal(held.count, whole.count);
        for (int p = 0; p < held.count; p++) check_parameter(&whole.parameters[p], &held.parameters[p]);
        lt_registry_destroy(&whole);
        lt_registry_destroy(&held);
    }
}

/* Of 6 ranks 0 .. 2 hold the first of two key heads, 3 .. 5 the second, all a norm, each its own of the rest;
 * the key head of a rank is that of its query heads. */
static void ranks_hold_parts_in_order(void **state) {
    (void)state;
    lt_registry held;
    assert_int_equal(lt_registry_create_cut(&SHAPE, 6, &held), LT_OK);
    const lt_parameter *keys = lt_registry_find(&held, "model.layers.0.attn.k_proj.weight");
    const lt_parameter *queries = lt_registry_find(&held, "model.layers.0.attn.q_proj.weight");
    const lt_parameter *norm = lt_registry_find(&held, "model.norm.weight");
    for (int rank = 0; rank < 6; rank++) {
        assert_int_equal(lt_split_part(keys, rank, 6), rank / 3);
        assert_int_equal(lt_split_part(queries, rank, 6), rank);
        assert_int_equal(lt_split_part(norm, rank, 6), 0);
        assert_int_equal(lt_split_holder(queries, rank, 6), rank);
    }
    assert_int_equal(lt_split_holder(keys, 0, 6), 0);
    assert_int_equal(lt_split_holder(keys, 1, 6), 3);
    assert_int_equal(lt_split_holder(norm, 0, 6), 0);
    lt_registry_destroy(&held);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_teardown(pieces_are_found_in_parts, test_free_all),
        cmocka_unit_test(ranks_hold_parts_in_order),
    };
    return cmocka_run_group_tests_name("parts of parameters", tests, NULL, NULL);
}
