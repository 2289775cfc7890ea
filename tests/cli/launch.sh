#!/usr/bin/env bash
# What the launch scripts do when a run ends: the rules by a table, and launch/mpirun/train.sh with real runs. (The SLURM
# script: tests/slurm.)
# shellcheck source=lib.sh
source "$(dirname "$0")/lib.sh"
# shellcheck source=lib/processes.sh
source "$(dirname "$0")/lib/processes.sh"
launch=$tests_root/../launch
# shellcheck source=../../launch/restart.sh
source "$launch/restart.sh"

decides() { # expected words, status, step before, step now, stalls, limit
  [ "$(decide "${@:2}")" = "$1" ] || fail "status $2, steps $3 to $4, stalls $5 of $6: $(decide "${@:2}"), expected $1"
}

test_what_is_started_again() {
  local status
  # done, failed for good, bad input, a second SIGINT, timeout(1), no such program, an unknown code
  for status in 0 1 2 130 124 126 127 3 73 76; do
    try decides "stop 0" $status 10 20 0 3
    try decides "stop 2" $status 10 10 2 3
  done
  # 75: always, and only a new checkpoint ends the count of others
  try decides "again 0" 75 10 20 2 3
  try decides "again 2" 75 10 10 2 3
  try decides "again 4" 75 -1 -1 4 3
  # I/O; ABRT, BUS, KILL, USR1, SEGV, TERM; mpirun's code for a lost host; ssh's
  for status in 74 134 135 137 138 139 143 205 255; do
    try decides "again 0" $status 10 11 3 3
    try decides "again 0" $status -1 0 3 3
    try decides "again 1" $status 10 10 0 3
    try decides "again 3" $status 10 10 2 3
    try decides "stop 4" $status 10 10 3 3
    try decides "again 1" $status 10 5 0 3 # the newest one was damaged and set aside
    try decides "stop 1" $status -1 -1 0 0
    try decides "again 0" $status -1 1 0 0
  done
  all_held
}

test_the_newest_step_is_read_from_the_names() {
  mkdir run
  [ "$(newest_step run)" = -1 ] || fail "an empty folder: $(newest_step run)"
  [ "$(newest_step none)" = -1 ] || fail "no folder: $(newest_step none)"
  touch run/step_00000000.h5
  [ "$(newest_step run)" = 0 ] || fail "step 0: $(newest_step run)"
  touch run/step_{00000008,00000009,00000010}.h5 run/step_00000099.h5.{damaged,superseded,partial} run/step_x9.h5
  [ "$(newest_step run)" = 10 ] || fail "step 10: $(newest_step run)"
  touch run/step_123456789012.h5
  [ "$(newest_step run)" = 123456789012 ] || fail "a long step: $(newest_step run)"
}

# start_loop WORD...: launch/mpirun/train.sh on 2 ranks.
start_loop() {
  words=(--set schedule.kind=constant --set checkpoint.every=3 "$@")
  PAUSE_S=0 RANKS=2 MPIRUN_FLAGS="$MPIRUN_FLAGS" start "$launch/mpirun/train.sh" tiny.yaml out "${words[@]}"
}
log=out/logs/mpirun.log
starts() { grep -c '^launch: .* starting on' $log; }
has_starts() { [ "$(starts)" -ge "$1" ]; }
expect_starts() { [ "$(starts)" -eq "$1" ] || fail "started $(starts) times, expected $1: $(grep '^launch' $log)"; }

# The folder holds what an undisturbed run of the same steps leaves.
expect_undisturbed() { # last step
  expect 0 "$LAZYTRAIN" train tiny.yaml "${words[@]}" --set checkpoint.dir=whole
  same_tensors "$(step_file whole "$1")" "$(step_file out "$1")"
  same_metrics whole out
}

test_the_mpirun_loop_goes_on_after_usr1_and_a_killed_rank() {
  write_tiny_config
  start_loop --set train.steps=1500 --set checkpoint.every=10
  await_step out 5
  kill -USR1 "$started"
  await "a second start" has_starts 2
  await_step out $(($(newest_step out) + 15))
  kill -KILL "$(rank_pid 1)"
  ends 0
  expect_line $log ' exit status 75; .* again$' ' exit status 137; .*: 0, at most 3: again$' ' exit status 0; .* stop$'
  expect_starts 3
  [ "$(grep -c '^lazytrain [0-9]' $log)" -eq 3 ] || fail "the log does not hold all three runs"
  expect_undisturbed 1500
}

# mpirun would return 1 for TERM: the script saves instead, and does not go on.
test_term_to_the_mpirun_loop_saves_and_stops() {
  write_tiny_config
  local name
  for name in TERM HUP; do
    rm -rf out
    start_loop --set train.steps=1000000000
    await_step out 5
    kill -$name "$started"
    ends 75
    expect_starts 1
    [ -e "$(step_file out "$(last_step out)")" ] || fail "$name: no checkpoint of step $(last_step out)"
  done
}

# A second TERM ends ranks that cannot save: one of them is stopped.
test_a_second_term_to_the_mpirun_loop_ends_it() {
  write_tiny_config
  start_loop --set train.steps=1000000000
  await_step out 5
  local processes
  processes="$(rank_pid 0) $(rank_pid 1)"
  kill -STOP "$(rank_pid 1)"
  kill -TERM "$started"
  await "the first TERM" grep -q 'SIGTERM: saving' $log
  kill -TERM "$started"
  ends 1 137 139 # mpirun 4.1.4 itself crashes on the second TERM, once in four
  expect_starts 1
  # shellcheck disable=SC2086 # words
  await_gone $processes
}

# A launcher that hangs, here at the first start, is killed once the time for a save is over, and the run started again.
test_a_launcher_that_hangs_is_killed() {
  write_tiny_config
  cat >launcher <<'SH'
#!/usr/bin/env bash
trap '' USR1
mkdir hangs 2>/dev/null && exec sleep 600
trap - USR1
exec mpirun "$@"
SH
  sed -i "s|mpirun|$MPIRUN|" launcher
  chmod +x launcher
  MPIRUN=./launcher SAVE_TIME=1 start_loop --set train.steps=5
  await "the launcher" test -d hangs
  kill -USR1 "$started"
  ends 0
  expect_line $log ' exit status 137; .* again$'
  expect_starts 2
}

test_a_round_ends_by_a_save() {
  write_tiny_config
  ROUND=8 start_loop --set train.steps=1000000000
  await "a second start" has_starts 2
  expect_line $log '^SIGUSR1: saving' ' exit status 75; .* again$'
}

test_the_mpirun_loop_stops_where_going_on_is_useless() {
  write_tiny_config
  start_loop --set train.steps=0 --set model.hidden_size=31
  ends 2
  expect_starts 1
  # a folder that another run holds: 74, and no checkpoint of ours comes
  mkdir -p out
  printf 'host=elsewhere\npid=1\nstarted=1\nboot=1\njob=\n' >out/lock
  : >$log
  RESTARTS=2 start_loop
  ends 74
  expect_starts 3
  [ "$(tail -n 1 $log | sed 's/.*without/without/')" = "without a new one: 3, at most 2: stop" ] || fail "last line: $(tail -n 1 $log)"
}

# binds WORDS NAME=VALUE...: what train.sh adds to the command of an Open MPI, on a host of 8 cores with 2 threads each.
binds() {
  rm -rf out
  env PATH="$PWD/host:$PATH" MPIRUN="$PWD/host/mpirun" MPIRUN_FLAGS= LAZYTRAIN=program "${@:2}" "$launch/mpirun/train.sh" tiny.yaml out ||
    fail "exit status $?: ${*:2}"
  [ "$(cat command)" = "$1 " ] || fail "${*:2}: the words are $(cat command), expected $1"
}

test_ranks_are_bound_to_cores() {
  mkdir host
  cat >host/mpirun <<'SH'
#!/usr/bin/env bash
words=$*
if [ "$1" = --version ]; then echo "mpirun (${LIBRARY:-Open MPI}) 4.1.4"; else echo "${words%%program *}" >command; fi
SH
  printf '#!/bin/sh\necho 16\n' >host/nproc
  printf '#!/bin/sh\necho "Core(s) per socket: 4"; echo "Thread(s) per core:  2"\n' >host/lscpu
  chmod +x host/*
  printf '# slots=9\nn1 slots=4\nn2 slots=2 max_slots=8\n' >hosts.txt
  try binds '--map-by slot:PE=8 --bind-to core -n 1' RANKS=1
  try binds '--map-by slot:PE=4 --bind-to core -n 2' RANKS=2
  try binds '--map-by slot:PE=2 --bind-to core -n 3' RANKS=3
  try binds '--map-by slot:PE=1 --bind-to core -n 8' RANKS=8
  try binds '--bind-to none -n 9' RANKS=9
  try binds '--map-by slot:PE=1 --bind-to core' RANKS=
  try binds '--map-by slot:PE=2 --bind-to core --hostfile hosts.txt' HOSTS=hosts.txt
  try binds '--map-by slot:PE=4 --bind-to core --hostfile hosts.txt -n 2' HOSTS=hosts.txt RANKS=2
  try binds '--map-by slot:PE=2 --bind-to core --hostfile hosts.txt -n 6' HOSTS=hosts.txt RANKS=6
  echo n1 >plain.txt # as many slots as cores
  try binds '--map-by slot:PE=1 --bind-to core --hostfile plain.txt' HOSTS=plain.txt
  try binds '--map-by slot:PE=4 --bind-to core --hostfile plain.txt -n 2' HOSTS=plain.txt RANKS=2
  try binds '--map-by slot:PE=3 --bind-to core -q -n 2' CORES=3 RANKS=2 MPIRUN_FLAGS=-q
  try binds '--bind-to none -n 2' CORES=0 RANKS=2
  try binds '--bind-to socket -n 2' RANKS=2 MPIRUN_FLAGS='--bind-to socket'
  try binds '-q -map-by node -n 2' RANKS=2 MPIRUN_FLAGS='-q -map-by node'
  try binds '-n 2' RANKS=2 LIBRARY=MPICH
  all_held
}

# A real run: by itself mpirun would bind a pair of ranks to a core each, however many there are.
test_bound_ranks_run() {
  "$MPIRUN" --version 2>/dev/null | grep -q 'Open MPI' || skip "$MPIRUN does not bind"
  write_tiny_config
  MPIRUN_FLAGS=-q RANKS=1 expect 0 "$launch/mpirun/train.sh" tiny.yaml out --set train.threads=auto
  expect_line $log '^bindings +[^ ]+: 1 rank on cores [0-9,-]+$'
  ! grep -q 'more threads than cores' $log || fail "bound ranks have too many threads"
}

test_usage() {
  expect 2 "$launch/mpirun/train.sh" tiny.yaml
  expect_line stderr '^usage: '
  expect 2 bash "$launch/slurm/train.sbatch" tiny.yaml
  expect_line stderr '^usage: '
}

run_tests
