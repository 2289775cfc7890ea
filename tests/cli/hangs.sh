#!/usr/bin/env bash
# A rank that stands still, dies or cannot write ends the whole run with a message, and no process stays behind.
# shellcheck source=lib.sh
source "$(dirname "$0")/lib.sh"
# shellcheck source=lib/processes.sh
source "$(dirname "$0")/lib/processes.sh"
: "${TEST_BUILD:=$tests_root/../build}"

endless=(train.steps=1000000000 schedule.kind=constant checkpoint.every=3 checkpoint.keep=2)

# stopped_rank RANK OTHER: rank OTHER says what it waited for and ends the run.
stopped_rank() {
  local processes
  rm -rf out
  start_train 2 "${endless[@]}" train.stall_timeout_s=4
  await_step out 2
  processes="$(rank_pid 0) $(rank_pid 1)"
  kill -STOP "$(rank_pid "$1")"
  ends 74
  expect_error "rank $2 on host .* has not moved for [0-9]+ s in phase \"[a-z -]+\" of step [0-9]+ \(train.stall_timeout_s is 4\)"
  # shellcheck disable=SC2086 # words
  await_gone $processes
}

test_a_stopped_rank_is_noticed() {
  write_tiny_config
  try stopped_rank 1 0
  try stopped_rank 0 1
  all_held
}

# killed_rank RANK: the launcher ends the others; what was saved goes on to the bits of the undisturbed run.
killed_rank() {
  local processes last
  rm -rf out whole
  start_train 2 "${endless[@]}"
  await_step out 7
  processes="$(rank_pid 0) $(rank_pid 1)"
  kill -KILL "$(rank_pid "$1")"
  RUN_TIMEOUT=30 ends 137
  # shellcheck disable=SC2086 # words
  await_gone $processes
  last=$(($(last_checkpoint) + 4))
  expect 0 train 2 "${endless[@]}" train.steps=$last
  expect_line stderr 'warning: took over out/lock'
  expect 0 train 1 "${endless[@]}" train.steps=$last checkpoint.dir=whole
  same_tensors "$(step_file whole $last)" "$(step_file out $last)"
  same_metrics whole out
}
last_checkpoint() { printf '%d\n' "$(cd out && for file in step_*.h5; do echo "$file"; done | sed -nE '$s/step_0*([0-9]+)\.h5/\1/p')"; }

test_a_killed_rank_ends_the_run() {
  write_tiny_config
  try killed_rank 0
  try killed_rank 1
  all_held
}

# The launcher ends those who wait for the sums of one that is gone.
test_a_rank_that_dies_in_a_reduction() {
  RUN_TIMEOUT=40 LAZYTRAIN=$TEST_BUILD/tests/tools/collectives expect 137 ranks 4 dies
}

test_a_killed_launcher_leaves_no_rank_behind() {
  write_tiny_config
  start_train 2 "${endless[@]}"
  await_step out 2
  local processes
  processes="$(rank_pid 0) $(rank_pid 1)"
  kill -KILL "$started"
  ends 137
  # shellcheck disable=SC2086 # words
  await_gone $processes
}

# Progress lines go into a pipe that nobody empties: a write that never returns is a hang like any other.
test_a_blocked_stderr_does_not_hang_the_run() {
  write_tiny_config
  mkfifo pipe
  exec 9<>pipe
  start_blocked "$LAZYTRAIN" train tiny.yaml --set train.steps=1000000000 --set train.stall_timeout_s=3 --set checkpoint.keep=1
  ends 74
  exec 9>&-
}
start_blocked() {
  "$@" >stdout 2>pipe &
  started=$!
  trap end_started EXIT
  : >stderr
}

# A closed pipe, as of `2>&1 | head`: no reason to die.
test_a_reader_that_went_away_does_not_end_the_run() {
  write_tiny_config
  "$LAZYTRAIN" train tiny.yaml 2>&1 | head -n 1 >first
  [ "${PIPESTATUS[0]}" -eq 0 ] || fail "exit status ${PIPESTATUS[0]}"
  expect_checkpoints out 12
}

run_tests
