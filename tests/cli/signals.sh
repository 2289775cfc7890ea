#!/usr/bin/env bash
# Signals: a run saves and leaves with 75, or saves and goes on; what follows a stop has the bits of the run that nothing
# disturbed (contracts.md, "Command line"). Signals are sent once a step is known to be done.
# shellcheck source=lib.sh
source "$(dirname "$0")/lib.sh"
# shellcheck source=lib/processes.sh
source "$(dirname "$0")/lib/processes.sh"

endless=(train.steps=1000000000 schedule.kind=constant data.seq_len=60)

# After a stop at whatever step: three steps more, and the same number at one go, end with the same bits.
expect_same_as_undisturbed() { # ranks
  local last
  expect_line stderr "saving step [0-9]+ and leaving" '^saved out/step_'
  last=$(last_step out)
  [ -e "$(step_file out "$last")" ] || fail "no checkpoint of step $last, the last one of the metrics"
  expect_steps out 1 "$last"
  expect 0 train "$1" "${endless[@]}" train.steps=$((last + 3))
  expect_line stderr "^resume +out/step_0*$last.h5: step $last,"
  expect 0 train 1 "${endless[@]}" train.steps=$((last + 3)) checkpoint.dir=whole
  same_tensors "$(step_file whole $((last + 3)))" "$(step_file out $((last + 3)))"
  same_metrics whole out
}

test_usr1_to_the_launcher() {
  write_tiny_config
  start_train 2 "${endless[@]}"
  await_step out 5
  kill -USR1 "$started"
  ends 75
  if grep -q 'lazytrain: error' stderr; then fail "a stop is no error: $(grep 'lazytrain: error' stderr)"; fi
  expect_line stderr '^SIGUSR1: saving'
  expect_same_as_undisturbed 4
}

test_usr1_term_and_int_without_a_launcher() {
  write_tiny_config
  local name
  for name in USR1 TERM INT; do
    rm -rf out whole
    start_train 1 "${endless[@]}"
    await_step out 3
    kill -$name "$started"
    ends 75
    expect_line stderr "^SIG$name: saving"
  done
  expect_same_as_undisturbed 2
}

# Every rank may be the one that hears of the end: all stop, with one code.
test_usr1_to_one_rank_stops_all() {
  write_tiny_config
  start_train 4 "${endless[@]}"
  await_step out 2
  kill -USR1 "$(rank_pid 3)"
  ends 75
  expect_line stderr '^SIGUSR1: saving step [0-9]+ and leaving \(noticed on rank 3\)$'
  expect_same_as_undisturbed 1
}

test_term_after_usr1_does_not_disturb_the_save() {
  write_tiny_config
  start_train 1 "${endless[@]}"
  await_step out 3
  kill -USR1 "$started"
  kill -TERM "$started" 2>/dev/null
  kill -TERM "$started" 2>/dev/null
  ends 75
  expect_same_as_undisturbed 1
}

has_checkpoint() { compgen -G 'out/step_*.h5' >/dev/null; }

test_usr2_saves_and_goes_on() {
  write_tiny_config
  local first
  for count in 1 2; do
    rm -rf out whole
    start_train $count "${endless[@]}"
    await_step out 3
    kill -USR2 "$started"
    await "a checkpoint" has_checkpoint
    first=$(basename out/step_*.h5)
    await_step out $((10#${first:5:8} + 3))
    kill -USR1 "$started"
    ends 75
    [ -e "out/$first" ] || fail "$first is gone"
    expect 0 train 1 "${endless[@]}" train.steps=$((10#${first:5:8})) checkpoint.dir=whole
    same_tensors "whole/$first" "out/$first"
  done
}

# Rank 0 cannot finish a step while rank 1 is stopped: it has taken the first SIGINT and must not wait to obey the second.
test_a_second_int_leaves_at_once() {
  write_tiny_config
  start_train 2 "${endless[@]}"
  await_step out 3
  local rank0 rank1
  rank0=$(rank_pid 0) rank1=$(rank_pid 1)
  kill -STOP "$rank1"
  await "rank 1 to be stopped" is_state "$rank1" T
  kill -INT "$rank0"
  await "the first SIGINT to be taken" has_no_pending_signal "$rank0"
  kill -INT "$rank0"
  await "rank 0 to end" is_gone "$rank0"
  ends 130 137 1 # the launcher says which rank was killed, or that it ended the others
  await_gone "$rank1"
  if has_checkpoint; then fail "a checkpoint was saved"; fi
}

last_rank() { if [ "$1" -eq 1 ]; then echo "$started"; else rank_pid $(($1 - 1)); fi; } # ranks

# stopped_while WHAT RANKS FILE: reads of FILE take long from the start; USR1 to the last rank ends the run before its first
# step. Without the delay it goes on as if nothing had been.
stopped_while() {
  local before
  load_faults FAULT_READ="$3" FAULT_DELAY=100 FAULT_WHEN=tiny.yaml FAULT_RANK=$(($2 - 1))
  before=$(contents out)
  start_train "$2" train.steps=12
  await "reads of $3" test -e delayed
  kill -USR1 "$(last_rank "$2")"
  ends 75
  expect_line stderr "^SIGUSR1 while $1: leaving before the first step"
  unset LD_PRELOAD
  [ "$before" = "$(contents out)" ] || fail "the folder is not what it was"
  expect 0 train "$2" train.steps=12
  same_tensors whole/step_00000012.h5 out/step_00000012.h5
  same_metrics whole out
}

test_usr1_before_the_first_step() {
  write_tiny_config
  local i
  mkdir shards
  for i in $(seq 100 140); do write_text 300 >"shards/$i.txt"; done
  sed -i 's/train: text.txt/train: shards/' tiny.yaml
  expect 0 train 1 checkpoint.dir=whole
  expect 0 train 1 train.steps=5 schedule.decay_steps=12
  try_apart stopped_while 'looking at data files' 1 .txt
  try_apart stopped_while 'looking at data files' 2 .txt
  try_apart stopped_while 'reading (the structure of )?a checkpoint' 1 .h5
  try_apart stopped_while 'reading (the structure of )?a checkpoint' 2 .h5
  all_held
}

# stopped_in_validation RANKS WHOLE: the validation of step 6 is left at once, and the resumed run makes up for it.
stopped_in_validation() {
  load_faults FAULT_READ=held_out.txt FAULT_DELAY=200 FAULT_WHEN=out/metrics.jsonl
  start_train "$1" "${validated[@]}"
  await "a validation" test -e delayed
  kill -USR1 "$(last_rank "$1")"
  ends 75
  unset LD_PRELOAD
  expect_checkpoints out 6
  ! grep -q val_loss out/metrics.jsonl || fail "a validation that was left has a line"
  expect 0 train 1 "${validated[@]}"
  same_metrics "$2" out
}

# In the midst of a run, and after its last step, when the run that follows has nothing else to do.
test_usr1_in_a_validation() {
  write_tiny_config
  write_text 2000 >held_out.txt
  validated=(data.validation=held_out.txt train.eval_every=6)
  expect 0 train 1 "${validated[@]}" checkpoint.dir=whole
  try_apart stopped_in_validation 1 whole
  try_apart stopped_in_validation 2 whole
  validated+=(train.steps=6 schedule.decay_steps=12)
  expect 0 train 1 "${validated[@]}" checkpoint.dir=short
  try_apart stopped_in_validation 1 short
  all_held
}

# A limit that stops a run before its first step, then one that stops it soon: each goes on where the one before stopped.
test_max_minutes() {
  write_tiny_config
  for count in 1 2; do
    rm -rf out whole
    expect 75 train $count "${endless[@]}" train.max_minutes=0.0000001
    expect_line stderr '^train.max_minutes: saving step 0 and leaving'
    expect_checkpoints out 0
    expect 75 train $count "${endless[@]}" train.max_minutes=0.02
    expect_same_as_undisturbed 1
  done
}

run_tests
