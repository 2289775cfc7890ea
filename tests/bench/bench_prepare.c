/* `lazytrain prepare` against its tokenizer alone, in turn: bench_prepare LAZYTRAIN TOKENIZER ROWS.jsonl
 * FOLDER encodes the documents of ROWS.jsonl, all in memory, by one and by two threads, and prepares them so.
 */
#include "data/documents.h"
#include "data/tokenizer.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { ROUNDS = 5, THREADS = 2 };

typedef struct text {
    char *data;
    size_t bytes;
} text;

static text *texts;
static size_t count, total_bytes;
static long peak_kib;

static void check(lt_status status) {
    if (status == LT_OK) return;
    fprintf(stderr, "bench_prepare: %s\n", lt_error_message());
    exit(0);
}

static double now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static void read_texts(const char *path) {
    lt_source source;
    lt_files *files;
    lt_documents *documents;
    lt_document document;
    bool found = true;
    check(lt_source_single(path, "bench", &source));
    check(lt_files_open(&source, "bench", &files));
    check(lt_documents_open(files, 0, &(lt_documents_options){0}, &documents));
    for (size_t capacity = 0; check(lt_documents_next(documents, &document, &found)), found; count++) {
        if (count == capacity) texts = reallocarray(texts, capacity = 2 * capacity + 64, sizeof *texts);
        texts[count] = (text){malloc(document.bytes + 1), document.bytes};
        memcpy(texts[count].data, document.text, document.bytes);
        total_bytes += document.bytes;
    }
    lt_documents_close(documents);
    lt_files_close(files);
}

typedef struct share {
    const lt_tokenizer *tokenizer;
    size_t first, step;
    pthread_t thread;
} share;

static void *encode(void *argument) {
    const share *mine = argument;
    lt_encoder *encoder;
    lt_token_list tokens = {0};
    check(lt_encoder_create(mine->tokenizer, &encoder));
    for (size_t i = mine->first; i < count; i += mine->step) {
        tokens.count = 0;
        check(lt_encode(encoder, texts[i].data, texts[i].bytes, &tokens));
    }
    lt_encoder_destroy(encoder);
    free(tokens.id);
    return NULL;
}

static double encode_all(const lt_tokenizer *tokenizer, int threads) {
    share shares[THREADS];
    const double begin = now();
    for (int i = 0; i < threads; i++) {
        shares[i] = (share){.tokenizer = tokenizer, .first = (size_t)i, .step = (size_t)threads};
        pthread_create(&shares[i].thread, NULL, encode, &shares[i]);
    }
    for (int i = 0; i < threads; i++) pthread_join(shares[i].thread, NULL);
    return now() - begin;
}

static double prepare(char **argv, const char *input, int threads) {
    char number[16];
    snprintf(number, sizeof number, "%d", threads);
    const double begin = now();
    const pid_t child = fork();
    if (child == 0) {
        if (freopen("/dev/null", "w", stderr) == NULL) _exit(1);
        execl(argv[1], argv[1], "prepare", "--input", input, "--tokenizer", argv[2], "--output", argv[4],
              "--overwrite", "--threads", number, "--dedup", "exact", NULL);
        _exit(1);
    }
    int status = 1;
    struct rusage usage;
    wait4(child, &status, 0, &usage);
    if (status != 0) {
        fprintf(stderr, "bench_prepare: prepare ended with status %d\n", status);
        exit(0);
    }
    if (usage.ru_maxrss > peak_kib) peak_kib = usage.ru_maxrss;
    return now() - begin;
}

/* Without what it takes to start and end, which does not depend on the input. */
static double prepare_all(char **argv, int threads) {
    const double start = prepare(argv, argv[5], threads);
    return prepare(argv, argv[3], threads) - start;
}

static int by_value(const void *a, const void *b) {
    const double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static double median(double *values) {
    qsort(values, ROUNDS, sizeof *values, by_value);
    return values[ROUNDS / 2];
}

int main(int argc, char **argv) {
    lt_tokenizer *tokenizer;
    double own[THREADS][ROUNDS], whole[THREADS][ROUNDS], shares[THREADS][ROUNDS], speedups[ROUNDS];
    if (argc != 6) return 0;
    prepare_all(argv,
                THREADS); /* warms the page cache; a child counts what its parent held when it was made */
    const double peak_mb = 1.024e-3 * (double)peak_kib;
    read_texts(argv[3]);
    check(lt_tokenizer_open(argv[2], "bench", &tokenizer));
    for (int round = 0; round < ROUNDS; round++) {
        for (int t = 0; t < THREADS; t++) {
            own[t][round] = encode_all(tokenizer, t + 1);
            whole[t][round] = prepare_all(argv, t + 1);
            shares[t][round] = own[t][round] / whole[t][round];
        }
        speedups[round] = whole[0][round] / whole[1][round];
    }
    const double mb = 1e-6 * (double)total_bytes;
    for (int t = 0; t < THREADS; t++) {
        const double share_of_own = median(shares[t]);
        printf("prepare, %d thread%s: %.1f MB/s, tokenizer alone %.1f MB/s, ratio %.3f (medians of %d)  goal "
               "0.90: %s\n",
               t + 1, t == 0 ? "" : "s", mb / median(whole[t]), mb / median(own[t]), share_of_own, ROUNDS,
               share_of_own >= 0.9 ? "hit" : "miss");
    }
    const double speedup = median(speedups);
    printf("prepare, 2 threads against 1: %.2f  goal 1.80: %s\n", speedup, speedup >= 1.8 ? "hit" : "miss");
    printf("prepare, peak memory: %.0f MB  goal 1000: %s\n", peak_mb, peak_mb < 1000 ? "hit" : "miss");
    return 0;
}
