#!/usr/bin/env bash
# What the log says of a run by itself: loss spikes, the slowest rank.
# shellcheck source=lib.sh
source "$(dirname "$0")/lib.sh"

# 300 steps of a text that repeats itself, in order, then one of bytes that never came before.
write_leaping_config() {
  write_tiny_config
  perl -e 'print "abcd" x 14400; print map { chr(128 + $_ * $_ % 127) } 1 .. 192; print "abcd" x 480' >text.txt
  sed -i 's/^data: .*/data: {train: text.txt, tokenizer: bytes, seq_len: 24, shuffle: false}/
    s/^log: .*/log: {every: 50}/' tiny.yaml
}

test_a_loss_spike_is_noted_once_on_any_ranks() {
  write_leaping_config
  for count in 1 2; do
    expect 0 train $count train.steps=310 checkpoint.dir=out$count
    [ "$(grep -c 'loss spike' stderr)" -eq 1 ] || { show_stderr; fail "expected one note of a spike"; }
    expect_line stderr '^lazytrain: warning: step 301: loss spike: [0-9.]+, [0-9.]+ standard deviations above the mean [0-9.]+'
  done
}

test_a_run_without_a_spike_notes_none() {
  write_leaping_config
  expect 0 train 1 train.steps=300
  ! grep -q 'spike' stderr || { show_stderr; fail "a spike where there is none"; }
}

test_the_slowest_rank_is_said_at_the_end() {
  write_tiny_config
  expect 0 train 2
  expect_line stderr '^slowest +rank [01] on [^ ]+: [0-9.]+ ms a step, [0-9.]+ ms \([0-9.]+%\) over the median rank$'
  expect_line out/metrics.jsonl '"slowest_rank":[01],"slowest_excess_ms":[0-9.e-]+'
  expect 0 train 1 checkpoint.dir=alone
  ! grep -q '^slowest' stderr || { show_stderr; fail "one rank has no slowest rank"; }
}

run_tests
