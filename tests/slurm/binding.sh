#!/usr/bin/env bash
# launch/slurm/train.sbatch binds each rank to cores of its own, and threads follow.
# shellcheck source=../cli/lib.sh
source "$(dirname "$0")/../cli/lib.sh"
# shellcheck source=../cli/lib/processes.sh
source "$(dirname "$0")/../cli/lib/processes.sh"
# shellcheck source=lib/cluster.sh
source "$(dirname "$0")/lib/cluster.sh"
RUN_TIMEOUT=200

# bound TASKS CPUS BINDINGS DEVICE: a job of TASKS ranks on one node says so.
bound() {
  submit --nodes=1 --ntasks-per-node="$1" --cpus-per-task="$2" -- --set train.threads=auto
  expect_job COMPLETED 0 0
  expect_line "$log" "$3" "$4"
  ! grep -q 'more threads than cores' "$log" || fail "bound ranks have too many threads"
}

test_ranks_have_cores_of_their_own() {
  [ "$(nproc)" -ge 2 ] || skip "needs 2 cores"
  NODE_CPUS=$(nproc) start_cluster TaskPlugin=task/affinity
  export started=${daemons[slurmctld]}
  write_tiny_config
  try_apart bound 2 1 '^bindings +n1: 2 ranks on cores [0-9]+ \| [0-9]+$' '^device +cpu, 1 thread a rank'
  all_held
  try_apart bound 1 2 '^bindings +n1: 1 rank on cores [0-9]+[-,][0-9]+$' '^device +cpu, 2 threads a rank'
  all_held
}

run_tests
