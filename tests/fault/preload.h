/* What preloaded libraries share: the calls that they stand before, and which file a call is about. */
#ifndef LT_TESTS_FAULT_PRELOAD_H
#define LT_TESTS_FAULT_PRELOAD_H

#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* `real` is what `name` is without the library. */
#define REAL(name) \
    static __typeof__(name) *real; \
    if (real == NULL) real = (__typeof__(name) *)dlsym(RTLD_NEXT, #name)

enum { PRELOAD_PATH_BYTES = 8200 };

/* The path of an open file, or an empty one. */
static inline void preload_path_of(int descriptor, char path[PRELOAD_PATH_BYTES]) {
    char name[64];
    snprintf(name, sizeof name, "/proc/self/fd/%d", descriptor);
    const ssize_t length = readlink(name, path, PRELOAD_PATH_BYTES - 1);
    path[length > 0 ? length : 0] = '\0';
}

/* A name may be relative. */
static inline void preload_absolute(const char *name, char path[PRELOAD_PATH_BYTES]) {
    if (name[0] == '/' || getcwd(path, 4096) == NULL)
        path[0] = '\0';
    else
        strcat(path, "/");
    strncat(path, name, 4096);
}

/* The rank of this process, of Open MPI or MPICH. */
static inline const char *preload_rank(void) {
    const char *rank = getenv("OMPI_COMM_WORLD_RANK");
    if (rank == NULL) rank = getenv("PMI_RANK");
    return rank == NULL ? "0" : rank;
}

#endif
