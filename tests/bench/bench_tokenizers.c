/* Encodes the documents of a file again and again, as tokenizer_rates.py asks: bench_tokenizers TOKENIZER
 * FILE
 *
 * FILE: documents, each its length (uint64, as this machine has it) and its bytes. A line on stdin is one
 * round: "ours" by lt_encode(), "library" by SentencePiece's own Encode(), a document a call; the answer is
 * the seconds it took and how many ids it gave. */
#include "comm/plugin.h"
#include "data/plugins/sentencepiece.h"
#include "data/tokenizer.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

typedef struct contents {
    char *data;
    size_t bytes;
} contents;

static void die(const char *why) {
    fprintf(stderr, "bench_tokenizers: %s\n", why);
    exit(1);
}

static contents read_whole(const char *path) {
    contents c = {0};
    FILE *file = fopen(path, "rb");
    if (file == NULL || fseek(file, 0, SEEK_END) != 0) die(path);
    c.bytes = (size_t)ftell(file);
    c.data = malloc(c.bytes + 1);
    rewind(file);
    if (c.data == NULL || fread(c.data, 1, c.bytes, file) != c.bytes) die(path);
    fclose(file);
    return c;
}

static double seconds(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + 1e-9 * (double)now.tv_nsec;
}

static bool count_ids(void *context, const int32_t *ids, size_t count) {
    (void)ids;
    *(size_t *)context += count;
    return true;
}

typedef struct encoders {
    lt_encoder *ours;
    const lt_sentencepiece_table *library; /* NULL: not asked for yet */
    void *model;
} encoders;

static void load_library(encoders *with, const char *path) {
    const void *table;
    char error[512];
    if (lt_plugin_open("sentencepiece", path, &table) != LT_OK) die(lt_error_message());
    const contents file = read_whole(path);
    with->library = table;
    with->model = with->library->load(file.data, file.bytes, error, sizeof error);
    if (with->model == NULL) die(error);
    free(file.data);
}

static size_t encode_all(const encoders *with, bool ours, const contents *documents) {
    size_t ids = 0;
    lt_token_list tokens = {0};
    for (size_t at = 0; at < documents->bytes;) {
        uint64_t bytes;
        char error[512];
        memcpy(&bytes, documents->data + at, sizeof bytes);
        const char *text = documents->data + (at += sizeof bytes);
        tokens.count = 0;
        if (ours ? lt_encode(with->ours, text, bytes, &tokens) != LT_OK
                 : !with->library->encode(with->model, text, bytes, count_ids, &ids, error, sizeof error))
            die(ours ? lt_error_message() : error);
        ids += tokens.count;
        at += bytes;
    }
    free(tokens.id);
    return ids;
}

int main(int argc, char **argv) {
    if (argc != 3) die("expected TOKENIZER FILE");
    const contents documents = read_whole(argv[2]);
    encoders with = {0};
    lt_tokenizer *tokenizer;
    if (lt_tokenizer_open(argv[1], "bench", &tokenizer) != LT_OK) die(lt_error_message());
    if (lt_encoder_create(tokenizer, &with.ours) != LT_OK) die(lt_error_message());
    for (char line[32]; fgets(line, sizeof line, stdin) != NULL;) {
        const bool ours = strcmp(line, "ours\n") == 0;
        if (!ours && with.library == NULL) load_library(&with, argv[1]);
        const double begin = seconds();
        const size_t ids = encode_all(&with, ours, &documents);
        printf("%.6f %zu\n", seconds() - begin, ids);
        fflush(stdout);
    }
    if (with.model != NULL) with.library->unload(with.model);
    lt_encoder_destroy(with.ours);
    lt_tokenizer_close(tokenizer);
    free(documents.data);
    return 0;
}
