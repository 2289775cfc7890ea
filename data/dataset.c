#include "data/dataset.h"
#include "data/checks.h"
#include "data/order.h"
#include "data/reader.h"

#include <inttypes.h>
#include <stdlib.h>

struct lt_dataset {
    const lt_reader_kind *kind;
    lt_files *files;
    lt_reader *reader;
    lt_checks *checks; /* NULL: none */
    int64_t sequence_length;
};

static lt_status check_options(const lt_dataset_options *options) {
    if (options->sequence_length < 1 || options->sequence_length >= INT32_MAX)
        return lt_fail(LT_BAD_INPUT, "data.seq_len is %" PRId64 ", expected 1 to %" PRId32,
                       options->sequence_length, INT32_MAX - 1);
    if (options->vocabulary < 1 || options->vocabulary > INT32_MAX)
        return lt_fail(LT_BAD_INPUT, "model.vocab_size is %" PRId64 ", expected 1 to %" PRId32,
                       options->vocabulary, INT32_MAX);
    return LT_OK;
}

/* The one kind that all files are of. */
static lt_status recognise_all(const lt_dataset_options *options, lt_files *files,
                               const lt_reader_kind **kind) {
    LT_CHECK(lt_format_recognise(options, files, 0, kind));
    for (int64_t i = 1; i < lt_files_count(files); i++) {
        const lt_reader_kind *other;
        LT_CHECK(lt_format_recognise(options, files, i, &other));
        if (other == *kind) continue;
        return lt_fail(LT_BAD_INPUT,
                       "%s: '%s' is %s and '%s' is %s; expected files of one kind, so name those with a glob",
                       lt_files_key(files), lt_files_path(files, 0), (*kind)->name, lt_files_path(files, i),
                       other->name);
    }
    return LT_OK;
}

lt_status lt_dataset_open(const lt_dataset_options *options, lt_dataset **out) {
    *out = NULL;
    LT_CHECK(check_options(options));
    lt_source source = {0};
    lt_status status = LT_OK;
    lt_dataset *dataset = calloc(1, sizeof *dataset);
    if (dataset == NULL) return lt_fail(LT_IO, "%s: no memory for a dataset", options->key);
    dataset->sequence_length = options->sequence_length;
    LT_CHECK_DONE(status, lt_source_expand(options->patterns, options->pattern_count, options->key, &source));
    LT_CHECK_DONE(status, lt_files_open(&source, options->key, &dataset->files));
    LT_CHECK_DONE(status, recognise_all(options, dataset->files, &dataset->kind));
    LT_CHECK_DONE(status, dataset->kind->open(options, dataset->files, &dataset->reader));
    if (dataset->kind == &lt_shard_reader && options->check_shares > 0)
        LT_CHECK_DONE(status, lt_checks_start(dataset->files, options->check_share, options->check_shares,
                                              &dataset->checks));
    *out = dataset;
    return LT_OK;
done:
    lt_source_destroy(&source);
    lt_dataset_close(dataset);
    return status;
}

void lt_dataset_close(lt_dataset *dataset) {
    if (dataset == NULL) return;
    lt_checks_end(dataset->checks);
    if (dataset->reader != NULL) dataset->kind->close(dataset->reader);
    lt_files_close(dataset->files);
    free(dataset);
}

int64_t lt_dataset_samples(const lt_dataset *dataset) {
    return dataset->reader->samples;
}

int64_t lt_dataset_tokens(const lt_dataset *dataset) {
    return dataset->reader->tokens;
}

int64_t lt_dataset_unread(const lt_dataset *dataset) {
    return dataset->reader->unread;
}

const lt_files *lt_dataset_table(const lt_dataset *dataset) {
    return dataset->files;
}

int64_t lt_dataset_files(const lt_dataset *dataset) {
    return lt_files_count(dataset->files);
}

int64_t lt_dataset_sequence_length(const lt_dataset *dataset) {
    return dataset->sequence_length;
}

lt_status lt_dataset_read(const lt_dataset *dataset, int64_t index, int32_t *tokens) {
    if (index < 0 || index >= dataset->reader->samples)
        return lt_fail(LT_FAILED, "%s: sample %" PRId64 " was asked for, expected 0 to %" PRId64,
                       lt_files_key(dataset->files), index, dataset->reader->samples - 1);
    return dataset->kind->read(dataset->reader, index, tokens);
}

lt_status lt_dataset_count_samples(const lt_dataset *dataset, int64_t limit, int64_t *samples) {
    if (dataset->kind->count != NULL) return dataset->kind->count(dataset->reader, limit, samples);
    *samples = dataset->reader->samples < limit ? dataset->reader->samples : limit;
    return LT_OK;
}

lt_status lt_dataset_read_item(const lt_dataset *dataset, const lt_shuffle *shuffle, int64_t item,
                               int32_t *tokens, int64_t *epoch) {
    if (dataset->kind->read_item != NULL)
        return dataset->kind->read_item(dataset->reader, shuffle, item, tokens, epoch);
    const int64_t samples = dataset->reader->samples;
    const lt_order order = {.samples = samples, .seed = shuffle->seed, .shuffle = shuffle->shuffle};
    LT_CHECK(lt_checks_advance(dataset->checks, item / samples, (double)(item % samples) / (double)samples));
    return dataset->kind->read(dataset->reader, lt_order_sample(&order, item, epoch), tokens);
}

void lt_dataset_stop(lt_dataset *dataset, bool stop) {
    if (dataset->kind->stop != NULL) dataset->kind->stop(dataset->reader, stop);
}

void lt_dataset_heed(lt_dataset *dataset, bool (*stop)(void *context), void *context) {
    if (dataset->kind->heed != NULL) dataset->kind->heed(dataset->reader, stop, context);
}
