#include "trainer/commands.h"

#include "checkpoints/checkpoint.h"
#include "comm/log.h"
#include "data/dataset.h"
#include "trainer/config.h"

#include <dirent.h>
#include <errno.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

static void print_help(void) {
    printf("Usage: lazytrain inspect [--verify] FILE|DIR...\n\n"
           "Shows what a checkpoint (.h5), a token shard (.bin) or a text file holds; of a folder, every "
           "such file.\n\n"
           "  --verify   read every byte: all checksums, names and shapes of a checkpoint, all ids of a "
           "shard\n");
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

static lt_status inspect_file(const char *path, bool verify) {
    if (!lt_checkpoint_recognise(path)) return lt_shard_inspect(path, verify, 0, stdout);
    LT_CHECK(lt_checkpoint_inspect(path, verify, stdout));
    return verify ? verify_against_config(path) : LT_OK;
}

static int is_inspectable(const struct dirent *entry) {
    const size_t length = strlen(entry->d_name);
    return (length > 3 && strcmp(entry->d_name + length - 3, ".h5") == 0) ||
           (length > 4 && strcmp(entry->d_name + length - 4, ".bin") == 0);
}

/* The first bad file does not hide those after it; each has its line, the last one is the command's error. */
static lt_status inspect_folder(const char *folder, bool verify) {
    struct dirent **entries;
    const int count = scandir(folder, &entries, is_inspectable, alphasort);
    if (count < 0) return lt_fail(LT_BAD_INPUT, "%s: %s", folder, strerror(errno));
    lt_status result = LT_OK;
    int bad = 0;
    for (int i = 0; i < count; i++) {
        char path[PATH_MAX];
        snprintf(path, sizeof path, "%s/%s", folder, entries[i]->d_name);
        if (i > 0) printf("\n");
        const lt_status status = inspect_file(path, verify);
        if (status != LT_OK) {
            printf("bad: %s\n", lt_error_message());
            result = status;
            bad++;
        }
        free(entries[i]);
    }
    free(entries);
    if (count == 0)
        return lt_fail(LT_BAD_INPUT, "%s holds no checkpoint (.h5) and no token shard (.bin)", folder);
    if (bad > 0) return lt_fail(result, "%s: %d of %d files are bad", folder, bad, count);
    return LT_OK;
}

lt_status lt_command_inspect(int argc, char **argv) {
    bool verify = false;
    int paths = 0;
    for (int i = 0; i < argc; i++) {
        if (strcmp(argv[i], "--help") == 0 || strcmp(argv[i], "-h") == 0) {
            print_help();
            return LT_OK;
        }
        if (strcmp(argv[i], "--verify") == 0)
            verify = true;
        else if (argv[i][0] == '-')
            return lt_fail(LT_BAD_INPUT, "unknown option %s; see lazytrain inspect --help", argv[i]);
        else
            paths++;
    }
    if (paths == 0) return lt_fail(LT_BAD_INPUT, "no file is given; see lazytrain inspect --help");
    for (int i = 0; i < argc; i++) {
        struct stat info;
        if (argv[i][0] == '-') continue;
        if (stat(argv[i], &info) != 0) return lt_fail(LT_BAD_INPUT, "%s: %s", argv[i], strerror(errno));
        LT_CHECK(S_ISDIR(info.st_mode) ? inspect_folder(argv[i], verify) : inspect_file(argv[i], verify));
    }
    return LT_OK;
}
