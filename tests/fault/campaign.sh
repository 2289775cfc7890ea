#!/usr/bin/env bash
# The fault campaign: runs of one training job are struck by faults at random moments, several times each, and started
# again by the same command on 1, 2 or 4 ranks. Each must end with the bits and the metrics of the undisturbed run, and
# after every fault every published checkpoint must be complete.
#
# RUNS: how many runs (6); SEED: what the moments, victims and ranks are drawn from (random, and printed).
# shellcheck source=../cli/lib.sh
source "$(dirname "$0")/../cli/lib.sh"
# shellcheck source=../cli/lib/processes.sh
source "$(dirname "$0")/../cli/lib/processes.sh"
: "${RUNS:=6}" "${SEED:=$RANDOM}"
steps=16
exec 8<> <(:) # a pipe in which nothing ever comes

# A fault is a signal to whom aim_WHOM chooses from the processes of the started run.
faults=('KILL rank' 'KILL launcher' 'KILL all')
aim_rank() {
  local rank=$((RANDOM % ranks))
  if [ "$ranks" -eq 1 ]; then
    victims=$started # without a launcher
  else
    wait_for has_rank $rank
  fi
}
has_rank() {
  local pid
  pid=$(rank_pid "$1") && victims=$pid
}
aim_launcher() { victims=$started; }
aim_all() { victims="$started $(living)"; }

# A vocabulary that makes a save take as long as two steps.
write_config() {
  write_tiny_config
  sed -i "s/vocab_size: .*/vocab_size: 8192/; s/^checkpoint: .*/checkpoint: {dir: out, every: 2, keep: 2}/
    s/^train: .*/train: {steps: $steps, global_batch: 8, threads: 1, stall_timeout_s: 30}/" tiny.yaml
}

# What the launcher leaves when it is killed lies in this folder; the processes of this run are known by its name.
launch() { # ranks
  local temporary=$PWD/tmp
  mkdir -p "$temporary"
  train_command "$1"
  start env TMPDIR="$temporary" OMPI_MCA_btl_vader_backing_directory="$temporary" "${command[@]}"
  trap end_living EXIT
}
living() { grep -lzsxF "TMPDIR=$PWD/tmp" /proc/[0-9]*/environ | tr -dc '0-9\n'; }
is_nobody_living() { [ -z "$(living)" ]; }
# shellcheck disable=SC2046 # one word a process
end_living() { is_nobody_living || kill -KILL $(living); }

await_nobody() {
  local end=$((SECONDS + 60))
  until is_nobody_living; do
    [ $SECONDS -lt $end ] || fail "processes are left behind: $(living)"
    pause 50
  done
}

pause() { read -rt "$(printf '%d.%03d' $(($1 / 1000)) $(($1 % 1000)))" -u 8; } # milliseconds; starts no process

# Waits until a command is true or the started run has ended.
wait_for() {
  until "$@" || ! kill -0 "$started" 2>/dev/null; do pause 4; done
}
has_shown() { # step
  local lines
  mapfile -t lines <stderr
  [[ "${lines[*]}" == *"step $1/"* ]]
}
has_lock() { [ out/lock -nt stdout ]; } # a lock of its own, not of the run before
is_saving() { compgen -G 'out/step_*.partial' >/dev/null; }

# What the run was at when it was struck, from what it left.
phase() {
  if $saving; then
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

# Open MPI 4.1's launcher may wait for ever, alone, when a rank dies while it connects. A user would end it.
end_hung_launcher() {
  local end=$((SECONDS + 60))
  until ! kill -0 "$started" 2>/dev/null || [ $SECONDS -ge $end ]; do
    if grep -q 'PMIX ERROR: UNREACHABLE' stderr && [ "$(living)" = "$started" ]; then
      kill -KILL "$started" 2>/dev/null && count hung
    fi
    pause 20
  done
}

count() { echo "$*" >>../facts; }

# shellcheck disable=SC2154 # ends() sets it
is_turned_away() { [ "$ended" -eq 74 ] && grep -q '^lazytrain: error: folder out is in use by a run' stderr; }

# Every checkpoint that is published is complete, and the newest one is no older than the one before. By other names of
# the files, since ranks whose launcher was killed may live on for a moment and remove old ones.
check_published() {
  local before=$newest file
  rm -rf seen
  mkdir seen
  for file in out/step_*.h5; do ln "$file" seen 2>/dev/null && newest=$((10#${file:9:8})); done
  [ "$newest" -ge "$before" ] || fail "the newest checkpoint is of step $newest, it was of $before"
  [ "$newest" -eq 0 ] || "$LAZYTRAIN" inspect --verify seen >verified 2>&1 || fail "$(tail -n 1 verified)"
}

# What the started run goes on from is the newest checkpoint.
check_resumed() {
  local from
  from=$(sed -nE 's/^resume +out\/step_0*([0-9]+)\.h5.*/\1/p' stderr)
  [ "${from:-$1}" -ge "$newest" ] || fail "resumed from step $from, the newest checkpoint was of $newest"
}

# Draws a moment of the started run and waits for it: some time after the start, in the restore, after a step or in a
# save. Who is struck is looked up before the moment where it is short.
await_moment() { # whom
  local kinds=(start restore) kind step=0
  if [ "$newest" -lt $steps ]; then
    kinds+=(step save save)
    step=$((newest + 1 + RANDOM % (steps - newest)))
  fi
  kind=${kinds[RANDOM % ${#kinds[@]}]}
  case $kind in
    start) pause $((RANDOM % 900)) ;;
    restore) wait_for has_lock ;;
    *) wait_for has_shown $step ;;
  esac
  "aim_$1"
  case $kind in
    step) pause $((RANDOM % 60)) ;;
    save)
      wait_for is_saving
      pause $((RANDOM % 20))
      ;;
  esac
}

# strike SIGNAL WHOM: starts the run and strikes it; $outcome: struck, late (it had ended), away (turned away: the ranks
# of the run before still live).
strike() {
  local at last victims='' saving=false ranks=$((1 << RANDOM % 3))
  [ "$2" != launcher ] || [ $ranks -gt 1 ] || ranks=2
  launch $ranks
  await_moment "$2"
  # shellcheck disable=SC2086 # one word a process
  kill -"$1" $victims 2>/dev/null
  if is_saving; then saving=true; fi
  at=$(phase)
  end_hung_launcher
  ends 0 74 137
  outcome=struck
  if [ "$ended" -eq 0 ]; then outcome=late; fi
  if is_turned_away; then outcome=away; fi
  count "$outcome"
  [ "$outcome" = struck ] || return 0
  [ "$(grep -c '^lazytrain: error: ' stderr)" -le 1 ] || fail "more than one error: $(grep '^lazytrain: error: ' stderr)"
  check_resumed "$newest"
  # Every other killed launcher's ranks may still live when the run is started again.
  if [ "$2" != launcher ] || [ $((RANDOM % 2)) -eq 0 ]; then await_nobody; fi
  check_published
  last=$(sed -nE 's/^step ([0-9]+)\/.*/\1/p' stderr | tail -n 1)
  count "fault $1 $2 $at $((${last:-0} > newest ? last - newest : 0))"
}

# The last start of a run goes on to the end.
finish() {
  local end=$((SECONDS + 60))
  launch $((1 << RANDOM % 3))
  ends 0 74
  if is_turned_away; then
    [ $SECONDS -lt $end ] || fail "the folder stays in use: $(tail -n 1 stderr)"
    count away
    finish
    return
  fi
  [ "$ended" -eq 0 ] || fail "exit status $ended: $(tail -n 1 stderr)"
  check_resumed 0
  await_nobody
  [ "$(cd out && echo *)" = "metrics.jsonl step_00000014.h5 step_00000016.h5" ] || fail "left behind: $(ls out)"
  same_tensors ../whole/step_00000016.h5 out/step_00000016.h5
  same_metrics ../whole out
  rm -rf out seen
  count same
}

disturbed_run() { # number
  local struck=0 strikes newest=0 outcome
  echo "# run $1 of SEED=$SEED"
  RANDOM=$((SEED + $1))
  strikes=$((1 + RANDOM % 3))
  while [ $struck -lt $strikes ]; do
    # shellcheck disable=SC2086 # signal and whom
    strike ${faults[($1 + struck) % ${#faults[@]}]}
    case $outcome in
      struck) struck=$((struck + 1)) ;;
      late)
        [ $struck -eq 0 ] || break
        rm -rf out
        ;;
    esac
  done
  finish
}

# What was counted, for people.
summarise() {
  awk -v runs="$RUNS" -v seed="$SEED" -v names="$(printf '%s,' "${faults[@]}")" '
    $1 == "fault" { of[$2 " " $3]++; by[$2 " " $3, $4]++; repeated += $5 }
    { counted[$1]++ }
    END {
      printf "# fault: %d runs (SEED=%d): %d faults, %d steps repeated; %d starts turned away while ranks lived, ",
        runs, seed, counted["fault"], repeated, counted["away"]
      printf "%d moments after the end, %d launchers hung without ranks\n", counted["late"], counted["hung"]
      phases = split("start-up restore step save end", phase, " ")
      for (f = 1; f < split(names, name, ","); f++) {
        printf "# fault: %-13s %3d times:", name[f], of[name[f]]
        for (p = 1; p <= phases; p++) printf " %s %d%s", phase[p], by[name[f], phase[p]], p < phases ? "," : "\n"
      }
      printf "# fault: %d of %d runs ended with the bits and the metrics of the undisturbed run\n", counted["same"], runs
    }' ../facts
}

test_nothing_is_lost() {
  local i
  write_config
  expect 0 train 1 checkpoint.dir=../whole
  expect_steps ../whole 1 $steps
  : >../facts
  for i in $(seq 1 "$RUNS"); do try_apart disturbed_run "$i"; done
  wait
  summarise
  all_held
}

run_tests
