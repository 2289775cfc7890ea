/* BPE tokenizers: the ids that the `tokenizers` package gives (tests/golden/bpe_cases.json, written by
 * tests/reference/bpe_cases.py), and files that are refused. */
#include "data_files.h"

#include "data/tokenizer.h"

#include <jansson.h>

/* ---- golden ids ---- */

static const char *write_json(const char *name, const json_t *json) {
    char *text = json_dumps(json, JSON_COMPACT);
    assert_non_null(text);
    const char *path = write_file(name, text, strlen(text));
    free(text);
    return path;
}

/* The tokenizer.json of a case: the model with the case's options, and its other parts. */
static const char *write_tokenizer(const json_t *model, const json_t *one) {
    json_t *whole = json_object(), *own = json_copy((json_t *)model);
    json_object_update(own, json_object_get(one, "options"));
    json_object_set_new(whole, "model", own);
    static const char *const parts[] = {"normalizer", "pre_tokenizer", "added_tokens"};
    for (int i = 0; i < 3; i++) json_object_set(whole, parts[i], json_object_get(one, parts[i]));
    const char *path = write_json("tokenizer.json", whole);
    json_decref(whole);
    return path;
}

static void assert_ids(const char *name, const json_t *text, const json_t *expected,
                       const lt_token_list *tokens) {
    bool same = json_array_size(expected) == tokens->count;
    for (size_t i = 0; i < tokens->count && same; i++)
        same = json_integer_value(json_array_get(expected, i)) == tokens->id[i];
    if (same) return;
    char *shown = json_dumps(text, JSON_ENCODE_ANY | JSON_ENSURE_ASCII);
    fail_msg("%s: %s: other ids (%zu, expected %zu)", name, shown, tokens->count, json_array_size(expected));
}

static void check_case(const json_t *texts, const json_t *model, const json_t *one) {
    const char *name = json_string_value(json_object_get(one, "name"));
    lt_tokenizer *tokenizer;
    lt_encoder *encoder;
    lt_token_list tokens = {0};
    if (lt_tokenizer_open(write_tokenizer(model, one), "data.tokenizer", &tokenizer) != LT_OK)
        fail_msg("%s: %s", name, lt_error_message());
    assert_int_equal(lt_encoder_create(tokenizer, &encoder), LT_OK);
    for (int round = 0; round < 2; round++) /* the second finds what the first kept */
        for (size_t i = 0; i < json_array_size(texts); i++) {
            const json_t *text = json_array_get(texts, i);
            tokens.count = 0;
            assert_int_equal(lt_encode(encoder, json_string_value(text), json_string_length(text), &tokens),
                             LT_OK);
            assert_ids(name, text, json_array_get(json_object_get(one, "ids"), i), &tokens);
        }
    assert_int_equal(lt_encoder_replaced(encoder), 0);
    free(tokens.id);
    lt_encoder_destroy(encoder);
    lt_tokenizer_close(tokenizer);
}

static json_t *golden;

static int load_golden(void **state) {
    (void)state;
    golden = json_load_file("tests/golden/bpe_cases.json", JSON_ALLOW_NUL, NULL);
    return golden == NULL;
}

static int drop_golden(void **state) {
    (void)state;
    json_decref(golden);
    return 0;
}

static void test_ids(void **state) {
    (void)state;
    static const char *const kinds[][2] = {{"byte_model", "byte_cases"}, {"mark_model", "mark_cases"}};
    for (int k = 0; k < 2; k++) {
        size_t index;
        json_t *one;
        json_array_foreach(json_object_get(golden, kinds[k][1]), index, one)
            check_case(json_object_get(golden, "texts"), json_object_get(golden, kinds[k][0]), one);
        assert_true(index > 3);
    }
}

/* ---- the same tokenizer out of GPT-2's two files ---- */

static void write_pair(const json_t *model) {
    write_json("encoder.json", json_object_get(model, "vocab"));
    FILE *file = fopen(in_folder("vocab.bpe"), "w");
    assert_non_null(file);
    fprintf(file, "#version: 0.2\r\n");
    size_t index;
    json_t *merge;
    json_array_foreach(json_object_get(model, "merges"), index, merge)
        fprintf(file, "%s %s\r\n", json_string_value(json_array_get(merge, 0)),
                json_string_value(json_array_get(merge, 1)));
    assert_int_equal(fclose(file), 0);
}

static void test_two_files(void **state) {
    (void)state;
    write_pair(json_object_get(golden, "byte_model"));
    char names[1200];
    snprintf(names, sizeof names, "%s,%s", in_folder("encoder.json"), in_folder("vocab.bpe"));
    const char *const ways[] = {names, folder};
    char hash[2][64];
    for (int way = 0; way < 2; way++) {
        lt_tokenizer *tokenizer;
        lt_encoder *encoder;
        lt_token_list tokens = {0};
        if (lt_tokenizer_open(ways[way], "data.tokenizer", &tokenizer) != LT_OK)
            fail_msg("%s", lt_error_message());
        assert_int_equal(lt_tokenizer_vocabulary(tokenizer), 400);
        assert_int_equal(lt_tokenizer_end_of_text(tokenizer), -1);
        strcpy(hash[way], lt_tokenizer_hash(tokenizer));
        assert_int_equal(lt_encoder_create(tokenizer, &encoder), LT_OK);
        const json_t *text = json_array_get(json_object_get(golden, "texts"), 3);
        assert_int_equal(lt_encode(encoder, json_string_value(text), json_string_length(text), &tokens),
                         LT_OK);
        const json_t *plain = json_array_get(json_object_get(golden, "byte_cases"), 0);
        assert_ids("two files", text, json_array_get(json_object_get(plain, "ids"), 3), &tokens);
        free(tokens.id);
        lt_encoder_destroy(encoder);
        lt_tokenizer_close(tokenizer);
    }
    assert_string_equal(hash[0], hash[1]);
}

/* ---- refused ---- */

#define MODEL "\"model\":{\"type\":\"BPE\",\"vocab\":{\"a\":0,\"b\":1,\"ab\":2},\"merges\":[\"a b\"]}"

/* A file that cannot be used, and what its message says. */
static const struct {
    const char *text, *message;
} refused[] = {
    {"{", "it is not JSON: line 1, column 1"},
    {"{}", "it has no `model`"},
    {"{\"a\":0,\"b\":1}", "merges: {vocab: encoder.json, merges: vocab.bpe}"},
    {"{\"model\":{\"type\":\"Unigram\",\"vocab\":[]}}", "its model is 'Unigram'; expected BPE"},
    {"{\"model\":{\"type\":\"BPE\",\"vocab\":{\"a\":0}}}", "its model has no `merges`"},
    {"{\"model\":{\"vocab\":{},\"merges\":[]}}", "its vocabulary is empty"},
    {"{\"model\":{\"vocab\":{\"a\":-1},\"merges\":[]}}", "its vocabulary gives token 'a' no id"},
    {"{\"model\":{\"vocab\":{\"a\":16777216},\"merges\":[]}}", "expected an integer from 0 to 16777215"},
    {"{\"model\":{\"vocab\":{\"a\":\"0\"},\"merges\":[]}}", "its vocabulary gives token 'a' no id"},
    {"{\"model\":{\"vocab\":{\"a\":0,\"a\":1},\"merges\":[]}}", "duplicate object key near '\"a\"'"},
    {"{\"model\":{\"vocab\":{\"a\":0,\"b\":0},\"merges\":[]}}", "id 0 belongs to two tokens, 'a' and 'b'"},
    {"{\"model\":{\"vocab\":{\"a\":0},\"merges\":[\"a c\"]}}", "its merge 'a c' joins or makes a token"},
    {"{\"model\":{\"vocab\":{\"a\":0},\"merges\":[\"aa\"]}}", "merge 0 is not two tokens"},
    {"{\"model\":{\"vocab\":{\"a\":0},\"merges\":[[\"a\",1]]}}", "merge 0 is not two tokens"},
    {"{\"model\":{\"vocab\":{\"a\":0},\"merges\":[],\"dropout\":0.1}}", "its model option 'dropout'"},
    {"{\"model\":{\"vocab\":{\"a\":0},\"merges\":[],\"end_of_word_suffix\":\"</w>\"}}",
     "'end_of_word_suffix'"},
    {"{\"model\":{\"vocab\":{\"a\":0},\"merges\":[],\"unk_token\":\"u\"}}",
     "its unknown token 'u' is not in"},
    {"{\"normalizer\":{\"type\":\"Lowercase\"}," MODEL "}", "its normalizer 'Lowercase' is not supported"},
    {"{\"normalizer\":{\"type\":\"Replace\",\"pattern\":{\"Regex\":\"a\"},\"content\":\"\"}," MODEL "}",
     "its normalizer 'Replace with a regular expression'"},
    {"{\"pre_tokenizer\":{\"type\":\"Whitespace\"}," MODEL "}",
     "its pre-tokenizer 'Whitespace' is not supported"},
    {"{\"pre_tokenizer\":{\"type\":\"Split\",\"pattern\":{\"Regex\":\"(\"},\"behavior\":\"Isolated\"}," MODEL
     "}",
     "its pattern '(' cannot be compiled: missing closing parenthesis"},
    {"{\"pre_tokenizer\":{\"type\":\"Split\",\"pattern\":{\"Regex\":\"\\\\bx\"},\"behavior\":\"Isolated\"}"
     "," MODEL "}",
     "uses \\b, which is not supported"},
    {"{\"pre_tokenizer\":{\"type\":\"Split\",\"pattern\":{\"Regex\":\"[^\\\\S]\"},\"behavior\":\"Isolated\"}"
     "," MODEL "}",
     "uses a negated set in a character class"},
    {"{\"pre_tokenizer\":{\"type\":\"Split\",\"pattern\":{\"Regex\":\"[a[b]]\"},\"behavior\":\"Isolated\"}"
     "," MODEL "}",
     "uses a class in a character class"},
    {"{\"pre_tokenizer\":{\"type\":\"Split\",\"pattern\":{\"Regex\":\"a\"},\"behavior\":\"Doubled\"}"
     "," MODEL "}",
     "its pre-tokenizer Split with behavior 'Doubled'"},
    {"{\"pre_tokenizer\":{\"type\":\"Split\",\"pattern\":{\"Regex\":\"(?m:a)\"},\"behavior\":\"Isolated\"}"
     "," MODEL "}",
     "uses (?m, which is not supported"},
    {"{\"pre_tokenizer\":{\"type\":\"Split\",\"pattern\":{\"Regex\":\"a(?i)b\"},\"behavior\":\"Isolated\"}"
     "," MODEL "}",
     "uses options in its midst, which is not supported"},
    {"{\"pre_tokenizer\":{\"type\":\"Split\",\"pattern\":{\"Regex\":\"(?i:ss)\"},\"behavior\":\"Isolated\"}"
     "," MODEL "}",
     "uses (?i) with letters of a ligature, which is not supported"},
    {"{\"pre_tokenizer\":{\"type\":\"Split\",\"pattern\":{\"Regex\":\"a{1,3}+\"},\"behavior\":\"Isolated\"}"
     "," MODEL "}",
     "uses + behind an interval, which is not supported"},
    {"{\"pre_tokenizer\":{\"type\":\"Split\",\"pattern\":{\"Regex\":\"a{2}?\"},\"behavior\":\"Isolated\"}"
     "," MODEL "}",
     "uses ? behind {n}, which is not supported"},
    {"{\"pre_tokenizer\":{\"type\":\"Metaspace\",\"replacement\":\"_\"}," MODEL "}",
     "its Metaspace with replacement '_' is not supported"},
    {"{\"pre_tokenizer\":{\"type\":\"Metaspace\",\"replacement\":\"▁\",\"prepend_scheme\":\"last\"}," MODEL
     "}",
     "its Metaspace with prepend_scheme 'last' is not supported"},
    {"{\"pre_tokenizer\":{\"type\":\"Sequence\",\"pretokenizers\":[{\"type\":\"Metaspace\",\"replacement\":"
     "\"▁\"},{\"type\":\"ByteLevel\"}]}," MODEL "}",
     "its pre-tokenizer behind Metaspace: 'ByteLevel' is not supported"},
    {"{\"pre_tokenizer\":{\"type\":\"Sequence\",\"pretokenizers\":[{\"type\":\"Digits\"},{\"type\":"
     "\"Metaspace\","
     "\"replacement\":\"▁\"}]}," MODEL "}",
     "one before 'Metaspace'"},
    {"{\"pre_tokenizer\":{\"type\":\"Sequence\",\"pretokenizers\":[{\"type\":\"ByteLevel\"},{\"type\":"
     "\"Digits\"}]}," MODEL "}",
     "one behind ByteLevel: 'Digits'"},
    {"{\"decoder\":{\"type\":\"WordPiece\"}," MODEL "}", "its decoder 'WordPiece' is not supported"},
    {"{\"added_tokens\":[{\"id\":3,\"content\":\"<m>\",\"single_word\":true}]," MODEL "}",
     "its added token with single_word '<m>' is not supported"},
    {"{\"added_tokens\":[{\"id\":3,\"content\":\"a\"}]," MODEL "}",
     "'a' has id 3, but its vocabulary says 0"},
    {"{\"added_tokens\":[{\"id\":2,\"content\":\"<m>\"}]," MODEL "}",
     "its added token '<m>' has id 2, expected 3"},
    {"{\"added_tokens\":[{\"id\":3,\"content\":\"<m>\"},{\"id\":5,\"content\":\"<n>\"}]," MODEL "}",
     "its added token '<n>' has id 5, expected 4"},
    {"{\"added_tokens\":[{\"content\":\"<m>\"}]," MODEL "}", "its added token '<m>' lacks content or id"},
};

static void test_refused(void **state) {
    (void)state;
    for (size_t i = 0; i < sizeof refused / sizeof *refused; i++) {
        const char *path = write_file("tokenizer.json", refused[i].text, strlen(refused[i].text));
        lt_tokenizer *tokenizer;
        const lt_status status = lt_tokenizer_open(path, "data.tokenizer", &tokenizer);
        if (status != LT_BAD_INPUT) fail_msg("%s: status %d", refused[i].text, status);
        assert_null(tokenizer);
        assert_message("data.tokenizer: '", "/tokenizer.json': ", refused[i].message, NULL);
    }
}

static void test_refused_merges(void **state) {
    (void)state;
    static const struct {
        const char *text, *message;
    } bad[] = {{"#version: 0.2\na b\nab\n", "vocab.bpe': line 3 is no merge"},
               {"a b\nb c\n", "vocab.bpe': line 2: its merge 'b c'"},
               {"a b c\n", "line 1 is no merge"},
               {"#version: 0.2\n", "it holds no merges"}};
    const char vocabulary[] = "{\"a\":0,\"b\":1,\"ab\":2}";
    write_file("encoder.json", vocabulary, sizeof vocabulary - 1);
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        write_file("vocab.bpe", bad[i].text, strlen(bad[i].text));
        lt_tokenizer *tokenizer;
        assert_int_equal(lt_tokenizer_open(folder, "data.tokenizer", &tokenizer), LT_BAD_INPUT);
        assert_message("data.tokenizer: '", "/encoder.json': ", bad[i].message, NULL);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_ids, make_folder, remove_folder),
        cmocka_unit_test_setup_teardown(test_two_files, make_folder, remove_folder),
        cmocka_unit_test_setup_teardown(test_refused, make_folder, remove_folder),
        cmocka_unit_test_setup_teardown(test_refused_merges, make_folder, remove_folder),
    };
    return cmocka_run_group_tests(tests, load_golden, drop_golden);
}
