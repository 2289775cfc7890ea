/* An opened Parquet file: the plugin's errors as statuses and messages. Internal to data/documents. */
#ifndef LT_DATA_DOCUMENTS_PARQUET_FILE_H
#define LT_DATA_DOCUMENTS_PARQUET_FILE_H

#include "data/files.h"
#include "data/plugins/parquet.h"

typedef struct lt_parquet_file {
    lt_files *files;
    int64_t file;
    const lt_parquet_table *table;
    lt_parquet *parquet;
    const lt_parquet_description *about;
    lt_status read_status; /* of reading bytes; its message is the last one where it is not LT_OK */
} lt_parquet_file;

/* Opens one of `files`. LT_BAD_INPUT: no Parquet, damaged, encrypted, or no plugin in this build; LT_IO. The
 * struct must stay where it is; the caller closes it, also after an error. */
lt_status lt_parquet_file_open(lt_files *files, int64_t file, lt_parquet_file *opened);
void lt_parquet_file_close(lt_parquet_file *opened);

/* The index of a column; -1: there is none of that name. `*fits`: it is of that kind. */
int lt_parquet_file_find(const lt_parquet_file *opened, const char *name, lt_parquet_kind kind, bool *fits);

/* The same where it must be there; `needed_by` is the config key that names it. */
lt_status lt_parquet_file_need(const lt_parquet_file *opened, const char *name, lt_parquet_kind kind,
                               const char *needed_by, int *index);

/* "a, b": the columns of a kind, as many as there is room for; "none". */
void lt_parquet_file_list(const lt_parquet_file *opened, lt_parquet_kind kind, char *list, size_t size);

/* A column of a row group. The caller closes it by the table. */
lt_status lt_parquet_column_open(lt_parquet_file *opened, int group, int index, lt_parquet_column **column);
lt_status lt_parquet_column_next(lt_parquet_file *opened, lt_parquet_column *column, lt_parquet_batch *batch);

#endif
