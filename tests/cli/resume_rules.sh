#!/usr/bin/env bash
# What a resumed run may change, and what it does with the folder: keys that are free, that need --allow, that never
# change; --resume none, --overwrite, --init-from; keep and keep_every (contracts.md, "Command line", "Config").
# shellcheck source=lib.sh
source "$(dirname "$0")/lib.sh"

# A run of 4 steps in `out`, of which 6 were planned; a second shard of text that a resumed run may turn to.
write_run() {
  write_tiny_config
  write_text 3000 >held_out.txt
  write_text 7000 | tac >other.txt
  expect 0 train 1 train.steps=4 schedule.decay_steps=6 "$@"
}

# resumed KEY=VALUE...: a copy of the run takes the change without a word.
resumed() {
  rm -rf copy
  cp -r out copy
  expect 0 train 1 train.steps=6 schedule.decay_steps=6 checkpoint.dir=copy "$@"
  expect_steps copy 1 6
}

test_free_keys_change_freely() {
  write_run
  resumed log.every=1
  mv copy plain
  resumed data.validation=held_out.txt train.eval_every=1 train.eval_batches=1 train.threads=2 train.max_minutes=50 \
    train.stall_timeout_s=500 train.nonfinite=skip train.max_skips=1 train.device=cpu checkpoint.every=1 checkpoint.keep=1 \
    checkpoint.keep_every=2 log.diagnostics_every=5
  if grep -q 'lazytrain: warning' stderr; then fail "$(grep 'lazytrain: warning' stderr)"; fi
  expect_line copy/metrics.jsonl '^\{"step":6,"val_loss"' '^\{"step":5,.*"sparsity"'
  same_tensors plain/step_00000006.h5 copy/step_00000006.h5
}

# Free, but the bits that follow are others: said once.
test_free_keys_that_change_bits_are_told() {
  write_run
  try resumed parallel.lanes=4
  try expect_line stderr 'lazytrain: warning: changed since .*parallel.lanes 4 \(was 8\)'
  [ "$(grep -c 'parallel.lanes 4 (was' stderr)" -eq 1 ] || fail "said more than once"
  try resumed train.micro_batch=2 # the lanes of the checkpoint no longer divide: 4 micro-batches
  try expect_line stderr 'train.micro_batch 2 \(was 1\), parallel.lanes 4 \(was 8\)'
  all_held
}

# needs_allow KEY VALUE [KEY=VALUE...]: refused, naming the key, both values and --allow; goes on with it.
needs_allow() {
  rm -rf copy
  cp -r out copy
  refused "$1: found .*but the checkpoint was trained with .*--allow $1 " -- \
    train 1 train.steps=6 schedule.decay_steps=6 checkpoint.dir=copy "$1=$2" "${@:3}"
  expect 0 train 1 train.steps=6 schedule.decay_steps=6 checkpoint.dir=copy "$1=$2" "${@:3}" --allow "$1"
  expect_steps copy 1 6
}

test_keys_that_need_allow() {
  write_run
  try_apart needs_allow optimizer.lr 1e-4
  try_apart needs_allow optimizer.betas '[0.8, 0.9]'
  try_apart needs_allow optimizer.freeze_lazy_after 5
  try_apart needs_allow schedule.warmup_steps 1
  try_apart needs_allow data.train other.txt
  try_apart needs_allow data.seed 3
  try_apart needs_allow train.global_batch 16
  all_held
}

test_allow_takes_groups_and_knows_its_keys() {
  write_run
  cp -r out copy
  expect 0 train 1 train.steps=6 schedule.decay_steps=6 checkpoint.dir=copy optimizer.lr=1e-4 optimizer.eps=1e-7 --allow optimizer
  cp -r out again
  refused 'optimizer.eps: found' -- train 1 train.steps=6 schedule.decay_steps=6 checkpoint.dir=again optimizer.lr=1e-4 \
    optimizer.eps=1e-7 --allow optimizer.lr
  refused '--allow optimiser.lr: there is no such key; did you mean optimizer.lr\?' -- \
    train 1 train.steps=6 checkpoint.dir=again --allow optimiser.lr
}

# never_changes KEY=VALUE...: refused even with --allow; the message says what to do instead.
never_changes() {
  refused "${1%%=*}: found .*never changes in a run.*--init-from" -- train 1 train.steps=6 "$@" --allow "${1%%=*}"
}

test_keys_that_never_change() {
  write_run
  try_apart refused 'model.hidden_size: found 40, but the run in this folder has 32' -- train 2 model.hidden_size=40
  try_apart never_changes model.num_layers=1
  try_apart never_changes model.num_kv_heads=4
  try_apart never_changes model.intermediate_size=52
  try_apart never_changes model.vocab_size=300
  try_apart never_changes model.tie_embeddings=true
  try_apart never_changes model.attention.kind=softmax
  try_apart never_changes model.attention.bias_length=17
  try_apart never_changes model.rope_theta=20000
  try_apart never_changes data.seq_len=25
  all_held
}

# A key that is unset takes what the checkpoint resolved: the cosine ends where it ended, then stays at the minimum.
test_a_longer_run_keeps_its_schedule() {
  write_run schedule.warmup_steps=1
  expect 0 train 1 train.steps=9 schedule.warmup_steps=1
  expect_steps out 1 9
  local rates
  rates=$(sed -nE 's/^\{"step":[6789],.*"lr":([^,]*),.*/\1/p' out/metrics.jsonl | sort -u)
  [ "$rates" = 0.0003 ] || fail "rates of steps 6 to 9: $rates, expected the minimum 0.0003 that step 6 reaches"
  expect 2 train 1 train.steps=10 # warmup_steps of the file is another value than the checkpoint's
  expect_error 'schedule.warmup_steps: found 2.*trained with 1'
}

# shortened RANKS: train.steps may fall below the warm-up of a schedule that the checkpoint keeps.
shortened() {
  expect 0 train "$1" train.steps=3
  expect_steps out 1 3
  expect 0 train "$1" train.steps=3 --resume out/step_00000002.h5
  refused 'schedule.warmup_steps: found 5, expected at most schedule.decay_steps 3' -- train "$1" train.steps=3 checkpoint.dir=new
  refused 'schedule.warmup_steps: found 5, expected at most schedule.decay_steps 3' -- train "$1" train.steps=3 --resume none --overwrite
  refused 'schedule.warmup_steps: found 5, expected at most schedule.decay_steps 4' -- train "$1" train.steps=3 schedule.decay_steps=4 --allow schedule
}

test_a_shorter_run_keeps_its_schedule() {
  write_tiny_config
  sed -i 's/warmup_steps: 2/warmup_steps: 5/' tiny.yaml
  expect 0 train 1 train.steps=2 schedule.decay_steps=12
  try_apart shortened 1
  try_apart shortened 2
  all_held
}

run_folder() { expect 0 train 1 train.steps=6 schedule.decay_steps=6 checkpoint.every=1 "$@"; }

test_keep_and_keep_every() {
  write_tiny_config
  run_folder checkpoint.dir=default
  expect_checkpoints default 4 5 6
  run_folder checkpoint.dir=one checkpoint.keep=1
  expect_checkpoints one 6
  run_folder checkpoint.dir=all checkpoint.keep=0
  expect_checkpoints all 1 2 3 4 5 6
  run_folder checkpoint.dir=both checkpoint.keep=1 checkpoint.keep_every=2
  expect_checkpoints both 2 4 6
  expect 0 train 2 train.steps=7 schedule.decay_steps=6 checkpoint.dir=all checkpoint.keep=2
  expect_checkpoints all 6 7
  expect 0 train 1 train.steps=5 schedule.decay_steps=6 checkpoint.every=2 checkpoint.dir=every
  expect_checkpoints every 2 4 5
}

test_resume_none() {
  write_run
  refused '^lazytrain: error: out holds a run.*--overwrite' -- train 2 --resume none
  refused '--overwrite goes with --resume none' -- train 2 --overwrite
  echo mine >out/notes
  expect 0 train 2 --resume none --overwrite train.steps=5
  expect_checkpoints out 5
  expect_steps out 1 5
  [ "$(cat out/notes)" = mine ] || fail "--overwrite removed a file that is no run's"
  expect 0 train 1 --resume none train.steps=5 checkpoint.dir=fresh
  same_tensors fresh/step_00000005.h5 out/step_00000005.h5
}

# Metrics alone are a run too, also after all its checkpoints went.
test_resume_none_spares_metrics() {
  write_run
  rm out/step_*
  refused 'out holds a run' -- train 1 --resume none
}

# refused_file FILE PATTERN...: --resume FILE is refused, and nothing in the folder changes.
refused_file() {
  local count
  for count in 1 2; do try_apart refused "${@:2}" -- train $count train.steps=6 --resume "$1"; done
}

test_a_bad_file_by_name() {
  write_run checkpoint.every=1 checkpoint.keep=0
  mkdir bad
  cp out/step_00000003.h5 bad/flipped.h5
  flip_byte bad/flipped.h5 $(($(stat -c %s bad/flipped.h5) / 2))
  head -c 5000 out/step_00000003.h5 >bad/short.h5
  refused_file bad/missing.h5 'bad/missing.h5: .*No such file'
  refused_file bad/flipped.h5 'bad/flipped.h5: .*checksum'
  refused_file bad/short.h5 'bad/short.h5: .*(truncated|damaged)'
  refused_file text.txt 'text.txt: not an HDF5 file'
  refused_file bad 'bad: not a file'
  refused_file '' '--resume needs a value'
  all_held
}

# initialised RANKS: weights only: step 0, moments of zero; the schedule, the data and the length are the new run's.
initialised() {
  expect 0 train "$1" checkpoint.dir=new train.steps=0 --init-from out/step_00000004.h5
  expect_checkpoints new 0
  h5diff out/step_00000004.h5 new/step_00000000.h5 /params /params >h5diff.out 2>&1 || fail "other weights: $(head -1 h5diff.out)"
  h5dump -d /optimizer/v/model.norm.weight new/step_00000000.h5 | grep -q '(0): 0, 0, 0' || fail "moments are not 0"
  expect 0 train "$1" checkpoint.dir=longer data.seq_len=48 data.train=other.txt optimizer.lr=1e-3 --init-from out/step_00000004.h5
  expect_line stderr '^weights +from out/step_00000004.h5'
  expect_steps longer 1 12
  expect 0 train 1 checkpoint.dir=plain data.seq_len=48 data.train=other.txt optimizer.lr=1e-3
  [ "$(head -c 60 longer/metrics.jsonl)" != "$(head -c 60 plain/metrics.jsonl)" ] || fail "the weights were not taken"
}

test_init_from() {
  write_run
  try_apart initialised 1
  try_apart initialised 2
  all_held
}

# A script that is started again with its --init-from goes on with its own run.
test_init_from_in_a_folder_with_a_run_goes_on() {
  write_run
  expect 0 train 1 checkpoint.dir=new train.steps=3 schedule.decay_steps=6 --init-from out/step_00000004.h5
  expect 0 train 1 checkpoint.dir=new train.steps=6 schedule.decay_steps=6 --init-from out/step_00000004.h5
  expect_line stderr '^resume +new/step_00000003.h5'
  if grep -q '^weights' stderr; then fail "weights are said to come from elsewhere: $(grep '^weights' stderr)"; fi
  expect 0 train 1 checkpoint.dir=whole train.steps=6 --init-from out/step_00000004.h5
  same_tensors whole/step_00000006.h5 new/step_00000006.h5
}

test_init_from_what_cannot_be() {
  write_run
  head -c 5000 out/step_00000004.h5 >short.h5
  local count
  for count in 1 2; do
    try_apart refused 'lm_head.weight|model.*weight' '(shape|\[)' -- train $count checkpoint.dir=out2 model.intermediate_size=52 --init-from out/step_00000004.h5
    try_apart refused 'short.h5' -- train $count checkpoint.dir=out2 --init-from short.h5
    try_apart refused 'missing.h5: .*No such file' -- train $count checkpoint.dir=out2 --init-from missing.h5
    try_apart refused '--init-from starts a new run' -- train $count --init-from out/step_00000004.h5 --resume out/step_00000004.h5
    # With --overwrite the run that is there goes only when its successor can start.
    try_apart refused 'short.h5' -- train $count --init-from short.h5 --resume none --overwrite
  done
  all_held
}

run_tests
