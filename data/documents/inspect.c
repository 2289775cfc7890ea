/* What `lazytrain inspect` says of a file of documents. */
#include "data/documents.h"
#include "data/documents/tokens.h"
#include "data/printed.h"

#include <errno.h>
#include <inttypes.h>
#include <string.h>

enum { LOOK_BYTES = 1 << 24, SHOWN_BYTES = 160 };

typedef struct count {
    int64_t documents, empty, bytes;
    int64_t longest_bytes, longest_place;
    int64_t first_bytes, first_place;
    char first[SHOWN_BYTES + 3]; /* the first document's beginning, and what a character needs to end */
    size_t shown;
    bool whole;            /* all of the file is counted */
    lt_token_count tokens; /* where there is a tokenizer */
} count;

/* How many of the first bytes to show: no character is cut. */
static size_t shown_bytes(const lt_document *document) {
    if (document->bytes <= SHOWN_BYTES) return document->bytes;
    size_t shown = SHOWN_BYTES;
    while (shown < document->bytes && shown < SHOWN_BYTES + 3 && (document->text[shown] & 0xc0) == 0x80)
        shown++;
    return shown;
}

static void add(count *all, const lt_document *document) {
    const int64_t bytes = (int64_t)document->bytes;
    if (all->documents++ == 0) {
        all->first_bytes = bytes;
        all->first_place = document->place;
        all->shown = shown_bytes(document);
        memcpy(all->first, document->text, all->shown);
    }
    all->empty += bytes == 0;
    all->bytes += bytes;
    if (all->documents > 1 && bytes <= all->longest_bytes) return;
    all->longest_bytes = bytes;
    all->longest_place = document->place;
}

static lt_status show(const lt_documents *documents, const count *all, const lt_document *document,
                      FILE *out) {
    char label[40];
    snprintf(label, sizeof label, "%s %" PRId64, documents->kind->unit, document->place);
    if (all->tokens.tokenizer != NULL) return lt_token_count_show(&all->tokens, label, out);
    fprintf(out, "%s: ", label);
    lt_print_string(document->text, document->bytes, out);
    putc('\n', out);
    return LT_OK;
}

/* The samples are printed as they come, before the counts. */
static lt_status count_documents(lt_documents *documents, const lt_documents_inspection *inspection,
                                 count *all, FILE *out) {
    lt_document document;
    for (;;) {
        bool found;
        LT_CHECK(lt_documents_next(documents, &document, &found));
        all->whole = !found;
        if (!found) return LT_OK;
        add(all, &document);
        if (inspection->tokenizer != NULL) LT_CHECK(lt_token_count_add(&all->tokens, &document));
        if (all->documents <= inspection->sample) {
            LT_CHECK(show(documents, all, &document, out));
        } else if (!inspection->verify && documents->text_bytes >= LOOK_BYTES) {
            return LT_OK;
        }
    }
}

static void print_counts(const lt_documents *documents, const count *all, FILE *out) {
    const char *unit = documents->kind->unit;
    fprintf(out, "documents:    %" PRId64, all->documents);
    if (!all->whole)
        fprintf(out, " at the least: those in the first %d MiB of text; --verify reads all",
                LOOK_BYTES >> 20);
    else if (all->documents > 0 && all->empty == all->documents)
        fprintf(out, ", all of them empty");
    fprintf(out, "\nempty:        %" PRId64 "\n", all->empty);
    if (documents->kind == &lt_jsonl_documents)
        fprintf(out, "skipped:      %" PRId64 " rows without '%s', %" PRId64 " with null\n",
                documents->without_key, documents->options.text_key, documents->null);
    if (documents->kind == &lt_parquet_documents)
        fprintf(out, "skipped:      %" PRId64 " rows with null\n", documents->null);
    fprintf(out, "text:         %" PRId64 " bytes\n", all->bytes);
    if (all->documents == 0) return;
    fprintf(out, "longest:      %" PRId64 " bytes, %s %" PRId64 "\n", all->longest_bytes, unit,
            all->longest_place);
    fprintf(out, "first:        %" PRId64 " bytes, %s %" PRId64 ": ", all->first_bytes, unit,
            all->first_place);
    lt_print_string(all->first, all->shown, out);
    fprintf(out, "%s\n", (int64_t)all->shown < all->first_bytes ? "..." : "");
}

static lt_status inspect(lt_documents *documents, const lt_documents_inspection *inspection, FILE *out) {
    const char *compressed = lt_compression_name(documents->compression);
    fprintf(out, "file:         %s\n", lt_files_path(documents->files, documents->file));
    fprintf(out, "format:       %s%s%s\n", documents->kind->name, compressed == NULL ? "" : ", ",
            compressed == NULL ? "" : compressed);
    fprintf(out, "bytes:        %" PRId64 "\n", lt_files_bytes(documents->files, documents->file));
    if (documents->kind->describe != NULL) documents->kind->describe(documents, out);
    if (inspection->verify && documents->kind->verify != NULL) LT_CHECK(documents->kind->verify(documents));
    count all = {0};
    lt_status status = LT_OK;
    if (inspection->tokenizer != NULL) status = lt_token_count_open(inspection->tokenizer, &all.tokens);
    if (status == LT_OK) status = count_documents(documents, inspection, &all, out);
    if (status == LT_OK) print_counts(documents, &all, out);
    if (status == LT_OK && inspection->tokenizer != NULL) lt_token_count_print(&all.tokens, out);
    if (inspection->tokenizer != NULL) lt_token_count_close(&all.tokens);
    LT_CHECK(status);
    if (fflush(out) != 0 || ferror(out))
        return lt_fail(LT_IO, "inspect: cannot write the report: %s", strerror(errno));
    return LT_OK;
}

lt_status lt_documents_inspect(const char *path, const lt_documents_inspection *inspection, FILE *out) {
    const lt_documents_options options = {.text_key = inspection->text_key,
                                          .no_text = inspection->text_key == NULL};
    lt_source source = {0};
    lt_files *files = NULL;
    lt_documents *documents = NULL;
    lt_status status = LT_OK;
    LT_CHECK_DONE(status, lt_source_single(path, "inspect", &source));
    LT_CHECK_DONE(status, lt_files_open(&source, "inspect", &files));
    LT_CHECK_DONE(status, lt_documents_open(files, 0, &options, &documents));
    LT_CHECK_DONE(status, inspect(documents, inspection, out));
done:
    lt_documents_close(documents);
    lt_files_close(files);
    lt_source_destroy(&source);
    return status;
}
