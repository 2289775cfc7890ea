/* cuDNN, opened by name: nothing of it is linked and none of its headers is needed. */
#ifndef LT_TESTS_GPU_CUDNN_LIBRARY_H
#define LT_TESTS_GPU_CUDNN_LIBRARY_H

#include "comm/status.h"

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/* The library's functions that tests/gpu/cudnn_graph.c calls (cudnnBackendSetAttribute() and so on; each
 * gives a status, 0 where all is well), with a handle of the current device or with the properties of one
 * that need not be here. */
typedef struct cudnn {
    void *handle, *properties; /* one of the two, the other is NULL */
    char version[32];          /* "9.19.0" */
    size_t (*get_version)(void);
    void (*last_error)(char *message, size_t bytes);
    const char *(*name_of)(int status);
    int (*create)(void **handle);
    int (*destroy)(void *handle);
    int (*set_stream)(void *handle, void *stream);
    int (*make)(int kind, void **descriptor);
    int (*release)(void *descriptor);
    int (*finalize)(void *descriptor);
    int (*set)(void *descriptor, int attribute, int type, int64_t count, const void *values);
    int (*get)(void *descriptor, int attribute, int type, int64_t most, int64_t *count, void *values);
    int (*execute)(void *handle, void *plan, void *arguments);
} cudnn;

/* Graphs run on `stream`, a cudaStream_t. LT_BAD_INPUT: there is no cuDNN here, or one that is too old.
 * LT_FAILED: it finds no device, or will not work on it. */
lt_status cudnn_open(void *stream, cudnn **library);

/* Graphs can be planned but not run, for a device with such properties, in cuDNN's JSON. */
lt_status cudnn_open_without_device(const char *properties, cudnn **library);

void cudnn_close(cudnn *library); /* NULL: nothing happens */

/* LT_FAILED, with cuDNN's words for a status, in one line. */
lt_status cudnn_failed(const cudnn *library, const char *doing, int status);

#ifdef __cplusplus
}
#endif

#endif
