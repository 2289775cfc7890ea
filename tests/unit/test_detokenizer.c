/* Ids to text, one by one: whole characters alone, the space before a text, ids that there are not; and the
 * bytes tokenizer. */
#include "data_files.h"

#include "data/tokenizers/kind.h"

static const lt_tokenizer_kind some_kind;

/* A tokenizer with these texts. */
static void make(lt_tokenizer *tokenizer, const char *const *texts, size_t count, lt_leading_space rule) {
    lt_piece_table table = {0};
    for (size_t i = 0; i < count; i++)
        assert_int_equal(lt_piece_table_add(&table, texts[i], strlen(texts[i])), LT_OK);
    *tokenizer = (lt_tokenizer){.kind = &some_kind, .leading_space = rule};
    assert_int_equal(lt_piece_table_finish(&table, tokenizer), LT_OK);
    assert_int_equal(tokenizer->vocabulary, count);
}

static void unmake(lt_tokenizer *tokenizer) {
    free(tokenizer->place);
    free(tokenizer->text);
}

/* What comes out id by id, a bar behind each and behind the end. */
static void assert_decodes(const lt_tokenizer *tokenizer, const char *ids, const char *expected) {
    lt_detokenizer *detokenizer;
    assert_int_equal(lt_detokenizer_create(tokenizer, &detokenizer), LT_OK);
    for (int round = 0; round < 2; round++) { /* the end leaves it as new */
        char given[256] = "";
        const char *text;
        size_t bytes;
        for (const char *id = ids; *id != '\0'; id++) {
            assert_int_equal(lt_detokenize(detokenizer, *id - '0', &text, &bytes), LT_OK);
            strncat(given, text, bytes);
            strcat(given, "|");
        }
        assert_int_equal(lt_detokenize_end(detokenizer, &text, &bytes), LT_OK);
        strncat(given, text, bytes);
        assert_string_equal(given, expected);
    }
    lt_detokenizer_destroy(detokenizer);
}

static void whole_characters(void **state) {
    (void)state;
    static const char *const texts[] = {"a", "\xf0\x9f", "\x98\x80", "\xe3\x81", "\x82\xe3", "", "\xff"};
    lt_tokenizer tokenizer;
    make(&tokenizer, texts, 7, LT_KEEP_SPACES);
    assert_decodes(&tokenizer, "0120", "a||\xf0\x9f\x98\x80|a|");
    assert_decodes(&tokenizer, "34545", "|\xe3\x81\x82||\xef\xbf\xbd||\xef\xbf\xbd");
    assert_decodes(&tokenizer, "1502",
                   "||\xef\xbf\xbd"
                   "a|\xef\xbf\xbd\xef\xbf\xbd|");
    assert_decodes(&tokenizer, "06", "a|\xef\xbf\xbd|");
    assert_decodes(&tokenizer, "1", "|\xef\xbf\xbd");
    assert_decodes(&tokenizer, "", "");
    unmake(&tokenizer);
}

static void leading_spaces(void **state) {
    (void)state;
    static const char *const texts[] = {" ", " a", "b", "", "  c"};
    bool literal[5] = {false};
    lt_tokenizer tokenizer;
    make(&tokenizer, texts, 5, LT_KEEP_SPACES);
    assert_decodes(&tokenizer, "01", " | a|");
    tokenizer.leading_space = LT_DROP_ONE_SPACE;
    assert_decodes(&tokenizer, "11", "a| a|");
    assert_decodes(&tokenizer, "301", "|| a|");
    assert_decodes(&tokenizer, "41", " c| a|");
    assert_decodes(&tokenizer, "21", "b| a|");
    tokenizer.leading_space = LT_DROP_ALL_SPACES;
    assert_decodes(&tokenizer, "00301", "||||a|");
    assert_decodes(&tokenizer, "040", "| c| |");
    tokenizer.literal = literal;
    literal[0] = true;
    assert_decodes(&tokenizer, "01", " | a|");
    assert_decodes(&tokenizer, "10", "a| |");
    unmake(&tokenizer);
}

static void ids_that_there_are_not(void **state) {
    (void)state;
    lt_tokenizer *tokenizer;
    lt_detokenizer *detokenizer;
    const char *text;
    size_t bytes;
    assert_int_equal(lt_tokenizer_open("bytes", "data.tokenizer", &tokenizer), LT_OK);
    assert_int_equal(lt_detokenizer_create(tokenizer, &detokenizer), LT_OK);
    assert_int_equal(lt_detokenize(detokenizer, 257, &text, &bytes), LT_BAD_INPUT);
    assert_message("there is no token 257, expected 0 to 256", NULL);
    assert_int_equal(lt_detokenize(detokenizer, -1, &text, &bytes), LT_BAD_INPUT);
    lt_detokenizer_destroy(detokenizer);
    lt_tokenizer_close(tokenizer);
}

static void bytes_tokenizer(void **state) {
    (void)state;
    lt_tokenizer *tokenizer;
    lt_encoder *encoder;
    lt_detokenizer *detokenizer;
    lt_token_list tokens = {0};
    char all[300], back[300];
    size_t length = 0, bytes;
    const char *text;
    for (int i = 0; i < 300; i++) all[i] = (char)(i * 7);
    assert_int_equal(lt_tokenizer_open("bytes", "data.tokenizer", &tokenizer), LT_OK);
    assert_string_equal(lt_tokenizer_name(tokenizer), "bytes");
    assert_int_equal(lt_tokenizer_vocabulary(tokenizer), LT_BYTES_VOCABULARY);
    assert_int_equal(lt_tokenizer_end_of_text(tokenizer), LT_BYTES_END_OF_DOCUMENT);
    assert_int_equal(lt_encoder_create(tokenizer, &encoder), LT_OK);
    assert_int_equal(lt_encode(encoder, all, 0, &tokens), LT_OK);
    assert_int_equal(tokens.count, 0);
    for (int i = 0; i < 2; i++) assert_int_equal(lt_encode(encoder, all + 150 * i, 150, &tokens), LT_OK);
    assert_int_equal(tokens.count, 300);
    assert_int_equal(lt_encoder_replaced(encoder), 0);
    assert_int_equal(lt_detokenizer_create(tokenizer, &detokenizer), LT_OK);
    for (int i = 0; i < 300; i++) {
        assert_int_equal(tokens.id[i], (unsigned char)all[i]);
        assert_int_equal(lt_detokenize(detokenizer, tokens.id[i], &text, &bytes), LT_OK);
        memcpy(back + length, text, bytes);
        length += bytes;
    }
    assert_int_equal(lt_detokenize(detokenizer, LT_BYTES_END_OF_DOCUMENT, &text, &bytes), LT_OK);
    assert_int_equal(bytes, 0);
    assert_int_equal(lt_detokenize_end(detokenizer, &text, &bytes), LT_OK);
    memcpy(back + length, text, bytes);
    assert_int_equal(length + bytes, 300);
    assert_memory_equal(back, all, 300);
    free(tokens.id);
    lt_detokenizer_destroy(detokenizer);
    lt_encoder_destroy(encoder);
    lt_tokenizer_close(tokenizer);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(whole_characters),
        cmocka_unit_test(leading_spaces),
        cmocka_unit_test(ids_that_there_are_not),
        cmocka_unit_test(bytes_tokenizer),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
