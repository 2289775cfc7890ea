/* Parts that need a C++ library are shared objects, opened when they are first needed, so that the program
 * itself links no C++ and runs where such a library is missing:
 *
 *   data/plugins/parquet.cpp         Parquet files, by Arrow
 *   data/plugins/sentencepiece.cpp   SentencePiece models
 *
 * A plugin exports one table of C functions, `lt_NAME_plugin`, described in data/plugins/NAME.h. It lies in
 * plugins/ beside the executable (or one or two folders above it: tests), in ../lib/lazytrain as seen from
 * the executable (installed), or in the folder that LAZYTRAIN_PLUGINS names, which then is the only one.
 */
#ifndef LT_DATA_PLUGIN_H
#define LT_DATA_PLUGIN_H

#include "comm/status.h"

/* The table of plugin `name`, which stays open until the process ends. LT_BAD_INPUT: this build has no such
 * plugin, or its libraries cannot be loaded; the message begins with `what` ("data.train: 'a.parquet'").
 * Local, thread-safe. */
lt_status lt_plugin_open(const char *name, const char *what, const void **table);

#endif
