#include "checkpoints/checkpoint.h"

#include "checkpoints/stored.h"
#include "checkpoints/system.h"
#include "comm/watchdog.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

bool lt_checkpoint_recognise(const char *path) {
    static const unsigned char SIGNATURE[8] = {0x89, 'H', 'D', 'F', '\r', '\n', 0x1a, '\n'};
    unsigned char start[sizeof SIGNATURE];
    int file = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (file < 0) return false;
    ssize_t n = pread(file, start, sizeof start, 0);
    close(file);
    return n == (ssize_t)sizeof start && memcmp(start, SIGNATURE, sizeof start) == 0;
}

void lt_checkpoint_header_free(lt_checkpoint_header *header) {
    free(header->config);
    header->config = NULL;
}

lt_status lt_checkpoint_read_header(const char *path, lt_checkpoint_header *header) {
    lt_stored stored;
    LT_CHECK(lt_stored_open(path, &stored));
    *header = stored.header;
    stored.header.config = NULL;
    lt_stored_free(&stored);
    return LT_OK;
}

/* ---- matching names and shapes
 * ---------------------------------------------------------------------------------- */

static const lt_stored_tensor *find(const lt_stored *stored, lt_tensor_kind kind, const char *name) {
    for (int i = 0; i < stored->tensors; i++)
        if (stored->tensor[i].kind == kind && strcmp(stored->tensor[i].name, name) == 0)
            return &stored->tensor[i];
    return NULL;
}

static bool same_shape(const lt_stored_tensor *t, int dimensions, const int64_t shape[2]) {
    return t->dimensions == dimensions && t->shape[0] == shape[0] &&
           (dimensions == 1 || t->shape[1] == shape[1]);
}

static lt_status check_readable(const char *path, const lt_stored_tensor *t) {
    if (!t->problem[0]) return LT_OK;
    return lt_fail(LT_BAD_INPUT, "%s: %s/%s %s", path, lt_stored_group(t->kind), t->name, t->problem);
}

/* Every parameter is there in its shape. */
static lt_status check_expected(const char *path, const lt_stored *stored, lt_tensor_kind kind,
                                const lt_registry *registry) {
    for (int i = 0; i < registry->count; i++) {
        const lt_parameter *p = &registry->parameters[i];
        const lt_stored_tensor *t = find(stored, kind, p->name);
        char found[64], expected[64];
        lt_stored_shape_text(p->dimensions, p->shape, expected);
        if (!t)
            return lt_fail(LT_BAD_INPUT,
                           "%s: %s/%s is missing, expected shape %s: is this a checkpoint of another model?",
                           path, lt_stored_group(kind), p->name, expected);
        lt_stored_shape_text(t->dimensions, t->shape, found);
        if (!same_shape(t, p->dimensions, p->shape))
            return lt_fail(LT_BAD_INPUT,
                           "%s: %s/%s has shape %s, expected %s: is this a checkpoint of another model?",
                           path, lt_stored_group(kind), p->name, found, expected);
        LT_CHECK(check_readable(path, t));
    }
    return LT_OK;
}

/* Nothing else is there. */
static lt_status check_unexpected(const char *path, const lt_stored *stored, bool with_optimizer,
                                  const lt_registry *registry) {
    for (int i = 0; i < stored->tensors; i++) {
        const lt_stored_tensor *t = &stored->tensor[i];
        if (t->kind != LT_TENSOR_PARAMETER && !with_optimizer) continue;
        char shape[64];
        lt_stored_shape_text(t->dimensions, t->shape, shape);
        if (!lt_registry_find(registry, t->name))
            return lt_fail(LT_BAD_INPUT,
                           "%s: %s/%s (shape %s) is not a parameter of the configured model: is this a "
                           "checkpoint of another model?",
                           path, lt_stored_group(t->kind), t->name, shape);
    }
    return LT_OK;
}

/* ---- reading
 * ---------------------------------------------------------------------------------------------------- */

static lt_status open_reader(const char *path, const lt_stored *stored, lt_stored_reader *reader) {
    reader->path = path;
    lt_watchdog_file(path);
    reader->buffer = malloc(lt_stored_buffer_bytes(stored));
    if (!reader->buffer)
        return lt_fail(LT_IO, "%s: no memory for a chunk of %zu bytes", path, lt_stored_buffer_bytes(stored));
    reader->file = open(path, O_RDONLY | O_CLOEXEC);
    return reader->file < 0 ? lt_system_failure("open", path) : LT_OK;
}

static void close_reader(lt_stored_reader *reader) {
    lt_watchdog_file(NULL);
    if (reader->file >= 0) close(reader->file);
    free(reader->buffer);
}

typedef struct loading {
    const lt_tensor_access *access;
    const lt_parameter *parameter;
} loading;

static lt_status hand_over(void *context, const lt_stored_tensor *tensor, int64_t first, int64_t count,
                           const float *values) {
    const loading *l = context;
    return l->access->put(l->access->context, tensor->kind, l->parameter, first, count, values);
}

static bool is_needed(void *context, const lt_stored_tensor *tensor, int64_t first, int64_t count) {
    const loading *l = context;
    return l->access->needs(l->access->context, tensor->kind, l->parameter, first, count);
}

static lt_status load_all(const char *path, const lt_stored *stored, const lt_registry *registry, int kinds,
                          const lt_tensor_access *access) {
    loading l = {access, NULL};
    lt_stored_reader reader = {
        .file = -1, .context = &l, .take = hand_over, .wanted = access->needs ? is_needed : NULL};
    lt_status status = open_reader(path, stored, &reader);
    for (int kind = 0; kind < kinds; kind++) {
        for (int i = 0; i < registry->count && status == LT_OK; i++) {
            l.parameter = &registry->parameters[i];
            status = lt_stored_read(&reader, find(stored, (lt_tensor_kind)kind, l.parameter->name));
        }
    }
    close_reader(&reader);
    return status;
}

lt_status lt_checkpoint_load(const char *path, const lt_registry *registry, bool with_optimizer,
                             const lt_tensor_access *access) {
    lt_stored stored;
    int kinds = with_optimizer ? LT_TENSOR_KINDS : 1;
    LT_CHECK(lt_stored_open(path, &stored));
    lt_status status = LT_OK;
    for (int kind = 0; kind < kinds && status == LT_OK; kind++)
        status = check_expected(path, &stored, (lt_tensor_kind)kind, registry);
    if (status == LT_OK) status = check_unexpected(path, &stored, with_optimizer, registry);
    if (status == LT_OK) status = load_all(path, &stored, registry, kinds, access);
    lt_stored_free(&stored);
    return status;
}

/* ---- verifying
 * -------------------------------------------------------------------------------------------------- */

/* Moments are there for every parameter and in its shape, or not at all. */
static lt_status check_moments(const char *path, const lt_stored *stored) {
    int count[LT_TENSOR_KINDS] = {0};
    for (int i = 0; i < stored->tensors; i++) count[stored->tensor[i].kind]++;
    if (count[0] == 0)
        return lt_fail(LT_BAD_INPUT, "%s: /params holds no tensors: not a checkpoint, or a damaged one",
                       path);
    for (int kind = 1; kind < LT_TENSOR_KINDS; kind++) {
        if (count[kind] == 0 && count[LT_TENSOR_KINDS - kind] == 0) continue;
        for (int i = 0; i < stored->tensors; i++) {
            const lt_stored_tensor *p = &stored->tensor[i];
            if (p->kind != LT_TENSOR_PARAMETER) continue;
            const lt_stored_tensor *m = find(stored, (lt_tensor_kind)kind, p->name);
            if (!m || !same_shape(m, p->dimensions, p->shape))
                return lt_fail(LT_BAD_INPUT, "%s: %s/%s %s: the file is damaged", path,
                               lt_stored_group((lt_tensor_kind)kind), p->name,
                               m ? "has not the shape of its parameter" : "is missing");
        }
        if (count[kind] != count[0])
            return lt_fail(LT_BAD_INPUT, "%s: %s holds %d tensors, expected the %d of /params", path,
                           lt_stored_group((lt_tensor_kind)kind), count[kind], count[0]);
    }
    return LT_OK;
}

lt_status lt_stored_verify(const char *path, const lt_stored *stored) {
    lt_stored_reader reader = {.file = -1};
    lt_status status = LT_OK;
    for (int i = 0; i < stored->tensors && status == LT_OK; i++)
        status = check_readable(path, &stored->tensor[i]);
    if (status == LT_OK) status = check_moments(path, stored);
    if (status == LT_OK && stored->header.config[0] == 0)
        status = lt_fail(LT_BAD_INPUT, "%s: the attribute config is empty", path);
    if (status != LT_OK) return status;
    status = open_reader(path, stored, &reader);
    for (int i = 0; i < stored->tensors && status == LT_OK; i++)
        status = lt_stored_read(&reader, &stored->tensor[i]);
    close_reader(&reader);
    return status;
}

lt_status lt_checkpoint_verify(const char *path) {
    lt_stored stored;
    LT_CHECK(lt_stored_open(path, &stored));
    lt_status status = lt_stored_verify(path, &stored);
    lt_stored_free(&stored);
    return status;
}
