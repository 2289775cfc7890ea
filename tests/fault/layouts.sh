#!/usr/bin/env bash
# A killed rank and a broken link in three layouts: data ranks alone with a sharded optimiser, tensor ranks alone, both.
# All ranks end within the promised time, with one error line and the contract's exit codes; the run goes on to the bits of
# one that nothing disturbed.
# shellcheck source=../cli/lib.sh
source "$(dirname "$0")/../cli/lib.sh"
# shellcheck source=../cli/lib/processes.sh
source "$(dirname "$0")/../cli/lib/processes.sh"
# shellcheck source=lib/hosts.sh
source "$(dirname "$0")/lib/hosts.sh"
# shellcheck source=lib/living.sh
source "$(dirname "$0")/lib/living.sh"

# Ranks, then their layout.
layouts=('2 parallel.zero=1' '2 parallel.tensor=2' '4 parallel.tensor=2')
stall=5 hosts=()
endless=(train.steps=1000000000 schedule.kind=constant checkpoint.every=3 checkpoint.keep=2 "train.stall_timeout_s=$stall")

leave() {
  end_living
  end_hosts
}

await_no_rank() { # seconds
  local end=$((SECONDS + $1))
  until is_no_rank_living; do
    [ $SECONDS -lt $end ] || fail "ranks live $1 s after the fault: $(living)"
    sleep 0.05
  done
}

# Another start of the same command, and the same number of steps at one go on one data rank.
goes_on() { # ranks, layout
  local last width=1
  last=$(($(last_step out) / 3 * 3 + 4))
  [ "$2" != parallel.tensor=2 ] || width=2
  expect 0 train "$1" "${endless[@]}" "$2" train.steps=$last
  expect_line stderr '^resume +out/step_'
  expect 0 train $width "${endless[@]}" parallel.tensor=$width train.steps=$last checkpoint.dir=whole
  same_tensors "$(step_file whole $last)" "$(step_file out $last)"
  same_metrics whole out
}

# shellcheck disable=SC2154 # train_command sets `command`
killed_rank() { # ranks, layout
  train_command "$1" "${endless[@]}" "$2"
  start_here "${command[@]}"
  trap leave EXIT
  await_step out 7
  kill -KILL "$(rank_pid $(($1 - 1)))"
  RUN_TIMEOUT=30 ends 74 137
  await_no_rank 5
  [ "$(grep -c '^lazytrain: error: ' stderr)" -le 1 ] || fail "more than one error: $(grep '^lazytrain: error: ' stderr)"
  goes_on "$@"
}

# Rank 0 ends the job when its watchdog's time and the second of hearing are over; one that no launcher reaches any more
# leaves 5 s to each rank before it, and MPI 3 s to end.
broken_link() { # ranks, layout
  start_hosts || fail "$reason"
  trap leave EXIT
  train_command 1 "${endless[@]}" "$2"
  spread_over_hosts "$1" "${command[@]}"
  start_here "${command[@]}"
  await_step out 7
  pull_cable
  await_no_rank $((stall + 1 + 5 * ($1 - 1) + 3 + 10))
  sleep 3 # a launcher may end by itself, or wait for ever
  end_living
  ends 1 74 137 205
  expect_error 'has not moved for [0-9]+ s in phase '
  grep -qx 74 status.[13] || fail "no rank beyond the broken link ended with 74: $(head status.*)"
  ! grep -vxE '74|1[2-9][0-9]' status.* || fail "a rank ended by itself with another status than 74"
  leave
  goes_on "$@"
}

test_a_killed_rank() {
  local layout
  write_tiny_config
  # shellcheck disable=SC2086 # two words
  for layout in "${layouts[@]}"; do try_apart killed_rank $layout; done
  all_held
}

test_a_broken_link() {
  local layout
  start_hosts || skip "$reason"
  end_hosts
  write_tiny_config
  # shellcheck disable=SC2086 # two words
  for layout in "${layouts[@]}"; do try_apart broken_link $layout; done
  all_held
}

run_tests
