#!/usr/bin/env bash
# The program with a preloaded shim (tests/fault/shim.h) that makes system calls of the second of two saves fail: one
# fault is survived, a lasting one ends the run with 74, and the run that follows ends as if nothing had been. Some calls
# of each kind here, every one in tests/slow/save_faults.sh; allocations in tests/unit/test_save_faults.c.
# shellcheck source=lib.sh
source "$(dirname "$0")/lib.sh"
# shellcheck source=lib/faults.sh
source "$(dirname "$0")/lib/faults.sh"

# some_calls RANKS RANK KIND...: the first, the middle and the last call of each kind.
some_calls() {
  local kind picked numbers
  for kind in "${@:3}"; do
    calls_of "$1" "$2" "$kind"
    mapfile -t picked < <(printf '%d\n' "${numbers[0]}" "${numbers[${#numbers[@]} / 2]}" "${numbers[-1]}" | sort -nu)
    fault_cases "$1" "$2" "$kind" "${picked[@]}"
  done
}

test_each_kind_of_call() {
  write_undisturbed
  some_calls 1 0 open pwrite truncate fsync close rename
  all_held
}

test_a_rank_that_fails_alone() {
  write_undisturbed
  some_calls 2 1 open pwrite fsync close
  some_calls 2 0 rename
  all_held
}

test_faults_that_do_no_harm() {
  write_undisturbed
  try_apart passes 1 0 "close 4 EIO lasting" # the folder, then the metrics: both are synced by then
  local ranks
  for ranks in 1 2; do
    try_apart passes $ranks $((ranks - 1)) "pwrite 1 short lasting"
    try_apart passes $ranks $((ranks - 1)) "pwrite 3 EINTR"
    try_apart passes $ranks 0 "write 1 short"
    try_apart passes $ranks 0 "write 1 EINTR"
  done
  all_held
}

# The line of metrics of a step: the run ends, since the file would lack a step.
test_a_line_of_metrics_that_cannot_be_written() {
  write_undisturbed
  local ranks
  for ranks in 1 2; do
    try_apart lasts $ranks 0 "write 1 ENOSPC"
    try_apart lasts $ranks 0 "write 1 EIO lasting"
  done
  all_held
}

# Found before the first step.
test_a_folder_that_fails_at_the_start() {
  write_undisturbed
  local ranks fault
  for ranks in 1 2; do
    for fault in "open 1 EIO" "write 1 ENOSPC" "write 16 EIO" "write 1 short" "fsync 1 EIO"; do
      try_apart refused_at_the_start $ranks "$fault"
    done
  done
  all_held
}

run_tests
