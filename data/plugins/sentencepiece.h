/* The plugin of SentencePiece: a model that is loaded, and the ids of texts. */
#ifndef LT_DATA_PLUGINS_SENTENCEPIECE_H
#define LT_DATA_PLUGINS_SENTENCEPIECE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Takes the ids of a text; false: it could not. */
typedef bool lt_sentencepiece_take(void *context, const int32_t *ids, size_t count);

typedef struct lt_sentencepiece_table {
    /* A model from the contents of its file, or NULL and why in `error`. */
    void *(*load)(const char *data, size_t bytes, char *error, size_t error_bytes);
    void (*unload)(void *model);

    /* Gives the ids of UTF-8 to `take`; any number of threads may use a model. False: `take` could not, with
     * `error` empty, or the library failed. */
    bool (*encode)(const void *model, const char *text, size_t bytes, lt_sentencepiece_take *take,
                   void *context, char *error, size_t error_bytes);
} lt_sentencepiece_table;

#endif
