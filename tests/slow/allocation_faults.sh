#!/usr/bin/env bash
# Every allocation made to fail, HDF5's in the child that lays checkpoints out too: thousands of cases. SHARE=16: one of 16.
# shellcheck source=../cli/lib.sh
source "$(dirname "$0")/../cli/lib.sh"

test_allocations() {
  local first program=${TEST_BUILD:-$tests_root/../build}/tests/unit/test_save_faults
  for first in 1 2 3 4; do
    [ "${SHARE:-1}" -le 4 ] || [ "$first" -eq 3 ] || continue
    FAULT_FIRST=$first FAULT_STRIDE=$((${SHARE:-1} > 4 ? SHARE : 4)) try_apart expect 0 "$program"
  done
  all_held
}

run_tests
