/* Decoding with a cache against the float64 reference's logits of the whole sequence, whatever the pieces in
 * which the tokens come. */
#include "tests/reference/model_problem.h"

#include <string.h>

/* In bfloat16 some thirty roundings of up to 2^-9, at random, each leave 1 % of the logits' size, and where
 * lazy attention keeps little more than its threshold the norm after it makes up to six times that of it, as
 * measured; a token out of place changes all of a logit. */
static double of_logits(void) {
    return TEST_COMPUTE_TYPE == LT_BFLOAT16 ? 1e-1 : 2e-5;
}

static double of_losses(void) {
    return TEST_COMPUTE_TYPE == LT_BFLOAT16 ? 5e-3 : 1e-6;
}

#define LAZY LT_ATTENTION_LAZY
#define SOFTMAX LT_ATTENTION_SOFTMAX

static const test_model_case CASES[] = {
    {"lazy", TEST_SHAPE(17, 32, 2, 2, 2, 48, false, LAZY, 8, -1.0), 40, 1, 0.2, {0}},
    {"lazy, tied, grouped heads", TEST_SHAPE(257, 48, 2, 6, 2, 40, true, LAZY, 100, -0.9), 66, 1, 0.2, {0}},
    {"lazy, tau of both signs", TEST_SHAPE(17, 16, 1, 4, 1, 33, false, LAZY, 3, 0.0), 33, 1, 0.6, {0}},
    {"softmax", TEST_SHAPE(257, 32, 2, 4, 2, 48, false, SOFTMAX, 0, 0.0), 70, 1, 0.0, {0}},
    {"a prompt of 140 tokens", TEST_SHAPE(17, 16, 1, 2, 1, 24, false, LAZY, 20, -1.0), 140, 1, 0.2, {0}},
};
enum { CASE_COUNT = sizeof CASES / sizeof CASES[0] };

/* Pieces that the tokens come in, the last repeated to the end. */
static const int64_t PIECES[][4] = {{1, 1, 1, 1}, {3, 17, 1, 5}, {29, 2, 2, 1}, {1000, 1, 1, 1}};

static void append_all(test_arena *arena, const test_model_problem *problem, lt_model *model,
                       const int64_t *pieces, int64_t capacity) {
    const int64_t length = problem->c->length, vocabulary = problem->c->shape.vocabulary;
    float *logits = TEST_NEW(float, vocabulary);
    lt_decoder *decoder = NULL;
    assert_int_equal(lt_decoder_create(model, capacity, &decoder), LT_OK);
    int64_t done = 0;
    for (int64_t i = 0; done < length; i++) {
        int64_t piece = pieces[i < 4 ? i : 3];
        if (piece > length - done) piece = length - done;
        assert_int_equal(lt_decoder_append(decoder, problem->batches[0].inputs + done, piece, logits), LT_OK);
        done += piece;
        test_close("logits", logits, problem->logits + (done - 1) * vocabulary, vocabulary, of_logits(), 0.0);
        test_note(arena, logits, sizeof(float) * (size_t)vocabulary);
    }
    lt_decoder_destroy(decoder);
}

static void run_pieces(test_arena *arena, const void *context) {
    const test_model_problem *problem = context;
    for (int training = 0; training < 2; training++) {
        lt_model *model = test_model_create(problem, arena->device, training);
        for (int64_t i = training; i < (int64_t)(sizeof PIECES / sizeof PIECES[0]); i += 2)
            append_all(arena, problem, model, PIECES[i], problem->c->length + i * 50);
        lt_model_destroy(model);
    }
}

static void test_case(void **state) {
    test_model_problem problem;
    test_model_problem_open(&problem, *state, 600);
    test_every_device(run_pieces, &problem);
    test_model_problem_close(&problem);
}

/* What does not fit is refused, and what was there goes on. */
static void run_full(test_arena *arena, const void *context) {
    const test_model_problem *problem = context;
    const int32_t *tokens = problem->batches[0].inputs;
    float logits[17];
    lt_model *model = test_model_create(problem, arena->device, false);
    lt_decoder *decoder = NULL;
    assert_int_equal(lt_decoder_create(model, 6, &decoder), LT_OK);
    assert_int_equal(lt_decoder_append(decoder, tokens, 7, logits), LT_BAD_INPUT);
    assert_true(strlen(lt_error_message()) > 0);
    assert_int_equal(lt_decoder_append(decoder, tokens, 4, logits), LT_OK);
    assert_int_equal(lt_decoder_append(decoder, tokens + 4, 3, logits), LT_BAD_INPUT);
    assert_int_equal(lt_decoder_append(decoder, tokens + 4, 0, logits), LT_BAD_INPUT);
    assert_int_equal(lt_decoder_append(decoder, tokens + 4, 2, logits), LT_OK);
    test_close("logits", logits, problem->logits + 5 * 17, 17, of_logits(), 0.0);
    assert_int_equal(lt_decoder_append(decoder, tokens + 6, 1, logits), LT_BAD_INPUT);
    lt_decoder_destroy(decoder);
    lt_model_destroy(model);
}

static void test_full(void **state) {
    (void)state;
    test_model_problem problem;
    test_model_problem_open(&problem, &CASES[0], 601);
    test_every_device(run_full, &problem);
    test_model_problem_close(&problem);
}

/* Two decoders over one model, in turns, and an evaluation between: none disturbs another. */
static void run_two(test_arena *arena, const void *context) {
    const test_model_problem *problem = context;
    const int32_t *tokens = problem->batches[0].inputs;
    float logits[17];
    double sum;
    lt_model *model = test_model_create(problem, arena->device, false);
    lt_decoder *decoders[2];
    for (int d = 0; d < 2; d++) assert_int_equal(lt_decoder_create(model, 40, &decoders[d]), LT_OK);
    for (int64_t t = 0; t < 10; t++)
        for (int64_t d = 0; d < 2; d++) {
            if (t < 3 * d) continue; /* the second starts later */
            int64_t at = t - 3 * d;
            assert_int_equal(lt_decoder_append(decoders[d], tokens + at, 1, logits), LT_OK);
            test_close("logits", logits, problem->logits + at * 17, 17, of_logits(), 0.0);
            const lt_tokens batch = test_model_tokens(problem, 1);
            assert_int_equal(lt_model_evaluate(model, &batch, &sum), LT_OK);
            test_close_doubles("loss sum", &sum, problem->loss_sums[1], 1, of_losses(), 0.0);
        }
    for (int d = 0; d < 2; d++) lt_decoder_destroy(decoders[d]);
    lt_model_destroy(model);
}

static void test_two(void **state) {
    (void)state;
    test_model_problem problem;
    test_model_problem_open(&problem, &CASES[0], 602);
    test_every_device(run_two, &problem);
    test_model_problem_close(&problem);
}

int main(void) {
    struct CMUnitTest tests[CASE_COUNT + 2] = {
        {"a full cache", test_full, NULL, test_free_all, NULL},
        {"two decoders in turns", test_two, NULL, test_free_all, NULL},
    };
    for (int i = 0; i < CASE_COUNT; i++)
        tests[2 + i] = (struct CMUnitTest){CASES[i].name, test_case, NULL, test_free_all, (void *)&CASES[i]};
    return cmocka_run_group_tests_name("decoder", tests, NULL, NULL);
}
