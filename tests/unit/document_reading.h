/* Reads files of documents, and notes what is given. */
#ifndef LT_TESTS_DOCUMENT_READING_H
#define LT_TESTS_DOCUMENT_READING_H

#include "data_files.h"

#include "data/documents.h"

#include <zlib.h>

static char given[1024]; /* "PLACE:TEXT|" a document; NUL is shown as @, a long text by its size and CRC-32 */
static int64_t without_key, nulls, count;
static lt_document_drops dropped;

static inline void note(const lt_document *document) {
    char *to = given + strlen(given);
    to += sprintf(to, "%d:", (int)document->place);
    if (document->bytes > 64)
        to += sprintf(to, "<%zu %lx>", document->bytes,
                      crc32_z(0, (const Bytef *)document->text, document->bytes));
    else
        for (size_t i = 0; i < document->bytes; i++)
            *to++ = document->text[i] == '\0' ? '@' : document->text[i];
    memcpy(to, "|", 2);
}

/* Reads all of the file; the first documents are noted. */
static inline lt_status read_all(const char *path, const lt_documents_options *options) {
    lt_source source;
    lt_files *files = NULL;
    lt_documents *documents = NULL;
    lt_document document;
    bool found = true;
    given[0] = '\0';
    count = without_key = nulls = 0;
    assert_int_equal(lt_source_single(path, "data.train", &source), LT_OK);
    assert_int_equal(lt_files_open(&source, "data.train", &files), LT_OK);
    lt_status status = lt_documents_open(files, 0, options, &documents);
    while (status == LT_OK && found) {
        status = lt_documents_next(documents, &document, &found);
        if (status == LT_OK && found && count++ < 8) note(&document);
    }
    if (documents != NULL) {
        without_key = documents->without_key;
        nulls = documents->null;
        dropped = documents->dropped;
    }
    lt_documents_close(documents);
    lt_files_close(files);
    return status;
}

#endif
