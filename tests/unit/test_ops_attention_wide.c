/* The cases of test_ops_attention.c again with heads of 64, for which a device may have other kernels. */
#define HEAD_SIZE 64
#define LEFT_OUT(c) ((c)->head_size >= HEAD_SIZE)
#include "tests/unit/test_ops_attention.c"
