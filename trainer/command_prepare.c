#include "trainer/commands.h"

#include "comm/log.h"
#include "data/prepare/prepare.h"
#include "trainer/arguments.h"
#include "trainer/progress.h"
#include "trainer/signals.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_THREADS = 1024 };

typedef struct arguments {
    lt_prepare_options options;
    lt_document_filter filter;
    const char *inputs[LT_MAX_ARGUMENTS];
} arguments;

static void print_help(void) {
    printf(
        "Usage: [mpirun -n R] lazytrain prepare --input GLOB... --tokenizer T --output DIR [OPTION]...\n"
        "\n"
        "Turns raw text (.parquet; .jsonl, .ndjson, .json, .txt, .text, .md, also .gz and .zst) into token "
        "shards, "
        "which data.train takes as DIR; the same bytes at any number of ranks and threads.\n"
        "\n"
        "  --input GLOB              files, a folder or a glob; may be repeated\n"
        "  --tokenizer T             bytes, a SentencePiece .model, a tokenizer.json, a folder with one, or "
        "VOCAB,MERGES; its end of text follows every document\n"
        "  --output DIR              a new folder, or one that was begun with the same settings and is gone "
        "on "
        "with\n"
        "  --shard-tokens N          tokens of a shard; K, M, G for thousands, millions, billions (100M)\n"
        "  --validation-fraction F   share of the documents, by the hash of their text, that go into "
        "DIR/validation (0)\n"
        "  --dedup exact             of documents with equal text keep the first\n"
        "  --filter KEY=VALUE        keep documents with min_int_score, language, min_chars, max_chars; may "
        "be "
        "repeated\n"
        "  --text-key KEY            what holds the text in a row of JSON Lines or Parquet (text)\n"
        "  --separator S             what stands between the documents of a plain text; \\n and \\t are "
        "known "
        "(none: a document a file)\n"
        "  --on-error stop|skip      a bad file ends the work (default), or is left out and listed in the "
        "manifest\n"
        "  --threads N               threads a rank (its share of the cores)\n"
        "  --piece-bytes N           bytes of the input that are shared out at a time; changes nothing in "
        "DIR "
        "(32M)\n"
        "  --overwrite               start anew in a folder that prepare made or began\n"
        "\n"
        "After a signal, kill -9 or a full disk the same command goes on from what is finished.\n"
        "Exit codes: 0 done; 2 bad usage or input; 74 I/O error, may be transient; 75 stopped by a "
        "signal.\n");
}

static lt_status need(const char *name, const char *value) {
    if (value != NULL && *value != '\0') return LT_OK;
    return lt_fail(LT_BAD_INPUT, "%s needs a value; see lazytrain prepare --help", name);
}

/* "100M": a whole number, perhaps of thousands, millions or billions. */
static lt_status read_amount(const char *name, const char *text, int64_t low, int64_t high, int64_t *value) {
    static const char suffixes[] = "KMG";
    LT_CHECK(need(name, text));
    char *end;
    errno = 0;
    const long long number = strtoll(text, &end, 10);
    const char *suffix = *end == '\0' ? NULL : strchr(suffixes, *end);
    int64_t scaled = number;
    bool good =
        end != text && errno == 0 && number >= 0 && (*end == '\0' || (suffix != NULL && end[1] == '\0'));
    for (long i = 0; good && suffix != NULL && i <= suffix - suffixes; i++)
        good = !__builtin_mul_overflow(scaled, 1000, &scaled);
    if (!good || scaled < low || scaled > high)
        return lt_fail(LT_BAD_INPUT,
                       "%s: found '%s', expected a whole number from %lld to %lld, perhaps with K, M or G",
                       name, text, (long long)low, (long long)high);
    *value = scaled;
    return LT_OK;
}

static lt_status read_filter(const char *text, lt_document_filter *filter) {
    static const char min_score[] = "min_int_score=", language[] = "language=", min_chars[] = "min_chars=",
                      max_chars[] = "max_chars=";
    LT_CHECK(need("--filter", text));
    if (strncmp(text, min_score, strlen(min_score)) == 0)
        return lt_option_integer("--filter min_int_score", text + strlen(min_score), 0, INT64_MAX,
                                 &filter->min_int_score);
    if (strncmp(text, min_chars, strlen(min_chars)) == 0)
        return lt_option_integer("--filter min_chars", text + strlen(min_chars), 0, INT64_MAX,
                                 &filter->min_chars);
    if (strncmp(text, max_chars, strlen(max_chars)) == 0)
        return lt_option_integer("--filter max_chars", text + strlen(max_chars), 0, INT64_MAX,
                                 &filter->max_chars);
    if (strncmp(text, language, strlen(language)) == 0) {
        filter->language = text + strlen(language);
        return need("--filter language", filter->language);
    }
    return lt_fail(
        LT_BAD_INPUT,
        "--filter: found '%s', expected min_int_score=N, language=CODE, min_chars=N or max_chars=N", text);
}

static lt_status read_choice(const char *name, const char *text, const char *no, const char *yes,
                             bool *chosen) {
    *chosen = text != NULL && strcmp(text, yes) == 0;
    if (*chosen || (text != NULL && strcmp(text, no) == 0)) return LT_OK;
    return lt_fail(LT_BAD_INPUT, "%s: found '%s', expected %s or %s", name, text == NULL ? "" : text, no,
                   yes);
}

/* \n, \t and \\ in place. */
static void unescape(char *text) {
    char *to = text;
    for (const char *from = text; *from != '\0'; from++) {
        const char next = *from == '\\' ? from[1] : '\0';
        const char escaped = next == 'n' ? '\n' : next == 't' ? '\t' : next == '\\' ? '\\' : '\0';
        *to++ = escaped != '\0' ? escaped : *from;
        from += escaped != '\0';
    }
    *to = '\0';
}

static lt_status read_option(int argc, char **argv, int *i, arguments *all) {
    lt_prepare_options *options = &all->options;
    const char *value = NULL;
    int64_t number;
    if (lt_option(argc, argv, i, "--input", &value)) {
        LT_CHECK(need("--input", value));
        if (options->input_count == LT_MAX_ARGUMENTS)
            return lt_fail(LT_BAD_INPUT, "--input is given more than %d times; use a glob", LT_MAX_ARGUMENTS);
        all->inputs[options->input_count++] = value;
        return LT_OK;
    }
    if (lt_option(argc, argv, i, "--tokenizer", &options->tokenizer))
        return need("--tokenizer", options->tokenizer);
    if (lt_option(argc, argv, i, "--output", &options->output)) return need("--output", options->output);
    if (lt_option(argc, argv, i, "--shard-tokens", &value))
        return read_amount("--shard-tokens", value, 2, INT32_MAX, &options->shard_tokens);
    if (lt_option(argc, argv, i, "--piece-bytes", &value))
        return read_amount("--piece-bytes", value, 1, INT64_C(1) << 40, &options->piece_bytes);
    if (lt_option(argc, argv, i, "--validation-fraction", &value))
        return lt_option_number("--validation-fraction", value, 0, 1, &options->validation_fraction);
    if (lt_option(argc, argv, i, "--dedup", &value))
        return read_choice("--dedup", value, "none", "exact", &options->dedup);
    if (lt_option(argc, argv, i, "--on-error", &value))
        return read_choice("--on-error", value, "stop", "skip", &options->skip_bad);
    if (lt_option(argc, argv, i, "--filter", &value)) return read_filter(value, &all->filter);
    if (lt_option(argc, argv, i, "--text-key", &options->documents.text_key))
        return need("--text-key", options->documents.text_key);
    if (lt_option(argc, argv, i, "--separator", &value)) {
        LT_CHECK(need("--separator", value));
        unescape((char *)value); /* of argv */
        options->documents.separator = value;
        return LT_OK;
    }
    if (lt_option(argc, argv, i, "--threads", &value)) {
        LT_CHECK(lt_option_integer("--threads", value, 1, MAX_THREADS, &number));
        options->threads = (int)number;
        return LT_OK;
    }
    return lt_fail(LT_BAD_INPUT, "unknown %s %s; see lazytrain prepare --help",
                   argv[*i][0] == '-' ? "option" : "argument", argv[*i]);
}

static lt_status parse(int argc, char **argv, arguments *all) {
    lt_prepare_options *options = &all->options;
    *all =
        (arguments){.filter = {-1, NULL, -1, -1},
                    .options = {.shard_tokens = 100000000, .piece_bytes = 32000000, .inputs = all->inputs}};
    options->documents.filter = &all->filter;
    for (int i = 0; i < argc; i++) {
        if (strcmp(argv[i], "--overwrite") == 0)
            options->overwrite = true;
        else
            LT_CHECK(read_option(argc, argv, &i, all));
    }
    const char *missing = options->input_count == 0    ? "--input"
                          : options->tokenizer == NULL ? "--tokenizer"
                          : options->output == NULL    ? "--output"
                                                       : NULL;
    if (missing == NULL) return LT_OK;
    return lt_fail(LT_BAD_INPUT, "%s is not given; see lazytrain prepare --help", missing);
}

/* Collective. */
static lt_status prepare(const lt_grid *grid, int argc, char **argv) {
    static arguments all;
    LT_CHECK(lt_grid_share_status(grid, parse(argc, argv, &all), NULL));
    LT_CHECK(lt_grid_share_status(grid, lt_signals_install(), NULL));
    all.options.on_terminal = lt_progress_on_terminal();
    return lt_prepare(grid, &all.options);
}

lt_status lt_command_prepare(int argc, char **argv) {
    for (int i = 0; i < argc; i++)
        if (strcmp(argv[i], "--help") == 0 || strcmp(argv[i], "-h") == 0) {
            if (lt_grid_launched_rank() == 0) print_help();
            return LT_OK;
        }
    lt_grid grid;
    lt_status status = lt_grid_open(&argc, &argv, &grid);
    if (status != LT_OK) {
        lt_log_error(lt_error_message());
        lt_grid_abort(&grid, status);
    }
    status = prepare(&grid, argc, argv);
    const char *signal_name = NULL;
    lt_signals_take(&signal_name);
    if (status == LT_STOPPED)
        lt_log_info("%s: stopped; the same command goes on from what is finished", signal_name);
    else if (status != LT_OK && grid.rank == 0)
        lt_log_error(lt_error_message());
    /* Where MPI itself failed, others may still wait for this rank. */
    if (status == LT_IO && lt_grid_barrier(&grid) != LT_OK) lt_grid_abort(&grid, status);
    lt_grid_close(&grid);
    return status;
}
