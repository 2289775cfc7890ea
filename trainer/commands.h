/* The subcommands. Each takes the arguments behind its name and returns a status; main() prints the error. */
#ifndef LT_TRAINER_COMMANDS_H
#define LT_TRAINER_COMMANDS_H

#include "comm/status.h"

/* Collective on all ranks that were started; they start and end MPI, and so print their own errors. */
lt_status lt_command_train(int argc, char **argv);
lt_status lt_command_prepare(int argc, char **argv);

lt_status lt_command_inspect(int argc, char **argv);
lt_status lt_command_generate(int argc, char **argv);

#endif
