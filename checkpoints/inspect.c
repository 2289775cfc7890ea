#include "checkpoints/checkpoint.h"

#include "checkpoints/stored.h"

#include <string.h>

static void print_header(const lt_checkpoint_header *header, FILE *out) {
    const lt_provenance *p = &header->provenance;
    fprintf(out, "format:           %lld\n", (long long)header->format_version);
    fprintf(out, "step:             %lld\n", (long long)header->step);
    fprintf(out, "tokens:           %lld\n", (long long)header->tokens);
    fprintf(out, "samples consumed:");
    for (int i = 0; i < header->sources; i++) fprintf(out, " %lld", (long long)header->samples_consumed[i]);
    if (header->tokenizer_hash[0]) fprintf(out, "\ntokenizer:        hash %s", header->tokenizer_hash);
    if (header->data_hash[0])
        fprintf(out, "\ndata:             hash %s, %lld files, %lld bytes", header->data_hash,
                (long long)header->data_files, (long long)header->data_bytes);
    fprintf(out, "\nwritten by:       lazytrain %s, commit %s\n", p->version, p->commit);
    fprintf(out, "instruction set:  %s\n", p->instruction_set);
    fprintf(out, "BLAS kernel:      %s\n", p->blas_kernel);
    fprintf(out, "MPI:              %s\n", p->mpi);
    fprintf(out, "hosts:            %s\n", p->hosts);
    fprintf(out, "ranks:            %lld, of %lld threads\n", (long long)p->ranks, (long long)p->threads);
}

static void print_config(const char *config, FILE *out) {
    fprintf(out, "config:\n");
    for (const char *line = config; *line;) {
        size_t length = strcspn(line, "\n");
        fprintf(out, "    %.*s\n", (int)length, line);
        line += length + (line[length] == '\n');
    }
}

/* One whose data cannot be read may claim any shape. */
static double elements(const lt_stored_tensor *t) {
    return (double)t->shape[0] * (double)t->shape[1];
}

static void print_tensors(const lt_stored *stored, FILE *out) {
    int64_t count[LT_TENSOR_KINDS] = {0};
    double sum[LT_TENSOR_KINDS] = {0};
    for (int i = 0; i < stored->tensors; i++) {
        const lt_stored_tensor *t = &stored->tensor[i];
        count[t->kind]++;
        sum[t->kind] += elements(t);
    }
    for (int kind = 0; kind < LT_TENSOR_KINDS; kind++)
        fprintf(out, "%-17s %lld tensors, %.0f elements, %.1f MB\n", lt_stored_group((lt_tensor_kind)kind),
                (long long)count[kind], sum[kind], sum[kind] * sizeof(float) / 1e6);
    for (int i = 0; i < stored->tensors; i++) {
        const lt_stored_tensor *t = &stored->tensor[i];
        if (t->kind != LT_TENSOR_PARAMETER) continue;
        char shape[64];
        lt_stored_shape_text(t->dimensions, t->shape, shape);
        fprintf(out, "    %-52s %-16s %.3f MB%s%s\n", t->name, shape, elements(t) * sizeof(float) / 1e6,
                t->problem[0] ? ": " : "", t->problem);
    }
}

lt_status lt_checkpoint_inspect(const char *path, bool verify, FILE *out) {
    lt_stored stored;
    LT_CHECK(lt_stored_open(path, &stored));
    lt_status status = verify ? lt_stored_verify(path, &stored) : LT_OK;
    if (status == LT_OK) {
        fprintf(out, "checkpoint:       %s\n", path);
        print_header(&stored.header, out);
        print_tensors(&stored, out);
        print_config(stored.header.config, out);
        if (verify) fprintf(out, "checksums:        all right\n");
        if (fflush(out) != 0 || ferror(out))
            status = lt_fail(LT_IO, "%s: its description could not be written out", path);
    }
    lt_stored_free(&stored);
    return status;
}
