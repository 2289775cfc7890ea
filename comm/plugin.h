/* Parts that need a C++ library or CUDA are shared objects, opened when they are first needed, so that the
 * program itself links none of these and runs where they are missing:
 *
 *   data/plugins/parquet.cpp         Parquet files, by Arrow
 *   data/plugins/sentencepiece.cpp   SentencePiece models
 *   model/cuda/                      a GPU, by CUDA and cuBLASLt
 *
 * A plugin exports one table of C functions, `lt_NAME_plugin`, described in data/plugins/NAME.h or
 * model/cuda/cuda.h; of the program's own functions it may call lt_fail() alone. It lies in
 * plugins/ beside the executable (or one or two folders above it: tests), in ../lib/lazytrain as seen from
 * the executable (installed), or in the folder that LAZYTRAIN_PLUGINS names, which then is the only one.
 */
#ifndef LT_COMM_PLUGIN_H
#define LT_COMM_PLUGIN_H

#include "comm/status.h"

/* The table of plugin `name`, which stays open until the process ends. LT_BAD_INPUT: this build has no such
 * plugin, or its libraries cannot be loaded; the message begins with `what` ("data.train: 'a.parquet'").
 * Local, thread-safe. */
lt_status lt_plugin_open(const char *name, const char *what, const void **table);

#endif
