# shellcheck shell=bash
# Sourced after lib.sh and processes.sh: a SLURM of this test's own on loopback, with two nodes n1 and n2 of 8 cores
# that the machine need not have. Everything lives in one folder, on free ports; nothing outlives the test.
#
# A node has a mount and a UTS namespace of its own: with one host name, or one /dev/shm, the ranks of "two nodes" would
# meet in shared memory and PMIx in its folders. The namespace also tells which processes are a node's: the daemons of
# job steps leave their parent, yet none can leave it.

# The reason why there can be no cluster here, or nothing.
no_cluster() {
  local program
  for program in munged slurmctld slurmd sbatch; do
    command -v $program >/dev/null || { echo "$program is not installed (make test-slurm installs it)" && return; }
  done
  [ "$(id -u)" -eq 0 ] || { echo "nodes with a host name of their own need root" && return; }
  unshare -m -u true 2>/dev/null || echo "this root may not make namespaces"
}

free_ports() { # count
  perl -MIO::Socket::INET -e 'print join(" ", map { $s[$_] = IO::Socket::INET->new(Listen => 1, LocalAddr => "127.0.0.1"); $s[$_]->sockport } 1 .. $ARGV[0]), "\n"' "$1"
}

write_cluster_config() { # further lines
  local controller_port ports cpus=${NODE_CPUS:-8}
  read -r controller_port ports < <(free_ports 3)
  read -r -a ports <<<"$ports"
  cat >"$cluster/slurm.conf" <<CONF
ClusterName=test
SlurmctldHost=$(hostname)(127.0.0.1)
SlurmctldPort=$controller_port
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket=$cluster/munge.sock,cred_expire=5
CredType=cred/munge
StateSaveLocation=$cluster/state
SlurmctldPidFile=$cluster/slurmctld.pid
SlurmdPidFile=$cluster/%n.pid
SlurmdSpoolDir=$cluster/%n
SlurmctldLogFile=$cluster/slurmctld.log
SlurmdLogFile=$cluster/%n.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
JobCompType=jobcomp/none
MpiDefault=none
SwitchType=switch/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SchedulerParameters=sched_interval=2,bf_interval=2,batch_sched_delay=0
SlurmdParameters=config_overrides
ReturnToService=2
KillWait=5
JobRequeue=1
$1
MailProg=/bin/true
NodeName=n1 Weight=1 NodeAddr=127.0.0.1 Port=${ports[0]} CPUs=$cpus Sockets=1 CoresPerSocket=$cpus ThreadsPerCore=1 RealMemory=8000
NodeName=n2 Weight=2 NodeAddr=127.0.0.1 Port=${ports[1]} CPUs=$cpus Sockets=1 CoresPerSocket=$cpus ThreadsPerCore=1 RealMemory=8000
PartitionName=all Nodes=n1,n2 Default=YES State=UP MaxTime=60
CONF
  echo "PMIxCliTmpDirBase=$cluster/pmix" >"$cluster/mpi.conf"
  { cat /etc/hosts; echo "127.0.0.1 n1 n2 $(hostname)"; } >"$cluster/hosts"
}

# daemon NAME COMMAND...: in the background; its process id is ${daemons[NAME]}. `wait` and all_held do not wait for it.
declare -A daemons namespaces
daemon() {
  local name=$1
  shift
  "$@" >>"$cluster/$name.out" 2>&1 </dev/null &
  daemons[$name]=$!
  disown
}

start_munge() {
  dd if=/dev/urandom of="$cluster/munge.key" bs=1024 count=1 status=none
  chmod 600 "$cluster/munge.key"
  daemon munged munged --foreground --force --key-file="$cluster/munge.key" --socket="$cluster/munge.sock" \
    --pid-file="$cluster/munge.pid" --log-file="$cluster/munge.log" --seed-file="$cluster/munge.seed"
}

start_node() { # name
  mkdir -p "$cluster/$1" "$cluster/pmix.$1"
  # shellcheck disable=SC2016 # the inner shell expands
  daemon "$1" unshare -m -u --propagation private bash -c '
    hostname "$1" && mount --bind "$2/hosts" /etc/hosts && mount --bind "$2/pmix.$1" "$2/pmix" &&
      mount -t tmpfs tmpfs /dev/shm && exec slurmd -D -N "$1"' node "$1" "$cluster"
  while [ "$(node_namespace "$1")" = "$(readlink /proc/$$/ns/mnt)" ]; do sleep 0.01; done # until unshare has run
  namespaces[$1]=$(node_namespace "$1")
}
node_namespace() { readlink "/proc/${daemons[$1]}/ns/mnt"; }

node_states() { sinfo -h -N -o '%N %T' 2>/dev/null | tr '\n' ' '; }
nodes_are() { [ "$(node_states)" = "$1 " ]; }

start_cluster() { # further lines of slurm.conf
  local reason
  reason=$(no_cluster)
  [ -z "$reason" ] || skip "$reason"
  cluster=$(mktemp -d)
  mkdir "$cluster/state" "$cluster/pmix"
  trap end_cluster EXIT
  write_cluster_config "${1:-}"
  export SLURM_CONF=$cluster/slurm.conf
  start_munge
  started=${daemons[munged]} await "munge's socket" test -S "$cluster/munge.sock"
  daemon slurmctld slurmctld -D -c
  start_node n1
  start_node n2
  started=${daemons[slurmctld]} await "two idle nodes" nodes_are 'n1 idle n2 idle'
}

# Ends what the test started: every process of the nodes' namespaces, then the other daemons. A test that failed says
# what the cluster said at last.
end_cluster() {
  local status=$? node pid
  [ $status -eq 0 ] || { node_states; squeue; tail -n 8 "$cluster/slurmctld.log"; } 2>&1 | sed 's/^/# /'
  for node in "${!namespaces[@]}"; do
    while pid=$(node_processes "$node") && [ -n "$pid" ]; do
      # shellcheck disable=SC2086 # one word a process
      kill -KILL $pid 2>/dev/null
      sleep 0.05
    done
  done
  kill "${daemons[@]}" 2>/dev/null
  await_gone "${daemons[@]}"
  rm -rf "$cluster"
}

node_processes() { # node
  local process
  for process in /proc/[0-9]*; do
    [ "$(readlink "$process/ns/mnt" 2>/dev/null)" != "${namespaces[$1]}" ] || echo "${process#/proc/}"
  done
}

# ---- jobs ----

# submit OPTION... -- WORD...: the real script on tiny.yaml and the folder `out` of this case; the job's number is $job.
submit() {
  local options=()
  while [ "$1" != -- ]; do options+=("$1") && shift; done
  job=$(LAUNCH=${tests_root:?}/../launch sbatch --parsable --cpus-per-task=1 --time=20 "${options[@]}" \
    "$tests_root/../launch/slurm/train.sbatch" tiny.yaml out "${@:2}") || fail "sbatch refuses ${options[*]}"
  log=out/logs/job_$job.log
}

job_says() { scontrol show job -o "${2:-$job}" 2>/dev/null | grep -oE "(^| )$1=[^ ]*" | sed 's/.*=//'; } # field, job

# expect_job STATE EXIT_CODE RESTARTS: the job ends so, and no other start of it follows.
is_over() { [[ $(job_says JobState) =~ ^(COMPLETED|FAILED|CANCELLED|TIMEOUT|NODE_FAIL)$ ]]; }
expect_job() {
  local found
  await "the end of job $job" is_over
  found="$(job_says JobState) $(job_says ExitCode | cut -d: -f1) $(job_says Restarts)"
  [ "$found" = "$*" ] || {
    grep -hE '^(launch|lazytrain: error|srun)' "$log" | tail -n 20 | sed 's/^/# /'
    fail "job $job ends as $found (state, exit code, restarts), expected $*"
  }
}

# The process id of rank $1 of $job, on whatever node.
job_rank() {
  local process
  for process in /proc/[0-9]*; do
    [ "$process/exe" -ef "$LAZYTRAIN" ] || continue
    tr '\0' '\n' <"$process/environ" | grep -cxE "SLURM_JOB_ID=$job|PMIX_RANK=$1" | grep -qx 2 || continue
    echo "${process#/proc/}"
    return
  done
  fail "no process of rank $1 of job $job"
}

# A run that nothing ends until it is disturbed, and that soon finishes once it goes on from a checkpoint: no test
# depends on how fast the machine is. Its words for submit() are "${endless[@]}".
write_endless_run() {
  write_tiny_config
  cat >program.sh <<'SH'
source "$LAUNCH/restart.sh"
step=$(newest_step out)
if [ -n "${HANG:-}" ] && [ "$step" -lt 0 ]; then # a rank that stands still and cannot save
  "$LAZYTRAIN_PROGRAM" "$@" --set train.steps=15
  trap '' TERM
  sleep 600
fi
if [ "$step" -ge 0 ]; then set -- "$@" --set train.steps=$((step + ${MORE:-25})); fi
exec "$LAZYTRAIN_PROGRAM" "$@"
SH
  export LAZYTRAIN_PROGRAM=$LAZYTRAIN
}
endless=(--set schedule.kind=constant --set train.steps=1000000000 --set checkpoint.every=10 --set data.seq_len=60)

submit_endless() { LAZYTRAIN="bash program.sh" submit "$@" -- "${endless[@]}"; }

# The job finished at its second start, which went on from a checkpoint; its log holds both.
expect_finished() { # pattern of the first exit status
  expect_job COMPLETED 0 1
  expect_line "$log" " exit status $1; .* again\$" 'requeued by scontrol: true' '^resume ' ' exit status 0; .* stop$'
  [ "$(grep -c '^lazytrain [0-9]' "$log")" -eq 2 ] || fail "the log does not hold both starts"
  expect_undisturbed
}

# expect_undisturbed: the folder's last checkpoint and metrics are those of a run that nothing disturbed.
expect_undisturbed() {
  local last
  last=$(last_step out)
  expect 0 "$LAZYTRAIN" train tiny.yaml "${endless[@]}" --set checkpoint.dir=whole --set checkpoint.every=1000000 \
    --set train.steps="$last"
  same_tensors "$(step_file whole "$last")" "$(step_file out "$last")"
  same_metrics whole out
}
