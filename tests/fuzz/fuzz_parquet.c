/* Fuzzes the reading of Parquet files, with Arrow as it is installed, which the fuzzer cannot look into: so
 * the input says how a good one of the folder FUZZ_PARQUET is changed: a byte for which, then changes of
 * eight bytes each. Every column is decoded, and the first string column is read as documents.
 *
 * No document is over the limit, places grow, and a second reading gives the same. */
#include "fuzz.h"

#include "data/documents.h"
#include "data/documents/parquet_file.h"

#include <glob.h>

enum { LIMIT = 1 << 16, ROOM = 1 << 17 };
static char path[4096];
static glob_t good;

static uint64_t mix(uint64_t sum, const void *data, size_t size) {
    const unsigned char *bytes = data;
    for (size_t i = 0; i < size; i++) sum = (sum ^ bytes[i]) * 1099511628211u;
    return sum;
}

static lt_files *open_files(void) {
    lt_source source = {0};
    lt_files *files = NULL;
    if (lt_source_single(path, "fuzz", &source) != LT_OK || lt_files_open(&source, "fuzz", &files) != LT_OK)
        abort();
    return files;
}

static void check(lt_status status) {
    if (status == LT_OK) return;
    if (status != LT_BAD_INPUT || lt_error_message()[0] == '\0' || strchr(lt_error_message(), '\n') != NULL)
        abort();
}

/* A string column's name; false: there is none, or no such file. */
static bool string_column(lt_files *files, char *name, size_t size) {
    lt_parquet_file file;
    const lt_status status = lt_parquet_file_open(files, 0, &file);
    check(status);
    bool found = false;
    for (int i = 0; status == LT_OK && i < file.about->columns && !found; i++) {
        found = file.about->fields[i].kind == LT_PARQUET_TEXT;
        if (found) snprintf(name, size, "%s", file.about->fields[i].name);
    }
    lt_parquet_file_close(&file);
    return found;
}

/* Reads all; a sum of what was given and how it ended. */
static uint64_t read_all(const lt_documents_options *options) {
    lt_files *files = open_files();
    lt_documents *documents = NULL;
    lt_document document;
    bool found = true;
    int64_t last = -1;
    uint64_t sum = 14695981039346656037u;
    executions++;
    lt_status status = lt_documents_open(files, 0, options, &documents);
    if (status == LT_OK) check(documents->kind->verify(documents));
    while (status == LT_OK && found) {
        status = lt_documents_next(documents, &document, &found);
        if (status != LT_OK || !found) break;
        if (document.place <= last || document.bytes > LIMIT) abort();
        last = document.place;
        sum = mix(mix(sum, &document.place, sizeof document.place), document.text, document.bytes);
    }
    check(status);
    accepted += status == LT_OK;
    lt_documents_close(documents);
    lt_files_close(files);
    return mix(sum, &status, sizeof status);
}

int LLVMFuzzerInitialize(int *argc, char ***argv) {
    (void)argc, (void)argv;
    begin();
    char pattern[4096];
    snprintf(path, sizeof path, "%s/../fuzz_parquet.parquet", getenv("FUZZ_CORPUS"));
    snprintf(pattern, sizeof pattern, "%s/*.parquet", getenv("FUZZ_PARQUET"));
    if (glob(pattern, 0, NULL, &good) != 0) abort();
    for (size_t i = 0; i < good.gl_pathc && i < 256; i++)
        put_in_corpus(strrchr(good.gl_pathv[i], '/') + 1, &i, 1);
    return 0;
}

typedef struct change {
    uint8_t kind, from_end, value[2];
    uint32_t place;
} change;

/* Bytes differ, or are others of the file, or the file ends; many a time in the footer, at the end. */
static void apply(const change *c, unsigned char *file, size_t *bytes) {
    if (*bytes < 16) return;
    const size_t reach = c->from_end % 2 == 0 || *bytes < 512 ? *bytes : 512;
    unsigned char *at = file + *bytes - reach + c->place % (reach - 8);
    switch (c->kind % 8) {
    case 0:
        *at = (unsigned char)(*at + c->value[0] % 3 - 1);
        return;
    case 1:
        memmove(at, file + (c->place >> 8) % (*bytes - 8), 1 + c->value[0] % 8);
        return;
    case 2:
        memset(at, c->value[0], 1 + c->value[1] % 8);
        return;
    case 3:
        if (c->value[0] != 0) return;
        memmove(at, file + *bytes - 8, 8); /* the footer's length and the magic */
        *bytes = (size_t)(at + 8 - file);
        return;
    default:
        *at ^= c->value[0];
    }
}

static void write_changed(const uint8_t *data, size_t size) {
    static unsigned char file[ROOM];
    FILE *from = fopen(good.gl_pathv[data[0] % good.gl_pathc], "r"), *to = fopen(path, "w");
    if (from == NULL || to == NULL) abort();
    size_t bytes = fread(file, 1, sizeof file, from);
    for (size_t at = 1; at + sizeof(change) <= size; at += sizeof(change)) {
        change c;
        memcpy(&c, data + at, sizeof c);
        apply(&c, file, &bytes);
    }
    if (fwrite(file, 1, bytes, to) != bytes || fclose(from) != 0 || fclose(to) != 0) abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    char name[1024] = "";
    if (size == 0) return 0;
    write_changed(data, size);
    lt_files *files = open_files();
    const bool found = string_column(files, name, sizeof name);
    lt_files_close(files);
    const lt_documents_options options = {.text_key = name, .limit_bytes = LIMIT, .no_text = !found};
    if (read_all(&options) != read_all(&options)) abort();
    return 0;
}
