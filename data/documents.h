/* Documents out of files of raw text, one after another, behind one interface, a file a format:
 *
 *   data/documents/jsonl.c   JSON Lines (.jsonl, .ndjson, .json): the text of a key of each line's object
 *   data/documents/plain.c   plain text (.txt, .text, .md): the whole file, or what lies between separators
 *   data/documents/parquet.c Parquet (.parquet): the strings of a column
 *
 * the first two also compressed (.gz, .zst), as the name says and the first bytes confirm. A new format is a
 * file with an lt_document_kind and lines in data/documents/documents.c; one that reads many rows at once
 * keeps them in its own struct and gives them row by row.
 *
 * Errors name file and line. Memory is that of one document: the line or plain document, at most limit_bytes;
 * with JSON three times the line while it is parsed (300 MB for a document of 100 MB), and more where a line
 * is many small values instead of text (empty objects alone: 75 times). Of Parquet it is a page of each
 * column that is read (data/plugins/parquet.h).
 *
 * Local: nothing here knows other ranks. One thread uses an lt_documents.
 */
#ifndef LT_DATA_DOCUMENTS_H
#define LT_DATA_DOCUMENTS_H

#include "data/documents/stream.h"
#include "data/tokenizer.h"

#include <stdio.h>

/* The longest line, or plain document, that is read: 128 MiB. */
enum { LT_DOCUMENT_BYTES = 1 << 27 };

/* Which rows are documents (data.filter). A row that lacks what is asked for, or has null there, is none; a
 * file that has it in no row is an error, and so is plain text where a score or language is asked for. */
typedef struct lt_document_filter {
    int64_t min_int_score;        /* of the number under "int_score"; -1: any */
    const char *language;         /* which the string under "language" must equal; NULL: any */
    int64_t min_chars, max_chars; /* code points of the text; -1: any */
} lt_document_filter;

typedef struct lt_documents_options {
    const char *text_key;             /* of JSON, and the column of Parquet; NULL: "text" */
    const char *separator;            /* of plain text; NULL or empty: a document a file */
    size_t limit_bytes;               /* 0: LT_DOCUMENT_BYTES */
    const lt_document_filter *filter; /* NULL: all rows */
    bool no_text;                     /* a Parquet file without the column is one without documents */
    int64_t begin, end; /* borders of lt_documents_cut(), to read what lies between; 0, 0: all */
} lt_documents_options;

/* Rows that the filter left out, each by the first of these reasons. */
typedef struct lt_document_drops {
    int64_t int_score, language, min_chars, max_chars;
} lt_document_drops;

/* What the rows so far had: the text key; a text there; and of those with a text one the filter's keys. */
typedef struct lt_documents_seen {
    bool key, text, score, language;
} lt_documents_seen;

typedef struct lt_document {
    const char *text; /* may hold NULs, ends with none; valid until the next call */
    size_t bytes;
    int64_t place; /* line from 1, or byte or row from 0: the kind's unit; lines count from options.begin */
} lt_document;

/* Borders of pieces of a file, ascending. */
typedef struct lt_document_borders {
    int64_t count;
    int64_t *at; /* malloc'ed [capacity] */
    int64_t capacity;
} lt_document_borders;

typedef struct lt_document_kind lt_document_kind;

/* An opened file. A format's own struct begins with this; the first five are for it to read. */
typedef struct lt_documents {
    const lt_document_kind *kind;
    lt_files *files;
    int64_t file;
    lt_compression compression;
    lt_documents_options options; /* defaults filled in */
    lt_documents_seen seen;       /* so far */
    int64_t without_key, null;    /* rows skipped so far */
    lt_document_drops dropped;    /* so far */
    int64_t text_bytes;           /* read so far, decompressed */
    int64_t file_bytes;           /* of the file, read so far; of Parquet not known: 0 */
    int64_t lines;                /* of JSON Lines, read so far */
} lt_documents;

struct lt_document_kind {
    const char *name; /* "JSON Lines" */
    const char *unit; /* of places: "line", "row" */
    size_t bytes;     /* of its own struct */
    lt_status (*open)(lt_documents *documents);
    lt_status (*next)(lt_documents *documents, lt_document *document, bool *found);
    void (*close)(lt_documents *documents); /* also after an open that failed */

    /* For inspect; NULL: there is nothing. What the file holds beside documents, and reading all of that. */
    void (*describe)(const lt_documents *documents, FILE *out);
    lt_status (*verify)(lt_documents *documents);

    /* For lt_documents_cut(), of a file that is not compressed; NULL: it has no borders inside. */
    lt_status (*cut)(lt_documents *documents, int64_t bytes, lt_document_borders *borders);
};

extern const lt_document_kind lt_jsonl_documents, lt_plain_documents, lt_parquet_documents;

/* Whether the name is that of a file of documents alone: JSON Lines, Parquet, or compressed text. */
bool lt_documents_recognise(const char *path);

/* What the file's documents are counted by: "line", "byte", "row"; NULL: of no known format. */
const char *lt_documents_unit(const char *path);

/* Opens one of `files`, which outlive it, as do the strings of the options. LT_BAD_INPUT: a name of no known
 * format, or contents that are not what the name says. The caller closes it. */
lt_status lt_documents_open(lt_files *files, int64_t file, const lt_documents_options *options,
                            lt_documents **documents);
void lt_documents_close(lt_documents *documents);

/* Where a file can be cut into pieces of about `bytes` bytes that are read apart, one after another all its
 * documents: the borders, the first and last included; they depend on the file and `bytes` alone. A file that
 * cannot be cut, such as a compressed one, is one piece from 0 to 0. What a file none of whose rows has the
 * key is told by cannot be known of a piece: lt_documents_lack_keys() of all `seen` together. The statuses of
 * opening. The caller frees `at`. */
lt_status lt_documents_cut(lt_files *files, int64_t file, const lt_documents_options *options, int64_t bytes,
                           lt_document_borders *borders);
lt_status lt_document_borders_add(lt_document_borders *borders, int64_t at);
bool lt_documents_lack_keys(const lt_documents_options *options, const lt_documents_seen *seen,
                            int64_t without_key);

/* The next document, or *found false behind the last. LT_BAD_INPUT: broken JSON, text of another type, a line
 * or document over the limit, damaged or truncated compression or columns, no row that has the key; LT_IO:
 * the file cannot be read. */
lt_status lt_documents_next(lt_documents *documents, lt_document *document, bool *found);

typedef struct lt_documents_inspection {
    const char *text_key; /* NULL: "text" */
    bool verify;          /* read all, else the first 16 MiB of text */
    int64_t sample;       /* documents to show whole, each a line, as JSON strings */
    const lt_tokenizer
        *tokenizer; /* NULL: none; else tokens are counted, and samples are what comes back of them */
} lt_documents_inspection;

/* Prints what a person wants to know of a file of documents: format, bytes, documents, skipped rows, the
 * longest and the first document. The statuses of opening and reading; LT_IO: `out` cannot be written. */
lt_status lt_documents_inspect(const char *path, const lt_documents_inspection *inspection, FILE *out);

#endif
