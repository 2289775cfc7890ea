#!/usr/bin/env bash
# Every allocation made to fail, HDF5's in the child that lays checkpoints out too: thousands of cases. SHARE=16: one of 16.
# shellcheck source=../cli/lib.sh
source "$(dirname "$0")/../cli/lib.sh"

test_allocations() {
  local first stride=4 firsts=(1 2 3 4) program=${TEST_BUILD:-$tests_root/../build}/tests/unit/test_save_faults
  if [ "${SHARE:-1}" -gt 1 ]; then stride=$SHARE firsts=(2); fi
  for first in "${firsts[@]}"; do FAULT_FIRST=$first FAULT_STRIDE=$stride try_apart expect 0 "$program"; done
  all_held
}

run_tests
