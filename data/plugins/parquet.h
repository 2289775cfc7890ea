/* The table of the Parquet plugin, which reads columns of row groups by Arrow. Strings come as they are
 * stored; a name has '?' for control characters, so that it fits a line.
 *
 * Whatever the file holds, a function ends with an answer or an error: exceptions stop here, sizes that the
 * file claims are checked against LT_PARQUET_MEMORY_BYTES before memory is taken, page checksums are verified
 * where pages have them.
 *
 * Memory is that of a page of each opened column, compressed and not, with the column's dictionary and 1 MiB
 * for input; a row group of any size is never held. (1 GiB of text in one row group, as pyarrow writes it in
 * pages of 4 MB: 60 MB in all, 30 of them Arrow itself.)
 *
 * Local; one thread at a time uses a file and its columns.
 */
#ifndef LT_DATA_PLUGINS_PARQUET_H
#define LT_DATA_PLUGINS_PARQUET_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/* Bytes of an error's text; the rows of a batch; what one file may take of memory at a time: a page of 2 GiB,
 * the longest there is, compressed and not. */
enum { LT_PARQUET_ERROR_BYTES = 1024, LT_PARQUET_BATCH = 1024 };
#define LT_PARQUET_MEMORY_BYTES ((int64_t)5 << 30)

typedef struct lt_parquet lt_parquet;
typedef struct lt_parquet_column lt_parquet_column;

/* The bytes of a file, which outlive it. */
typedef struct lt_parquet_source {
    void *context;
    int64_t bytes;
    /* Reads all `count` bytes, which the file has; false: it cannot, and the call that asked fails. */
    bool (*read)(void *context, int64_t offset, void *buffer, size_t count);
} lt_parquet_source;

typedef enum lt_parquet_kind {
    LT_PARQUET_OTHER,  /* of no use as a document or in a filter: given as rows alone */
    LT_PARQUET_TEXT,   /* strings, also as dictionary, and bytes of no stated meaning */
    LT_PARQUET_NUMBER, /* integers of 32 or 64 bits, and floating point */
} lt_parquet_kind;

typedef struct lt_parquet_field {
    const char *name;     /* of a nested one "a.b" */
    const char *type;     /* "BYTE_ARRAY, String" */
    lt_parquet_kind kind; /* lists and maps are LT_PARQUET_OTHER */
    bool optional, repeated;
} lt_parquet_field;

typedef struct lt_parquet_description {
    const char *created_by, *compression; /* "snappy, zstd"; "" of a file without row groups */
    int groups, columns;
    int64_t rows;                   /* sum over row groups */
    const int64_t *group_rows;      /* [groups], none negative */
    const lt_parquet_field *fields; /* [columns] */
} lt_parquet_description;

typedef struct lt_parquet_text {
    const char *data;
    size_t bytes;
} lt_parquet_text;

/* Arrays of `rows` elements, valid until the column's next batch. */
typedef struct lt_parquet_batch {
    int64_t rows; /* with LT_PARQUET_OTHER those that begin in this batch */
    bool end;     /* nothing is left, nor here */
    const bool *null;
    const lt_parquet_text *text; /* of LT_PARQUET_TEXT */
    const double *number;        /* of LT_PARQUET_NUMBER */
} lt_parquet_batch;

typedef struct lt_parquet_table {
    /* Reads the footer. Returns NULL and the reason: no Parquet, damaged, encrypted. */
    lt_parquet *(*open)(const lt_parquet_source *source, char error[LT_PARQUET_ERROR_BYTES]);
    void (*close)(lt_parquet *file); /* its columns are closed */

    /* Valid until the file is closed. */
    const lt_parquet_description *(*describe)(const lt_parquet *file);

    /* A column of a row group, to be read from its first row. NULL and the reason, which names both. */
    lt_parquet_column *(*open_column)(lt_parquet *file, int group, int column,
                                      char error[LT_PARQUET_ERROR_BYTES]);
    void (*close_column)(lt_parquet_column *column);

    /* The next rows. false: damaged, and the reason, which names row group, column and page; the page of a
     * dictionary counts. At the end the rows are as many as the row group has. */
    bool (*next)(lt_parquet_column *column, lt_parquet_batch *batch, char error[LT_PARQUET_ERROR_BYTES]);
} lt_parquet_table;

extern __attribute__((visibility("default"))) const lt_parquet_table lt_parquet_plugin;

#ifdef __cplusplus
}
#endif

#endif
