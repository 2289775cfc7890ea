/* Faults that a test cannot cause from outside, for LD_PRELOAD (load_faults of processes.sh). They befall
 * rank FAULT_RANK, or all ranks where that is not set, once the file FAULT_WHEN exists.
 *
 * - FAULT_READ=NAME, FAULT_WRITE=NAME: pread from (pwrite to) a file whose path holds NAME fails with EIO.
 * - FAULT_LOCK=NAME: flock of such a file fails with ENOSYS, as on a file system without locks.
 * - FAULT_HANG=1: it never returns instead.
 * - FAULT_DELAY=MS: it takes so long instead, and the file `delayed` is made.
 * - FAULT_FINALIZE=1: MPI_Finalize never returns, whether FAULT_WHEN is set or not. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <unistd.h>

static bool is_meant(void) {
    const char *meant = getenv("FAULT_RANK"), *rank = getenv("OMPI_COMM_WORLD_RANK");
    if (rank == NULL) rank = getenv("PMI_RANK");
    return meant == NULL || strcmp(meant, rank == NULL ? "0" : rank) == 0;
}

static bool is_hit(int file, const char *name) {
    const char *when = getenv("FAULT_WHEN");
    if (name == NULL || when == NULL || !is_meant() || access(when, F_OK) != 0) return false;
    char link[64], path[4096];
    snprintf(link, sizeof link, "/proc/self/fd/%d", file);
    const ssize_t length = readlink(link, path, sizeof path - 1);
    path[length < 0 ? 0 : length] = '\0';
    return strstr(path, name) != NULL;
}

/* What befalls a call on this file; true where it fails. */
static bool fails(int file, const char *name) {
    if (!is_hit(file, name)) return false;
    const char *delay = getenv("FAULT_DELAY");
    while (getenv("FAULT_HANG") != NULL) pause();
    errno = EIO;
    if (delay == NULL) return true;
    close(creat("delayed", 0666));
    usleep((useconds_t)(1000 * atoi(delay)));
    return false;
}

ssize_t pwrite(int file, const void *buffer, size_t count, off_t offset) {
    ssize_t (*real)(int, const void *, size_t, off_t);
    if (fails(file, getenv("FAULT_WRITE"))) return -1;
    *(void **)&real = dlsym(RTLD_NEXT, "pwrite");
    return real(file, buffer, count, offset);
}

ssize_t pread(int file, void *buffer, size_t count, off_t offset) {
    ssize_t (*real)(int, void *, size_t, off_t);
    if (fails(file, getenv("FAULT_READ"))) return -1;
    *(void **)&real = dlsym(RTLD_NEXT, "pread");
    return real(file, buffer, count, offset);
}

int flock(int file, int operation) {
    int (*real)(int, int);
    *(void **)&real = dlsym(RTLD_NEXT, "flock");
    if (!is_hit(file, getenv("FAULT_LOCK"))) return real(file, operation);
    errno = ENOSYS;
    return -1;
}

int MPI_Finalize(void) {
    int (*real)(void);
    while (getenv("FAULT_FINALIZE") != NULL && is_meant()) pause();
    *(void **)&real = dlsym(RTLD_NEXT, "MPI_Finalize");
    return real();
}
