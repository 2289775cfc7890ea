#!/usr/bin/env bash
# The fault campaign: a training job is struck by faults at random moments, one after the other, and started again by
# the same command on 1, 2 or 4 ranks, with and without checkpoint.async and parallel.zero, at parallel.tensor 1 or 2. It
# must end with the bits and the metrics of the undisturbed job of the same width, and after every fault every published
# checkpoint must be complete.
#
# FAULTS: how many strike one long job (make fault); unset: short jobs side by side that get every kind (make test).
# SEED: what kinds, moments, victims and ranks are drawn from (random, and printed).
if [ -z "${OWN_MOUNTS:-}" ] && unshare --mount true 2>/dev/null; then # what is mounted goes when this process ends
  OWN_MOUNTS=1 exec unshare --mount bash "$0"
fi
# shellcheck source=../cli/lib.sh
source "$(dirname "$0")/../cli/lib.sh"
# shellcheck source=../cli/lib/processes.sh
source "$(dirname "$0")/../cli/lib/processes.sh"
# shellcheck source=lib/hosts.sh
source "$(dirname "$0")/lib/hosts.sh"
# shellcheck source=lib/living.sh
source "$(dirname "$0")/lib/living.sh"
# shellcheck source=lib/watch.sh
source "$(dirname "$0")/lib/watch.sh"
: "${SEED:=$RANDOM}" "${RUN_TIMEOUT:=300}"

# Kinds of faults, whom they strike, and how many of 16 faults of a long job they are:
#   KILL   SIGKILL
#   STOP   SIGSTOP for 20 s, and a patient watchdog: the run goes on
#   HANG   SIGSTOP, and an impatient watchdog: the run ends
#   DISK   the file system of the checkpoints is full until the run has ended
#   LINK   the cable between the hosts of the run is out until the run has ended
kinds=('KILL rank 3' 'KILL launcher 3' 'KILL all 2' 'STOP rank 1' 'STOP launcher 1' 'HANG rank 2' 'DISK full 2'
  'LINK broken 2')

# Of a job: its newest checkpoint, the last step before the last fault, the faults that no new step has answered yet, the
# number and kind of the present one, the tensor ranks.
newest=0 reached=0 pending=() hosts=() present='' width=1

# A vocabulary that makes a save take as long as two steps; steps without end, since a stopped launcher's ranks go on.
write_config() {
  write_tiny_config
  sed -i "s/vocab_size: .*/vocab_size: 8192/; s/^checkpoint: .*/checkpoint: {dir: disk\/out, every: 2, keep: 2}/
    s/^train: .*/train: {steps: 1000000000, global_batch: 8, threads: 1}/
    s/^schedule: .*/schedule: {kind: constant}/" tiny.yaml
}

# ---- processes ----

# shellcheck disable=SC2154 # train_command sets `command`
launch() { # ranks, KEY=VALUE...
  train_command "$@"
  if $spread; then
    train_command 1 "${@:2}"
    spread_over_hosts "$1" "${command[@]}"
  fi
  : >stdout
  : >stderr # or what the run before said is taken for its words
  start_here "${command[@]}"
  trap leave EXIT
  watch_stderr
}
leave() {
  [ $? -eq 0 ] || tell_failure
  end_living
  end_hosts
  ! mountpoint -q disk || umount --lazy disk
}

# At the end of the output, which is all that may be shown of it.
tell_failure() {
  tail -n 9 stderr | sed 's/^/# stderr: /'
  echo "# failed at SEED=$SEED, $present, after $SECONDS s"
}

# Open MPI 4.1's launcher may wait for ever, alone, when a rank dies while it connects, and after the link to a host
# broke. A user would end it.
end_hung_launcher() {
  local end=$((SECONDS + RUN_TIMEOUT)) alone=$SECONDS patience=10
  ! $spread || patience=3
  while is_running && [ $SECONDS -lt $end ]; do
    if ! is_no_rank_living; then
      alone=$SECONDS
    elif [ $((SECONDS - alone)) -ge $patience ]; then # it has said what it had to say
      count hung
      end_living
    fi
    pause 20
  done
}

# ---- moments ----

has_lock() { [ disk/out/lock -nt stdout ]; } # a lock of its own, not of the run before
is_saving() { compgen -G 'disk/out/step_*.partial' >/dev/null; }

# What the run was at when it was struck, from what it left; a save's leftover may be of the run before.
phase() {
  if $saving && grep -q '^start ' stderr; then
    echo save
  elif grep -q '^done:' stderr; then
    echo end
  elif grep -q '^start ' stderr; then
    echo step
  elif has_lock; then
    echo restore
  else
    echo start-up
  fi
}

aim_rank() {
  if [ "$ranks" -eq 1 ]; then
    victims=$started # without a launcher
  else
    wait_for has_rank "$victim"
  fi
}
has_rank() {
  local pid
  pid=$(rank_pid "$1") && victims=$pid
}
aim_launcher() { victims=$started; }
aim_all() { victims="$started $(living)"; }
aim_full() { :; }
aim_broken() { :; }

# Draws how the next start is struck: its ranks, its moment, whom.
draw() { # kind, whom
  local moments
  case $1 in
    KILL) moments=(start restore step save save end) ;;
    STOP) moments=(start restore step save) ;;
    *) moments=(step save) ;; # what the watchdog and the full disk promise is for running steps
  esac
  ranks=$((1 << RANDOM % 3)) victim=$((RANDOM % 4)) moment=${moments[RANDOM % ${#moments[@]}]}
  ahead=$((1 + RANDOM % 8)) delay=$((RANDOM % 900)) async=false spread=false stall=60
  [ $((RANDOM % 2)) -eq 0 ] || async=true
  case "$*" in *launcher | HANG* | LINK*) [ "$ranks" -gt 1 ] || ranks=2 ;; esac
  [ "$ranks" -ge "$width" ] || ranks=$width
  case $1 in HANG | LINK) stall=5 ;; esac
  [ "$1" != LINK ] || spread=true
  victim=$((victim % ranks))
}

# Waits for the moment drawn. Who is struck is looked up before it where it is short.
await_moment() { # whom
  case $moment in
    start)
      look
      wait_for is_past $((now + delay * 1000))
      ;;
    restore) wait_for has_lock ;;
    *) wait_for has_shown $((newest + ahead)) ;;
  esac
  "aim_$1"
  case $moment in
    step) pause $((delay % 60)) ;;
    save)
      wait_for is_saving
      pause $((delay % 20))
      ;;
  esac
}

# ---- faults: strike_KIND strikes the started run and waits until it has ended ----

# shellcheck disable=SC2086 # one word a process
hit() { # signal
  kill -"$1" $victims 2>/dev/null
  note_save
}
note_save() { ! is_saving || saving=true; }

strike_KILL() {
  hit KILL
  end_hung_launcher
  ends 0 74 137
}

strike_STOP() { # whom
  hit STOP
  at=$(phase) # it leaves nothing of that
  wait_for is_past $((struck_us + 20000000))
  await_answer STOP "$1"
  hit CONT
  wait_for is_answered
  kill -USR1 "$started" 2>/dev/null
  ends 74 75
  is_turned_away || [ "$ended" -eq 75 ] || fail "exit status $ended: $(tail -n 1 stderr)"
}

strike_HANG() {
  hit STOP
  ends 74
  is_turned_away || expect_error 'has not moved for [0-9]+ s in phase '
}

strike_DISK() {
  local end=$((SECONDS + RUN_TIMEOUT))
  note_save
  while is_running && [ $SECONDS -lt $end ]; do # what the run frees is taken too
    head -c 64M /dev/zero 2>/dev/null >>disk/filler
    pause 20
  done
  ends 74
  rm -f disk/filler
  is_turned_away && return
  expect_error 'No space left on device'
  expect_line stderr 'warning: .*No space left on device.* once more$'
}

# The odd ranks are cut off from the launcher: nobody but their watchdogs ends them.
strike_LINK() {
  local early=false
  is_running || early=true # on a busy machine an impatient watchdog may find that the run hangs
  pull_cable
  note_save
  end_hung_launcher
  ends 1 74 137 205
  plug_cable
  is_turned_away && return
  expect_error 'has not moved for [0-9]+ s in phase '
  ! $early || return 0
  grep -qx 74 status.[13] || fail "no rank beyond the broken link ended with 74: $(head status.*)"
  ! grep -vxE '74|1[2-9][0-9]' status.* || fail "a rank ended by itself with another status than 74"
}

# shellcheck disable=SC2154 # ends() sets it
is_turned_away() { [ "$ended" -eq 74 ] && grep -q '^lazytrain: error: folder disk/out is in use by a run' stderr; }

# Every checkpoint that is published is complete, and the newest one is no older than the one before and than what the run
# said it had saved. By other names of the files, since ranks whose launcher was killed may live on for a moment and
# remove old ones.
check_published() {
  local before=$newest file said
  rm -rf disk/seen
  mkdir disk/seen
  for file in disk/out/step_*.h5; do ln "$file" disk/seen 2>/dev/null && newest=$((10#${file:14:8})); done
  said=$(sed -nE 's/^saved disk\/out\/step_0*([0-9]+)\.h5.*/\1/p' stderr 2>/dev/null | tail -n 1)
  [ "$newest" -ge "$((before > ${said:-0} ? before : ${said:-0}))" ] ||
    fail "the newest checkpoint is of step $newest; it was of $before, and step ${said:-none} was saved"
  [ "$newest" -eq 0 ] || "$LAZYTRAIN" inspect --verify disk/seen >verified 2>&1 || fail "$(tail -n 1 verified)"
}

# What the started run goes on from is the newest checkpoint.
check_resumed() {
  local from
  from=$(sed -nE 's/^resume +disk\/out\/step_0*([0-9]+)\.h5.*/\1/p' stderr)
  [ "${from:-$1}" -ge "$newest" ] || fail "resumed from step $from, the newest checkpoint was of $newest"
}

# try_strike KIND WHOM: starts the run and strikes it; $outcome: struck, late (it had ended), away (turned away: the
# ranks of the run before still live).
try_strike() {
  local victims='' saving=false ranks victim moment ahead delay async spread stall steps=1000000000 at='' struck_us
  draw "$@"
  if [ "$moment" = end ]; then
    await_nobody # or $newest is not the newest
    check_published
    steps=$((newest + ahead))
  fi
  launch "$ranks" train.steps=$steps checkpoint.async="$async" parallel.zero=$((ahead % 2)) parallel.tensor="$width" \
    train.stall_timeout_s="$stall"
  await_moment "$2"
  now_us
  struck_us=$now
  "strike_$1" "$2"
  outcome=struck
  if [ "$ended" -eq 0 ]; then outcome=late; fi
  if is_turned_away; then outcome=away; fi
  count "$outcome"
  if [ "$outcome" != struck ]; then
    [ "$1" != STOP ] || unset 'pending[-1]'
    return
  fi
  [ "$1" = STOP ] || await_answer "$@"
  at=${at:-$(phase)}
  [ "$(grep -c '^lazytrain: error: ' stderr)" -le 1 ] || fail "more than one error: $(grep '^lazytrain: error: ' stderr)"
  check_resumed "$newest"
  # Every other killed launcher's ranks may still live when the run is started again.
  if [ "$*" != 'KILL launcher' ] || [ $((delay % 2)) -eq 0 ]; then await_nobody; fi
  check_published
  count "fault $1 $2 $at $((shown > newest ? shown - newest : 0)) $ranks $async"
}

strike() { # number, kind, whom
  local outcome=''
  RANDOM=$(((SEED + 7919 * $1) * 48271 % 2147483647))
  until [ "$outcome" = struck ]; do try_strike "$2" "$3"; done
}

# The job is started a last time, to an end beyond all that it has done, ranks without a launcher too.
finish() {
  local spread=false last ranks=$((1 << RANDOM % 3))
  [ "$ranks" -ge "$width" ] || ranks=$width
  await_nobody
  check_published
  last=$(((reached > newest ? reached : newest) / 2 * 2 + 4))
  launch "$ranks" train.steps=$last parallel.tensor="$width"
  wait_for is_answered
  ends 0
  look # it may have ended within a moment
  is_answered || fail "no step beyond $reached, where the last fault struck"
  check_resumed 0
  await_nobody
  expect_steps disk/out 1 $last
  expect_checkpoints disk/out $((last - 2)) $last
  [ "$(cd disk/out && echo * | wc -w)" -eq 3 ] || fail "left behind: $(ls disk/out)"
  expect 0 train "$width" parallel.tensor="$width" train.steps=$last checkpoint.dir=whole checkpoint.every=$last
  same_tensors "$(step_file whole $last)" "$(step_file disk/out $last)"
  same_metrics whole disk/out
  count "same $last $width"
}

# job NUMBER FAULT...
job() {
  local fault number=$(($1 * 1000))
  width=$((1 + ($1 + SEED) % 2))
  mkdir disk
  trap leave EXIT
  case "${*:2}" in *DISK*) mount_disk || fail 'no tmpfs' ;; esac
  case "${*:2}" in *LINK*) start_hosts || fail "$reason" ;; esac
  for fault in "${@:2}"; do
    number=$((number + 1)) present="fault $number: $fault"
    echo "# SEED=$SEED, $present"
    # shellcheck disable=SC2086 # kind and whom
    strike $number $fault
  done
  present=finish
  finish
  leave
}
mount_disk() { mount -t tmpfs -o size=48m none disk; }

leave_out() { # kind, reason
  local fault kept=()
  echo "# skip: $1: $2"
  for fault in "${kinds[@]}"; do [[ $fault == "$1"* ]] || kept+=("$fault"); done
  kinds=("${kept[@]}")
}

find_kinds() {
  mkdir disk
  if mount_disk 2>/dev/null; then umount disk; else leave_out DISK 'no tmpfs can be mounted'; fi
  rmdir disk
  if start_hosts; then end_hosts; else leave_out LINK "$reason"; fi
}

# draw_faults COUNT: sets `faults`.
draw_faults() {
  local fault i deck=()
  for fault in "${kinds[@]}"; do
    for i in $(seq "${fault##* }"); do deck+=("${fault% *}"); done
  done
  RANDOM=$SEED
  for i in $(seq "$1"); do faults+=("${deck[RANDOM % ${#deck[@]}]}"); done
}

test_nothing_is_lost() {
  local i faults=()
  write_config
  : >../facts
  find_kinds
  if [ -n "${FAULTS:-}" ]; then
    draw_faults "$FAULTS"
    job 0 "${faults[@]}"
  else
    for i in "${!kinds[@]}"; do
      case ${kinds[i]} in
        KILL*) faults=("${kinds[i]% *}" "${kinds[(i + 1) % 3]% *}") ;;
        *) faults=("${kinds[i]% *}") ;;
      esac
      try_apart job "$i" "${faults[@]}"
    done
    wait
  fi
  summarise
  all_held
}

run_tests
