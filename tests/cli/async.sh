#!/usr/bin/env bash
# checkpoint.async: a checkpoint is written while steps go on, with the bits of one that they wait for.
# shellcheck source=lib.sh
source "$(dirname "$0")/lib.sh"
# shellcheck source=lib/processes.sh
source "$(dirname "$0")/lib/processes.sh"
# shellcheck source=lib/faults.sh
source "$(dirname "$0")/lib/faults.sh"

write_async_config() {
  write_tiny_config
  sed -i 's/^checkpoint: .*/checkpoint: {dir: out, every: 3, keep: 0, async: true}/' tiny.yaml
}

same_bits() { # folder
  local step
  for step in 3 6 9 12; do same_tensors "$(step_file whole $step)" "$(step_file "$1" $step)"; done
  same_metrics whole "$1"
}
same_checkpoints() { # folder
  expect_checkpoints "$1" 3 6 9 12
  same_bits "$1"
}

test_the_bits_of_saves_that_steps_wait_for() {
  write_async_config
  expect 0 train 1 checkpoint.async=false checkpoint.dir=whole
  local count
  for count in 1 2 4; do
    expect 0 train $count checkpoint.dir=out$count
    expect_line stderr "memory .*checkpoint's copy [0-9.]+" '^saved .*step_00000003.h5 in [0-9.]+ s, steps waited [0-9.]+ s for it'
    same_checkpoints out$count
  done
}

# line_of PATTERN: the number of the first line of stderr that matches.
line_of() { grep -nE -m 1 -- "$1" stderr | cut -d: -f1; }

# A slow disk: steps go on until the next save is due; old checkpoints stay until the newer one is durable.
slow_disk() { # ranks
  load_faults FAULT_WRITE=.partial FAULT_DELAY=10 FAULT_WHEN=tiny.yaml FAULT_RANK=$(($1 - 1))
  expect 0 train "$1"
  unset LD_PRELOAD
  [ "$(line_of '^step 6/12')" -lt "$(line_of '^saved .*step_00000003.h5')" ] || { show_stderr; fail "steps waited for the save"; }
  same_checkpoints out
}
test_steps_go_on_on_a_slow_disk() {
  write_async_config
  expect 0 train 1 checkpoint.async=false checkpoint.dir=whole
  try_apart slow_disk 1
  try_apart slow_disk 2
  all_held
}

# stopped_meanwhile RANKS: a signal while a save is under way: both that one and the last state are saved.
stopped_meanwhile() {
  local last
  load_faults FAULT_WRITE=step_00000003.h5.partial FAULT_DELAY=10 FAULT_WHEN=tiny.yaml
  start_train "$1" data.seq_len=60
  await "a save" test -e delayed
  kill -USR1 "$started"
  ends 75
  unset LD_PRELOAD
  last=$(last_step out)
  expect_line stderr "saving step $last and leaving" '^saved out/step_00000003.h5' "^saved out/step_0*$last.h5"
  expect 0 train 1 data.seq_len=60
  same_bits out
}
test_a_signal_while_a_save_is_under_way() {
  write_async_config
  expect 0 train 1 checkpoint.async=false checkpoint.dir=whole data.seq_len=60
  expect_checkpoints whole 3 6 9 12
  try_apart stopped_meanwhile 1
  try_apart stopped_meanwhile 2
  all_held
}

# One fault of a save in the background: said, tried again from the same copy while steps go on.
fails_once() { # ranks, rank, fault
  after=out/step_00000003.h5 expect 0 under_fault "$@"
  expect_hit
  expect_line stderr '^lazytrain: warning: .*Input/output error.*; the step goes on, the save is tried once more'
  same_checkpoints out
}
test_a_save_that_fails_once() {
  write_async_config
  write_faulty
  expect 0 train 1 checkpoint.async=false checkpoint.dir=whole
  local kind
  for kind in pwrite fsync rename; do
    try_apart fails_once 1 0 "$kind 1 EIO"
    try_apart fails_once 2 0 "$kind 1 EIO"
  done
  try_apart fails_once 2 1 "pwrite 1 EIO"
  all_held
}

# A disk that fails for good: said, tried again, then the run ends with 74 and the checkpoint before is the one to go on from.
failing_disk() { # ranks
  load_faults FAULT_WRITE=step_00000006.h5.partial FAULT_WHEN=tiny.yaml FAULT_RANK=$(($1 - 1))
  expect 74 train "$1"
  unset LD_PRELOAD
  expect_error 'cannot write to out/step_00000006.h5.partial: Input/output error'
  expect_line stderr '^lazytrain: warning: cannot write to out/step_00000006.h5.partial: .*; the step goes on, the save is tried once more'
  expect_checkpoints out 3
  expect 0 train 1
  same_checkpoints out
}
test_a_save_that_fails_twice_ends_the_run() {
  write_async_config
  expect 0 train 1 checkpoint.async=false checkpoint.dir=whole
  try_apart failing_disk 1
  try_apart failing_disk 2
  all_held
}

run_tests
