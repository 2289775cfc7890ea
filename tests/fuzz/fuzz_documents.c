/* Fuzzes the readers of documents. The first byte of the input chooses the format, the rest is the file.
 *
 * Plain text comes back byte for byte. Of all formats, places grow, no document is over the limit, and a
 * second reading gives the same. */
#include "fuzz.h"

#include "data/documents.h"

#include <zlib.h>
#include <zstd.h>

enum { FORMATS = 6, LIMIT = 4096 };
static const char *const endings[FORMATS] = {"jsonl", "jsonl.gz", "jsonl.zst", "txt", "txt.gz", "txt.zst"};
static char paths[FORMATS][4096];

static void write_input(const char *path, const void *data, size_t size) {
    FILE *file = fopen(path, "w");
    if (file == NULL || fwrite(data, 1, size, file) != size || fclose(file) != 0) abort();
}

static uint64_t mix(uint64_t sum, const void *data, size_t size) {
    const unsigned char *bytes = data;
    for (size_t i = 0; i < size; i++) sum = (sum ^ bytes[i]) * 1099511628211u;
    return sum;
}

/* Reads all; a sum of what was given and how it ended. `joined`: of plain text cut at "\n", what it was. */
static uint64_t read_all(const char *path, const char *separator, char *joined, size_t *joined_bytes) {
    const lt_documents_options options = {.separator = separator, .limit_bytes = LIMIT};
    lt_source source = {0};
    lt_files *files = NULL;
    lt_documents *documents = NULL;
    lt_document document;
    bool found = true;
    int64_t last = -1;
    uint64_t sum = 14695981039346656037u;
    if (lt_source_single(path, "fuzz", &source) != LT_OK || lt_files_open(&source, "fuzz", &files) != LT_OK)
        abort();
    executions++;
    lt_status status = lt_documents_open(files, 0, &options, &documents);
    *joined_bytes = 0;
    while (status == LT_OK && found) {
        status = lt_documents_next(documents, &document, &found);
        if (status != LT_OK || !found) break;
        if (document.place <= last || document.bytes > LIMIT) abort();
        last = document.place;
        sum = mix(mix(sum, &document.place, sizeof document.place), document.text, document.bytes);
        if (joined == NULL) continue;
        memcpy(joined + *joined_bytes, document.text, document.bytes);
        *joined_bytes += document.bytes;
        joined[(*joined_bytes)++] = '\n';
    }
    if (status != LT_OK && (status != LT_BAD_INPUT || lt_error_message()[0] == '\0')) abort();
    accepted += status == LT_OK;
    lt_documents_close(documents);
    lt_files_close(files);
    return mix(sum, &status, sizeof status);
}

int LLVMFuzzerInitialize(int *argc, char ***argv) {
    (void)argc, (void)argv;
    begin();
    for (int i = 0; i < FORMATS; i++)
        snprintf(paths[i], sizeof paths[i], "%s/../fuzz_documents.%s", getenv("FUZZ_CORPUS"), endings[i]);
    static const char row[] =
        "\0{\"text\": \"a\\u00e9\\n\", \"id\": [1, null, -2.5e3]}\n{\"text\": null}\n{}\n";
    put_in_corpus("row", row, sizeof row - 1);
    char gzip[512] = "\1", zstd[512] = "\2";
    z_stream stream = {.next_in = (Bytef *)row + 1, .avail_in = sizeof row - 2};
    stream.next_out = (Bytef *)gzip + 1;
    stream.avail_out = sizeof gzip - 1;
    if (deflateInit2(&stream, 9, Z_DEFLATED, MAX_WBITS + 16, 8, Z_DEFAULT_STRATEGY) != Z_OK ||
        deflate(&stream, Z_FINISH) != Z_STREAM_END)
        abort();
    put_in_corpus("gzip", gzip, 1 + stream.total_out);
    deflateEnd(&stream);
    put_in_corpus("zstd", zstd, 1 + ZSTD_compress(zstd + 1, sizeof zstd - 1, row + 1, sizeof row - 2, 3));
    put_in_corpus("text", "\3one\ntwo\n", 9);
    return 0;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    static char joined[1 << 17];
    if (size == 0 || size > sizeof joined / 2) return 0;
    const int format = data[0] % FORMATS;
    size_t bytes;
    write_input(paths[format], data + 1, size - 1);
    const uint64_t sum = read_all(paths[format], NULL, NULL, &bytes);
    if (read_all(paths[format], NULL, NULL, &bytes) != sum) abort();
    if (format != 3) return 0;
    read_all(paths[format], "\n", joined, &bytes);
    const bool open_end = size > 1 && data[size - 1] != '\n'; /* the last one gets a line end here */
    if (bytes != 0 && (bytes != size - 1 + open_end || memcmp(joined, data + 1, size - 1) != 0)) abort();
    return 0;
}
