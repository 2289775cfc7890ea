/* The table of the text of each id. */
#include "data/tokenizers/kind.h"

#include <stdlib.h>
#include <string.h>

static lt_status no_memory(void) {
    return lt_fail(LT_IO, "no memory for a tokenizer's vocabulary");
}

/* Room for the start of one more piece, and for the end of the last. */
static lt_status grow_places(lt_piece_table *table) {
    if (table->count + 2 <= table->place_capacity) return LT_OK;
    const size_t capacity = 2 * table->place_capacity + 1024;
    size_t *grown = reallocarray(table->place, capacity, sizeof *grown);
    if (grown == NULL) return no_memory();
    table->place = grown;
    table->place_capacity = capacity;
    return LT_OK;
}

lt_status lt_piece_table_add(lt_piece_table *table, const char *text, size_t bytes) {
    LT_CHECK(grow_places(table));
    if (table->bytes + bytes >= table->text_capacity) {
        const size_t capacity = 2 * (table->bytes + bytes) + 4096;
        char *grown = realloc(table->text, capacity);
        if (grown == NULL) return no_memory();
        table->text = grown;
        table->text_capacity = capacity;
    }
    table->place[table->count++] = table->bytes;
    memcpy(table->text + table->bytes, text, bytes);
    table->bytes += bytes;
    return LT_OK;
}

lt_status lt_piece_table_finish(lt_piece_table *table, lt_tokenizer *tokenizer) {
    LT_CHECK(grow_places(table));
    table->place[table->count] = table->bytes;
    tokenizer->place = table->place;
    tokenizer->text = table->text;
    tokenizer->vocabulary = (int64_t)table->count;
    *table = (lt_piece_table){0};
    return LT_OK;
}

void lt_piece_table_free(lt_piece_table *table) {
    free(table->place);
    free(table->text);
    *table = (lt_piece_table){0};
}
