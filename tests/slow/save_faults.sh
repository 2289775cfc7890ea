#!/usr/bin/env bash
# Every system call of a save made to fail, on one rank and on each of two, once and for good. The
# quick tests of the same name take some of each kind. SHARE=4: one of 4, and the last.
# shellcheck source=../cli/lib.sh
source "$(dirname "$0")/../cli/lib.sh"
# shellcheck source=../cli/lib/faults.sh
source "$(dirname "$0")/../cli/lib/faults.sh"

# every_call RANKS RANK KIND...
every_call() {
  local kind numbers i
  for kind in "${@:3}"; do
    calls_of "$1" "$2" "$kind"
    for ((i = 0; i < ${#numbers[@]}; i++)); do
      [ $(((i + 1) % ${SHARE:-1})) -eq 0 ] || [ $((i + 1)) -eq ${#numbers[@]} ] || continue
      fault_cases "$1" "$2" "$kind" "${numbers[$i]}"
    done
  done
}

test_on_one_rank() {
  write_undisturbed
  every_call 1 0 open pwrite truncate fsync close rename
  all_held
}

test_on_each_of_two_ranks() {
  write_undisturbed
  every_call 2 0 open pwrite truncate fsync close rename
  every_call 2 1 open pwrite fsync close
  all_held
}

run_tests
