#!/usr/bin/env bash
# Every allocation made to fail, HDF5's in the child that lays checkpoints out too: thousands of cases.
# shellcheck source=../cli/lib.sh
source "$(dirname "$0")/../cli/lib.sh"

test_allocations() {
  FAULT_STRIDE=1 expect 0 "${TEST_BUILD:-$tests_root/../build}/tests/unit/test_save_faults"
}

run_tests
