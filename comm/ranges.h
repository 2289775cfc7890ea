/* Sets of ranks and cores as text. No MPI is needed here. */
#ifndef LT_COMM_RANGES_H
#define LT_COMM_RANGES_H

#include <stddef.h>

/* Ascending numbers as "0-3,8"; "none" of none. Ends in "..." where `size` (at least 8) is too small. Local.
 */
void lt_ranges_text(const int *numbers, int count, char *text, size_t size);

#endif
