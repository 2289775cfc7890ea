#!/usr/bin/env bash
# The sharded optimiser (parallel.zero: 1): the bits, metrics and checkpoints of zero: 0 at any number of ranks, in less
# memory.
# shellcheck source=lib.sh
source "$(dirname "$0")/lib.sh"
# shellcheck source=lib/processes.sh
source "$(dirname "$0")/lib/processes.sh"

# Shares are cut inside tensors, chunks of a checkpoint go over several shares, and nothing divides by the ranks. Clipping
# is at work.
wide=(model.hidden_size=200 model.intermediate_size=413 optimizer.grad_clip=0.5)

# same_but_for_zero A B: tensors, and all bytes but those of the config's digit, and of the checksum over it.
same_but_for_zero() {
  same_tensors "$1" "$2"
  [ "$(stat -c %s "$1")" -eq "$(stat -c %s "$2")" ] || fail "$1 and $2 have other sizes"
  [ "$(cmp -l "$1" "$2" | wc -l)" -le 5 ] || fail "$1 and $2 differ in $(cmp -l "$1" "$2" | wc -l) bytes"
}

# agrees RANKS WORD...: the same run with zero 0 and 1.
agrees() {
  local zero step
  for zero in 0 1; do
    mkdir zero$zero
    cp tiny.yaml text.txt zero$zero
    (cd zero$zero && expect 0 train "$1" train.steps=5 checkpoint.every=2 checkpoint.keep=0 parallel.zero=$zero "${@:2}") || exit 1
  done
  grep -qE 'optimizer .*\(1 of '"$1"' shares\)' zero1/stderr || [ "$1" -eq 1 ] || fail "the banner tells of no shares"
  expect_checkpoints zero1/out 2 4 5
  for step in 2 4 5; do same_but_for_zero "$(step_file zero0/out $step)" "$(step_file zero1/out $step)"; done
  same_metrics zero0/out zero1/out
  same_metrics ../first "zero1/out"
}

# bits_of_zero_0 WORD...: at every number of ranks, and these among one another.
bits_of_zero_0() {
  local count
  expect 0 train 1 train.steps=5 checkpoint.dir=../first "$@"
  for count in 1 2 4 8; do try_apart agrees $count "$@"; done
  all_held
}

test_the_bits_of_zero_0() {
  write_tiny_config
  bits_of_zero_0 "${wide[@]}"
}

test_the_bits_of_a_small_tied_model() {
  write_tiny_config
  bits_of_zero_0 model.tie_embeddings=true model.attention.kind=softmax
}

# Tensors of several chunks.
test_the_bits_of_a_larger_model() {
  write_tiny_config
  bits_of_zero_0 model.hidden_size=400 model.intermediate_size=1501 model.num_layers=1
}

test_frozen_parameters() {
  write_tiny_config
  bits_of_zero_0 "${wide[@]}" optimizer.freeze_lazy_after=2 optimizer.lazy_lr_multiplier=3
}

# An update that is dropped is dropped on all ranks, and says the same.
test_updates_that_are_not_finite() {
  write_tiny_config
  local zero
  for zero in 0 1; do
    expect 1 train 4 "${wide[@]}" optimizer.lr=1000 optimizer.weight_decay=1000 schedule.kind=constant \
      train.nonfinite=skip train.max_skips=2 checkpoint.every=1 parallel.zero=$zero checkpoint.dir=out$zero
    expect_error 'first gradient that is not finite: model'
    grep -E '^lazytrain: (warning|error)' stderr >said$zero
    expect_line said$zero 'update dropped \(2 in a row'
  done
  diff said0 said1 >said.diff || fail "zero 1 says something else: $(head -3 said.diff)"
  same_metrics out0 out1
}

test_saves_in_the_background() {
  write_tiny_config
  local count
  expect 0 train 1 "${wide[@]}" checkpoint.every=2 checkpoint.keep=0 checkpoint.dir=whole
  for count in 2 4 8; do
    expect 0 train $count "${wide[@]}" checkpoint.every=2 checkpoint.keep=0 checkpoint.async=true parallel.zero=1 checkpoint.dir=out$count
    expect_line stderr "memory .*checkpoint's copy [0-9.]+" '^saved .*step_00000002.h5 in [0-9.]+ s, steps waited'
    for step in 2 4 6 8 10 12; do same_tensors "$(step_file whole $step)" "$(step_file out$count $step)"; done
    same_metrics whole out$count
  done
}

# leg RANKS ZERO SIGNAL STATUS: three steps more at least, then the end of one rank or a stop.
leg() {
  local from
  from=$(last_step out 2>/dev/null)
  start_train "$1" "${endless[@]}" parallel.zero="$2"
  await_step out $((${from:-0} + 3))
  kill -"$3" "$(rank_pid $(($1 - 1)))"
  ends "$4"
}

# Killed and stopped, on other ranks and with the other zero each time: the file of the run that nothing disturbed.
test_kills_and_other_ranks_and_zero() {
  write_tiny_config
  endless=(train.steps=1000000000 schedule.kind=constant schedule.decay_steps=9 checkpoint.every=2 "${wide[@]}")
  leg 4 1 KILL 137
  leg 2 0 USR1 75
  leg 8 1 USR1 75
  leg 2 1 KILL 137
  local steps=$(($(last_step out) + 3)) zero
  mkdir whole
  cp tiny.yaml text.txt whole
  cp -r out struck
  for zero in 0 1; do
    rm -rf out whole/out
    cp -r struck out
    endless+=("train.steps=$steps" "parallel.zero=$zero")
    expect 0 train $((4 - 2 * zero)) "${endless[@]}"
    (cd whole && expect 0 train $((4 - 2 * zero)) "${endless[@]}") || exit 1
    cmp "$(step_file out $steps)" "$(step_file whole/out $steps)" || fail "with zero $zero the file is another one"
    same_metrics out whole/out
  done
}

# resident RANK: bytes that a rank of the started run has taken for itself.
resident() { awk '/^RssAnon:/ { printf "%d", $2 * 1024 }' "/proc/$(rank_pid "$1")/status"; }
planned() { awk '/^memory / { printf "%d", $2 * 1048576 }' stderr; }

# memory_of ZERO WORD...: planned and resident bytes of 4 ranks after a save.
memory_of() {
  local rank
  rm -rf out
  start_train 4 train.steps=1000000000 train.global_batch=4 checkpoint.every=2 checkpoint.keep=1 parallel.zero="$1" "${@:2}"
  await_step out 3
  bytes=("$(planned)")
  for rank in 0 1 2 3; do bytes+=("$(resident $rank)"); done
  kill -USR1 "$(rank_pid 0)"
  ends 75
}

# What a larger model takes more than a small one, of which the library's own memory is no part.
test_memory_is_what_was_planned() {
  write_tiny_config
  local zero rank small expected taken larger=(model.vocab_size=6000 model.hidden_size=640 model.intermediate_size=1003)
  for zero in 0 1; do
    memory_of $zero
    small=("${bytes[@]}")
    memory_of $zero "${larger[@]}"
    expected=$((bytes[0] - small[0]))
    for rank in 0 1 2 3; do
      taken=$((bytes[rank + 1] - small[rank + 1]))
      ((taken * 100 >= expected * 95 && taken * 100 <= expected * 105)) ||
        fail "zero $zero, rank $rank: $taken bytes are taken, $expected were planned"
    done
    echo "# zero $zero: planned $expected, taken by rank 3 $taken"
    plans[zero]=$expected
  done
  # parameters, gradients, two moments; of these three quarters less
  [ $((plans[1] * 100)) -le $((plans[0] * 65)) ] || fail "zero 1 plans ${plans[1]} bytes, zero 0 ${plans[0]}"
}

run_tests
