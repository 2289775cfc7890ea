/* lazytrain: the command line. */
#include "comm/grid.h"
#include "comm/log.h"
#include "model/ops.h"
#include "trainer/commands.h"
#include "trainer/version.h"

#include <stdio.h>
#include <string.h>

typedef struct command {
    const char *name;
    lt_status (*run)(int argc, char **argv);
    const char *summary;
} command;

static const command COMMANDS[] = {
    {"prepare", lt_command_prepare, "turn raw text into token shards, alone or under mpirun or srun"},
    {"train", lt_command_train, "train a model, alone or under mpirun or srun"},
    {"generate", lt_command_generate, "continue a text with a checkpoint's model"},
    {"inspect", lt_command_inspect, "show what a checkpoint, shard, text or tokenizer holds"},
};

enum { COMMAND_COUNT = sizeof COMMANDS / sizeof COMMANDS[0] };

static void print_help(void) {
    printf("Usage: lazytrain COMMAND [ARGUMENT]...\n\n"
           "Pretrains Lazy Attention language models on data- and tensor-parallel ranks.\n\n");
    for (int i = 0; i < COMMAND_COUNT; i++) printf("  %-10s %s\n", COMMANDS[i].name, COMMANDS[i].summary);
    printf("\n  --version  version, commit, build options, instruction set, BLAS kernel\n"
           "  --help     this text; lazytrain COMMAND --help tells about a command\n");
}

static lt_status print_version(void) {
    lt_device *device;
    LT_CHECK(lt_cpu_device_create(1, &device));
    printf("lazytrain %s\ncommit %s\nbuild options %s\ninstruction set %s\nBLAS kernel %s\n", lt_version(),
           lt_commit(), lt_build_options(), device->instruction_set, device->blas_kernel);
    device->ops->destroy(device);
    return LT_OK;
}

static lt_status run_without_command(int argc, char **argv) {
    if (argc < 2) return lt_fail(LT_BAD_INPUT, "no command is given; see lazytrain --help");
    if (strcmp(argv[1], "--help") == 0 || strcmp(argv[1], "-h") == 0) {
        print_help();
        return LT_OK;
    }
    if (strcmp(argv[1], "--version") == 0) return print_version();
    return lt_fail(LT_BAD_INPUT, "'%s' is no command of this version; see lazytrain --help", argv[1]);
}

static lt_status run(int argc, char **argv, bool *told) {
    for (int i = 0; argc > 1 && i < COMMAND_COUNT; i++) {
        if (strcmp(argv[1], COMMANDS[i].name) != 0) continue;
        /* by its ranks, once */
        *told = COMMANDS[i].run == lt_command_train || COMMANDS[i].run == lt_command_prepare;
        return COMMANDS[i].run(argc - 2, argv + 2);
    }
    /* A launcher starts every rank, and one answer will do. */
    if (lt_grid_launched_rank() != 0) {
        *told = true;
        return LT_OK;
    }
    return run_without_command(argc, argv);
}

int main(int argc, char **argv) {
    bool told = false;
    const lt_status status = run(argc, argv, &told);
    if (status != LT_OK && !told) lt_log_error(lt_error_message());
    if (fflush(stdout) != 0 && status == LT_OK) {
        lt_log_error("cannot write to standard output");
        return LT_IO;
    }
    return (int)status;
}
