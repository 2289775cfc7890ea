#!/usr/bin/env bash
# launch/slurm/train.sbatch on a real SLURM: what a job does when it is signalled, killed or out of time. Whatever happens,
# the weights at the end are those of a run that nothing disturbed, bit for bit.
# shellcheck source=../cli/lib.sh
source "$(dirname "$0")/../cli/lib.sh"
# shellcheck source=../cli/lib/processes.sh
source "$(dirname "$0")/../cli/lib/processes.sh"
# shellcheck source=lib/cluster.sh
source "$(dirname "$0")/lib/cluster.sh"
RUN_TIMEOUT=200

signalled_by_the_time_limit() {
  submit_endless --nodes=2 --time=1 --signal=B:USR1@1
  expect_finished 75
  expect_line "$log" '^launch: .* SIGUSR1$' '^SIGUSR1: saving step [0-9]+ and leaving'
}

# A rank that hangs and does not hear SLURM's TERM: the batch shell asks for the requeue before KILL comes to all.
killed_by_the_time_limit() {
  HANG=1 submit_endless --time=1 --signal=B:URG@1 # a signal that nobody hears
  expect_job COMPLETED 0 1
  expect_line "$log" '^launch: .* SIGTERM$' ' exit status 143; .* again$' 'requeued by scontrol: true'
  expect_undisturbed
}

signalled_by_scancel() {
  submit_endless --nodes=2 --ntasks-per-node=2
  await_step out 5
  scancel --signal=USR1 "$job"
  expect_finished 75
}

a_killed_rank() {
  submit_endless --nodes=2
  await_step out 15
  kill -KILL "$(job_rank 1)"
  expect_finished '(74|137)'
}

# Ranks and batch shell in a container that has srun alone.
without_scontrol() {
  mkdir bin
  ln -s /usr/bin/* bin/
  rm bin/scontrol
  PATH=$PWD/bin submit_endless --nodes=1 --ntasks-per-node=2
  await_step out 5
  scancel --signal=USR1 "$job"
  expect_job COMPLETED 0 1
  expect_line "$log" ' exit status 75; .* again$' 'requeued by scontrol: false' '^resume '
  expect_undisturbed
}

cancelled() {
  submit_endless --nodes=2
  await_step out 5
  scancel "$job"
  expect_job CANCELLED 75 0
  await "the batch shell's last word" grep -q 'exit status [1-9].*' "$log"
  expect_line "$log" 'SLURM ended this job: no requeue'
  [ -e "$(step_file out "$(last_step out)")" ] || fail "the ranks had time to save, and did not"
}

refused_by_the_program() {
  submit --nodes=2 -- --set model.hidden_size=31
  expect_job FAILED 2 0
  expect_line "$log" '^lazytrain: error: ' ' exit status 2; .* stop$'
}

# The folder is another run's: 74 each time, and no step is made.
without_progress() {
  mkdir out
  printf 'host=elsewhere\npid=1\nstarted=1\nboot=1\njob=4711\n' >out/lock
  RESTARTS=1 submit -- "${endless[@]}"
  expect_job FAILED 74 1
  expect_line "$log" '^lazytrain: error: folder out is in use' '1, at most 1: again$' '2, at most 1: stop$'
  grep -qx 'host=elsewhere' out/lock || fail "the other run's lock is gone"
}

test_jobs() {
  start_cluster RequeueExit=75
  export started=${daemons[slurmctld]}
  write_endless_run
  try_apart signalled_by_the_time_limit
  try_apart killed_by_the_time_limit
  try_apart signalled_by_scancel
  try_apart a_killed_rank
  try_apart without_scontrol
  try_apart cancelled
  try_apart refused_by_the_program
  try_apart without_progress
  all_held
}

run_tests
