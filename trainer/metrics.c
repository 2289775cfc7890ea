#include "trainer/metrics.h"

#include "trainer/metrics_file.h"

#include <errno.h>
#include <inttypes.h>
#include <math.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/types.h>
#include <unistd.h>

struct lt_metrics {
    int file;
    char *path;
    off_t size;          /* after the last whole line */
    int64_t validations; /* lines of the step that the run goes on from */
    char *line;          /* what is being written; grows to the longest line and stays */
    size_t used, capacity;
    /* A background save's thread looks at these. */
    atomic_bool failed;    /* no memory for the line */
    atomic_bool unwritten; /* the line could not be appended */
};

lt_status lt_metrics_open(const char *directory, int64_t last_step, lt_metrics **metrics) {
    lt_metrics *opened = calloc(1, sizeof *opened);
    *metrics = NULL;
    if (opened == NULL) return lt_fail(LT_IO, "out of memory while opening the metrics in %s", directory);
    opened->file = -1;
    lt_status status = lt_metrics_file_open(directory, last_step, &opened->path, &opened->file, &opened->size,
                                            &opened->validations);
    if (status != LT_OK) {
        lt_metrics_close(opened);
        return status;
    }
    *metrics = opened;
    return LT_OK;
}

void lt_metrics_close(lt_metrics *metrics) {
    if (metrics == NULL) return;
    if (metrics->file >= 0) close(metrics->file);
    free(metrics->path);
    free(metrics->line);
    free(metrics);
}

int64_t lt_metrics_validations(const lt_metrics *metrics) {
    return metrics->validations;
}

/* ---- a line
 * ----------------------------------------------------------------------------------------------------- */

static void add(lt_metrics *metrics, const char *text) {
    size_t length = strlen(text);
    if (metrics->used + length + 1 > metrics->capacity) {
        size_t capacity = 2 * (metrics->used + length) + 1024;
        char *line = realloc(metrics->line, capacity);
        if (line == NULL) {
            metrics->failed = true;
            return;
        }
        metrics->line = line;
        metrics->capacity = capacity;
    }
    memcpy(metrics->line + metrics->used, text, length + 1);
    metrics->used += length;
}

static void add_key(lt_metrics *metrics, const char *key) {
    const bool first = metrics->used > 0 && metrics->line[metrics->used - 1] == '{';
    add(metrics, first ? "\"" : ",\"");
    add(metrics, key);
    add(metrics, "\":");
}

static void add_value(lt_metrics *metrics, double value) {
    char text[40] = "null"; /* JSON has no word for infinity */
    if (isfinite(value)) snprintf(text, sizeof text, "%.9g", value);
    add(metrics, text);
}

static void add_number(lt_metrics *metrics, const char *key, double value) {
    add_key(metrics, key);
    add_value(metrics, value);
}

static void add_integer(lt_metrics *metrics, const char *key, int64_t value) {
    char text[32];
    snprintf(text, sizeof text, "%" PRId64, value);
    add_key(metrics, key);
    add(metrics, text);
}

static void add_array(lt_metrics *metrics, const char *key, const double *values, int64_t count) {
    if (values == NULL) return;
    add_key(metrics, key);
    for (int64_t i = 0; i < count; i++) {
        add(metrics, i == 0 ? "[" : ",");
        add_value(metrics, values[i]);
    }
    add(metrics, count > 0 ? "]" : "[]");
}

static void add_text(lt_metrics *metrics, const char *key, const char *text) {
    add_key(metrics, key);
    add(metrics, "\"");
    for (; *text != '\0'; text++) {
        unsigned char c = (unsigned char)*text;
        char piece[8] = {*text, '\0'};
        if (c == '"' || c == '\\') snprintf(piece, sizeof piece, "\\%c", c);
        if (c < 0x20) snprintf(piece, sizeof piece, "\\u%04x", c);
        add(metrics, piece);
    }
    add(metrics, "\"");
}

static void begin_line(lt_metrics *metrics) {
    metrics->used = 0;
    metrics->failed = false;
    add(metrics, "{");
}

/* Appends the line; a part of one is taken back, so that the next does not run into it. */
static lt_status append(lt_metrics *metrics) {
    size_t written = 0;
    while (written < metrics->used) {
        ssize_t count = write(metrics->file, metrics->line + written, metrics->used - written);
        if (count < 0 && errno == EINTR) continue;
        if (count < 0) {
            int reason = errno;
            if (ftruncate(metrics->file, metrics->size) != 0) reason = errno;
            metrics->unwritten = true;
            return lt_fail(LT_IO, "%s: cannot append a line: %s", metrics->path, strerror(reason));
        }
        written += (size_t)count;
    }
    metrics->size += (off_t)written;
    metrics->unwritten = false;
    return LT_OK;
}

static lt_status no_memory(const lt_metrics *metrics) {
    return lt_fail(LT_IO, "out of memory while writing %s", metrics->path);
}

static lt_status end_line(lt_metrics *metrics) {
    add(metrics, "}\n");
    return metrics->failed ? no_memory(metrics) : append(metrics);
}

lt_status lt_metrics_sync(lt_metrics *metrics) {
    if (metrics->failed) return no_memory(metrics);
    if (metrics->unwritten) LT_CHECK(append(metrics));
    if (fsync(metrics->file) == 0) return LT_OK;
    return lt_fail(LT_IO, "%s: fsync failed: %s", metrics->path, strerror(errno));
}

/* The same flat keys whether there is one source or several. */
static void add_sources(lt_metrics *metrics, const lt_metrics_source *sources, int count) {
    if (count == 0) return;
    int64_t epoch = sources[0].epoch, documents = 0;
    for (int i = 0; i < count; i++) {
        if (sources[i].epoch < epoch) epoch = sources[i].epoch;
        documents += sources[i].documents;
    }
    add_integer(metrics, "epoch", epoch);
    if (sources[0].documents >= 0) add_integer(metrics, "documents", documents);
    if (count == 1) return;
    add_key(metrics, "sources");
    for (int i = 0; i < count; i++) {
        add(metrics, i == 0 ? "[{" : ",{");
        add_integer(metrics, "epoch", sources[i].epoch);
        add_integer(metrics, "tokens", sources[i].tokens);
        if (sources[i].documents >= 0) add_integer(metrics, "documents", sources[i].documents);
        add(metrics, "}");
    }
    add(metrics, "]");
}

lt_status lt_metrics_write_step(lt_metrics *metrics, const lt_metrics_step *values) {
    begin_line(metrics);
    add_integer(metrics, "step", values->step);
    add_integer(metrics, "tokens", values->tokens);
    add_number(metrics, "loss", values->loss);
    add_number(metrics, "lr", values->learning_rate);
    add_number(metrics, "grad_norm", values->gradient_norm);
    add_number(metrics, "step_ms", values->step_ms);
    add_number(metrics, "tokens_per_s", values->tokens_per_s);
    add_number(metrics, "tokens_per_s_per_rank", values->tokens_per_s_per_rank);
    add_number(metrics, "data_wait_ms", values->data_wait_ms);
    add_number(metrics, "comm_wait_ms", values->comm_wait_ms);
    add_number(metrics, "comm_ms", values->comm_ms);
    add_integer(metrics, "slowest_rank", values->slowest_rank);
    add_number(metrics, "slowest_excess_ms", values->slowest_excess_ms);
    add_number(metrics, "flops_utilisation", values->flops_utilisation);
    add_sources(metrics, values->sources, values->source_count);
    const lt_metrics_diagnostics *diagnostics = values->diagnostics;
    if (diagnostics != NULL) {
        add_number(metrics, "sparsity", diagnostics->sparsity);
        add_number(metrics, "sink", diagnostics->sink);
        add_number(metrics, "sink_heads", diagnostics->sink_heads);
        add_number(metrics, "mass", diagnostics->mass);
        add_number(metrics, "tau_mean", diagnostics->tau_mean);
        add_number(metrics, "live_tiles", diagnostics->live_tiles);
        add_array(metrics, "layer_sparsity", diagnostics->layer_sparsity, diagnostics->layers);
        add_array(metrics, "layer_sink", diagnostics->layer_sink, diagnostics->layers);
        add_array(metrics, "layer_mass", diagnostics->layer_mass, diagnostics->layers);
        add_array(metrics, "layer_tau", diagnostics->layer_tau, diagnostics->layers);
    }
    return end_line(metrics);
}

lt_status lt_metrics_write_validation(lt_metrics *metrics, int64_t step, const char *name, double loss) {
    begin_line(metrics);
    add_integer(metrics, "step", step);
    add_number(metrics, "val_loss", loss);
    if (name != NULL) add_text(metrics, "name", name);
    return end_line(metrics);
}
