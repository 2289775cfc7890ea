#!/usr/bin/env bash
# What ptxas says of each kernel, from the logs that building model/cuda leaves: tests/gpu/report.sh LOG...
# A line for each kernel and chip: registers a thread; bytes of static shared memory a block (what a launch asks for is not
# in it), of stack a thread, and of registers that were spilled to memory, stored and loaded. Exit 1: a kernel spills.
set -u -o pipefail
[ $# -gt 0 ] || { echo "gpu-report: no logs of ptxas were named" >&2; exit 2; }
demangle="cat"
if command -v c++filt >/dev/null; then demangle=c++filt; fi
awk '
  /Compiling entry function/ { split($0, part, "\047"); kernel = part[2]; chip = part[4]; stack = spills = 0 }
  /bytes stack frame/ { stack += $1; spills += $5 + $9 }
  /: Used [0-9]+ registers/ {
    registers = shared = 0
    for (i = 2; i <= NF; i++) {
      if ($i ~ /^registers/) registers = $(i - 1)
      if ($i ~ /^smem/) shared = $(i - 2)
    }
    file = FILENAME
    sub(/.*\//, "", file)
    sub(/\.cuda\.ptxas$/, "", file)
    printf "%-8s %9d %9d %7d %7d  %-26s %s\n", chip, registers, shared, stack, spills, file, kernel
  }' "$@" | sort -k6,6 -k7,7 -k1,1 | $demangle | awk '
  BEGIN { printf "%-8s %9s %9s %7s %7s  %-26s %s\n", "chip", "registers", "shared", "stack", "spills", "file", "kernel" }
  { print; kernels++ }
  $5 > 0 { spilling++ }
  END {
    print kernels + 0 " kernels, " spilling + 0 " with spills"
    exit kernels == 0 || spilling > 0
  }'
