/* The subcommands. Each takes the arguments behind its name and returns a status; main() prints the error. */
#ifndef LT_TRAINER_COMMANDS_H
#define LT_TRAINER_COMMANDS_H

#include "comm/status.h"

/* Collective on all ranks that were started; starts and ends MPI. The only one that does, and so the only one
 * that prints its own errors. */
lt_status lt_command_train(int argc, char **argv);

lt_status lt_command_inspect(int argc, char **argv);
lt_status lt_command_generate(int argc, char **argv);

#endif
