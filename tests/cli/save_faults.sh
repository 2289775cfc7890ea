#!/usr/bin/env bash
# The program with a preloaded shim (tests/fault/shim.h) that makes system calls of the second of two saves fail: one
# fault is survived, a lasting one ends the run with 74, and the run that follows ends as if nothing had been. Some calls
# of each kind here, every one in tests/slow/save_faults.sh; allocations in tests/unit/test_save_faults.c.
# shellcheck source=lib.sh
source "$(dirname "$0")/lib.sh"
# shellcheck source=lib/faults.sh
source "$(dirname "$0")/lib/faults.sh"

# FIRST, the middle one and LAST of the calls of a kind on a rank.
some_calls() {
  local count
  count=$(count_calls "$@")
  [ "$count" -gt 0 ] || fail "no $3 of rank $2 of $1 counts"
  printf '%d\n' 1 $((count / 2 + 1)) "$count" | sort -nu
}

test_each_kind_of_call() {
  write_undisturbed
  local kind number
  for kind in open pwrite truncate fsync close rename; do
    for number in $(some_calls 1 0 $kind); do fault_cases 1 0 $kind "$number"; done
  done
  all_held
}

test_a_rank_that_fails_alone() {
  write_undisturbed
  local kind number
  for kind in open pwrite fsync close; do
    for number in $(some_calls 2 1 $kind); do fault_cases 2 1 $kind "$number"; done
  done
  fault_cases 2 0 rename 1
  all_held
}

test_short_and_interrupted_writes_are_continued() {
  write_undisturbed
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
