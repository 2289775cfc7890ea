/* Cases of test_ops_attention.c with heads of 64 or more, for the emulated GPU of devices_sm90.cpp: all whose
 * heads are so large, one in three of the others. Rows that are not aligned to 16 bytes are for other
 * kernels. */
#define HEAD_SIZE 64
#define LEFT_OUT(c) ((c)->padding % 8 != 0 || ((c)->head_size < HEAD_SIZE && ((c)-CASES) % 3 != 1))
#include "tests/unit/test_ops_attention.c"
