#!/usr/bin/env bash
# Every collective moves more bytes than an int counts, between 2 ranks that hold 2 GiB each and little beside: MPI's own
# copies stay small because messages are cut.
# shellcheck source=../cli/lib.sh
source "$(dirname "$0")/../cli/lib.sh"
: "${TEST_BUILD:=$tests_root/../build}"

test_more_bytes_than_an_int_counts() {
  local available kib
  available=$(awk '/^MemAvailable/ { print $2 }' /proc/meminfo)
  [ "$available" -gt $((6 << 20)) ] || skip "needs 6 GiB of memory, $((available >> 20)) GiB are free"
  RUN_TIMEOUT=600 LAZYTRAIN=$TEST_BUILD/tests/tools/large_messages expect 0 ranks 2
  expect_line stdout '^rank 0 held ' '^rank 1 held '
  while read -r _ _ _ kib _; do
    [ "$kib" -le $((3 << 20)) ] || fail "a rank held $kib KiB, expected at most 3 GiB"
  done <stdout
}

run_tests
