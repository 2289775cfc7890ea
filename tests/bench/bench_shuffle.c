/* How well samples are mixed: raw files (pieces of LT_PIECE_TOKENS tokens, one after another, each shuffled)
 * beside one permutation of all samples and the natural order. Of batches of 64 samples of 256 tokens out of
 * 5 files of 16 MiB: how often two samples of a batch are of one document, and the spread of the batches'
 * mean place in the corpus (0 to 1), over that of independent draws.
 *
 * bench_shuffle FOLDER */
#include "data/dataset.h"
#include "data/order.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { FILES = 5, DOCUMENTS = 8192, DOCUMENT_BYTES = 2048, T = 256, BATCH = 64 };

static void check(lt_status status) {
    if (status == LT_OK) return;
    fprintf(stderr, "bench_shuffle: %s\n", lt_error_message());
    exit(1);
}

/* Every 16 bytes say which document they are of. */
static void write_file(const char *path, int file) {
    FILE *out = fopen(path, "w");
    for (int d = 0; d < DOCUMENTS && out != NULL; d++) {
        fputs("{\"text\": \"", out);
        for (int i = 0; i < DOCUMENT_BYTES / 16; i++) fprintf(out, "%07d lazytext", file * DOCUMENTS + d);
        fputs("\"}\n", out);
    }
    if (out == NULL || fclose(out) != 0) exit(1);
}

/* The document that a sample begins in: the first whole number of seven digits. */
static int document_of(const int32_t *tokens) {
    for (int at = 0; at + 7 < T; at++) {
        int value = 0, digits = 0;
        while (digits < 7 && tokens[at + digits] >= '0' && tokens[at + digits] <= '9')
            value = 10 * value + tokens[at + digits++] - '0';
        if (digits == 7) return value;
    }
    return 0;
}

static void report(const char *name, const int *document, int64_t samples) {
    const int64_t batches = samples / BATCH;
    double spread = 0, repeated = 0;
    for (int64_t b = 0; b < batches; b++) {
        double mean = 0;
        bool twice = false;
        for (int i = 0; i < BATCH; i++) {
            mean += (double)document[b * BATCH + i] / (FILES * DOCUMENTS) / BATCH;
            for (int j = 0; j < i; j++) twice |= document[b * BATCH + i] == document[b * BATCH + j];
        }
        spread += (mean - 0.5) * (mean - 0.5) / (double)batches;
        repeated += twice;
    }
    printf("shuffle, %s: %.1f %% of batches of %d hold two samples of one document; spread of their mean "
           "place %.1f times "
           "that of independent draws\n",
           name, 100 * repeated / (double)batches, BATCH, sqrt(spread / (1.0 / 12 / BATCH)));
}

int main(int count, char **argument) {
    if (count != 2) return 2;
    char path[4096], pattern[4096], cache[4096];
    for (int f = 0; f < FILES; f++) {
        snprintf(path, sizeof path, "%s/shuffle_%d.jsonl", argument[1], f);
        write_file(path, f);
    }
    snprintf(pattern, sizeof pattern, "%s/shuffle_*.jsonl", argument[1]);
    snprintf(cache, sizeof cache, "%s/shuffle_cache", argument[1]);
    lt_tokenizer *tokenizer;
    lt_dataset *dataset;
    const char *patterns[] = {pattern};
    check(lt_tokenizer_open("bytes", "data.tokenizer", &tokenizer));
    check(lt_dataset_open(&(lt_dataset_options){.patterns = patterns,
                                                .pattern_count = 1,
                                                .key = "data.train",
                                                .tokenizer = "bytes",
                                                .raw = &(lt_raw_options){.tokenizer = tokenizer,
                                                                         .document_token = 256,
                                                                         .cache_folder = cache,
                                                                         .cache_bytes = INT64_C(1) << 30},
                                                .sequence_length = T,
                                                .vocabulary = 257},
                          &dataset));
    int64_t samples;
    check(lt_dataset_count_samples(dataset, INT64_MAX, &samples));
    int *document = malloc(sizeof *document * (size_t)samples),
        *natural = malloc(sizeof *natural * (size_t)samples);
    const lt_order all = {.samples = samples, .seed = 1, .shuffle = true};
    int32_t tokens[T + 1];
    for (int64_t i = 0; i < samples; i++) {
        check(lt_dataset_read_item(dataset, &(lt_shuffle){.shuffle = false}, i, tokens, NULL));
        natural[i] = document_of(tokens);
    }
    report("natural order", natural, samples);
    for (int64_t i = 0; i < samples; i++) {
        check(lt_dataset_read_item(dataset, &(lt_shuffle){.shuffle = true, .seed = 1}, i, tokens, NULL));
        document[i] = document_of(tokens);
    }
    report("raw files", document, samples);
    for (int64_t i = 0; i < samples; i++) document[i] = natural[lt_order_sample(&all, i, NULL)];
    report("shards, one permutation", document, samples);
    free(document);
    free(natural);
    lt_dataset_close(dataset);
    lt_tokenizer_close(tokenizer);
    return 0;
}
