# shellcheck shell=bash
# shellcheck disable=SC2154 # train.sbatch and train.sh set run, before, stalls and limit
# Sourced by slurm/train.sbatch and mpirun/train.sh: starts a run, and says whether to start it again when it ends: by its
# exit status, and by whether the newest checkpoint's step went up since it was last started.

say() { echo "launch: $(date '+%F %T') $*"; }

# The highest step among the names DIR/step_*.h5; -1 where there is none.
newest_step() {
  local file newest=-1
  for file in "$1"/step_*.h5; do
    [[ ${file##*/} =~ ^step_0*([0-9]+)\.h5$ ]] || continue
    [ "${BASH_REMATCH[1]}" -le "$newest" ] || newest=${BASH_REMATCH[1]}
  done
  echo "$newest"
}

# decide STATUS BEFORE NOW STALLS LIMIT: prints `again` or `stop`, then the restarts in a row without a new checkpoint.
# BEFORE and NOW are the newest steps when the run was started and when it ended, STALLS such restarts so far.
decide() {
  local status=$1 before=$2 now=$3 stalls=$4 limit=$5
  [ "$now" -le "$before" ] || stalls=0
  case $status in
    75) echo "again $stalls" ;; # saved and wants to go on: a job that is preempted often may save the same step twice
    130) echo "stop $stalls" ;; # a second SIGINT: a person insists
    74 | 12[89] | 1[3-9]? | 2??) # an I/O error, a signal, or the launcher lost a host: may be transient
      [ "$now" -gt "$before" ] || stalls=$((stalls + 1))
      [ "$stalls" -gt "$limit" ] && echo "stop $stalls" || echo "again $stalls" ;;
    *) echo "stop $stalls" ;; # done, or failed for a reason that will repeat
  esac
}

# judge STATUS: sets `verdict` and `count` by decide(), and `now`; says so. A restart begins with before=$now stalls=$count.
judge() {
  now=$(newest_step "$run")
  read -r verdict count < <(decide "$1" "$before" "$now" "$stalls" "$limit")
  say "exit status $1; newest checkpoint: step $now, at the start: step $before; restarts without a new one: $count, at" \
    "most $limit: $verdict"
}

# run_to_end COMMAND...: sets `status` to the command's exit status. A trapped signal interrupts `wait`; its handler calls
# pass() to hand a signal on, also where the command is only about to start.
run_to_end() {
  "$@" &
  child=$!
  [ -z "$missed" ] || kill -s "$missed" "$child"
  interrupted=true
  while $interrupted; do
    interrupted=false
    wait "$child"
    status=$?
  done
  child='' missed=''
}
child='' missed=''
pass() {
  interrupted=true
  if [ -n "$child" ]; then kill -s "$1" "$child" 2>/dev/null; else missed=$1; fi
}
