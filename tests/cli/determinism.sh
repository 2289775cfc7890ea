#!/usr/bin/env bash
# The same bits whatever the number of ranks and threads, and from one run to the next (contracts.md, "Determinism").
# shellcheck source=lib.sh
source "$(dirname "$0")/lib.sh"

# Many documents of all lengths, in an order that only a natural sort of their names gives; held-out files.
write_documents() {
  local i
  mkdir documents held_out
  for i in $(seq 1 60); do write_text $((1 + i * i * 7 % 131)) >"documents/part_$i.txt"; done
  : >documents/part_33.txt
  write_text 700 >held_out/a.txt
  write_text 345 >held_out/b.txt
}

# same_runs A B...: final tensors and all metrics of the runs in these folders.
same_runs() {
  local last
  last=$(basename "$1"/step_*.h5)
  for folder in "${@:2}"; do
    same_tensors "$1/$last" "$folder/$last"
    same_metrics "$1" "$folder"
  done
}

# ranks_agree NAME KEY=VALUE...: 1, 2, 4 and 8 ranks. Two micro-batches of two samples a lane.
ranks_agree() {
  local name=$1 count
  shift
  for count in 1 2 4 8; do
    expect 0 train $count train.steps=5 train.global_batch=32 train.micro_batch=2 log.diagnostics_every=2 \
      checkpoint.dir="$name$count" "$@"
  done
  same_runs "${name}1" "${name}2" "${name}4" "${name}8"
  expect_steps "${name}1" 1 5
}

test_ranks_change_no_bit_of_lazy_attention() {
  write_tiny_config
  write_documents
  try ranks_agree documents data.train=documents data.document_mask=true
  try ranks_agree tied model.tie_embeddings=true model.num_kv_heads=1
  if h5ls tied1/step_00000005.h5/params | grep -q lm_head; then fail "a tied head was saved"; fi
  all_held
}

test_ranks_change_no_bit_of_softmax() {
  write_tiny_config
  write_documents
  try ranks_agree softmax model.attention.kind=softmax data.train=documents data.document_mask=true
  try ranks_agree ungrouped model.attention.kind=softmax model.num_kv_heads=4 model.tie_embeddings=true
  all_held
}

# Sets of 28 and 42 samples: the last micro-batch is not full, and the ranks' shares differ.
test_ranks_change_no_bit_of_the_validation_loss() {
  write_tiny_config
  write_documents
  local count
  for count in 1 2 8; do
    expect 0 train $count train.steps=5 train.eval_every=2 train.micro_batch=1 data.seq_len=25 checkpoint.dir=out$count \
      'data.validation={first: held_out/a.txt, both: held_out}'
  done
  grep val_loss out1/metrics.jsonl >lines
  [ "$(wc -l <lines)" -eq 6 ] || fail "$(wc -l <lines) lines of validation, expected 2 at each of the steps 2, 4 and 5"
  expect_line lines '^\{"step":2,"val_loss":5\.[0-9]+,"name":"first"\}$' '^\{"step":5,"val_loss":[0-9.]+,"name":"both"\}$'
  same_runs out1 out2 out8
}

# Sizes at which every operation has several tiles to share out.
test_threads_change_no_bit() {
  write_tiny_config
  local kind count
  for kind in lazy softmax; do
    for count in 1 2 3; do
      expect 0 train 1 model.attention.kind=$kind model.hidden_size=96 model.intermediate_size=200 data.seq_len=150 \
        train.micro_batch=2 train.global_batch=4 train.steps=4 train.threads=$count checkpoint.dir=$kind$count
    done
    same_runs ${kind}1 ${kind}2 ${kind}3
  done
}

# The same command in two folders: whole files, attributes included.
test_a_run_repeats_to_the_byte() {
  mkdir first second
  for folder in first second; do
    (cd "$folder" && write_tiny_config && expect 0 train 2 train.steps=6 checkpoint.every=3) || exit 1
  done
  cmp first/out/step_00000003.h5 second/out/step_00000003.h5 >cmp.out || fail "$(cat cmp.out)"
  cmp first/out/step_00000006.h5 second/out/step_00000006.h5 >cmp.out || fail "$(cat cmp.out)"
  same_metrics first/out second/out
}

recomputes() { # RANKS TENSOR KIND
  expect 0 train "$1" train.steps=3 parallel.tensor="$2" train.recompute="$3" checkpoint.dir=again
  expect_line stderr "activations .* \\(recompute $3\\)"
  same_tensors again/step_00000003.h5 "../kept$2/step_00000003.h5"
}

test_recomputation_keeps_the_bits() {
  write_tiny_config
  local tensor kind
  for tensor in 1 2; do
    expect 0 train $tensor train.steps=3 parallel.tensor=$tensor checkpoint.dir=../kept$tensor
    for kind in attention full; do try_apart recomputes $tensor $tensor $kind; done
  done
  try_apart recomputes 2 1 full
  all_held
}

test_seeds_change_weights_and_order() {
  write_tiny_config
  expect 0 train 1 train.steps=2 checkpoint.dir=a
  expect 0 train 1 train.steps=2 checkpoint.dir=b train.seed=1
  expect 0 train 1 train.steps=2 checkpoint.dir=c data.seed=1
  expect 0 train 1 train.steps=2 checkpoint.dir=d data.shuffle=false
  [ "$(cat ./?/metrics.jsonl | sed -E 's/.*"loss":([0-9.]+),.*/\1/' | sort -u | wc -l)" -eq 8 ] ||
    fail "two of four runs that differ in a seed have the same loss"
}

final_loss() { sed -nE '$s/.*"loss":([0-9.]+),.*/\1/p' "$1/metrics.jsonl"; }

# Bits may differ between instruction sets; the losses stay close. What this CPU lacks is refused in one line.
test_every_instruction_set_runs() {
  write_tiny_config
  local isa ran=0
  expect 2 env LAZYTRAIN_ISA=mmx "$LAZYTRAIN" train tiny.yaml
  expect_error "LAZYTRAIN_ISA: 'mmx'"
  expect 0 train 1 checkpoint.dir=chosen
  for isa in avx512 avx2 sse2 generic; do
    LAZYTRAIN_ISA=$isa "$LAZYTRAIN" --version >version 2>stderr || continue
    expect_line version "^instruction set $isa\$"
    LAZYTRAIN_ISA=$isa expect 0 train 2 checkpoint.dir=$isa
    awk -v a="$(final_loss chosen)" -v b="$(final_loss $isa)" 'BEGIN { exit !(a > 0 && b > 0 && (a - b) ^ 2 < 1e-8 * a * a) }' ||
      fail "loss $(final_loss $isa) with $isa, $(final_loss chosen) with the chosen one"
    ran=$((ran + 1))
  done
  [ $ran -gt 0 ] || fail "no instruction set has a known name"
}

run_tests
