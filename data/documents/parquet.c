/* Parquet: each row is a document, the string in the text column; its place is the row, from 0, counted over
 * row groups. Of the columns, only the text and what the filter needs are read, in step, a batch at a time.
 *
 * A row with null is skipped and counted. Strings are given as they are stored, also where they are not
 * UTF-8. Page checksums are verified; without them, damage inside the text of a page may go unseen. */
#include "data/documents.h"
#include "data/documents/filter.h"
#include "data/documents/parquet_file.h"

#include <inttypes.h>

/* A column that is read along. */
typedef struct read_column {
    int index;                 /* -1: it is not needed */
    lt_parquet_column *column; /* of the present row group */
    lt_parquet_batch batch;
    int64_t at; /* in the batch */
} read_column;

enum { TEXT, SCORE, LANGUAGE, COLUMNS };

typedef struct parquet_documents {
    lt_documents base;
    lt_parquet_file file;
    int group, groups; /* the next one to be opened, and behind the last one */
    int64_t row, group_end;
    read_column columns[COLUMNS];
} parquet_documents;

static lt_status find_columns(parquet_documents *rows) {
    const lt_documents *documents = &rows->base;
    const char *key = documents->options.text_key;
    bool fits;
    rows->columns[TEXT].index = lt_parquet_file_find(&rows->file, key, LT_PARQUET_TEXT, &fits);
    if (!fits) rows->columns[TEXT].index = -1;
    if (!fits && !documents->options.no_text)
        return lt_parquet_file_need(&rows->file, key, LT_PARQUET_TEXT, "data.text_key",
                                    &rows->columns[TEXT].index);
    if (lt_filter_scores(documents))
        LT_CHECK(lt_parquet_file_need(&rows->file, LT_SCORE_KEY, LT_PARQUET_NUMBER,
                                      "data.filter.min_int_score", &rows->columns[SCORE].index));
    if (lt_filter_languages(documents))
        LT_CHECK(lt_parquet_file_need(&rows->file, LT_LANGUAGE_KEY, LT_PARQUET_TEXT, "data.filter.language",
                                      &rows->columns[LANGUAGE].index));
    return LT_OK;
}

static lt_status parquet_open(lt_documents *documents) {
    parquet_documents *rows = (parquet_documents *)documents;
    for (int i = 0; i < COLUMNS; i++) rows->columns[i].index = -1;
    if (documents->compression != LT_UNCOMPRESSED)
        return lt_fail(LT_BAD_INPUT, "%s: '%s' is compressed as a whole, which is not read; unpack it",
                       lt_files_key(documents->files), lt_files_path(documents->files, documents->file));
    LT_CHECK(lt_parquet_file_open(documents->files, documents->file, &rows->file));
    const lt_parquet_description *about = rows->file.about;
    const bool piece = documents->options.end != 0;
    rows->groups =
        piece && documents->options.end < about->groups ? (int)documents->options.end : about->groups;
    while (rows->group < rows->groups && rows->group < documents->options.begin)
        rows->row += about->group_rows[rows->group++];
    rows->group_end = rows->row;
    return find_columns(rows);
}

static void close_group(parquet_documents *rows) {
    for (int i = 0; i < COLUMNS; i++) {
        if (rows->columns[i].column != NULL) rows->file.table->close_column(rows->columns[i].column);
        rows->columns[i].column = NULL;
    }
}

/* The columns end with the row group: the plugin checks it where it says so. */
static lt_status finish_group(parquet_documents *rows) {
    for (int i = 0; i < COLUMNS; i++)
        if (rows->columns[i].column != NULL)
            LT_CHECK(lt_parquet_column_next(&rows->file, rows->columns[i].column, &rows->columns[i].batch));
    close_group(rows);
    return LT_OK;
}

static lt_status open_group(parquet_documents *rows) {
    for (int i = 0; i < COLUMNS; i++) {
        read_column *column = &rows->columns[i];
        column->batch.rows = column->at = 0;
        if (column->index >= 0)
            LT_CHECK(lt_parquet_column_open(&rows->file, rows->group, column->index, &column->column));
    }
    rows->group_end += rows->file.about->group_rows[rows->group++];
    return LT_OK;
}

/* Moves to the next row, of the next row group that has one. */
static lt_status advance(parquet_documents *rows, bool *found) {
    while (rows->row == rows->group_end) {
        LT_CHECK(finish_group(rows));
        *found = rows->group < rows->groups;
        if (!*found) return LT_OK;
        LT_CHECK(open_group(rows));
    }
    for (int i = 0; i < COLUMNS; i++) {
        read_column *column = &rows->columns[i];
        if (column->column == NULL || ++column->at < column->batch.rows) continue;
        column->at = 0;
        LT_CHECK(lt_parquet_column_next(&rows->file, column->column, &column->batch));
    }
    rows->row++;
    *found = true;
    return LT_OK;
}

/* What the filter looks at. */
static lt_document_row present_row(const parquet_documents *rows) {
    const read_column *score = &rows->columns[SCORE], *language = &rows->columns[LANGUAGE];
    lt_document_row row = {0};
    row.scored = score->column != NULL && !score->batch.null[score->at];
    if (row.scored) row.score = score->batch.number[score->at];
    if (language->column != NULL && !language->batch.null[language->at]) {
        row.language = language->batch.text[language->at].data;
        row.language_bytes = language->batch.text[language->at].bytes;
    }
    return row;
}

static lt_status parquet_next(lt_documents *documents, lt_document *document, bool *found) {
    parquet_documents *rows = (parquet_documents *)documents;
    const read_column *text = &rows->columns[TEXT];
    *found = false;
    if (text->index < 0) return LT_OK;
    for (;;) {
        LT_CHECK(advance(rows, found));
        if (!*found) return LT_OK;
        if (text->batch.null[text->at]) {
            documents->null++;
            continue;
        }
        const lt_parquet_text value = text->batch.text[text->at];
        const lt_document_row row = present_row(rows);
        documents->text_bytes += (int64_t)value.bytes;
        *document = (lt_document){value.data, value.bytes, rows->row - 1};
        if (value.bytes > documents->options.limit_bytes)
            return lt_fail(LT_BAD_INPUT,
                           "%s: '%s' row %" PRId64 " has %zu bytes of text, at most %zu are read; split or "
                           "remove it",
                           lt_files_key(documents->files), lt_files_path(documents->files, documents->file),
                           document->place, value.bytes, documents->options.limit_bytes);
        if (lt_filter_keeps(documents, &row, value.data, value.bytes)) return LT_OK;
    }
}

static void parquet_close(lt_documents *documents) {
    parquet_documents *rows = (parquet_documents *)documents;
    close_group(rows);
    lt_parquet_file_close(&rows->file);
}

/* ---- for inspect ---- */

static void parquet_describe(const lt_documents *documents, FILE *out) {
    const parquet_documents *rows = (const parquet_documents *)documents;
    const lt_parquet_description *about = rows->file.about;
    fprintf(out, "created by:   %s\n", about->created_by);
    fprintf(out, "compression:  %s\n", about->compression);
    fprintf(out, "rows:         %" PRId64 " in %d row group%s\n", about->rows, about->groups,
            about->groups == 1 ? "" : "s");
    for (int i = 0; i < about->columns; i++) {
        const lt_parquet_field *field = &about->fields[i];
        fprintf(out, "column:       %s: %s%s\n", field->name, field->type,
                field->repeated   ? ", repeated"
                : field->optional ? ", optional"
                                  : "");
    }
    if (rows->columns[TEXT].index >= 0) return;
    char list[1024];
    lt_parquet_file_list(&rows->file, LT_PARQUET_TEXT, list, sizeof list);
    fprintf(out, "text column:  no string column '%s'; --text-key names another: %s\n",
            documents->options.text_key, list);
}

static lt_status verify_column(lt_parquet_file *file, lt_parquet_column *column) {
    lt_parquet_batch batch = {0};
    while (!batch.end) LT_CHECK(lt_parquet_column_next(file, column, &batch));
    return LT_OK;
}

static lt_status parquet_verify(lt_documents *documents) {
    lt_parquet_file *file = &((parquet_documents *)documents)->file;
    for (int group = 0; group < file->about->groups; group++)
        for (int index = 0; index < file->about->columns; index++) {
            lt_parquet_column *column;
            LT_CHECK(lt_parquet_column_open(file, group, index, &column));
            const lt_status status = verify_column(file, column);
            file->table->close_column(column);
            LT_CHECK(status);
        }
    return LT_OK;
}

/* Borders are row groups; the file's bytes are thought to be spread evenly over rows. */
static lt_status parquet_cut(lt_documents *documents, int64_t bytes, lt_document_borders *borders) {
    const lt_parquet_description *about = ((parquet_documents *)documents)->file.about;
    const double size = (double)lt_files_bytes(documents->files, documents->file);
    const double rows_a_piece = (double)about->rows * (double)bytes / size;
    double rows = 0;
    LT_CHECK(lt_document_borders_add(borders, 0));
    for (int group = 0; group + 1 < about->groups; group++) {
        rows += (double)about->group_rows[group];
        if (rows < rows_a_piece) continue;
        LT_CHECK(lt_document_borders_add(borders, group + 1));
        rows = 0;
    }
    return lt_document_borders_add(borders, about->groups);
}

const lt_document_kind lt_parquet_documents = {
    "Parquet",        "row",          sizeof(parquet_documents),
    parquet_open,     parquet_next,   parquet_close,
    parquet_describe, parquet_verify, parquet_cut,
};
