#!/usr/bin/env bash
# Power cuts: runs are recorded, and for each hundreds of folders are built as a power cut at some moment may leave
# them: without what was not synced, or with any part of it (power_cut.c). Each folder must hold a whole checkpoint no
# older than the last one that the run called saved, and the metrics up to it; from some of them the run goes on, to the
# bits and metrics of an undisturbed one.
#
# RUNS: 25 states of each recorded run for every one of RUNS (6); SEED: what is drawn from it (random, and printed).
# shellcheck source=../cli/lib.sh
source "$(dirname "$0")/../cli/lib.sh"
: "${RUNS:=6}" "${SEED:=$RANDOM}" "${TEST_BUILD:=$tests_root/../build}"
steps=16

# What `recorded` starts, lazytrain unless RECORDED says so, is recorded where it works in the folder that it is
# started in. A launcher is not.
write_recorder() {
  cat >recorded <<SHELL
#!/bin/sh
export RECORD_FILE="\$PWD.record" RECORD_BELOW="\$PWD" LD_PRELOAD="$TEST_BUILD/tests/fault/record.so"
exec "\${RECORDED:-$LAZYTRAIN}" "\$@"
SHELL
  chmod +x recorded
}
recorded_train() { # the checkpoint of which the user is sure when it starts, the words of train()
  RECORD_NOTE=$1 LAZYTRAIN=$PWD/recorded expect 0 train "${@:2}" checkpoint.dir=runs/out
}

# A run that starts anew; one that goes on after one that died in a later step; one that goes back to an older step.
record() { # ranks, checkpoint.async
  recorded_train none "$1" checkpoint.async="$2" checkpoint.keep=1 train.steps=6
  RECORDED=perl ./recorded -e 'open F, ">>", "runs/out/metrics.jsonl" or die; print F "{\"step\":7,\"loss\":1}\n{\"ste"'
  recorded_train step_6 "$1" checkpoint.async="$2" checkpoint.keep=2 train.steps=12
  recorded_train step_10 "$1" checkpoint.async="$2" checkpoint.keep=1 train.steps=14 --resume runs/out/step_00000010.h5
  expect_checkpoints runs/out 12.superseded 14
}

goes_on() { # folder, ranks
  expect 0 train "$2" checkpoint.dir="$1/runs/out" checkpoint.keep=1
  same_tensors ../whole/step_00000016.h5 "$1/runs/out/step_00000016.h5"
  same_metrics ../whole "$1/runs/out"
  [ -z "$(find "$1/runs/out" ! -name '*.superseded' -type f ! -name metrics.jsonl ! -name step_00000016.h5)" ] ||
    fail "left behind: $(ls "$1/runs/out")"
}

cut() { # ranks, checkpoint.async
  local sample
  record "$@"
  mkdir states
  "$TEST_BUILD/tests/fault/power_cut" "$PWD.record" "$SEED" $((25 * RUNS)) states 3 || fail "see above"
  for sample in states/[1-3]; do goes_on "$sample" "$1"; done
}

test_a_power_cut_leaves_the_old_or_the_new_checkpoint() {
  local async
  write_tiny_config
  write_recorder
  sed -i "s/^train: .*/train: {steps: $steps, global_batch: 8, threads: 1}/; s/^checkpoint: .*/checkpoint: {every: 2}/
    s/^schedule: .*/schedule: {kind: constant}/" tiny.yaml
  expect 0 train 1 checkpoint.dir=../whole
  for async in false true; do
    try_apart cut 1 $async
    try_apart cut 2 $async
  done
  all_held
}

run_tests
