#!/usr/bin/env bash
# Every single byte of a checkpoint's structure, changed, is found; tests/unit tries one of 61.
# shellcheck source=../cli/lib.sh
source "$(dirname "$0")/../cli/lib.sh"
: "${TEST_BUILD:=$tests_root/../build}"

test_every_byte_of_the_structure() {
  LAZYTRAIN_FLIPS=all "$TEST_BUILD/tests/unit/test_checkpoint_damage" >flips.out 2>&1 || fail "$(grep -v ' OK ' flips.out)"
  grep -qE ' ([0-9]+) of \1 of structure' flips.out || fail "not every byte was tried: $(grep structure flips.out)"
}

run_tests
