# shellcheck shell=bash
# shellcheck disable=SC2154 # train_command of lib.sh sets `command`
# Sourced after lib.sh by tests that signal, stop or kill running processes. Nothing here sleeps for a time and hopes:
# a test waits for a fact (a step in metrics.jsonl, a process's state) and fails if it does not come true in time.

# start COMMAND...: runs it in the background; its process id is $started. What still runs when the test ends is killed.
start() {
  "$@" >stdout 2>stderr &
  started=$!
  trap end_started EXIT
}
start_train() { # the words of train()
  train_command "$@"
  start "${command[@]}"
}

# The processes below $1, nearest first.
descendants() {
  local child
  # shellcheck disable=SC2013 # words, not lines
  for child in $(cat "/proc/$1/task/"*/children 2>/dev/null); do
    echo "$child"
    descendants "$child"
  done
}

end_started() {
  local below
  kill -0 "$started" 2>/dev/null || return 0
  below=$(descendants "$started")
  # shellcheck disable=SC2086 # one word a process
  kill -KILL $below "$started" 2>/dev/null
  wait "$started" 2>/dev/null
}

# await WHAT COMMAND...: repeats the command until it is true; the program must still be running.
await() {
  local what=$1 end=$((SECONDS + ${RUN_TIMEOUT:-120}))
  shift
  until "$@"; do
    if ! kill -0 "$started" 2>/dev/null; then
      "$@" && return
      show_stderr
      fail "the program ended before $what"
    fi
    [ $SECONDS -lt $end ] || fail "waited ${RUN_TIMEOUT:-120} s in vain for $what"
    sleep 0.05
  done
}

has_step() { grep -q "^{\"step\":$2,.*}$" "$1/metrics.jsonl" 2>/dev/null; }
await_step() { await "step $2" has_step "$1" "$2"; } # folder, step; with log.every 1

last_step() { sed -nE '$s/^\{"step":([0-9]+),.*/\1/p' "$1/metrics.jsonl"; } # folder

# Whether process $1 is in one of the states $2 ("T": stopped).
is_state() {
  local state
  state=$(sed 's/.*) //; s/ .*//' "/proc/$1/stat" 2>/dev/null) && [[ $2 == *"$state"* ]]
}
is_gone() { ! [ -e "/proc/$1" ] || is_state "$1" ZX; }

# await_gone PROCESS...: these end too; no process may outlive its run.
await_gone() {
  local process end=$((SECONDS + 60))
  for process; do
    until is_gone "$process"; do
      [ $SECONDS -lt $end ] || fail "process $process is left behind"
      sleep 0.05
    done
  done
}

# Whether process $1 has been delivered every signal it was sent.
has_no_pending_signal() { [ -z "$(sed -nE 's/^(Sig|Shd)Pnd:\t0*([1-9a-f].*)/\2/p' "/proc/$1/status" 2>/dev/null)" ]; }

# The process id of rank $1 of the started launcher: Open MPI and MPICH name the rank in its environment.
rank_pid() {
  local pid
  for pid in $(descendants "$started"); do
    [ "/proc/$pid/exe" -ef "$LAZYTRAIN" ] || continue
    tr '\0' '\n' <"/proc/$pid/environ" | grep -qE "^(OMPI_COMM_WORLD_RANK|PMI_RANK)=$1\$" || continue
    echo "$pid"
    return
  done
  fail "no process of rank $1"
}

# ends STATUS...: the started program ends by itself, with one of these exit statuses; $ended tells which.
ends() {
  local end=$((SECONDS + ${RUN_TIMEOUT:-120})) wanted
  while kill -0 "$started" 2>/dev/null; do
    [ $SECONDS -lt $end ] || fail "the program does not end within ${RUN_TIMEOUT:-120} s"
    sleep 0.05
  done
  wait "$started"
  ended=$?
  for wanted; do [ $ended -ne "$wanted" ] || return 0; done
  show_stderr
  fail "exit status $ended, expected $*"
}

# load_faults NAME=VALUE...: what this test starts from now on has the faults of lib/faults.c.
load_faults() {
  "${CC:-cc}" -shared -fPIC -o faults.so "$tests_root/cli/lib/faults.c" -ldl || fail "lib/faults.c cannot be built"
  local pair
  for pair in LD_PRELOAD="$PWD/faults.so" "$@"; do export "${pair?}"; done
}
