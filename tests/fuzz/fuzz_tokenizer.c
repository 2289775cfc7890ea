/* Fuzzes tokenizer files. The first byte of the input says what they are: a single one (a SentencePiece
 * model, a tokenizer.json, or something else), or GPT-2's two with a NUL between them.
 *
 * What opens encodes some texts to ids that there are, twice the same, and decodes them to whole characters.
 */
#include "fuzz.h"
#include "tests/unit/tokenizer_fixture.h"

#include "data/tokenizer.h"
#include "data/tokenizers/utf8.h"

static char single[4096], vocabulary[4096], merges[4096], pair[8200];

static void write_input(const char *path, const void *data, size_t size) {
    FILE *file = fopen(path, "w");
    if (file == NULL || fwrite(data, 1, size, file) != size || fclose(file) != 0) abort();
}

static void decode(const lt_tokenizer *tokenizer, const lt_token_list *tokens) {
    lt_detokenizer *detokenizer;
    const char *text;
    size_t bytes;
    if (lt_detokenizer_create(tokenizer, &detokenizer) != LT_OK) abort();
    for (size_t i = 0; i <= tokens->count; i++) {
        const lt_status status = i == tokens->count
                                     ? lt_detokenize_end(detokenizer, &text, &bytes)
                                     : lt_detokenize(detokenizer, tokens->id[i], &text, &bytes);
        if (status != LT_OK || lt_utf8_valid(text, bytes) != bytes) abort();
    }
    lt_detokenizer_destroy(detokenizer);
}

static void encode(const lt_tokenizer *tokenizer, lt_encoder *encoder, const char *text, size_t bytes) {
    lt_token_list tokens = {0};
    lt_status status = lt_encode(encoder, text, bytes, &tokens);
    const size_t count = tokens.count;
    if (status == LT_OK) status = lt_encode(encoder, text, bytes, &tokens);
    if (status == LT_OK) {
        if (tokens.count != 2 * count) abort();
        if (count > 0 && memcmp(tokens.id, tokens.id + count, count * sizeof *tokens.id) != 0) abort();
        for (size_t i = 0; i < count; i++)
            if (tokens.id[i] < 0 || tokens.id[i] >= lt_tokenizer_vocabulary(tokenizer)) abort();
        decode(tokenizer, &tokens);
    } else if ((status != LT_FAILED && status != LT_IO) || lt_error_message()[0] == '\0') {
        abort();
    }
    free(tokens.id);
}

static void use(const lt_tokenizer *tokenizer) {
    static const char *const texts[] = {"", "  low law, it's  12 \r\n<s></s>\t",
                                        "\xe5\x90\xbe\xe8\xbc\xa9 e\xcc\x81 \xff\xe3\x81",
                                        "A\xef\xb7\xba<|endoftext|>\xf0\x9f\x98\x80\xe2\x80\x8d"};
    lt_encoder *encoder;
    if (lt_encoder_create(tokenizer, &encoder) != LT_OK) abort();
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++)
        encode(tokenizer, encoder, texts[i], strlen(texts[i]));
    encode(tokenizer, encoder, "a\0low", 5);
    lt_encoder_destroy(encoder);
}

/* ---- what it begins with ---- */

static void add_models(void) {
    unsigned char charsmap[CHARSMAP_BYTES];
    make_charsmap(charsmap);
    for (int type = MODEL_UNIGRAM; type <= MODEL_CHAR; type++) {
        message model = {.data = "\0", .bytes = 1};
        char name[16];
        snprintf(name, sizeof name, "model%d", type);
        put_pieces(&model);
        put_piece(&model, "<lo>", PIECE_USER, 0);
        put_specs(&model, type, type != MODEL_CHAR, type == MODEL_UNIGRAM, charsmap,
                  type == MODEL_UNIGRAM ? sizeof charsmap : 0);
        put_in_corpus(name, model.data, model.bytes);
    }
}

static void add_jsons(void) {
    static const char *const texts[] = {
        "\0{\"version\":\"1.0\",\"added_tokens\":[{\"id\":6,\"content\":\"<s>\",\"special\":true,\"lstrip\":"
        "true,"
        "\"rstrip\":true,\"single_word\":false,\"normalized\":false}],\"normalizer\":{\"type\":\"NFC\"},"
        "\"pre_tokenizer\":{\"type\":\"ByteLevel\",\"add_prefix_space\":false,\"use_regex\":true},"
        "\"decoder\":{\"type\":\"ByteLevel\"},\"model\":{\"type\":\"BPE\",\"vocab\":{\"l\":0,\"o\":1,\"w\":2,"
        "\"lo\":3,"
        "\"low\":4,\"\xc4\xa0\":5},\"merges\":[\"l o\",\"lo w\"]}}",
        "\0{\"added_tokens\":[],\"normalizer\":{\"type\":\"Sequence\",\"normalizers\":[{\"type\":\"Prepend\","
        "\"prepend\":"
        "\"\xe2\x96\x81\"},{\"type\":\"Replace\",\"pattern\":{\"String\":\" "
        "\"},\"content\":\"\xe2\x96\x81\"}]},"
        "\"pre_tokenizer\":null,\"decoder\":{\"type\":\"Sequence\",\"decoders\":[{\"type\":\"Replace\","
        "\"pattern\":{"
        "\"String\":\"\xe2\x96\x81\"},\"content\":\" "
        "\"},{\"type\":\"ByteFallback\"},{\"type\":\"Fuse\"},{\"type\":\"Strip\","
        "\"content\":\" "
        "\",\"start\":1,\"stop\":0}]},\"model\":{\"type\":\"BPE\",\"unk_token\":\"<unk>\",\"fuse_unk\":true,"
        "\"byte_fallback\":true,\"vocab\":{\"<unk>\":0,\"<0xE5>\":1,\"\xe2\x96\x81\":2,\"l\":3,\"o\":4,"
        "\"lo\":5},"
        "\"merges\":[[\"l\",\"o\"]]}}",
        "\0{\"pre_tokenizer\":{\"type\":\"Sequence\",\"pretokenizers\":[{\"type\":\"Split\",\"pattern\":{"
        "\"Regex\":"
        "\"(?i:'s|'t)|[^\\\\r\\\\n\\\\p{L}\\\\p{N}]?\\\\p{L}+|\\\\p{N}{1,3}|\\\\s+(?!\\\\S)|\\\\s+\"},"
        "\"behavior\":\"Isolated\",\"invert\":"
        "false},{\"type\":\"ByteLevel\",\"add_prefix_space\":false,\"use_regex\":false}]},\"decoder\":{"
        "\"type\":\"ByteLevel\"},"
        "\"model\":{\"type\":\"BPE\",\"ignore_merges\":true,\"vocab\":{\"l\":0,\"o\":1,\"lo\":2},\"merges\":["
        "\"l o\"]}}"};
    static const char gpt2[] = "\1{\"l\":0,\"o\":1,\"w\":2,\"lo\":3,\"\xc4\xa0\":4}\0#version: 0.2\nl o\n";
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++) {
        char name[16];
        snprintf(name, sizeof name, "json%zu", i);
        put_in_corpus(name, texts[i], 1 + strlen(texts[i] + 1));
    }
    put_in_corpus("gpt2", gpt2, sizeof gpt2 - 1);
}

int LLVMFuzzerInitialize(int *argc, char ***argv) {
    (void)argc, (void)argv;
    begin();
    const char *corpus = getenv("FUZZ_CORPUS");
    snprintf(single, sizeof single, "%s/../fuzz_tokenizer.file", corpus);
    snprintf(vocabulary, sizeof vocabulary, "%s/../fuzz_tokenizer.json", corpus);
    snprintf(merges, sizeof merges, "%s/../fuzz_tokenizer.bpe", corpus);
    snprintf(pair, sizeof pair, "%s,%s", vocabulary, merges);
    add_models();
    add_jsons();
    return 0;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    if (size == 0) return 0;
    const uint8_t *end = data[0] % 2 == 0 ? NULL : memchr(data + 1, '\0', size - 1);
    if (end == NULL) {
        write_input(single, data + 1, size - 1);
    } else {
        write_input(vocabulary, data + 1, (size_t)(end - data - 1));
        write_input(merges, end + 1, (size_t)(data + size - end - 1));
    }
    lt_tokenizer *tokenizer;
    executions++;
    const lt_status status = lt_tokenizer_open(end == NULL ? single : pair, "fuzz", &tokenizer);
    if (status != LT_OK && (status != LT_BAD_INPUT || lt_error_message()[0] == '\0')) abort();
    if (status == LT_OK) use(tokenizer);
    accepted += status == LT_OK;
    lt_tokenizer_close(tokenizer);
    return 0;
}
