/* The driver and the clocks that rates were measured with. */
#include "tests/gpu/bench.h"

#include <stdio.h>

void bench_ask_chip(bench *b) {
    char command[256], line[128] = "";
    snprintf(command, sizeof command,
             "nvidia-smi --id=%s --query-gpu=clocks.sm,clocks.max.sm,clocks.mem,driver_version "
             "--format=csv,noheader,nounits 2>/dev/null",
             b->chip.bus);
    FILE *from = popen(command, "r");
    if (from == NULL) return;
    if (fgets(line, sizeof line, from) != NULL)
        sscanf(line, "%d, %d, %d, %31[0-9.]", &b->sm_clock, &b->sm_clock_limit, &b->memory_clock, b->driver);
    pclose(from);
}
