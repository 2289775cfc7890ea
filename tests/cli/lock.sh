#!/usr/bin/env bash
# One run a folder: a second one is turned away, a lock whose owner is gone is taken over.
# shellcheck source=lib.sh
source "$(dirname "$0")/lib.sh"
# shellcheck source=lib/processes.sh
source "$(dirname "$0")/lib/processes.sh"

endless=(train.steps=1000000000 schedule.kind=constant)

test_a_live_run_keeps_its_folder() {
  write_tiny_config
  start_train 1 "${endless[@]}"
  await_step out 2
  local count
  for count in 1 2; do
    train $count >second 2>second.err
    [ $? -eq 74 ] || fail "a second run ends with another status than 74: $(tail -1 second.err)"
    [ "$(grep -c '^lazytrain: error: ' second.err)" -eq 1 ] || fail "expected one error line: $(cat second.err)"
    expect_line second.err "^lazytrain: error: folder out is in use by a run on host $(hostname) \(process $started\)"
  done
  kill -USR1 "$started"
  ends 75
  [ ! -e out/lock ] || fail "the lock stays behind"
  expect_steps out 1 "$(last_step out)"
}

# Many at once: each is served or turned away, and the folder ends as one run leaves it.
test_runs_that_start_together() {
  write_tiny_config
  local i processes=() served=0
  for i in 1 2 3 4 5; do
    train 1 >"out$i" 2>&1 &
    processes+=($!)
  done
  for i in 1 2 3 4 5; do
    wait "${processes[i - 1]}"
    case $? in
      0) served=$((served + 1)) ;;
      74) expect_line "out$i" '^lazytrain: error: folder out is in use' ;;
      *) fail "run $i: $(tail -1 "out$i")" ;;
    esac
  done
  [ $served -gt 0 ] || fail "no run was served"
  expect_steps out 1 12
  expect_checkpoints out 12
  [ "$(cd out && echo *)" = "metrics.jsonl step_00000012.h5" ] || fail "left behind: $(ls out)"
}

# The lock of a run that was killed, as it stands on this host.
write_stale_lock() {
  write_tiny_config
  start_train 1 "${endless[@]}"
  await_step out 2
  kill -KILL "$started"
  ends 137
  [ -e out/lock ] || fail "a killed run has no lock"
}

test_a_lock_whose_owner_is_dead_is_taken_over() {
  write_stale_lock
  expect 0 train 1
  expect_line stderr "warning: took over out/lock of a run that is gone \(host $(hostname), process $started\)"
  expect_steps out 1 12
}

# Process ids come back: the one that lives now is another process.
test_a_process_id_that_came_back() {
  write_stale_lock
  sed -i "s/^pid=.*/pid=$$/" out/lock
  expect 0 train 1
  expect_line stderr 'warning: took over out/lock'
}

test_a_lock_of_another_host() {
  write_stale_lock
  sed -i 's/^host=.*/host=elsewhere/; s/^job=.*/job=4711/' out/lock
  local before
  before=$(contents .)
  expect 74 train 2
  expect_error 'in use by a run on host elsewhere' 'SLURM job 4711' 'remove out/lock'
  [ "$before" = "$(contents .)" ] || fail "the folder was touched"
  SLURM_JOB_ID=4712 expect 74 train 1
  SLURM_JOB_ID=4711 expect 0 train 1 # requeued on another host
  expect_line stderr 'warning: took over out/lock'
}

# SLURM gave the node up and started the job elsewhere, yet this run lives on: it must not write over the other's files.
test_a_run_that_lost_its_folder_saves_nothing() {
  write_tiny_config
  local count
  for count in 1 2; do
    rm -rf out
    start_train $count "${endless[@]}"
    await_step out 2
    printf 'host=elsewhere\npid=1\nstarted=1\nboot=1\njob=4711\n' >new
    mv new out/lock
    kill -USR2 "$started"
    ends 74
    expect_error 'folder out is in use by a run on host elsewhere \(process 1, SLURM job 4711\)'
    expect_checkpoints out
    expect_line out/lock '^host=elsewhere$'
  done
}

# Nor add lines to its metrics.
test_metrics_of_a_run_that_lost_its_folder_go_nowhere() {
  write_tiny_config
  expect 0 train 1 train.steps=2
  exec 9>>out/metrics.jsonl
  expect 0 train 1 train.steps=4
  echo '{"step":3,"loss":1}' >&9
  exec 9>&-
  expect_steps out 1 4
}

test_a_lock_that_names_nobody() {
  write_tiny_config
  mkdir out
  echo nonsense >out/lock
  expect 0 train 1
  expect_line stderr 'warning: took over out/lock, which names no run'
}

run_tests
