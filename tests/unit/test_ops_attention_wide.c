/* The cases of test_ops_attention.c again with heads of 64, for which a device may have other kernels. */
#define HEAD_SIZE 64
#include "tests/unit/test_ops_attention.c"
