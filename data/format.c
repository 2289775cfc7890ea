/* Which reader a file belongs to. */
#include "data/reader.h"

#include <stdlib.h>
#include <string.h>
#include <strings.h>

/* Endings that say what a file is. Without a kind: a format that is known but not read. */
static const struct ending {
    const char *text;
    const lt_reader_kind *kind;
    const char *name;
} endings[] = {
    {".bin", &lt_shard_reader, NULL},
    {".txt", &lt_text_reader, NULL},
    {".text", &lt_text_reader, NULL},
    {".md", &lt_text_reader, NULL},
    {".c", &lt_text_reader, NULL},
    {".h", &lt_text_reader, NULL},
    {".parquet", &lt_raw_reader, NULL},
    {".jsonl", &lt_raw_reader, NULL},
    {".ndjson", &lt_raw_reader, NULL},
    {".json", &lt_raw_reader, NULL},
    {".gz", &lt_raw_reader, NULL},
    {".zst", &lt_raw_reader, NULL},
    {".bz2", NULL, "a bzip2-compressed file"},
    {".xz", NULL, "an xz-compressed file"},
    {".zip", NULL, "a zip archive"},
    {".tar", NULL, "a tar archive"},
    {".arrow", NULL, "an Arrow file"},
    {".npy", NULL, "a NumPy file"},
    {".npz", NULL, "a NumPy file"},
    {".h5", NULL, "an HDF5 file"},
    {".pt", NULL, "a PyTorch file"},
    {".safetensors", NULL, "a safetensors file"},
};

static const struct ending *find_ending(const char *path) {
    size_t length = strlen(path);
    for (size_t i = 0; i < sizeof endings / sizeof *endings; i++) {
        size_t size = strlen(endings[i].text);
        if (length >= size && strcasecmp(path + length - size, endings[i].text) == 0) return &endings[i];
    }
    return NULL;
}

/* A NUL is what binary formats have early and text does not have. */
static lt_status looks_like_text(lt_files *files, int64_t file, bool *text) {
    char start[4096];
    int64_t bytes = lt_files_bytes(files, file);
    size_t size = bytes < (int64_t)sizeof start ? (size_t)bytes : sizeof start;
    LT_CHECK(lt_files_read(files, file, 0, start, size));
    *text = memchr(start, '\0', size) == NULL;
    return LT_OK;
}

/* Text is read in place as bytes, unless another tokenizer or a separator makes documents of it. */
static const lt_reader_kind *reader_of_text(const lt_dataset_options *options) {
    const bool bytes =
        options == NULL || options->raw == NULL ||
        (strcmp(options->tokenizer, "bytes") == 0 && options->raw->documents.separator == NULL);
    return bytes ? &lt_text_reader : &lt_raw_reader;
}

lt_status lt_format_recognise(const lt_dataset_options *options, lt_files *files, int64_t file,
                              const lt_reader_kind **kind) {
    const char *path = lt_files_path(files, file), *key = lt_files_key(files);
    if (lt_shard_magic(lt_files_head(files, file))) {
        *kind = &lt_shard_reader;
        return LT_OK;
    }
    const struct ending *ending = find_ending(path);
    if (ending != NULL) {
        *kind = ending->kind == &lt_text_reader ? reader_of_text(options) : ending->kind;
        if (*kind != NULL) return LT_OK;
        return lt_fail(LT_BAD_INPUT,
                       "%s: '%s' is %s by its name, a format that this version does not read; expected .bin "
                       "token shards, .parquet, .jsonl or plain text",
                       key, path, ending->name);
    }
    bool text;
    LT_CHECK(looks_like_text(files, file, &text));
    *kind = reader_of_text(options);
    if (text) return LT_OK;
    return lt_fail(
        LT_BAD_INPUT,
        "%s: '%s' is neither a token shard (no magic 20240520 or 20240801) nor text (a NUL is among "
        "its first 4096 bytes); expected .bin token shards or plain text",
        key, path);
}
