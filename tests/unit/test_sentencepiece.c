/* SentencePiece: ids and texts of small models, long texts in parts, models that are damaged. */
#include "data_files.h"
#include "tokenizer_fixture.h"

#include "comm/plugin.h"
#include "data/plugins/sentencepiece.h"
#include "data/tokenizer.h"

#define SPACE "\xe2\x96\x81"

static lt_tokenizer *open_model(const message *model) {
    lt_tokenizer *tokenizer;
    const char *path = write_file("small.model", model->data, model->bytes);
    if (lt_tokenizer_open(path, "data.tokenizer", &tokenizer) != LT_OK) fail_msg("%s", lt_error_message());
    return tokenizer;
}

static void encode(const lt_tokenizer *tokenizer, const char *text, size_t bytes, lt_token_list *tokens) {
    lt_encoder *encoder;
    tokens->count = 0;
    assert_int_equal(lt_encoder_create(tokenizer, &encoder), LT_OK);
    if (lt_encode(encoder, text, bytes, tokens) != LT_OK) fail_msg("%s", lt_error_message());
    lt_encoder_destroy(encoder);
}

/* Ids as "3 6 7", and the text that they make. */
static void assert_ids(const lt_tokenizer *tokenizer, const char *text, const char *ids) {
    char found[256] = "";
    lt_token_list tokens = {0};
    encode(tokenizer, text, strlen(text), &tokens);
    for (size_t i = 0; i < tokens.count; i++)
        sprintf(found + strlen(found), "%s%d", i == 0 ? "" : " ", tokens.id[i]);
    assert_string_equal(found, ids);
    free(tokens.id);
}

static void assert_text(const lt_tokenizer *tokenizer, const char *ids, const char *expected) {
    lt_detokenizer *detokenizer;
    char found[256] = "", *end;
    const char *text;
    size_t bytes;
    assert_int_equal(lt_detokenizer_create(tokenizer, &detokenizer), LT_OK);
    for (long id = strtol(ids, &end, 10); end != ids; id = strtol(ids = end, &end, 10)) {
        assert_int_equal(lt_detokenize(detokenizer, (int32_t)id, &text, &bytes), LT_OK);
        strncat(found, text, bytes);
    }
    assert_string_equal(found, expected);
    lt_detokenizer_destroy(detokenizer);
}

/* Merges by score, pieces of every type, the normaliser's spaces; texts as the library's Decode() gives them.
 */
static void ids_and_texts(void **state) {
    (void)state;
    message model = {.bytes = 0};
    put_pieces(&model);
    put_piece(&model, "<lo>", PIECE_USER, 0);
    put_specs(&model, MODEL_BPE, true, true, NULL, 0);
    lt_tokenizer *tokenizer = open_model(&model);
    assert_string_equal(lt_tokenizer_name(tokenizer), "SentencePiece BPE");
    assert_int_equal(lt_tokenizer_vocabulary(tokenizer), 13);
    assert_int_equal(lt_tokenizer_end_of_text(tokenizer), 2);
    assert_int_equal(strlen(lt_tokenizer_hash(tokenizer)), 32);
    assert_ids(tokenizer, "low law", "3 6 7 11 9");
    assert_ids(tokenizer, "  low   low ", "3 3");
    assert_ids(tokenizer, "a<lo>w", "6 11 12 9");
    assert_ids(tokenizer, "xyz a", "6 0 6 11");
    assert_ids(tokenizer, "", "");
    assert_ids(tokenizer, "</s>low", "6 0 4");
    assert_text(tokenizer, "3 6 7 11 9", "low law");
    assert_text(tokenizer, "6 6 1 3 2 6 12", "low <lo>");
    assert_text(tokenizer, "0 3", " \xe2\x81\x87  low");
    lt_tokenizer_close(tokenizer);
}

static void one_space_is_the_prefix(void **state) {
    (void)state;
    message model = {.bytes = 0};
    put_pieces(&model);
    put_specs(&model, MODEL_BPE, true, false, NULL, 0);
    lt_tokenizer *tokenizer = open_model(&model);
    assert_ids(tokenizer, " low  a ", "6 3 6 6 11 6");
    assert_text(tokenizer, "1 6 3 6 6 11 6", " low  a ");
    lt_tokenizer_close(tokenizer);
}

static void other_kinds(void **state) {
    (void)state;
    static const struct {
        int type;
        const char *name, *ids;
    } kinds[] = {{MODEL_UNIGRAM, "SentencePiece unigram", "3 6 7 11 9"},
                 {MODEL_WORD, "SentencePiece word", "3 0"},
                 {MODEL_CHAR, "SentencePiece character", "6 7 8 9 6 7 11 9"}};
    unsigned char charsmap[CHARSMAP_BYTES];
    make_charsmap(charsmap);
    for (int i = 0; i < 3; i++) {
        message model = {.bytes = 0};
        put_pieces(&model);
        put_specs(&model, kinds[i].type, true, true, charsmap, sizeof charsmap);
        lt_tokenizer *tokenizer = open_model(&model);
        assert_string_equal(lt_tokenizer_name(tokenizer), kinds[i].name);
        assert_ids(tokenizer, "low lAw", kinds[i].ids);
        lt_tokenizer_close(tokenizer);
    }
}

/* ---- long texts ---- */

static bool take(void *context, const int32_t *ids, size_t count) {
    lt_token_list *tokens = context;
    tokens->id = malloc(count * sizeof *ids);
    memcpy(tokens->id, ids, count * sizeof *ids);
    tokens->count = count;
    return true;
}

/* What the library makes of the whole text is what lt_encode() makes of it. */
static void assert_same_as_whole(const message *model, const char *text, size_t bytes) {
    const void *table;
    char error[256];
    lt_token_list whole = {0}, ours = {0};
    assert_int_equal(lt_plugin_open("sentencepiece", "test", &table), LT_OK);
    const lt_sentencepiece_table *library = table;
    void *loaded = library->load((const char *)model->data, model->bytes, error, sizeof error);
    assert_non_null(loaded);
    assert_true(library->encode(loaded, text, bytes, take, &whole, error, sizeof error));
    library->unload(loaded);
    lt_tokenizer *tokenizer = open_model(model);
    encode(tokenizer, text, bytes, &ours);
    assert_int_equal(ours.count, whole.count);
    assert_memory_equal(ours.id, whole.id, whole.count * sizeof *whole.id);
    lt_tokenizer_close(tokenizer);
    free(whole.id);
    free(ours.id);
}

enum { LONG_BYTES = 300000 };

static char *long_text(void) {
    static const char *const parts[] = {"low", "law", "w",  "a", "  ",           " ",   " ",   " ",
                                        "\n",  "x",   "ow", "e", "\xe3\x81\x82", SPACE, "<lo>"};
    char *text = malloc(LONG_BYTES + 8);
    size_t bytes = 0;
    srand(1);
    while (bytes < LONG_BYTES) {
        const char *part = parts[(size_t)rand() % (sizeof parts / sizeof *parts)];
        memcpy(text + bytes, part, strlen(part));
        bytes += strlen(part);
    }
    text[LONG_BYTES] = '\0';
    return text;
}

static void long_texts(void **state) {
    (void)state;
    char *text = long_text();
    for (int flags = 0; flags < 4; flags++) {
        message model = {.bytes = 0};
        put_pieces(&model);
        put_piece(&model, SPACE SPACE, PIECE_NORMAL, -1);
        put_piece(&model, "<lo>", PIECE_USER, 0);
        put_specs(&model, MODEL_BPE, flags & 1, flags & 2, NULL, 0);
        assert_same_as_whole(&model, text, LONG_BYTES);
    }
    free(text);
}

/* Models in which the parts of a text depend on one another. */
static void long_texts_that_are_not_cut(void **state) {
    (void)state;
    static const struct {
        const char *text;
        int type;
    } across[] = {{"w" SPACE, PIECE_NORMAL}, {"w" SPACE "l", PIECE_USER}, {"w l", PIECE_USER}};
    char *text = long_text();
    for (size_t i = 0; i < sizeof across / sizeof *across; i++) {
        message model = {.bytes = 0};
        put_pieces(&model);
        put_piece(&model, across[i].text, across[i].type, -0.5F);
        put_specs(&model, MODEL_BPE, true, false, NULL, 0);
        assert_same_as_whole(&model, text, LONG_BYTES);
    }
    message unmarked = {.bytes = 0}; /* all of a run of unknown characters is one token */
    put_piece(&unmarked, "<unk>", PIECE_UNKNOWN, 0);
    put_piece(&unmarked, "e", PIECE_NORMAL, 0);
    put_specs(&unmarked, MODEL_BPE, true, false, NULL, 0);
    assert_same_as_whole(&unmarked, text, LONG_BYTES);
    free(text);
}

/* ---- bad models ---- */

static lt_status try_model(const void *data, size_t bytes) {
    lt_tokenizer *tokenizer;
    lt_token_list tokens = {0};
    const lt_status status =
        lt_tokenizer_open(write_file("bad.model", data, bytes), "data.tokenizer", &tokenizer);
    if (status != LT_OK) {
        assert_int_equal(status, LT_BAD_INPUT);
        assert_message("data.tokenizer: '", "/bad.model'", "; expected ", NULL);
        return status;
    }
    lt_encoder *encoder;
    assert_int_equal(lt_encoder_create(tokenizer, &encoder), LT_OK);
    lt_encode(encoder, "A low lAw\nx", 11, &tokens); /* may fail, but not crash */
    lt_encoder_destroy(encoder);
    lt_tokenizer_close(tokenizer);
    free(tokens.id);
    return LT_OK;
}

static void damaged_models(void **state) {
    (void)state;
    unsigned char charsmap[CHARSMAP_BYTES];
    make_charsmap(charsmap);
    message model = {.bytes = 0};
    put_pieces(&model);
    put_specs(&model, MODEL_UNIGRAM, true, true, charsmap, sizeof charsmap);
    assert_int_equal(try_model(model.data, model.bytes), LT_OK);
    for (size_t bytes = 0; bytes < model.bytes; bytes += bytes < 200 ? 1 : 13)
        assert_int_equal(try_model(model.data, bytes), LT_BAD_INPUT);
    for (size_t bit = 0; bit < 8 * model.bytes; bit += 5) {
        model.data[bit / 8] ^= (unsigned char)(1 << bit % 8);
        try_model(model.data, model.bytes);
        model.data[bit / 8] ^= (unsigned char)(1 << bit % 8);
    }
    assert_int_equal(try_model("\nplain text", 11), LT_BAD_INPUT);
    assert_int_equal(try_model("\n\n\n", 3), LT_BAD_INPUT);
}

/* What would lead the library out of its memory. */
static void hostile_models(void **state) {
    (void)state;
    message nested = {.bytes = 0};
    char name[66] = "";
    put_pieces(&nested);
    for (int i = 0; i < 65; i++) put_piece(&nested, strcat(name, "q"), PIECE_USER, 0);
    put_specs(&nested, MODEL_BPE, true, true, NULL, 0);
    assert_int_equal(try_model(nested.data, nested.bytes), LT_BAD_INPUT);
    assert_message("more than 64", NULL);

    static const struct {
        int at;
        uint32_t unit;
    } bad[] = {{0, 4096U << 10},                                     /* out of the array */
               {512, 0x80000000U | 2},                               /* a text behind the end */
               {256 ^ 'B', (uint32_t)(256 ^ 'B' ^ 256) << 10 | 'B'}, /* a circle */
               {512, 5U << 10}};                                     /* no leaf, though one is said to be */
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        unsigned char charsmap[CHARSMAP_BYTES];
        message model = {.bytes = 0};
        make_charsmap(charsmap);
        memcpy(charsmap + 4 + 4 * bad[i].at, &bad[i].unit, 4);
        put_pieces(&model);
        put_specs(&model, MODEL_UNIGRAM, true, true, charsmap, sizeof charsmap);
        assert_int_equal(try_model(model.data, model.bytes), LT_BAD_INPUT);
        assert_message("its rules of normalisation are broken", NULL);
    }
}

static void no_plugin(void **state) {
    (void)state;
    message model = {.bytes = 0};
    put_pieces(&model);
    put_specs(&model, MODEL_BPE, true, true, NULL, 0);
    setenv("LAZYTRAIN_PLUGINS", folder, 1);
    lt_tokenizer *tokenizer;
    const char *path = write_file("small.model", model.data, model.bytes);
    assert_int_equal(lt_tokenizer_open(path, "data.tokenizer", &tokenizer), LT_BAD_INPUT);
    assert_message("data.tokenizer: '", "small.model' needs the plugin sentencepiece.so", NULL);
    write_text("sentencepiece.so", "no object");
    assert_int_equal(lt_tokenizer_open(path, "data.tokenizer", &tokenizer), LT_BAD_INPUT);
    assert_message("which cannot be loaded", NULL);
    unsetenv("LAZYTRAIN_PLUGINS");
}

#define DATA_TEST(name) cmocka_unit_test_setup_teardown(name, make_folder, remove_folder)

int main(void) {
    const struct CMUnitTest tests[] = {
        DATA_TEST(ids_and_texts),
        DATA_TEST(one_space_is_the_prefix),
        DATA_TEST(other_kinds),
        DATA_TEST(long_texts),
        DATA_TEST(long_texts_that_are_not_cut),
        DATA_TEST(damaged_models),
        DATA_TEST(hostile_models),
        DATA_TEST(no_plugin),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
