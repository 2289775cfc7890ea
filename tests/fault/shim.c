#define _GNU_SOURCE
#include "shim.h"

#include "preload.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

const char *const fault_kind_names[FAULT_KINDS] = {"none",   "write",    "pwrite", "pread",     "open",
                                                   "memfd",  "truncate", "seek",   "fsync",     "close",
                                                   "rename", "unlink",   "fork",   "allocation"};

static struct {
    fault_kind kind;
    long number, count;
    int error;
    bool lasting;
    const char *below, *after;
    int log; /* 0: none */
    pthread_t thread;
} fault;

void fault_arm(fault_kind kind, long number, int error, bool lasting, const char *below) {
    fault.number = number;
    fault.count = 0;
    fault.error = error;
    fault.lasting = lasting;
    fault.below = below;
    fault.thread = pthread_self();
    fault.kind = kind;
}

long fault_disarm(void) {
    fault.kind = FAULT_NONE;
    return fault.count;
}

/* ---- orders of a preloaded shim ---- */

static int error_of(const char *name) {
    static const struct {
        const char *name;
        int error;
    } errors[] = {{"ENOSPC", ENOSPC}, {"EIO", EIO},       {"EINTR", EINTR},      {"EDQUOT", EDQUOT},
                  {"ENOMEM", ENOMEM}, {"EMFILE", EMFILE}, {"short", FAULT_SHORT}};
    for (size_t i = 0; i < sizeof errors / sizeof *errors; i++)
        if (strcmp(name, errors[i].name) == 0) return errors[i].error;
    abort();
}

static fault_kind kind_of(const char *name) {
    for (int kind = 1; kind < FAULT_KINDS; kind++)
        if (strcmp(name, fault_kind_names[kind]) == 0) return (fault_kind)kind;
    abort();
}

__attribute__((constructor)) static void take_orders(void) {
    const char *order = getenv("FAULT"), *for_rank = getenv("FAULT_RANK");
    char kind[32], error[32], lasting[32] = "";
    long number;
    if (order == NULL) return;
    if (strcmp(preload_rank(), for_rank == NULL ? "0" : for_rank) != 0) return;
    if (sscanf(order, "%31s %ld %31s %31s", kind, &number, error, lasting) < 3) abort();
    fault.after = getenv("FAULT_AFTER");
    if (fault.after != NULL && fault.after[0] == '\0') fault.after = NULL;
    const char *log = getenv("FAULT_LOG");
    if (log != NULL)
        fault.log = (int)syscall(SYS_openat, AT_FDCWD, log, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0666);
    fault_arm(kind_of(kind), number, error_of(error), strcmp(lasting, "lasting") == 0, getenv("FAULT_BELOW"));
}

/* ---- which calls count ---- */

static bool is_below(const char *path) {
    static const char MEMORY[] = "/memfd:";
    return strncmp(path, MEMORY, sizeof MEMORY - 1) == 0 ||
           (fault.below != NULL && strncmp(path, fault.below, strlen(fault.below)) == 0);
}

/* Whether this call, the next of its kind, is to fail. */
static bool fails(fault_kind kind, const char *path) {
    if (fault.kind != kind || !is_below(path)) return false;
    struct stat about;
    if (fault.after != NULL && stat(fault.after, &about) != 0) return false;
    fault.after = NULL; /* later it may be renamed or gone */
    const long count = ++fault.count;
    const bool now = fault.number > 0 && (count == fault.number || (fault.lasting && count > fault.number));
    if (fault.log > 0) {
        char line[4200];
        const int length = snprintf(line, sizeof line, "%s %ld %s%s\n", fault_kind_names[kind], count,
                                    strrchr(path, '/') + 1, now ? " failed" : "");
        syscall(SYS_write, fault.log, line, (size_t)length);
    }
    if (now && fault.error != FAULT_SHORT) errno = fault.error;
    return now;
}

static bool fails_on(fault_kind kind, int descriptor) {
    char path[PRELOAD_PATH_BYTES];
    if (fault.kind != kind) return false;
    preload_path_of(descriptor, path);
    return fails(kind, path);
}

static bool fails_at(fault_kind kind, const char *name) {
    char path[PRELOAD_PATH_BYTES];
    if (fault.kind != kind) return false;
    preload_absolute(name, path);
    return fails(kind, path);
}

/* ---- the calls ---- */

ssize_t write(int file, const void *data, size_t size) {
    REAL(write);
    if (!fails_on(FAULT_WRITE, file)) return real(file, data, size);
    return fault.error == FAULT_SHORT ? real(file, data, (size + 1) / 2) : -1;
}

ssize_t pwrite(int file, const void *data, size_t size, off_t offset) {
    REAL(pwrite);
    if (!fails_on(FAULT_PWRITE, file)) return real(file, data, size, offset);
    return fault.error == FAULT_SHORT ? real(file, data, (size + 1) / 2, offset) : -1;
}

ssize_t pread(int file, void *data, size_t size, off_t offset) {
    REAL(pread);
    if (!fails_on(FAULT_PREAD, file)) return real(file, data, size, offset);
    return fault.error == FAULT_SHORT ? real(file, data, (size + 1) / 2, offset) : -1;
}

int open(const char *path, int flags, ...) {
    REAL(open);
    va_list more;
    va_start(more, flags);
    const mode_t mode = (flags & O_CREAT) != 0 ? va_arg(more, mode_t) : 0;
    va_end(more);
    const bool counts = (flags & O_ACCMODE) != O_RDONLY || (flags & O_DIRECTORY) != 0;
    return counts && fails_at(FAULT_OPEN, path) ? -1 : real(path, flags, mode);
}

int memfd_create(const char *name, unsigned flags) {
    REAL(memfd_create);
    return fails(FAULT_MEMFD, "/memfd:new") ? -1 : real(name, flags);
}

int ftruncate(int file, off_t length) {
    REAL(ftruncate);
    return fails_on(FAULT_TRUNCATE, file) ? -1 : real(file, length);
}

off_t lseek(int file, off_t offset, int whence) {
    REAL(lseek);
    return fails_on(FAULT_SEEK, file) ? -1 : real(file, offset, whence);
}

int fsync(int file) {
    REAL(fsync);
    return fails_on(FAULT_FSYNC, file) ? -1 : real(file);
}

/* The descriptor is gone after a close that fails. */
int close(int file) {
    REAL(close);
    const bool failed = fails_on(FAULT_CLOSE, file);
    const int error = errno, result = real(file);
    if (failed) errno = error;
    return failed ? -1 : result;
}

int rename(const char *from, const char *to) {
    REAL(rename);
    return fails_at(FAULT_RENAME, from) ? -1 : real(from, to);
}

int unlink(const char *path) {
    REAL(unlink);
    return fails_at(FAULT_UNLINK, path) ? -1 : real(path);
}

pid_t fork(void) {
    REAL(fork);
    return fails(FAULT_FORK, "/memfd:fork") ? -1 : real();
}

/* ---- allocations ---- */

#if defined(__SANITIZE_ADDRESS__) || defined(FAULT_PRELOADED) || !defined(__GLIBC__)
const bool fault_allocations = false;
#else
const bool fault_allocations = true;

void *__libc_malloc(size_t size);
void *__libc_calloc(size_t count, size_t size);
void *__libc_realloc(void *memory, size_t size);
void *__libc_memalign(size_t alignment, size_t size);

/* Whether code at `address` belongs to the MPI library, which does not outlive a failed allocation. */
static bool is_of_mpi(const void *address) {
    static const char *const names[] = {"/libmpi", "/libopen-", "/mca_", "/libpmix", "/libucp", "/libfabric"};
    Dl_info about;
    if (dladdr(address, &about) == 0 || about.dli_fname == NULL) return false;
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        if (strstr(about.dli_fname, names[i]) != NULL) return true;
    return false;
}

static bool allocation_fails(const void *caller) {
    if (fault.kind != FAULT_ALLOCATION || !pthread_equal(fault.thread, pthread_self())) return false;
    fault.kind = FAULT_NONE; /* what follows may allocate */
    const bool counts = !is_of_mpi(caller);
    fault.kind = FAULT_ALLOCATION;
    return counts && fails(FAULT_ALLOCATION, "/memfd:memory");
}

#define FAILS() allocation_fails(__builtin_return_address(0))

void *malloc(size_t size) {
    return FAILS() ? NULL : __libc_malloc(size);
}

void *calloc(size_t count, size_t size) {
    return FAILS() ? NULL : __libc_calloc(count, size);
}

void *realloc(void *memory, size_t size) {
    return FAILS() ? NULL : __libc_realloc(memory, size);
}

void *memalign(size_t alignment, size_t size);
void *memalign(size_t alignment, size_t size) {
    return FAILS() ? NULL : __libc_memalign(alignment, size);
}

void *aligned_alloc(size_t alignment, size_t size) {
    return FAILS() ? NULL : __libc_memalign(alignment, size);
}

int posix_memalign(void **memory, size_t alignment, size_t size) {
    if (FAILS()) return ENOMEM;
    *memory = __libc_memalign(alignment, size);
    return *memory == NULL ? ENOMEM : 0;
}

#endif
