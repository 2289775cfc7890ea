/* Opening Parquet files, and finding columns in them. */
#include "data/documents/parquet_file.h"

#include "comm/interrupt.h"
#include "comm/plugin.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

enum { MAGIC_BYTES = 4, SMALLEST_BYTES = 12, LIST_BYTES = 400 };

static bool read_bytes(void *context, int64_t offset, void *buffer, size_t count) {
    lt_parquet_file *opened = context;
    opened->read_status = lt_interrupt_check("reading documents");
    if (opened->read_status == LT_OK)
        opened->read_status = lt_files_read(opened->files, opened->file, offset, buffer, count);
    return opened->read_status == LT_OK;
}

/* What the plugin says, unless the bytes could not be read. */
static lt_status failed(const lt_parquet_file *opened, const char *error) {
    if (opened->read_status != LT_OK) return opened->read_status;
    return lt_fail(LT_BAD_INPUT, "%s: '%s' cannot be read as Parquet: %s", lt_files_key(opened->files),
                   lt_files_path(opened->files, opened->file), error);
}

/* A file begins and ends with PAR1, with PARE where the footer is encrypted. */
static lt_status check_magic(lt_files *files, int64_t file) {
    const char *key = lt_files_key(files), *path = lt_files_path(files, file);
    const int64_t bytes = lt_files_bytes(files, file);
    const unsigned char *head = lt_files_head(files, file);
    unsigned char tail[MAGIC_BYTES] = {0};
    if (bytes < SMALLEST_BYTES)
        return lt_fail(LT_BAD_INPUT, "%s: '%s' is no Parquet file: it has %" PRId64 " bytes", key, path,
                       bytes);
    if (memcmp(head, "PAR1", MAGIC_BYTES) != 0 && memcmp(head, "PARE", MAGIC_BYTES) != 0)
        return lt_fail(LT_BAD_INPUT,
                       "%s: '%s' is no Parquet file, as its name says: it starts with the bytes %02x %02x "
                       "%02x %02x, expected 50 41 52 31 (PAR1)",
                       key, path, head[0], head[1], head[2], head[3]);
    LT_CHECK(lt_files_read(files, file, bytes - MAGIC_BYTES, tail, MAGIC_BYTES));
    if (memcmp(tail, "PARE", MAGIC_BYTES) == 0)
        return lt_fail(LT_BAD_INPUT,
                       "%s: '%s' is an encrypted Parquet file, which is not read; write it without "
                       "encryption",
                       key, path);
    if (memcmp(tail, "PAR1", MAGIC_BYTES) != 0)
        return lt_fail(LT_BAD_INPUT,
                       "%s: '%s' is truncated: a Parquet file ends with the bytes 50 41 52 31 (PAR1), this "
                       "one with %02x %02x %02x %02x",
                       key, path, tail[0], tail[1], tail[2], tail[3]);
    return LT_OK;
}

lt_status lt_parquet_file_open(lt_files *files, int64_t file, lt_parquet_file *opened) {
    char what[LT_PARQUET_ERROR_BYTES], error[LT_PARQUET_ERROR_BYTES];
    *opened = (lt_parquet_file){.files = files, .file = file};
    LT_CHECK(check_magic(files, file));
    snprintf(what, sizeof what, "%s: '%s'", lt_files_key(files), lt_files_path(files, file));
    const void *table;
    LT_CHECK(lt_plugin_open("parquet", what, &table));
    opened->table = table;
    const lt_parquet_source source = {opened, lt_files_bytes(files, file), read_bytes};
    opened->parquet = opened->table->open(&source, error);
    if (opened->parquet == NULL) return failed(opened, error);
    opened->about = opened->table->describe(opened->parquet);
    return LT_OK;
}

void lt_parquet_file_close(lt_parquet_file *opened) {
    if (opened->parquet != NULL) opened->table->close(opened->parquet);
    opened->parquet = NULL;
}

int lt_parquet_file_find(const lt_parquet_file *opened, const char *name, lt_parquet_kind kind, bool *fits) {
    int found = -1;
    *fits = false;
    for (int i = 0; i < opened->about->columns && !*fits; i++) { /* a name may stand twice */
        if (strcmp(opened->about->fields[i].name, name) != 0) continue;
        found = i;
        *fits = opened->about->fields[i].kind == kind;
    }
    return found;
}

void lt_parquet_file_list(const lt_parquet_file *opened, lt_parquet_kind kind, char *list, size_t size) {
    size_t used = 0;
    snprintf(list, size, "none");
    for (int i = 0; i < opened->about->columns; i++) {
        const lt_parquet_field *field = &opened->about->fields[i];
        if (field->kind != kind) continue;
        if (strlen(field->name) + 8 > size - used) {
            if (used > 0) snprintf(list + used, size - used, ", ...");
            return;
        }
        used += (size_t)snprintf(list + used, size - used, "%s%s", used == 0 ? "" : ", ", field->name);
    }
}

lt_status lt_parquet_file_need(const lt_parquet_file *opened, const char *name, lt_parquet_kind kind,
                               const char *needed_by, int *index) {
    const char *key = lt_files_key(opened->files), *path = lt_files_path(opened->files, opened->file);
    const char *kinds = kind == LT_PARQUET_TEXT ? "string" : "number";
    char list[LIST_BYTES];
    bool fits;
    *index = lt_parquet_file_find(opened, name, kind, &fits);
    if (fits) return LT_OK;
    lt_parquet_file_list(opened, kind, list, sizeof list);
    if (*index < 0)
        return lt_fail(LT_BAD_INPUT, "%s: '%s' has no column '%s' (%s); its %s columns: %s", key, path, name,
                       needed_by, kinds, list);
    const lt_parquet_field *field = &opened->about->fields[*index];
    return lt_fail(LT_BAD_INPUT, "%s: '%s': column '%s' (%s) is %s%s, expected a %s; its %s columns: %s", key,
                   path, name, needed_by, field->repeated ? "a list of " : "", field->type, kinds, kinds,
                   list);
}

lt_status lt_parquet_column_open(lt_parquet_file *opened, int group, int index, lt_parquet_column **column) {
    char error[LT_PARQUET_ERROR_BYTES];
    *column = opened->table->open_column(opened->parquet, group, index, error);
    return *column != NULL ? LT_OK : failed(opened, error);
}

lt_status lt_parquet_column_next(lt_parquet_file *opened, lt_parquet_column *column,
                                 lt_parquet_batch *batch) {
    char error[LT_PARQUET_ERROR_BYTES];
    LT_CHECK(lt_interrupt_check("reading documents"));
    return opened->table->next(column, batch, error) ? LT_OK : failed(opened, error);
}
