#!/usr/bin/env bash
# launch/slurm/train.sbatch where SLURM loses a node, or the job gets another number of them; and where it may not requeue.
# shellcheck source=../cli/lib.sh
source "$(dirname "$0")/../cli/lib.sh"
# shellcheck source=../cli/lib/processes.sh
source "$(dirname "$0")/../cli/lib/processes.sh"
# shellcheck source=lib/cluster.sh
source "$(dirname "$0")/lib/cluster.sh"
RUN_TIMEOUT=200

# Requeues are off and no RequeueExit is set: a second job that waits for the first one's failure goes on.
a_chain_of_jobs() {
  submit_endless --no-requeue --nodelist=n2
  local first=$job
  submit_endless --no-requeue --nodelist=n2 --dependency="afternotok:$first"
  await_step out 5
  scancel --signal=USR1 "$first"
  expect_job COMPLETED 0 0
  [ "$(job_says JobState "$first") $(job_says ExitCode "$first")" = "FAILED 75:0" ] ||
    fail "the first job: $(job_says JobState "$first") $(job_says ExitCode "$first")"
  expect_line out/logs/job_"$first".log 'requeued by scontrol: false'
  expect_line "$log" '^resume '
  expect_undisturbed
}

# By its administrator's word: that of a controller whose pings hang, as those of 22.05 may under load, never comes.
lose_node_n1() {
  kill -KILL "${daemons[n1]}"
  scontrol update NodeName=n1 State=DOWN Reason="its slurmd is gone" || fail "node n1 cannot be given up"
}
is_lost() { [[ " $(node_states)" == *" $1 down"* ]]; }

# The node of rank 0 and of the batch shell loses its slurmd. SLURM starts the job on the other node while all of the
# first start lives on: its ranks must leave the folder, its shell must not requeue the job once more.
a_lost_node() {
  MORE=1000 submit_endless --ntasks-per-node=2
  await_step out 15
  : >runs
  await "the loss of the node" is_lost n1
  expect_job COMPLETED 0 1
  expect_line "$log" '^launch: .* start 2 on 1 nodes \(n2\)' 'warning: took over out/lock of a run that is gone \(host n1' \
    'SLURM ended this job: no requeue'
  await "the old ranks' end" no_ranks_on n1
  expect_undisturbed
}
no_ranks_on() { # node
  local process
  for process in $(node_processes "$1"); do
    if [ "/proc/$process/exe" -ef "$LAZYTRAIN" ] && grep -qz "SLURM_JOB_ID=$job" "/proc/$process/environ"; then return 1; fi
  done
}

# A job on both nodes waits once one is lost; its user makes do with one node.
another_number_of_nodes() {
  submit_endless --nodes=2 --ntasks-per-node=2
  await_step out 15
  : >runs
  await "the requeue" is_pending
  scontrol update JobId="$job" NumNodes=1 NumTasks=2 || fail "the number of nodes cannot be changed"
  expect_job COMPLETED 0 1
  expect_line "$log" '^grid +4 ranks on 2 hosts \(n1 n2\)' '^grid +2 ranks on 1 host \(n2\)' '^resume '
  expect_undisturbed
}
is_pending() { [ "$(job_says JobState)" = PENDING ]; }

both_run() { [ -e ../case_2/runs ] && [ -e ../case_3/runs ]; }

test_jobs() {
  start_cluster ""
  export started=${daemons[slurmctld]}
  write_endless_run
  try_apart a_chain_of_jobs
  try_apart a_lost_node
  try_apart another_number_of_nodes
  await "both jobs on node n1" both_run
  lose_node_n1
  all_held
}

run_tests
