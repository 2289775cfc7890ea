#!/usr/bin/env bash
# Every layout of 1, 2, 4 and 8 ranks x tensor 1, 2, 4 x zero 0, 1: losses, bits at a width, checkpoints of each in all
# others. The quick tests of the same name have the most telling ones.
# shellcheck source=../cli/lib.sh
source "$(dirname "$0")/../cli/lib.sh"
# shellcheck source=../cli/lib/layouts.sh
source "$(dirname "$0")/../cli/lib/layouts.sh"
export RUN_TIMEOUT=600

layouts_of_width() { # width
  local ranks zero
  for ranks in 1 2 4 8; do
    for zero in 0 1; do [ $((ranks % $1)) -ne 0 ] || echo "${ranks}x$1x$zero"; done
  done
}

# trains WORD...: in all layouts, each in its folder beside the others.
trains() {
  local width layout first
  words=(train.steps=20 checkpoint.every=10 checkpoint.keep=0 "$@")
  for width in 1 2 4; do
    first=
    for layout in $(layouts_of_width $width); do
      expect 0 lay "$layout" "$layout" "${words[@]}"
      same_run "${first:=$layout}" "$layout" 10
      same_run "$first" "$layout" 20
    done
    near 1x1x0 "$first" loss 1e-4
    near 1x1x0 "$first" grad_norm 1e-3
  done
}

# rewrites LAYOUT FILE: takes the file, does no step, and saves it again; then it goes on.
rewrites() {
  mkdir out
  cp "$2" out
  expect 75 lay "$1" out "${words[@]}" train.max_minutes=1e-9
  same_tensors "$2" out/step_00000010.h5
  expect 0 lay "$1" out "${words[@]}"
  same_tensors "$(step_file "../$1" 20)" out/step_00000020.h5
}

# Of files of one width one will do: they are the same.
goes_on_in_all_layouts() {
  local made layout width all=(1x1x0 2x2x1 8x4x1)
  if [ "${SHARE:-1}" -gt 1 ]; then all=(2x2x1); fi
  mv [1248]x?x? ..
  for made in "${all[@]}"; do
    for width in 1 2 4; do
      for layout in $(layouts_of_width $width); do
        if [ "$width" = "$(width_of "$made")" ]; then
          try_apart rewrites "$layout" "../$made/step_00000010.h5"
        else
          try_apart reloads "$layout" "../$made/step_00000010.h5"
        fi
      done
    done
    all_held
  done
}

# Another width has other bits from here on, and the same losses.
reloads() {
  mkdir out
  cp "$2" out
  expect 75 lay "$1" out "${words[@]}" train.max_minutes=1e-9
  same_tensors "$2" out/step_00000010.h5
  expect 0 lay "$1" out "${words[@]}"
  expect_steps out 11 20
  sed -n '11,20p' ../1x1x0/metrics.jsonl >metrics.jsonl
  near . out loss 1e-4
}

test_all_layouts() {
  write_odd_config
  trains optimizer.grad_clip=0.5
  goes_on_in_all_layouts
}

test_all_layouts_of_a_tied_softmax_model() {
  write_odd_config
  trains model.tie_embeddings=true model.attention.kind=softmax train.global_batch=16 train.micro_batch=2
}

test_all_layouts_with_documents_and_frozen_parameters() {
  write_odd_config
  tr '\n' '\000' <text.txt >zeros.txt
  trains data.train=zeros.txt data.document_mask=true data.document_token=0 optimizer.freeze_lazy_after=9 model.num_kv_heads=1
}

run_tests
