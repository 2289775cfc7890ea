/* The emulated GPU with compute capability 9.0, and buffers that suit its own kernels: 16 bytes can be moved
 * at a time. */
#define HOPPER
#include "tests/emulation/devices.cpp"
