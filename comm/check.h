/* Inside comm/ only: the debug mode in which ranks compare what they are about to call.
 *
 * With LAZYTRAIN_CHECK_COLLECTIVES=1 in rank 0's environment every rank sends rank 0 a line that says which
 * collective it calls, of what size, and goes on when all lines are the same. Where they differ, rank 0 says
 * which ranks call what, in one error, and the job ends with 1, on all ranks. A number N above 1 also makes
 * it an error that a rank comes N seconds later than another one; else that is the watchdog's to notice.
 * Messages travel on communicators of their own. Ranks of several tensor groups call the same ones too, so
 * that all ranks of the grid are compared; what the ranks of one tensor group call by themselves is compared
 * among these, since a group whose data failed stops calling.
 */
#ifndef LT_COMM_CHECK_H
#define LT_COMM_CHECK_H

#include "comm/grid_mpi.h"

/* Turns the mode on where rank 0's environment asks for it. Collective. */
lt_status lt_check_open(const lt_grid *grid);

/* The same for this rank's tensor group, once it is there. Collective. */
lt_status lt_check_split(const lt_grid *grid);

/* Releases one of them, and sets it to NULL. Collective on its ranks. */
void lt_check_close(lt_check **check);

/* Compares the line, written as by printf(). Does not return where ranks differ; LT_IO if MPI fails.
 * Collective; through LT_CALLS() and LT_TENSOR_CALLS() alone. */
__attribute__((format(printf, 2, 3))) lt_status lt_check_call(lt_check *check, const char *format, ...);

/* First in every collective: LT_CALLS(grid, "broadcast of %zu bytes", bytes). Costs a test where the mode is
 * off. */
#define LT_CALLS(grid, ...) \
    do { \
        if ((grid)->mpi->check != NULL) LT_CHECK(lt_check_call((grid)->mpi->check, __VA_ARGS__)); \
    } while (0)

/* The same in those of a tensor group alone. */
#define LT_TENSOR_CALLS(grid, ...) \
    do { \
        if ((grid)->mpi->tensor_check != NULL) \
            LT_CHECK(lt_check_call((grid)->mpi->tensor_check, __VA_ARGS__)); \
    } while (0)

#endif
