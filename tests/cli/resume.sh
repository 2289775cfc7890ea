#!/usr/bin/env bash
# A run that stops and goes on ends with the bits and the metrics of the run that nothing disturbed, wherever it
# stopped and on whatever ranks and threads it goes on.
# shellcheck source=lib.sh
source "$(dirname "$0")/lib.sh"

# 40 samples, so that steps of 8 end an epoch exactly after step 5; 12 steps in all, validation at every third.
write_config() {
  write_tiny_config
  write_text 960 >text.txt
  write_text 500 >held_out.txt
  sed -i 's/^data: .*/data: {train: text.txt, validation: held_out.txt, tokenizer: bytes, seq_len: 24}/
    s/^train: .*/train: {steps: 12, global_batch: 8, threads: 1, eval_every: 3}/
    s/^checkpoint: .*/checkpoint: {dir: out, every: 1, keep: 0}/' tiny.yaml
}

# The run that nothing disturbs, in the folder `whole`, with a checkpoint of every step.
write_whole() {
  write_config
  expect 0 train 1 checkpoint.dir=whole
  expect_steps whole 1 12
}

same_end() { # folder
  same_tensors whole/step_00000012.h5 "$1/step_00000012.h5"
  same_metrics whole "$1"
}

# after_step K FOLDER: what a run leaves that is cut off while it computes step K + 1, or any time after.
after_step() {
  mkdir "$2"
  cp whole/step_0000*.h5 "$2"
  cp whole/metrics.jsonl "$2"
  local step
  for step in $(seq $(($1 + 1)) 12); do rm "$(step_file "$2" "$step")"; done
}

goes_on_from() { # step, ranks, KEY=VALUE...
  local folder=from$1_on$2
  after_step "$1" "$folder"
  expect 0 train "$2" checkpoint.dir="$folder" "${@:3}"
  expect_line stderr "^resume +$(step_file "$folder" "$1"): step $1,"
  same_end "$folder"
}

# Mid-epoch, the exact end of an epoch, a step that straddles none and one that ends the second epoch.
test_every_boundary_on_other_ranks_and_threads() {
  write_whole
  try_apart goes_on_from 1 1
  try_apart goes_on_from 4 2
  try_apart goes_on_from 5 1 train.threads=3
  try_apart goes_on_from 6 8
  try_apart goes_on_from 10 2 train.threads=2
  try_apart goes_on_from 11 4
  all_held
}

# 41 samples: epochs end in the middle of a step.
test_an_epoch_that_ends_inside_a_step() {
  write_config
  write_text 984 >text.txt
  expect 0 train 2 checkpoint.dir=whole
  try_apart goes_on_from 5 1
  try_apart goes_on_from 6 2
  all_held
}

test_after_the_last_step_there_is_nothing_to_do() {
  write_whole
  local before
  before=$(contents whole)
  for count in 1 2; do
    expect 0 train $count checkpoint.dir=whole
    expect_line stderr 'nothing to do: whole/step_00000012.h5 is of step 12 and train.steps is 12'
  done
  [ "$before" = "$(contents whole)" ] || fail "a run with nothing to do changed its folder"
}

# Fewer steps than are done: nothing is done, nothing lost.
test_fewer_steps_than_are_done() {
  write_whole
  local before
  before=$(contents whole)
  expect 0 train 1 checkpoint.dir=whole train.steps=7
  [ "$before" = "$(contents whole)" ] || fail "train.steps below the step reached changed the folder"
}

test_step_0_is_saved_and_continued() {
  write_whole
  expect 0 train 2 train.steps=0 checkpoint.dir=zero
  expect_checkpoints zero 0
  [ ! -s zero/metrics.jsonl ] || fail "metrics without a step: $(cat zero/metrics.jsonl)"
  expect 0 train 1 train.steps=0 checkpoint.dir=zero
  expect 0 train 1 checkpoint.dir=zero
  same_end zero
}

# Three runs, each to a later step; the schedule is written down so that it is the whole run's.
test_a_run_in_pieces() {
  write_whole
  for steps in 4 5 12; do
    expect 0 train 2 train.steps=$steps schedule.decay_steps=12 train.eval_every=100 checkpoint.dir=pieces
  done
  same_tensors whole/step_00000012.h5 pieces/step_00000012.h5
  expect_steps pieces 1 12
}

# What was written after the checkpoint goes: whole lines, lines of validation, and one cut off in the middle.
test_metrics_past_the_checkpoint_are_dropped() {
  write_whole
  after_step 7 torn
  head -c -40 whole/metrics.jsonl >torn/metrics.jsonl
  expect 0 train 1 checkpoint.dir=torn
  same_end torn
  after_step 9 cut
  sed '/"step":9,.*val_loss/q' whole/metrics.jsonl | head -c -1 >cut/metrics.jsonl # only its newline is missing
  expect 0 train 1 checkpoint.dir=cut
  same_end cut
}

test_metrics_in_a_folder_of_their_own() {
  write_whole
  for steps in 5 12; do
    expect 0 train 1 train.steps=$steps schedule.decay_steps=12 checkpoint.dir=apart log.dir=logs
  done
  [ ! -e apart/metrics.jsonl ] || fail "metrics in checkpoint.dir"
  grep -v val_loss whole/metrics.jsonl >steps.jsonl
  mkdir a b
  cp steps.jsonl a/metrics.jsonl
  grep -v val_loss logs/metrics.jsonl >b/metrics.jsonl
  same_metrics a b
}

# An older checkpoint by name: the later ones make room, and what follows has the same bits again.
test_an_older_step_by_name() {
  write_whole
  cp -r whole named
  expect 0 train 2 checkpoint.dir=named --resume named/step_00000010.h5
  expect_line stderr '^resume +named/step_00000010.h5: step 10,'
  expect_checkpoints named {1..11} 11.superseded 12 12.superseded
  same_end named
  cmp -s whole/step_00000012.h5 named/step_00000012.h5.superseded || fail "the superseded file is another one"
}

# From another run's folder: that one stays as it is.
test_a_checkpoint_of_another_folder_by_name() {
  write_whole
  local before
  before=$(contents whole)
  expect 0 train 1 checkpoint.dir=elsewhere --resume whole/step_00000003.h5
  [ "$before" = "$(contents whole)" ] || fail "the folder of the checkpoint changed"
  same_tensors whole/step_00000012.h5 elsewhere/step_00000012.h5
  expect_checkpoints elsewhere {4..12}
  expect_steps elsewhere 4 12
}

# flipped in a tensor, cut short, emptied, no HDF5 at all: reported, renamed, and the one before is taken.
test_a_damaged_newest_checkpoint() {
  write_whole
  after_step 9 damaged
  flip_byte damaged/step_00000009.h5 $(($(stat -c %s damaged/step_00000009.h5) / 2))
  truncate -s -100 damaged/step_00000008.h5
  : >damaged/step_00000007.h5
  echo 'no HDF5' >damaged/step_00000006.h5
  expect 0 train 2 checkpoint.dir=damaged
  expect_line stderr {6..9}'\.h5.*renamed to \*\.damaged' '^resume +damaged/step_00000005.h5: step 5,'
  expect_checkpoints damaged {1..6} 6.damaged 7 7.damaged 8 8.damaged 9 9.damaged 10 11 12
  same_end damaged
}

test_no_good_checkpoint_left_starts_anew() {
  write_whole
  after_step 1 hopeless
  truncate -s 2000 hopeless/step_00000001.h5
  expect 0 train 1 checkpoint.dir=hopeless
  expect_line stderr 'step_00000001\.h5.*renamed to \*\.damaged'
  same_end hopeless
}

run_tests
