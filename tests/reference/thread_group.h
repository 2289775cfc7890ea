/* Tensor-parallel ranks as threads of one process: an lt_tensor_group over shared memory, for the tests. */
#ifndef LT_TESTS_THREAD_GROUP_H
#define LT_TESTS_THREAD_GROUP_H

#include "model/tensor_group.h"

enum { TEST_MOST_RANKS = 8 };

/* What a rank does, with its group and its own place in `context`. It runs in a thread, where assertions and
 * test_alloc() do not work: it notes what there is to see, and fails with a status. */
typedef lt_status (*test_rank)(const lt_tensor_group *group, void *context);

/* Runs `body` on `ranks` threads, and waits. An error of one rank ends the exchanges of all others with
 * LT_IO. Fails the test where a rank fails. On a CPU device, whose memory is the host's, and for float32 and
 * float64.
 */
void test_run_ranks(int ranks, test_rank body, void *context);

/* The same, but gives the gravest status of all ranks, after an exchange number `failing` (from 0; below 0:
 * none) that fails on all ranks. */
lt_status test_run_failing_ranks(int ranks, test_rank body, void *context, int64_t failing);

#endif
