#define _GNU_SOURCE /* sched_getaffinity, CPU_COUNT */
#include "trainer/commands.h"

#include "checkpoints/checkpoint.h"
#include "comm/log.h"
#include "data/tokenizer.h"
#include "data/tokenizers/utf8.h"
#include "model/model.h"
#include "trainer/arguments.h"
#include "trainer/device.h"
#include "trainer/sample.h"

#include <limits.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>

typedef struct generate_options {
    const char *checkpoint, *prompt, *tokenizer, *device;
    int64_t max_tokens, threads;
    lt_sampler sampler;
} generate_options;

static void print_help(void) {
    printf("Usage: lazytrain generate CHECKPOINT --prompt TEXT [OPTION]...\n\n"
           "Continues TEXT with the model of a checkpoint and prints prompt and continuation.\n\n"
           "  --prompt TEXT       the text to continue; may be empty where the tokenizer has an end of "
           "document\n"
           "  --tokenizer T       where the tokenizer that the model was trained with lies now, if it moved\n"
           "  --max-tokens N      tokens to add at most (default 200); an end of document ends it sooner\n"
           "  --temperature X     0: always the likeliest token (default); 1: as the model says\n"
           "  --top-k K           sample among the K likeliest tokens (default 0: all)\n"
           "  --seed N            of the random numbers (default 0)\n"
           "  --device D          auto, cpu or cuda (default auto: a GPU where there is one)\n"
           "  --threads N         threads (default: all cores of this process)\n");
}

static lt_status parse(int argc, char **argv, generate_options *options, bool *help) {
    *options = (generate_options){.max_tokens = 200, .device = "auto"};
    int64_t seed = 0;
    for (int i = 0; i < argc; i++) {
        const char *value = NULL;
        if (strcmp(argv[i], "--help") == 0 || strcmp(argv[i], "-h") == 0) {
            *help = true;
            return LT_OK;
        }
        if (lt_option(argc, argv, &i, "--prompt", &value)) {
            if (value == NULL) return lt_fail(LT_BAD_INPUT, "--prompt needs a text");
            options->prompt = value;
        } else if (lt_option(argc, argv, &i, "--tokenizer", &value)) {
            if (value == NULL || *value == '\0') return lt_fail(LT_BAD_INPUT, "--tokenizer needs a value");
            options->tokenizer = value;
        } else if (lt_option(argc, argv, &i, "--max-tokens", &value)) {
            LT_CHECK(lt_option_integer("--max-tokens", value, 1, 1 << 20, &options->max_tokens));
        } else if (lt_option(argc, argv, &i, "--temperature", &value)) {
            LT_CHECK(lt_option_number("--temperature", value, 0, 100, &options->sampler.temperature));
        } else if (lt_option(argc, argv, &i, "--top-k", &value)) {
            LT_CHECK(lt_option_integer("--top-k", value, 0, INT32_MAX, &options->sampler.top_k));
        } else if (lt_option(argc, argv, &i, "--seed", &value)) {
            LT_CHECK(lt_option_integer("--seed", value, 0, INT64_MAX, &seed));
        } else if (lt_option(argc, argv, &i, "--device", &value)) {
            if (value == NULL ||
                (strcmp(value, "auto") != 0 && strcmp(value, "cpu") != 0 && strcmp(value, "cuda") != 0))
                return lt_fail(LT_BAD_INPUT, "--device: found '%s', expected auto, cpu or cuda",
                               value == NULL ? "" : value);
            options->device = value;
        } else if (lt_option(argc, argv, &i, "--threads", &value)) {
            LT_CHECK(lt_option_integer("--threads", value, 1, 1024, &options->threads));
        } else if (argv[i][0] == '-') {
            return lt_fail(LT_BAD_INPUT, "unknown option %s; see lazytrain generate --help", argv[i]);
        } else if (options->checkpoint != NULL) {
            return lt_fail(LT_BAD_INPUT, "two checkpoints are given, %s and %s; expected one",
                           options->checkpoint, argv[i]);
        } else {
            options->checkpoint = argv[i];
        }
    }
    options->sampler.state = (uint64_t)seed;
    if (options->checkpoint == NULL)
        return lt_fail(LT_BAD_INPUT, "no checkpoint is given; see lazytrain generate --help");
    if (options->prompt == NULL) return lt_fail(LT_BAD_INPUT, "no prompt is given; expected --prompt TEXT");
    return LT_OK;
}

static lt_status put_tensor(void *context, lt_tensor_kind kind, const lt_parameter *parameter, int64_t first,
                            int64_t count, const float *values) {
    (void)kind; /* only parameters are loaded */
    return lt_model_put(context, LT_ARRAY_PARAMETERS, parameter, first, count, values);
}

static int own_cores(void) {
    cpu_set_t set;
    return sched_getaffinity(0, sizeof set, &set) == 0 ? CPU_COUNT(&set) : 1;
}

/* The tokenizer that --tokenizer or the checkpoint's config names: the one that the model was trained with.
 */
static lt_status open_tokenizer(const generate_options *options, const lt_checkpoint_header *header,
                                const lt_config *config, lt_tokenizer **tokenizer) {
    const char *name = options->tokenizer != NULL ? options->tokenizer : config->data.tokenizer;
    char key[PATH_MAX + 32] = "--tokenizer";
    if (name == NULL)
        return lt_fail(LT_BAD_INPUT,
                       "%s: its model was trained on token shards without data.tokenizer, so its tokens "
                       "cannot be turned into text; name the tokenizer of the shards by --tokenizer",
                       options->checkpoint);
    if (options->tokenizer == NULL) snprintf(key, sizeof key, "%s: data.tokenizer", options->checkpoint);
    const lt_status status = lt_tokenizer_open(name, key, tokenizer);
    if (status == LT_BAD_INPUT && options->tokenizer == NULL)
        return lt_fail(status, "%s; if it lies elsewhere, name it by --tokenizer", lt_error_message());
    LT_CHECK(status);
    const char *hash = lt_tokenizer_hash(*tokenizer), *expected = header->tokenizer_hash;
    if (expected[0] != '\0' && strcmp(hash, expected) != 0)
        return lt_fail(LT_BAD_INPUT,
                       "%s: '%s' has hash %s, expected the tokenizer that %s was trained with, of hash %s; "
                       "name it by --tokenizer",
                       key, name, hash, options->checkpoint, expected);
    if (lt_tokenizer_vocabulary(*tokenizer) > config->model.vocab_size)
        return lt_fail(LT_BAD_INPUT,
                       "%s: '%s' has a vocabulary of %lld, expected at most the %lld of the model of %s", key,
                       name, (long long)lt_tokenizer_vocabulary(*tokenizer),
                       (long long)config->model.vocab_size, options->checkpoint);
    return LT_OK;
}

/* What the checkpoint says of itself, and the tokenizer. */
static lt_status read_checkpoint(const generate_options *options, lt_config *config,
                                 lt_tokenizer **tokenizer) {
    lt_checkpoint_header header;
    LT_CHECK(lt_checkpoint_read_header(options->checkpoint, &header));
    lt_status status = lt_config_parse(header.config, options->checkpoint, config);
    if (status == LT_OK) status = open_tokenizer(options, &header, config, tokenizer);
    lt_checkpoint_header_free(&header);
    return status;
}

/* The model of the checkpoint, without optimiser or room for micro-batches. */
static lt_status load_model(const generate_options *options, const lt_config *config, lt_device **device,
                            lt_model **model) {
    LT_CHECK(
        lt_open_device(options->device, options->threads > 0 ? (int)options->threads : own_cores(), device));
    LT_CHECK(lt_model_create(
        &(lt_model_options){.shape = lt_config_model_shape(config), .sequence_length = 1, .micro_batch = 1},
        *device, model));
    return lt_checkpoint_load(options->checkpoint, lt_model_registry(*model), false,
                              &(lt_tensor_access){.context = *model, .put = put_tensor});
}

/* A text that is being continued. */
typedef struct continuation {
    const lt_tokenizer *tokenizer;
    lt_decoder *decoder;
    lt_detokenizer *detokenizer;
    lt_token_list tokens; /* of the prompt */
    float *logits;        /* [model.vocab_size] */
    int32_t *order;       /* likewise */
} continuation;

/* An empty prompt begins a document. */
static lt_status encode_prompt(continuation *text, const char *prompt) {
    const int32_t end_of_text = lt_tokenizer_end_of_text(text->tokenizer);
    lt_encoder *encoder;
    LT_CHECK(lt_encoder_create(text->tokenizer, &encoder));
    lt_status status = lt_encode(encoder, prompt, strlen(prompt), &text->tokens);
    if (lt_encoder_replaced(encoder) > 0)
        lt_log_warning("--prompt is not UTF-8: %lld sequences in it were replaced by U+FFFD",
                       (long long)lt_encoder_replaced(encoder));
    lt_encoder_destroy(encoder);
    LT_CHECK(status);
    if (text->tokens.count > 0) return LT_OK;
    if (end_of_text < 0)
        return lt_fail(LT_BAD_INPUT,
                       "--prompt holds no token, and this tokenizer (%s) has no end of text to begin a "
                       "document with; give some text",
                       lt_tokenizer_name(text->tokenizer));
    LT_CHECK(lt_token_list_reserve(&text->tokens, 1));
    text->tokens.id[text->tokens.count++] = end_of_text;
    return LT_OK;
}

/* The prompt comes out as it was given, unless it was no UTF-8: then as the model reads it. Its tokens go
 * through the detokenizer either way, for which the text has then begun. */
static lt_status write_prompt(continuation *text, const char *prompt) {
    const size_t length = strlen(prompt);
    const bool as_given = lt_utf8_valid(prompt, length) == length;
    if (as_given) fwrite(prompt, 1, length, stdout);
    for (size_t i = 0; i < text->tokens.count; i++) {
        const char *piece;
        size_t bytes;
        LT_CHECK(lt_detokenize(text->detokenizer, text->tokens.id[i], &piece, &bytes));
        if (!as_given) fwrite(piece, 1, bytes, stdout);
    }
    return LT_OK;
}

static lt_status write_continuation(continuation *text, generate_options *options) {
    const int32_t end_of_text = lt_tokenizer_end_of_text(text->tokenizer);
    const int32_t *next = text->tokens.id;
    int64_t count = (int64_t)text->tokens.count;
    const char *piece;
    size_t bytes;
    int32_t id;
    for (int64_t added = 0; added < options->max_tokens; added++, next = &id, count = 1) {
        LT_CHECK(lt_decoder_append(text->decoder, next, count, text->logits));
        /* A model may have more ids than its tokenizer, which stand for nothing. */
        id =
            lt_sample(&options->sampler, text->logits, lt_tokenizer_vocabulary(text->tokenizer), text->order);
        if (id == end_of_text) break;
        LT_CHECK(lt_detokenize(text->detokenizer, id, &piece, &bytes));
        fwrite(piece, 1, bytes, stdout);
        if (bytes > 0) fflush(stdout);
    }
    LT_CHECK(lt_detokenize_end(text->detokenizer, &piece, &bytes));
    fwrite(piece, 1, bytes, stdout);
    printf("\n");
    return LT_OK;
}

static lt_status generate(generate_options *options, int64_t vocabulary, const lt_tokenizer *tokenizer,
                          lt_model *model) {
    continuation text = {.tokenizer = tokenizer,
                         .logits = malloc(sizeof(float) * (size_t)vocabulary),
                         .order = malloc(sizeof(int32_t) * (size_t)vocabulary)};
    lt_status status = LT_OK;
    if (text.order == NULL || text.logits == NULL) status = lt_fail(LT_IO, "no memory for a prompt");
    if (status == LT_OK) status = encode_prompt(&text, options->prompt);
    if (status == LT_OK)
        status = lt_decoder_create(model, (int64_t)text.tokens.count + options->max_tokens, &text.decoder);
    if (status == LT_OK) status = lt_detokenizer_create(tokenizer, &text.detokenizer);
    if (status == LT_OK) status = write_prompt(&text, options->prompt);
    if (status == LT_OK) status = write_continuation(&text, options);
    lt_detokenizer_destroy(text.detokenizer);
    lt_decoder_destroy(text.decoder);
    free(text.tokens.id);
    free(text.order);
    free(text.logits);
    return status;
}

lt_status lt_command_generate(int argc, char **argv) {
    generate_options options;
    bool help = false;
    LT_CHECK(parse(argc, argv, &options, &help));
    if (help) {
        print_help();
        return LT_OK;
    }
    static lt_config config;
    lt_device *device = NULL;
    lt_model *model = NULL;
    lt_tokenizer *tokenizer = NULL;
    lt_status status = read_checkpoint(&options, &config, &tokenizer);
    if (status == LT_OK) status = load_model(&options, &config, &device, &model);
    if (status == LT_OK) status = generate(&options, config.model.vocab_size, tokenizer, model);
    lt_model_destroy(model);
    if (device != NULL) device->ops->destroy(device);
    lt_tokenizer_close(tokenizer);
    lt_config_free(&config);
    return status;
}
