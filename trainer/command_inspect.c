#include "trainer/commands.h"

#include "checkpoints/checkpoint.h"
#include "comm/log.h"
#include "data/dataset.h"
#include "data/documents.h"
#include "data/manifest.h"
#include "trainer/arguments.h"
#include "trainer/config.h"

#include <dirent.h>
#include <errno.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

static void print_help(void) {
    printf(
        "Usage: lazytrain inspect [OPTION]... FILE|DIR...\n\n"
        "Shows what a checkpoint (.h5), a token shard (.bin), a text or a file of documents (.parquet, "
        ".jsonl, .jsonl.gz, .jsonl.zst, .json.gz) holds, or what a tokenizer is (.model, tokenizer.json, "
        "a folder with one, VOCAB,MERGES); of a folder, every checkpoint and shard; of one of lazytrain "
        "prepare, its manifest.\n\n"
        "  --verify         read every byte: all checksums, names and shapes of a checkpoint, all ids of "
        "a shard (against the manifest of lazytrain prepare), all documents, every column of a Parquet file\n"
        "  --text-key KEY   what holds the text in a row of JSON Lines or Parquet (text)\n"
        "  --sample K       show the first K documents whole, each as a JSON string in a line\n"
        "  --tokenizer T    count the tokens of documents and texts, decode shards; samples are what the "
        "model will see: ids, and their text; without FILE: show T itself\n");
}

/* Whether the tensors are those of the model that the config describes: every one read, nothing kept. */
static lt_status discard(void *context, lt_tensor_kind kind, const lt_parameter *parameter, int64_t first,
                         int64_t count, const float *values) {
    (void)context, (void)kind, (void)parameter, (void)first, (void)count, (void)values;
    return LT_OK;
}

static lt_status verify_against_config(const char *path) {
    lt_checkpoint_header header;
    lt_config config;
    LT_CHECK(lt_checkpoint_read_header(path, &header));
    lt_status status = lt_config_parse(header.config, path, &config);
    lt_checkpoint_header_free(&header);
    LT_CHECK(status);
    const lt_model_shape shape = lt_config_model_shape(&config);
    lt_registry registry;
    status = lt_registry_create(&shape, &registry);
    if (status == LT_OK) {
        status = lt_checkpoint_load(path, &registry, true, &(lt_tensor_access){.put = discard});
        lt_registry_destroy(&registry);
    }
    lt_config_free(&config);
    return status;
}

static lt_status inspect_file(const char *path, const lt_documents_inspection *inspection) {
    const bool verify = inspection->verify, tokenizer = inspection->tokenizer != NULL;
    const bool checkpoint = lt_checkpoint_recognise(path), shard = lt_shard_recognise(path);
    const bool raw = !checkpoint && !shard && (tokenizer || lt_documents_recognise(path));
    if (raw) return lt_documents_inspect(path, inspection, stdout);
    if (inspection->text_key != NULL || (inspection->sample > 0 && !(shard && tokenizer)))
        return lt_fail(
            LT_BAD_INPUT,
            "%s is no file of documents (.parquet, .jsonl, .jsonl.gz, ...), which --sample and --text-key "
            "are for; documents of a token shard or a text are shown with --tokenizer T --sample K",
            path);
    if (!checkpoint)
        return lt_shard_inspect(path,
                                &(lt_shard_inspection){.verify = verify,
                                                       .tokenizer = inspection->tokenizer,
                                                       .sample = inspection->sample},
                                stdout);
    if (tokenizer)
        return lt_fail(LT_BAD_INPUT, "%s is a checkpoint; --tokenizer is for documents and token shards",
                       path);
    LT_CHECK(lt_checkpoint_inspect(path, verify, stdout));
    return verify ? verify_against_config(path) : LT_OK;
}

static int is_inspectable(const struct dirent *entry) {
    const size_t length = strlen(entry->d_name);
    return (length > 3 && strcmp(entry->d_name + length - 3, ".h5") == 0) ||
           (length > 4 && strcmp(entry->d_name + length - 4, ".bin") == 0);
}

/* The first bad file does not hide those after it; each has its line, the last one is the command's error. */
static lt_status inspect_folder(const char *folder, const lt_documents_inspection *inspection) {
    struct dirent **entries;
    if (lt_manifest_recognise(folder) && inspection->tokenizer == NULL)
        return lt_manifest_inspect(folder, inspection->verify, stdout);
    if (lt_manifest_unfinished(folder))
        return lt_fail(LT_BAD_INPUT, "%s is half done: run lazytrain prepare again to finish it", folder);
    const int count = scandir(folder, &entries, is_inspectable, alphasort);
    if (count < 0) return lt_fail(LT_BAD_INPUT, "%s: %s", folder, strerror(errno));
    lt_status result = LT_OK;
    int bad = 0;
    for (int i = 0; i < count; i++) {
        char path[PATH_MAX];
        snprintf(path, sizeof path, "%s/%s", folder, entries[i]->d_name);
        if (i > 0) printf("\n");
        const lt_status status = inspect_file(path, inspection);
        if (status != LT_OK) {
            printf("bad: %s\n", lt_error_message());
            result = status;
            bad++;
        }
        free(entries[i]);
    }
    free(entries);
    if (count == 0 && lt_tokenizer_recognise(folder)) return lt_tokenizer_inspect(folder, stdout);
    if (count == 0)
        return lt_fail(LT_BAD_INPUT, "%s holds no checkpoint (.h5), no token shard (.bin) and no tokenizer",
                       folder);
    if (bad > 0) return lt_fail(result, "%s: %d of %d files are bad", folder, bad, count);
    return LT_OK;
}

static lt_status inspect_path(const char *path, const lt_documents_inspection *inspection) {
    struct stat info;
    const bool there = stat(path, &info) == 0, folder = there && S_ISDIR(info.st_mode);
    if (!folder && lt_tokenizer_recognise(path)) return lt_tokenizer_inspect(path, stdout);
    if (!there) return lt_fail(LT_BAD_INPUT, "%s: %s", path, strerror(ENOENT));
    return folder ? inspect_folder(path, inspection) : inspect_file(path, inspection);
}

static lt_status inspect_paths(const char *const *paths, int count, const char *tokenizer_name,
                               lt_documents_inspection *inspection) {
    lt_tokenizer *tokenizer = NULL;
    if (tokenizer_name != NULL) LT_CHECK(lt_tokenizer_open(tokenizer_name, "--tokenizer", &tokenizer));
    inspection->tokenizer = tokenizer;
    lt_status status = LT_OK;
    for (int i = 0; i < count && status == LT_OK; i++) status = inspect_path(paths[i], inspection);
    lt_tokenizer_close(tokenizer);
    return status;
}

lt_status lt_command_inspect(int argc, char **argv) {
    lt_documents_inspection inspection = {0};
    const char *tokenizer = NULL;
    const char **paths = (const char **)argv; /* moved to the front */
    int count = 0;
    for (int i = 0; i < argc; i++) {
        const char *value = NULL;
        if (strcmp(argv[i], "--help") == 0 || strcmp(argv[i], "-h") == 0) {
            print_help();
            return LT_OK;
        }
        if (strcmp(argv[i], "--verify") == 0) {
            inspection.verify = true;
        } else if (lt_option(argc, argv, &i, "--text-key", &value)) {
            if (value == NULL || *value == '\0')
                return lt_fail(LT_BAD_INPUT, "--text-key needs a value; see lazytrain inspect --help");
            inspection.text_key = value;
        } else if (lt_option(argc, argv, &i, "--tokenizer", &value)) {
            if (value == NULL || *value == '\0')
                return lt_fail(LT_BAD_INPUT, "--tokenizer needs a value; see lazytrain inspect --help");
            tokenizer = value;
        } else if (lt_option(argc, argv, &i, "--sample", &value)) {
            LT_CHECK(lt_option_integer("--sample", value, 0, INT64_MAX, &inspection.sample));
        } else if (argv[i][0] == '-') {
            return lt_fail(LT_BAD_INPUT, "unknown option %s; see lazytrain inspect --help", argv[i]);
        } else {
            paths[count++] = argv[i];
        }
    }
    if (count == 0 && tokenizer != NULL) return lt_tokenizer_inspect(tokenizer, stdout);
    if (count == 0) return lt_fail(LT_BAD_INPUT, "no file is given; see lazytrain inspect --help");
    return inspect_paths(paths, count, tokenizer, &inspection);
}
