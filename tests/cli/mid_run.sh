#!/usr/bin/env bash
# Failures in mid-run, on all ranks or on one alone: data that go or cannot be read (the state is saved, exit status
# 74), losses that are not finite (no update, 1, or skipped), ranks that stand still where nobody expects it.
# shellcheck source=lib.sh
source "$(dirname "$0")/lib.sh"
# shellcheck source=lib/processes.sh
source "$(dirname "$0")/lib/processes.sh"

endless=(train.steps=1000000000 schedule.kind=constant)

# The tiny config on a shard of 961 tokens: 40 samples of 24, 5 steps of 8 in order.
write_config() {
  write_tiny_config
  write_shard shard.bin 961
  sed -i 's/^data: .*/data: {train: shard.bin, seq_len: 24, shuffle: false}/' tiny.yaml
}

# The run of these ranks went on to some step, and ends there with 74 and a message that matches: its state is saved, and
# from there it goes on to the bits of an undisturbed run.
expect_saved() { # ranks, pattern, KEY=VALUE...
  local last
  ends 74
  expect_error "$2"
  last=$(last_step out)
  expect_checkpoints out "$last"
  [ ! -e out/lock ] || fail "the lock stays behind"
  unset LD_PRELOAD
  [ ! -e saved.bin ] || cp saved.bin shard.bin
  expect 0 train "$1" "${endless[@]}" train.steps=$((last + 2)) "${@:3}"
  expect 0 train 1 "${endless[@]}" train.steps=$((last + 2)) "${@:3}" checkpoint.dir=whole
  same_tensors "$(step_file whole $((last + 2)))" "$(step_file out $((last + 2)))"
  same_metrics whole out
}

# vanishing RANKS PATTERN COMMAND...: the command takes the shard away.
vanishing() {
  cp shard.bin saved.bin
  start_train "$1" "${endless[@]}"
  await_step out 2
  "${@:3}"
  expect_saved "$1" "$2"
}

test_a_shard_that_shrinks_or_vanishes() {
  write_config
  write_shard other.bin 961
  local count
  for count in 1 2; do
    try_apart vanishing $count "data.train: 'shard.bin' shrank in mid-run: it has 1500 bytes and had 2946" truncate -s 1500 shard.bin
    try_apart vanishing $count "data.train: 'shard.bin' vanished in mid-run: it was removed, renamed or replaced" rm shard.bin
    try_apart vanishing $count "data.train: 'shard.bin' vanished in mid-run" mv shard.bin elsewhere.bin
    try_apart vanishing $count "data.train: 'shard.bin' vanished in mid-run" mv other.bin shard.bin
  done
  all_held
}

# unreadable RANKS FAULT...: reading the shard fails with EIO.
unreadable() {
  load_faults FAULT_READ=shard.bin FAULT_WHEN="$PWD/now" "${@:2}"
  start_train "$1" "${endless[@]}"
  await_step out 2
  touch now
  expect_saved "$1" "data.train: reading 50 bytes of 'shard.bin' at byte [0-9]+ failed: Input/output error"
}

# The same of the validation set: what was trained until then is worth saving.
unreadable_validation() { # ranks, fault...
  local keys=(data.validation=held_out.txt train.eval_every=3)
  load_faults FAULT_READ=held_out.txt FAULT_WHEN="$PWD/now" "${@:2}"
  start_train "$1" "${endless[@]}" "${keys[@]}"
  await_step out 4
  touch now
  expect_saved "$1" "data.validation: reading .* of 'held_out.txt' at byte [0-9]+ failed: Input/output error" "${keys[@]}"
}

test_data_that_cannot_be_read() {
  write_config
  write_tiny_config
  write_text 3000 >held_out.txt
  try_apart unreadable_validation 1
  try_apart unreadable_validation 2 FAULT_RANK=1
  write_config
  try_apart unreadable 1
  try_apart unreadable 2
  try_apart unreadable 2 FAULT_RANK=1
  try_apart unreadable 2 FAULT_RANK=0
  all_held
}

# poisoned SAMPLE...: weights that make the loss of these samples NaN: the embedding of token 250, which they alone hold.
poisoned() {
  local sample
  /usr/bin/python3 -c 'import h5py' 2>/dev/null || skip "no h5py for /usr/bin/python3"
  write_config
  expect 0 train 1 train.steps=0 checkpoint.dir=seed
  /usr/bin/python3 -c "import h5py
with h5py.File('seed/step_00000000.h5', 'r+') as f: f['params/model.embeddings.weight'][250] = float('nan')"
  for sample; do write_token shard.bin $((24 * sample + 5)) 250; done
}

# stops RANKS WHERE: at step 3, before the update; the last checkpoint is whole, and goes on where skipping is allowed.
stops() {
  expect 1 train "$1" checkpoint.every=1 --init-from seed/step_00000000.h5
  expect_error "^lazytrain: error: step 3: loss -?nan \\($2\\), gradient norm -?nan, first gradient that is not finite: model\.embeddings\.weight; weights are those of step 2; .*set train.nonfinite: skip"
  expect_steps out 1 2
  expect_checkpoints out 1 2
  [ ! -e out/lock ] || fail "the lock stays behind"
  expect 0 lazytrain inspect --verify out/step_00000002.h5
  expect 0 train "$1" checkpoint.every=1 checkpoint.keep=0 train.nonfinite=skip
  expect_line stderr "warning: step 3: loss -?nan \\($2\\), first gradient that is not finite: model\.embeddings\.weight; update dropped \\(1 in a row, train.max_skips 3\\)"
  expect_steps out 1 12
  h5diff -p 0 out/step_00000002.h5 out/step_00000003.h5 /optimizer /optimizer >h5diff.out || fail "the update was made"
}

test_a_loss_that_is_not_finite() {
  poisoned 22 # of step 3, in the half that rank 1 of two takes
  try_apart stops 1 'first on rank 0'
  try_apart stops 2 'first on rank 1'
  all_held
}

# bounded RANKS: two in a row may be skipped, then one good step, but not three in a row.
bounded() {
  local keys=(train.nonfinite=skip train.max_skips=2 checkpoint.every=1)
  expect 1 train "$1" "${keys[@]}" --init-from seed/step_00000000.h5
  expect_error '^lazytrain: error: step 7: loss -?nan .*weights are those of step 6; .*raise train.max_skips'
  [ "$(grep -c 'warning: step [1256]: .* update dropped' stderr)" -eq 4 ] || fail "not four updates were dropped"
  expect_line stderr 'warning: step 1: .*\(1 in a row' 'warning: step 2: .*\(2 in a row' 'warning: step 5: .*\(1 in a row'
  expect_steps out 1 6
  expect_line out/metrics.jsonl '^\{"step":2,"tokens":384,"loss":null,.*"grad_norm":null' '^\{"step":3,"tokens":576,"loss":[0-9]'
  expect 0 lazytrain inspect --verify out/step_00000006.h5
}

test_skips_in_a_row_are_bounded() {
  poisoned 3 8 32 # of steps 1, 2 and 5, and of 6, 7 and 10: an epoch has 5 steps
  try_apart bounded 1
  try_apart bounded 2
  all_held
}

# A model that runs away by itself: the same on any ranks, and from the last checkpoint.
runs_away() {
  local keys=(optimizer.lr=1000 optimizer.weight_decay=1000 schedule.kind=constant checkpoint.every=1)
  expect 1 train "$1" "${keys[@]}"
  expect_error '^lazytrain: error: step [0-9]+: loss .*, gradient norm .*, first gradient that is not finite: .*; weights are those of step [0-9]+; lower optimizer.lr'
  grep '^lazytrain: error: ' stderr >first
  expect 0 lazytrain inspect --verify "$(step_file out "$(last_step out)")"
  expect 1 train "$1" "${keys[@]}"
  grep '^lazytrain: error: ' stderr | diff first - || fail "the last checkpoint leads elsewhere"
  expect 1 train 1 "${keys[@]}" checkpoint.dir=whole
  grep '^lazytrain: error: ' stderr | sed 's/(.*)//' | diff <(sed 's/(.*)//' first) - || fail "one rank says something else"
}

test_a_model_that_runs_away() {
  write_tiny_config
  try_apart runs_away 1
  try_apart runs_away 2
  all_held
}

# hangs RANKS PATTERN FAULT...: reading the shard never returns; the watchdog ends the run.
hangs() {
  load_faults FAULT_READ=shard.bin FAULT_WHEN="$PWD/now" FAULT_HANG=1 "${@:3}"
  start_train "$1" "${endless[@]}" train.stall_timeout_s=3
  await_step out 2
  touch now
  ends 74
  expect_error "$2"
}

test_a_read_that_never_returns() {
  write_config
  try_apart hangs 1 'rank 0 on host .* has not moved for [0-9]+ s in phase "reading data" of step'
  # One rank may have a micro-batch more than the other, and then waits for it.
  try_apart hangs 2 'rank 0 on host .* has not moved for [0-9]+ s in phase "(reading data|agreement before (a micro-batch|the exchange))" of step'
  try_apart hangs 2 'rank 0 on host .* has not moved for [0-9]+ s in phase "agreement before (a micro-batch|the exchange)" of step' FAULT_RANK=1
  all_held
}

# stays RANKS: one rank never gets through the end of the run, after everything was saved.
stays() {
  load_faults FAULT_FINALIZE=1 FAULT_RANK=$(($1 - 1))
  expect 74 train "$1" train.stall_timeout_s=3
  expect_error 'has not moved for [0-9]+ s in phase "leaving" of step 12'
  expect_checkpoints out 12
  unset LD_PRELOAD
  expect 0 lazytrain inspect --verify out/step_00000012.h5
}

test_a_rank_that_never_leaves() {
  write_config
  try_apart stays 1
  try_apart stays 2
  all_held
}

run_tests
