/* Makes one system call or allocation fail: the Nth of its kind, or all from the Nth on.
 *
 * Preloaded (build/tests/fault/shim.so) it takes its orders from the environment of the real program:
 *
 *   FAULT="KIND N ERROR [lasting]"  e.g. "pwrite 3 ENOSPC", "fsync 1 EIO lasting"; N = 0 only counts. ERROR
 *                                   `short` makes write and pwrite take half of what they are given
 *   FAULT_BELOW=FOLDER              absolute: only calls on files below it, and on memfd files, count
 *   FAULT_AFTER=FILE                only calls once this file exists count
 *   FAULT_RANK=R                    the rank (of Open MPI or MPICH) it is for; 0 unless set
 *   FAULT_LOG=FILE                  gets a line `KIND N NAME-OF-FILE` for every call that counted and was of
 *                                   KIND, with ` failed` behind those that failed
 *
 * Linked into a test it is armed by fault_arm(), and counts allocations too: those of the thread that armed
 * it, MPI's own left out.
 */
#ifndef LT_TESTS_FAULT_SHIM_H
#define LT_TESTS_FAULT_SHIM_H

#include <stdbool.h>

typedef enum fault_kind {
    FAULT_NONE,
    FAULT_WRITE,
    FAULT_PWRITE,
    FAULT_PREAD,
    FAULT_OPEN, /* folders, and files for writing */
    FAULT_MEMFD,
    FAULT_TRUNCATE,
    FAULT_SEEK,
    FAULT_FSYNC,
    FAULT_CLOSE,
    FAULT_RENAME,
    FAULT_UNLINK,
    FAULT_FORK,
    FAULT_ALLOCATION,
    FAULT_KINDS
} fault_kind;

enum { FAULT_SHORT = -1 }; /* an `error` */

/* Whether allocations can be made to fail: not under a sanitizer, which brings its own. */
extern const bool fault_allocations;

extern const char *const fault_kind_names[FAULT_KINDS];

/* `below`: as FAULT_BELOW; it must stay. `number` 0 only counts. */
void fault_arm(fault_kind kind, long number, int error, bool lasting, const char *below);

/* The number of calls that counted since fault_arm(). */
long fault_disarm(void);

#endif
