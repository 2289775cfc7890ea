/* Inside comm/ only: a process that is to end does end, whatever its last words wait for. */
#ifndef LT_COMM_DEADLINE_H
#define LT_COMM_DEADLINE_H

#include "comm/status.h"

/* Leaves by _exit(status) unless the process has ended within `seconds`; a later call replaces an earlier
 * one. Takes SIGALRM for it, in the calling thread whatever that blocks. Local. */
void lt_deadline(unsigned seconds, lt_status status);

#endif
