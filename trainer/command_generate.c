#define _GNU_SOURCE /* sched_getaffinity, CPU_COUNT */
#include "trainer/commands.h"

#include "checkpoints/checkpoint.h"
#include "data/dataset.h"
#include "model/model.h"
#include "trainer/arguments.h"
#include "trainer/sample.h"

#include <sched.h>
#include <stdlib.h>
#include <string.h>

typedef struct generate_options {
    const char *checkpoint, *prompt;
    int64_t max_tokens, threads;
    lt_sampler sampler;
} generate_options;

static void print_help(void) {
    printf("Usage: lazytrain generate CHECKPOINT --prompt TEXT [OPTION]...\n\n"
           "Continues TEXT with the model of a checkpoint and prints prompt and continuation.\n\n"
           "  --prompt TEXT       the text to continue; may be empty where the tokenizer has an end of "
           "document\n"
           "  --max-tokens N      tokens to add at most (default 200); an end of document ends it sooner\n"
           "  --temperature X     0: always the likeliest token (default); 1: as the model says\n"
           "  --top-k K           sample among the K likeliest tokens (default 0: all)\n"
           "  --seed N            of the random numbers (default 0)\n"
           "  --threads N         threads (default: all cores of this process)\n");
}

static lt_status parse(int argc, char **argv, generate_options *options, bool *help) {
    *options = (generate_options){.max_tokens = 200};
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
        } else if (lt_option(argc, argv, &i, "--max-tokens", &value)) {
            LT_CHECK(lt_option_integer("--max-tokens", value, 1, 1 << 20, &options->max_tokens));
        } else if (lt_option(argc, argv, &i, "--temperature", &value)) {
            LT_CHECK(lt_option_number("--temperature", value, 0, 100, &options->sampler.temperature));
        } else if (lt_option(argc, argv, &i, "--top-k", &value)) {
            LT_CHECK(lt_option_integer("--top-k", value, 0, INT32_MAX, &options->sampler.top_k));
        } else if (lt_option(argc, argv, &i, "--seed", &value)) {
            LT_CHECK(lt_option_integer("--seed", value, 0, INT64_MAX, &seed));
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

/* The model of a checkpoint, without optimiser or room for micro-batches. */
static lt_status load_model(const generate_options *options, lt_config *config, lt_device **device,
                            lt_model **model) {
    lt_checkpoint_header header;
    LT_CHECK(lt_checkpoint_read_header(options->checkpoint, &header));
    lt_status status = lt_config_parse(header.config, options->checkpoint, config);
    lt_checkpoint_header_free(&header);
    LT_CHECK(status);
    if (config->data.tokenizer == NULL)
        return lt_fail(
            LT_BAD_INPUT,
            "%s: its model was trained on token shards without data.tokenizer, so its tokens cannot be "
            "turned into text",
            options->checkpoint);
    LT_CHECK(lt_cpu_device_create(options->threads > 0 ? (int)options->threads : own_cores(), device));
    LT_CHECK(lt_model_create(
        &(lt_model_options){.shape = lt_config_model_shape(config), .sequence_length = 1, .micro_batch = 1},
        *device, model));
    return lt_checkpoint_load(options->checkpoint, lt_model_registry(*model), false,
                              &(lt_tensor_access){.context = *model, .put = put_tensor});
}

/* Bytes are tokens; a byte that begins a character of UTF-8 waits for the rest, so that no character is torn.
 */
typedef struct byte_writer {
    unsigned char pending[4];
    int have, need;
} byte_writer;

static void write_byte(byte_writer *writer, unsigned char byte) {
    if (writer->have == 0) {
        writer->need = byte >= 0xf0 && byte < 0xf8   ? 4
                       : byte >= 0xe0 && byte < 0xf0 ? 3
                       : byte >= 0xc2 && byte < 0xe0 ? 2
                                                     : 1;
    } else if ((byte & 0xc0) != 0x80) { /* not a continuation: what waits stays torn, as the model wrote it */
        fwrite(writer->pending, 1, (size_t)writer->have, stdout);
        writer->have = 0;
        write_byte(writer, byte);
        return;
    }
    writer->pending[writer->have++] = byte;
    if (writer->have < writer->need) return;
    fwrite(writer->pending, 1, (size_t)writer->have, stdout);
    fflush(stdout);
    writer->have = 0;
}

static lt_status write_continuation(generate_options *options, lt_decoder *decoder, const lt_config *config,
                                    int32_t *tokens, int64_t count, float *logits, int32_t *order) {
    byte_writer writer = {.have = 0};
    printf("%s", options->prompt);
    for (int64_t added = 0; added < options->max_tokens; added++) {
        LT_CHECK(lt_decoder_append(decoder, tokens, count, logits));
        tokens[0] = lt_sample(&options->sampler, logits, config->model.vocab_size, order);
        count = 1;
        if (tokens[0] >= LT_BYTES_END_OF_DOCUMENT) break;
        write_byte(&writer, (unsigned char)tokens[0]);
    }
    fwrite(writer.pending, 1, (size_t)writer.have, stdout);
    printf("\n");
    return LT_OK;
}

static lt_status generate(generate_options *options, const lt_config *config, lt_model *model) {
    const int64_t length = (int64_t)strlen(options->prompt);
    const int64_t vocabulary = config->model.vocab_size, count = length > 0 ? length : 1;
    lt_decoder *decoder = NULL;
    int32_t *tokens = malloc(sizeof(int32_t) * (size_t)count),
            *order = malloc(sizeof(int32_t) * (size_t)vocabulary);
    float *logits = malloc(sizeof(float) * (size_t)vocabulary);
    lt_status status = LT_OK;
    if (tokens == NULL || order == NULL || logits == NULL) status = lt_fail(LT_IO, "no memory for a prompt");
    if (status == LT_OK) status = lt_decoder_create(model, count + options->max_tokens, &decoder);
    if (status == LT_OK) {
        tokens[0] = LT_BYTES_END_OF_DOCUMENT; /* an empty prompt begins a document */
        for (int64_t i = 0; i < length; i++) tokens[i] = (unsigned char)options->prompt[i];
        status = write_continuation(options, decoder, config, tokens, count, logits, order);
    }
    lt_decoder_destroy(decoder);
    free(tokens);
    free(order);
    free(logits);
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
    lt_status status = load_model(&options, &config, &device, &model);
    if (status == LT_OK) status = generate(&options, &config, model);
    lt_model_destroy(model);
    if (device != NULL) device->ops->destroy(device);
    lt_config_free(&config);
    return status;
}
