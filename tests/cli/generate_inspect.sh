#!/usr/bin/env bash
# What a person does with a checkpoint: look at it, verify it, open it with h5py, let its model write.
cd "$(dirname "$0")" || exit 1
source ./lib.sh

train_tiny() {
  write_tiny_config
  expect 0 lazytrain train tiny.yaml
  checkpoint=out/step_00000012.h5
}

test_generate_is_reproducible() {
  train_tiny
  expect 0 lazytrain generate $checkpoint --prompt "line 1" --max-tokens 40
  cp stdout greedy
  grep -q '^line 1' greedy || fail "the prompt is not printed"
  for options in "--threads 1" "--threads 3" "--temperature 1 --top-k 1 --seed 9"; do
    # shellcheck disable=SC2086 # options are words
    expect 0 lazytrain generate $checkpoint --prompt "line 1" --max-tokens 40 $options
    cmp -s greedy stdout || fail "not the greedy text with $options"
  done
  local samples=0
  for seed in 1 1 2; do
    expect 0 lazytrain generate $checkpoint --prompt "line 1" --max-tokens 60 --temperature 1.5 --seed $seed
    mv stdout sample.$((++samples))
  done
  cmp -s sample.1 sample.2 || fail "one seed gives two texts"
  cmp -s sample.2 sample.3 && fail "two seeds give one text"
  expect 0 lazytrain generate $checkpoint --prompt "" --max-tokens 5
}

test_generate_refuses_bad_input() {
  train_tiny
  expect 2 lazytrain generate
  expect_error 'no checkpoint is given'
  expect 2 lazytrain generate $checkpoint
  expect_error 'no prompt'
  expect 2 lazytrain generate $checkpoint --prompt a --temperature x
  expect_error "--temperature: found 'x', expected a number"
  expect 2 lazytrain generate $checkpoint --prompt a --top-k -1
  expect_error '--top-k'
  expect 2 lazytrain generate $checkpoint --prompt a --colour red
  expect_error 'unknown option --colour'
  expect 2 lazytrain generate text.txt --prompt a
  expect_error 'text.txt'
  expect 2 lazytrain generate nowhere.h5 --prompt a
  expect_error 'nowhere.h5'
}

test_inspect_shows_checkpoint_text_and_folder() {
  train_tiny
  expect 0 lazytrain inspect --verify $checkpoint
  grep -q 'step: *12' stdout || fail "the step is not shown"
  grep -q 'model.layers.1.attn.learnable_bias_diagonals *\[4, 16\]' stdout || fail "a tensor's shape is not shown"
  expect 0 lazytrain inspect text.txt
  grep -q "$(wc -c <text.txt)" stdout || fail "the text's size is not shown"
  expect 0 lazytrain inspect --verify out
  expect 2 lazytrain inspect
  expect_error 'no file is given'
  expect 2 lazytrain inspect nowhere.bin
  expect_error 'nowhere.bin'
}

test_inspect_verify_finds_a_flipped_byte() {
  train_tiny
  local middle=$(($(stat -c %s $checkpoint) / 2))
  printf '\xff\xff\xff\xff\xff' | dd of=$checkpoint bs=1 seek=$middle conv=notrunc 2>/dev/null
  expect 2 lazytrain inspect --verify $checkpoint
  expect_error 'step_00000012.h5'
  expect 2 lazytrain inspect --verify out
  expect_error '1 of 1 files are bad'
}

test_ordinary_tools_read_a_checkpoint() {
  train_tiny
  h5dump -d /params/model.norm.weight $checkpoint | grep -q 'H5T_IEEE_F32LE' || fail "h5dump cannot read it"
  /usr/bin/python3 -c 'import h5py' 2>/dev/null || skip "h5py is not installed"
  /usr/bin/python3 - $checkpoint <<'PYTHON' || fail "h5py does not find what it should"
import sys
import h5py
import numpy
file = h5py.File(sys.argv[1])
assert int(file.attrs["format_version"]) == 1 and int(file.attrs["step"]) == 12
assert int(file.attrs["tokens"]) == 12 * 8 * 24
assert b"hidden_size: 32" in file.attrs["config"]
names = sorted(file["params"])
assert names == sorted(file["optimizer/m"]) == sorted(file["optimizer/v"]) and len(names) == 25, names
head = file["params/lm_head.weight"]
assert head.shape == (257, 32) and head.dtype == numpy.float32 and head.fletcher32 and head.chunks
assert numpy.isfinite(head[:]).all() and head[:].std() > 0
assert (file["optimizer/v/lm_head.weight"][:] >= 0).all()
PYTHON
}

run_tests
