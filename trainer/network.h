/* What carries elements from rank to rank: GPUs' own network (NCCL), or MPI in host memory. */
#ifndef LT_TRAINER_NETWORK_H
#define LT_TRAINER_NETWORK_H

#include "trainer/run.h"

/* Opens run->network as `parallel.backend` says, once the device is open: `auto` takes NCCL where every rank
 * has a GPU and can load it. Fills run->network_text for the banner. LT_BAD_INPUT, with `nccl`: it cannot be
 * had. The same outcome on all ranks. Collective. */
lt_status lt_run_open_network(lt_run *run);
void lt_run_close_network(lt_run *run);

#endif
