/* Where the ranks compute: all on GPUs, one each, or all on CPUs. */
#ifndef LT_TRAINER_DEVICE_H
#define LT_TRAINER_DEVICE_H

#include "trainer/run.h"

/* Opens run->device as `train.device` says, and fills what is known of it: run->peak_gflops,
 * run->device_text. `auto` takes GPUs where every rank has one of its own. LT_BAD_INPUT,
 * with `cuda`: a rank has none. The same outcome on all ranks. Collective. */
lt_status lt_run_open_device(lt_run *run);

/* Opens a device for a command of one process, by the same words; a line says why `auto` takes the CPU.
 * Local. */
lt_status lt_open_device(const char *wanted, int threads, lt_device **device);

#endif
