#!/usr/bin/env bash
# Tensor parallelism: the model of one rank cut over 2 and 4; the same losses but for rounding, and at one width the same
# bits whatever else the layout is; any layout's checkpoints in any other. The slow tests of the same name have all layouts.
# shellcheck source=lib.sh
source "$(dirname "$0")/lib.sh"
# shellcheck source=lib/processes.sh
source "$(dirname "$0")/lib/processes.sh"
# shellcheck source=lib/layouts.sh
source "$(dirname "$0")/lib/layouts.sh"

# agrees LAYOUT...: of one width, each the same run as the first one; and that has the losses of one rank, in ../one.
agrees() {
  local layout first=$1
  for layout; do
    expect 0 lay "$layout" "$layout" "${words[@]}"
    [ "$layout" = "$first" ] || same_run "$first" "$layout" 20
  done
  near ../one "$first" loss 1e-4
  near ../one "$first" grad_norm 1e-3
  head -n 1 "$first/metrics.jsonl" >start.jsonl
  mkdir start first
  head -n 1 "$first/metrics.jsonl" >start/metrics.jsonl
  head -n 1 ../one/metrics.jsonl >first/metrics.jsonl
  near first start loss 1e-6
  near first start grad_norm 1e-5
}

# The losses of one rank at two widths.
has_the_losses_of_one_rank() {
  words=(train.steps=20 "$@")
  expect 0 train 1 "${words[@]}" checkpoint.dir=../one
  try_apart agrees 2x2x0 2x2x0 4x2x0 4x2x1
  try_apart agrees 4x4x0 8x4x1
  all_held
}

test_the_losses_of_one_rank() {
  write_odd_config
  has_the_losses_of_one_rank optimizer.grad_clip=0.5
}

test_a_tied_head_softmax_and_documents_apart() {
  write_odd_config
  tr '\n' '\000' <text.txt >zeros.txt
  has_the_losses_of_one_rank model.tie_embeddings=true model.attention.kind=softmax data.train=zeros.txt \
    data.document_mask=true data.document_token=0 train.micro_batch=2
}

test_as_many_key_heads_as_heads() {
  write_odd_config
  has_the_losses_of_one_rank model.num_kv_heads=4 model.vocab_size=301 optimizer.freeze_lazy_after=9
}

# rewrites LAYOUT: takes ../made/step_00000006.h5, does no step, and saves it again.
rewrites() {
  mkdir out
  cp ../made/step_00000006.h5 out
  expect 75 lay "$1" out train.steps=7 train.max_minutes=1e-9
  same_tensors ../made/step_00000006.h5 out/step_00000006.h5
  expect 0 lay "$1" out train.steps=6
  expect_line stderr '^nothing to do: .*step_00000006.h5 is of step 6'
}

test_checkpoints_go_to_any_layout() {
  write_odd_config
  local made layout
  for made in 2x1x1 4x2x1 4x4x0; do
    rm -rf ../made
    expect 0 lay $made ../made train.steps=6 schedule.decay_steps=12
    for layout in 1x1x0 2x2x0 4x1x1 4x2x1 8x4x1; do try_apart rewrites $layout; done
    all_held
  done
}

# Wider tensors, of several chunks each, whose chunks are written by all ranks.
test_checkpoints_of_a_larger_model() {
  write_odd_config
  sed -i 's/hidden_size: 32/hidden_size: 400/; s/intermediate_size: 48/intermediate_size: 1500/' tiny.yaml
  expect 0 lay 4x2x1 ../made train.steps=6 schedule.decay_steps=12
  try_apart rewrites 1x1x0
  try_apart rewrites 4x4x0
  all_held
}

# A resume in other layouts goes on with the losses; another width changes bits, which is said once.
test_a_resume_at_another_width() {
  write_odd_config
  local layout step=4
  expect 0 train 1 checkpoint.dir=whole
  for layout in 1x1x0 4x2x1 2x1x0 8x4x0; do
    expect 0 lay $layout out train.steps=$step schedule.decay_steps=12
    [ "$step" -eq 4 ] ||
      [ "$(grep -c 'warning: changed since .*, which changes bits: .*parallel.tensor [124] (was [124])' stderr)" -eq 1 ] ||
      fail "$layout does not say once that bits change"
    step=$((step + 4 > 12 ? 12 : step + 3))
  done
  expect_steps out 1 12
  near whole out loss 1e-4
  cp -r out before
  expect 0 lay 4x4x0 out train.steps=13 schedule.decay_steps=12
  ! grep -q 'changes bits' stderr || fail "other data ranks are said to change bits"
}

test_saves_in_the_background() {
  write_odd_config
  expect 0 lay 2x2x0 whole checkpoint.every=2 checkpoint.keep=0
  expect 0 lay 4x2x1 out checkpoint.every=2 checkpoint.keep=0 checkpoint.async=true
  expect_line stderr '^saved .*step_00000002.h5 in [0-9.]+ s, steps waited'
  local step
  for step in 2 4 6 8 10 12; do same_tensors "$(step_file whole $step)" "$(step_file out $step)"; done
  same_metrics whole out
}

# stopped RANK LAYOUT: a signal to one rank; the run that goes on is the one that nothing disturbed.
stopped() {
  local keys=("parallel.tensor=$(width_of "$2")" "parallel.zero=${2##*x}" train.steps=1000000000 schedule.kind=constant) last
  start_train "$(ranks_of "$2")" "${keys[@]}"
  await_step out 3
  kill -USR1 "$(rank_pid "$1")"
  ends 75
  expect_line stderr '^SIGUSR1: saving step [0-9]+ and leaving'
  last=$(last_step out)
  expect_checkpoints out "$last"
  expect 0 train "$(ranks_of "$2")" "${keys[@]}" train.steps=$((last + 2))
  expect 0 train "$(ranks_of "$2")" "${keys[@]}" train.steps=$((last + 2)) checkpoint.dir=whole
  same_run whole out $((last + 2))
}

test_signals() {
  write_odd_config
  try_apart stopped 0 2x2x0
  try_apart stopped 3 4x2x1
  all_held
}

# unreadable KEY...: rank 3 of two data ranks of two cannot read what the others read; nobody hangs.
unreadable() { # file, pattern, KEY=VALUE...
  local last
  load_faults FAULT_READ="$1" FAULT_WHEN="$PWD/now" FAULT_RANK=3
  start_train 4 parallel.tensor=2 train.steps=1000000000 schedule.kind=constant "${@:3}"
  await_step out 4
  touch now
  ends 74
  expect_error "$2"
  last=$(last_step out)
  expect_checkpoints out "$last"
  unset LD_PRELOAD
  expect 0 lazytrain inspect --verify "$(step_file out "$last")"
}

test_a_rank_that_cannot_read() {
  write_odd_config
  write_shard shard.bin 961
  write_text 3000 >held_out.txt
  try_apart unreadable shard.bin "data.train: reading .* of 'shard.bin' at byte [0-9]+ failed: Input/output error" \
    data.train=shard.bin data.tokenizer=none data.shuffle=false
  try_apart unreadable held_out.txt "data.validation: reading .* of 'held_out.txt' at byte [0-9]+ failed: Input/output error" \
    data.validation=held_out.txt train.eval_every=3
  all_held
}

# measures LAYOUT: validation and diagnostics of one rank, which are in ../one.
measures() {
  expect 0 lay "$1" out "${words[@]}"
  local key
  near ../one out val_loss 1e-5
  for key in sparsity sink mass tau_mean; do near ../one out $key 2e-3; done
  near ../one out live_tiles 0.05
  expect_line stderr "^checks "
}

# Ranks compare what they call, too.
test_validation_and_diagnostics() {
  write_odd_config
  write_text 3000 >held_out.txt
  words=(data.validation=held_out.txt train.eval_every=5 train.eval_batches=3 log.diagnostics_every=4)
  expect 0 train 1 "${words[@]}" checkpoint.dir=../one
  export LAZYTRAIN_CHECK_COLLECTIVES=1
  try_apart measures 2x2x0
  try_apart measures 4x2x1
  try_apart measures 4x4x0
  all_held
}

# The library's own sum has bits of its own, and the same losses.
test_the_fast_reduction() {
  write_odd_config
  local layout
  expect 0 train 1 checkpoint.dir=one
  for layout in 2x1x0 4x1x1 4x2x0 8x2x1; do
    expect 0 lay $layout $layout parallel.reduction=fast
    near one $layout loss 1e-4
  done
}

test_updates_that_are_not_finite() {
  write_odd_config
  local layout keys=(optimizer.lr=1000 optimizer.weight_decay=1000 schedule.kind=constant checkpoint.every=1)
  for layout in 2x2x0 8x2x1; do
    expect 1 lay $layout $layout "${keys[@]}"
    expect_error 'step [0-9]+: loss .*, gradient norm .*, first gradient that is not finite: model\.'
    grep -E '^lazytrain: error' stderr | sed 's/(.*)//' >said$layout
  done
  diff said2x2x0 said8x2x1 || fail "other data ranks say something else"
  same_metrics 2x2x0 8x2x1
}

test_one_rank_reads_the_checkpoint() {
  write_odd_config
  expect 0 lay 4x2x1 out
  expect 0 lazytrain inspect --verify out/step_00000012.h5
  expect_line stdout 'model.embeddings.weight +\[257, 32\]' 'lm_head.weight +\[257, 32\]'
  expect 0 lazytrain generate out/step_00000012.h5 --prompt "line 1" --max-tokens 8
}

# What a rank of the layout takes more with a larger model than with a small one is what was planned. A width of 2 halves
# it, but for a third buffer of gradients in the place of two: it has all lanes of the step, not half of them.
resident() { awk '/^RssAnon:/ { printf "%d", $2 * 1024 }' "/proc/$(rank_pid "$1")/status"; }
planned() { awk '/^memory / { printf "%d", $2 * 1048576 }' stderr; }

memory_of() { # layout, KEY=VALUE...
  local rank count
  count=$(ranks_of "$1")
  rm -rf out
  start_train "$count" parallel.tensor="$(width_of "$1")" parallel.zero="${1##*x}" train.steps=1000000000 \
    train.global_batch=4 checkpoint.every=2 checkpoint.keep=1 "${@:2}"
  await_step out 3
  bytes=("$(planned)")
  for ((rank = 0; rank < count; rank++)); do bytes+=("$(resident $rank)"); done
  kill -USR1 "$(rank_pid 0)"
  ends 75
}

test_memory_is_what_was_planned() {
  write_odd_config
  local layout rank small expected taken larger=(model.vocab_size=6001 model.hidden_size=640 model.intermediate_size=1004)
  local -A plans
  for layout in 2x1x0 2x2x0 4x2x1; do
    memory_of $layout
    small=("${bytes[@]}")
    memory_of $layout "${larger[@]}"
    expected=$((bytes[0] - small[0]))
    for ((rank = 1; rank < ${#bytes[@]}; rank++)); do
      taken=$((bytes[rank] - small[rank]))
      ((taken * 100 >= expected * 95 && taken * 100 <= expected * 105)) ||
        fail "$layout, rank $((rank - 1)): $taken bytes are taken, $expected were planned"
    done
    echo "# $layout: planned $expected, taken by the last rank $taken"
    plans[$layout]=$expected
  done
  [ $((plans[2x2x0] * 100)) -le $((plans[2x1x0] * 60)) ] || fail "a width of 2 plans ${plans[2x2x0]} of ${plans[2x1x0]} bytes"
}

run_tests
