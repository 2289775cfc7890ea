#include "trainer/commands.h"
#include "trainer/train.h"

#include "comm/log.h"
#include "comm/watchdog.h"

#include <stdio.h>

static void print_help(void) {
    printf(
        "Usage: [mpirun -n R] lazytrain train CONFIG.yaml [OPTION]...\n"
        "\n"
        "Trains the model that CONFIG.yaml describes, on R ranks, and keeps checkpoints in checkpoint.dir.\n"
        "R is the number of data ranks times parallel.tensor, the ranks that share one copy of the model.\n"
        "\n"
        "  --set KEY.PATH=VALUE   sets a key of the config; wins over the file; may be repeated\n"
        "  --device auto|cpu|cuda where to compute: short for --set train.device=...\n"
        "  --resume auto          go on from the newest good checkpoint, start anew where there is none "
        "(default)\n"
        "  --resume none          start anew; refused in a folder that holds a run, unless --overwrite\n"
        "  --resume FILE.h5       go on from this checkpoint; later ones are renamed *.superseded\n"
        "  --overwrite            with --resume none: delete the run that the folder holds\n"
        "  --allow KEY            let KEY (or a group, such as optimizer) change on resume; may be repeated\n"
        "  --init-from FILE.h5    start a new run from the weights of this checkpoint\n"
        "\n"
        "Signals: SIGUSR1, SIGTERM, SIGINT save and leave with 75; SIGUSR2 saves and goes on.\n"
        "Exit codes: 0 done; 1 failed for a reason that will repeat; 2 bad usage, config or input;\n"
        "74 I/O error or lost peer, may be transient; 75 saved after a signal.\n"
        "\n"
        "Keys of the config:\n\n");
    lt_config_help(stdout);
}

static lt_status train(lt_run *run, int argc, char **argv) {
    LT_CHECK(lt_run_share(run, lt_train_parse(argc, argv, &run->arguments)));
    LT_CHECK(lt_run_share(run, lt_signals_install()));
    const lt_status opened = lt_run_open(run);
    if (opened == LT_STOPPED) lt_log_info("%s", lt_error_message());
    LT_CHECK(opened);
    LT_CHECK(lt_run_banner(run));
    LT_CHECK(lt_train(run));
    lt_log_info("done: step %lld, %lld tokens", (long long)run->step, (long long)run->tokens);
    return LT_OK;
}

lt_status lt_command_train(int argc, char **argv) {
    static lt_run run; /* large, one a process */
    lt_train_arguments arguments;
    if (lt_train_parse(argc, argv, &arguments) == LT_OK && arguments.help) {
        if (lt_grid_launched_rank() == 0) print_help();
        return LT_OK;
    }
    lt_status status = lt_grid_open(&argc, &argv, &run.grid);
    if (status != LT_OK) {
        lt_log_error(lt_error_message());
        lt_grid_abort(&run.grid, status);
    }
    status = train(&run, argc, argv);
    if (status != LT_OK && status != LT_STOPPED) {
        if (run.grid.rank == 0 || !run.error_shared) lt_log_error(lt_error_message());
        if (!run.error_shared) lt_grid_abort(&run.grid, status);
    }
    lt_watchdog_tick("leaving", run.step); /* others may not come along */
    lt_run_close(&run);
    lt_grid_close(&run.grid);
    lt_watchdog_stop();
    return status;
}
