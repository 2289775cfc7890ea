/* A forked child in which HDF5 works. HDF5 1.10 crashes or hangs on some damaged files and on memory that is
 * refused; there it harms nobody.
 */
#ifndef LT_CHECKPOINTS_CHILD_H
#define LT_CHECKPOINTS_CHILD_H

#include <stdbool.h>
#include <sys/types.h>

/* fork() for such a child: it ends with its parent, is silent, takes no notice of signals that launchers
 * send, and has `processor_seconds` and 1 GiB of memory more than the process has now. It ends by _exit().
 * Returns what fork() returns. */
pid_t lt_child_fork(unsigned processor_seconds);

/* Waits for its end; `*ended` as by waitpid(). */
void lt_child_wait(pid_t child, int *ended);

/* Why a child that gave no answer ended, in words: "Segmentation fault", "out of memory". */
const char *lt_child_reason(int ended);

#endif
