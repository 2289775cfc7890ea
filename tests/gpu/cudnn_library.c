#include "tests/gpu/cudnn_library.h"
#include "tests/gpu/cudnn_backend.h"

#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* The oldest that these graphs were tried on: some before it want another mask, or cleared memory. */
enum { OLDEST = 91200 };

lt_status cudnn_failed(const cudnn *library, const char *doing, int status) {
    char words[1024] = "";
    library->last_error(words, sizeof words);
    for (char *at = words; *at != '\0'; at++)
        if (*at == '\n' || *at == '\t') *at = ' ';
    return lt_fail(LT_FAILED, "cuDNN %s, %s: %s: %s", library->version, doing, library->name_of(status),
                   words);
}

static lt_status load(cudnn *library) {
    void *file = dlopen("libcudnn.so.9", RTLD_NOW | RTLD_LOCAL); /* not made to be unloaded */
    if (file == NULL)
        return lt_fail(LT_BAD_INPUT, "no cuDNN 9: %s; LD_LIBRARY_PATH may name its folder", dlerror());
    const struct {
        const char *name;
        void *function;
    } wanted[] = {{"cudnnGetVersion", &library->get_version},
                  {"cudnnGetLastErrorString", &library->last_error},
                  {"cudnnGetErrorString", &library->name_of},
                  {"cudnnCreate", &library->create},
                  {"cudnnDestroy", &library->destroy},
                  {"cudnnSetStream", &library->set_stream},
                  {"cudnnBackendCreateDescriptor", &library->make},
                  {"cudnnBackendDestroyDescriptor", &library->release},
                  {"cudnnBackendFinalize", &library->finalize},
                  {"cudnnBackendSetAttribute", &library->set},
                  {"cudnnBackendGetAttribute", &library->get},
                  {"cudnnBackendExecute", &library->execute}};
    for (size_t i = 0; i < sizeof wanted / sizeof *wanted; i++) {
        void *found = dlsym(file, wanted[i].name);
        if (found == NULL) return lt_fail(LT_BAD_INPUT, "libcudnn.so.9 has no %s", wanted[i].name);
        memcpy(wanted[i].function, &found, sizeof found);
    }
    const size_t version = library->get_version();
    snprintf(library->version, sizeof library->version, "%zu.%zu.%zu", version / 10000, version / 100 % 100,
             version % 100);
    if (version < OLDEST)
        return lt_fail(LT_BAD_INPUT, "cuDNN is %s; 9.12 or later is needed", library->version);
    return LT_OK;
}

static lt_status take_device(cudnn *library, void *stream) {
    int status = library->create(&library->handle);
    if (status == 0) status = library->set_stream(library->handle, stream);
    return status == 0 ? LT_OK : cudnn_failed(library, "taking the device", status);
}

static lt_status take_properties(cudnn *library, const char *json) {
    int status = library->make(DESCRIPTOR_PROPERTIES, &library->properties);
    if (status == 0)
        status = library->set(library->properties, PROPERTIES_JSON, AS_TEXT, (int64_t)strlen(json), json);
    if (status == 0) status = library->finalize(library->properties);
    return status == 0 ? LT_OK : cudnn_failed(library, "taking a device's properties", status);
}

/* json: NULL, where the device is here. */
static lt_status open_library(void *stream, const char *json, cudnn **result) {
    cudnn *library = calloc(1, sizeof *library);
    *result = NULL;
    if (library == NULL) return lt_fail(LT_IO, "no memory for cuDNN");
    lt_status status = load(library);
    if (status == LT_OK)
        status = json == NULL ? take_device(library, stream) : take_properties(library, json);
    if (status == LT_OK)
        *result = library;
    else
        cudnn_close(library);
    return status;
}

lt_status cudnn_open(void *stream, cudnn **library) {
    return open_library(stream, NULL, library);
}

lt_status cudnn_open_without_device(const char *properties, cudnn **library) {
    return open_library(NULL, properties, library);
}

void cudnn_close(cudnn *library) {
    if (library == NULL) return;
    if (library->handle != NULL) library->destroy(library->handle);
    if (library->properties != NULL) library->release(library->properties);
    free(library);
}
